"""The exception for bad input, which commands tell from a bug.

Imports nothing.
"""


class InputError(ValueError):
    """Input that cannot be used: a file, a column, a value, an option.

    Its message is one line: the place, the value, and what is allowed. Commands print it and exit
    with status 2. In Python it is a `ValueError`.
    """
