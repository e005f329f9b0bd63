"""The mathematics: the definition of every operation, in plain NumPy, each with its gradient."""
