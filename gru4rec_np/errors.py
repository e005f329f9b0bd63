"""The exception for bad input, which commands tell from a bug. Imports nothing of ours."""

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Input that cannot be used: a file, a column, a value, an option.

    Its message is one line: the place, the value, and what is allowed. Commands print it and exit
    with status 2. In Python it is a `ValueError`.
    """


@contextmanager
def naming(place: str) -> Iterator[None]:
    """Begin the message of an `InputError` of the block with the place."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{place}: {error}") from None
