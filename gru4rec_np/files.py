"""Files that are written whole or not at all. Imports nothing of ours."""

import csv
import io
import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

# The CUDA C and the emulator's C++: a wheel has them inside the package, a checkout beside it.
_PACKAGE = Path(__file__).resolve().parent
KERNELS = next(
    (folder for folder in (_PACKAGE / "kernels", _PACKAGE.parent / "kernels") if folder.is_dir()),
    _PACKAGE / "kernels",
)


def write_whole(path: str | Path, save: Callable[[Path], object]) -> None:
    """Write a file under a temporary name beside it, then move it into place.

    The name is new each time, so of two processes that write one file, the later one is whole.

    Args:
        path: the file. An existing file is replaced by one rename.
        save: writes to the path that it is given, which has the same ending.

    Raises:
        OSError: the file cannot be written; an existing file is unchanged. The error names `path`.
    """
    path = Path(path)
    part = path.with_name(f"{path.stem}.part-{secrets.token_hex(4)}{path.suffix}")
    try:
        save(part)
        with open(part, "rb") as file:
            os.fsync(file.fileno())  # the content must be on disk before the rename is
        part.replace(path)
    except OSError as error:  # it names the temporary file, and Polars leaves the reason to args
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        part.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))


def as_csv(fields: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """The text of a CSV file. A field that a row lacks is empty there."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(fields), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def same_file(one: str | Path, other: str | Path) -> bool:
    """Whether two paths are equal, or both exist and are one file."""
    both_exist = os.path.exists(one) and os.path.exists(other)
    return Path(one) == Path(other) or (both_exist and os.path.samefile(one, other))
