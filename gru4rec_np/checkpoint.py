"""A model on disk: one .npz of plain arrays, written whole or not at all, never unpickled.

Imports NumPy and what every storey may: errors, files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from gru4rec_np.errors import InputError
from gru4rec_np.files import write_whole

FORMAT = "gru4rec_np model"
VERSION = 1


def pack_ids(ids: np.ndarray) -> dict[str, np.ndarray]:
    """Item ids as arrays that need no pickle: int64 as they are, text as UTF-8 and lengths."""
    if ids.dtype != object:
        return {"ids": ids}
    encoded = [i.encode() for i in ids]
    return {
        "ids_utf8": np.frombuffer(b"".join(encoded), np.uint8),
        "ids_length": np.array([len(e) for e in encoded], np.int64),
    }


def unpack_ids(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """The inverse of `pack_ids`."""
    if "ids" in arrays:
        return arrays["ids"]
    ends = np.cumsum(arrays["ids_length"])
    text = arrays["ids_utf8"].tobytes()
    ids = np.empty(len(ends), object)
    ids[:] = [
        text[end - n : end].decode()
        for end, n in zip(ends.tolist(), arrays["ids_length"].tolist(), strict=True)
    ]
    return ids


def save(path: str | Path, about: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Write arrays and what describes them; an existing file is replaced in one move.

    Args:
        path: of the .npz file.
        about: plain values that JSON can hold.
        arrays: name to array, no objects.

    Raises:
        OSError: the file cannot be written; what was there is untouched.
    """
    if any(array.dtype.hasobject for array in arrays.values()):
        raise TypeError("an array of objects would be pickled")
    header = np.array(json.dumps({"format": FORMAT, "version": VERSION, **about}))

    def save_arrays(part: Path) -> None:
        with open(part, "wb") as file:
            np.savez(file, about=header, **arrays)

    write_whole(path, save_arrays)


def load(path: str | Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read what `save` wrote.

    Args:
        path: the .npz file, or the directory that holds it as model.npz.

    Returns:
        about, arrays.

    Raises:
        InputError: no such file, cut short or damaged, not ours, of a newer format.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "model.npz"
    if not path.is_file():
        raise InputError(f"{path}: no such model file")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        about = json.loads(str(arrays.pop("about")[()]))
        if about.pop("format") != FORMAT:
            raise ValueError("another program's format")
        version = int(about.pop("version"))
    except Exception as error:  # zipfile and NumPy raise a dozen kinds on damaged files
        why = (str(error) or type(error).__name__).splitlines()[0][:80]
        raise InputError(f"{path}: no model of gru4rec_np, or damaged ({why})") from error
    if version > VERSION:
        raise InputError(
            f"{path}: format version {version} is unknown; this program reads up to {VERSION}"
        )
    return about, arrays
