"""The one exception for bad input, so that commands can tell it from a bug.

Imports nothing.
"""


class InputError(ValueError):
    """Input that cannot be used: a file, a column, a value, an option.

    Its message is one line that names the place, the value found and what is allowed. Commands
    print it and exit with status 2; from Python it is an ordinary `ValueError`.
    """
