"""A model on disk: one .npz of plain arrays, written whole or not at all, never unpickled.

A file is not believed: what it says of its sizes is compared with its length before memory is
taken, and its content with a checksum. That tells damage, not malice: who can write a file can
write its checksum.
"""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gru4rec_np.errors import InputError
from gru4rec_np.files import write_whole

FORMAT = "gru4rec_np model"
VERSION = 2  # 1 had no checksum; it is still read
NUMBERS = "biuf"  # kinds of NumPy's types: truth, whole numbers, floats


def pack_ids(ids: np.ndarray) -> dict[str, np.ndarray]:
    """Item ids as arrays of numbers: text as UTF-8 and lengths, dates as what they count."""
    if ids.dtype.kind == "M":
        return {f"ids_{np.datetime_data(ids.dtype)[0]}": ids.astype(np.int64)}
    if ids.dtype != object:
        return {"ids": ids}
    encoded = [i.encode() for i in ids]
    return {
        "ids_utf8": np.frombuffer(b"".join(encoded), np.uint8),
        "ids_length": np.array([len(e) for e in encoded], np.int64),
    }


def unpack_ids(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """The inverse of `pack_ids`.

    Raises:
        KeyError: an array is missing. ValueError: what they hold are no ids, or none, or one is
            there twice.
    """
    unit = next((unit for unit in ("D", "us") if f"ids_{unit}" in arrays), None)
    if unit or "ids" in arrays:
        ids = arrays[f"ids_{unit}" if unit else "ids"]
        # What `Sessions.item_ids` may be.
        if (ids.dtype != np.int64 and (unit or ids.dtype.kind not in "fb")) or ids.ndim != 1:
            raise ValueError(f"ids is {ids.dtype} {ids.shape}, no ids in one dimension")
        ids = ids.astype(f"datetime64[{unit}]") if unit else ids
    else:
        length, text = arrays["ids_length"], arrays["ids_utf8"]
        whole = length.dtype == np.int64 and length.ndim == 1 and text.dtype == np.uint8
        # In Python's numbers, which do not overflow.
        if not whole or (length < 0).any() or sum(length.tolist()) != text.size:
            raise ValueError("ids_length and ids_utf8 do not fit together")
        ends, whole_text = np.cumsum(length), text.tobytes()
        ids = np.empty(len(ends), object)
        ids[:] = [
            whole_text[end - n : end].decode()
            for end, n in zip(ends.tolist(), length.tolist(), strict=True)
        ]
    if len(ids) == 0:
        raise ValueError("there are no items")
    seen = set()
    for item in ids.tolist():
        if item in seen:
            raise ValueError(f"the item id {item!r:.60} is there twice")
        seen.add(item)
    return ids


def take_weights(
    arrays: dict[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """The weights of a network: of these shapes, and all float32 or all float64.

    Args:
        arrays: those of a file. shapes: name to shape.

    Raises:
        KeyError: one is missing. ValueError: one is of another shape or type.
    """
    weights = {name: arrays[f"weights/{name}"] for name in shapes}
    double = any(array.dtype == np.float64 for array in weights.values())
    wanted = np.float64 if double else np.float32
    for name, array in weights.items():
        if array.shape != shapes[name] or array.dtype != wanted:
            raise ValueError(
                f"{name} is {array.dtype} {array.shape}, not {wanted.__name__} {shapes[name]}"
            )
    return weights


def save(path: str | Path, about: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Write arrays and what describes them; an existing file is replaced in one move.

    Args:
        path: of the .npz file.
        about: plain values that JSON can hold.
        arrays: name to array of numbers.

    Raises:
        InputError: a number is not finite.
        OSError: the file cannot be written; what was there is untouched.
    """
    for name, array in arrays.items():
        if array.dtype.kind not in NUMBERS:
            raise TypeError(f"{name} is of type {array.dtype}, which is no number")
    _check_finite(path, arrays)
    header = np.array(json.dumps({"format": FORMAT, "version": VERSION, **about}))
    parts: dict[str, Any] = {"about": header, **arrays}

    def save_arrays(part: Path) -> None:
        with open(part, "wb") as file:
            np.savez(file, **parts, checksum=_checksum(parts))

    write_whole(path, save_arrays)


def load(path: str | Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read what `save` wrote.

    Args:
        path: the .npz file, or the directory that holds it as model.npz.

    Returns:
        about, arrays.

    Raises:
        InputError: no such file, cut short or damaged, not ours, of a newer format, or with numbers
            that are not finite.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "model.npz"
    if path.is_symlink() and not path.exists():
        raise InputError(f"{path}: is a symbolic link to {path.readlink()}, which does not exist")
    if not path.is_file():
        raise InputError(f"{path}: no such model file")
    altered = InputError(f"{path}: damaged: its checksum does not match")
    version, arrays = 0, {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            if len(members) < len(archive.infolist()):
                raise ValueError("a name is there twice")
            if sum(info.file_size for info in members.values()) > path.stat().st_size:
                raise ValueError("its parts would be larger than the file")
            header = _read(archive, members.pop("about"), "U")
            about = json.loads(str(header[()]))
            if about.pop("format") != FORMAT:
                raise ValueError("another program's format")
            version = int(about.pop("version"))
            if version <= VERSION:
                arrays = {name: _read(archive, info, NUMBERS) for name, info in members.items()}
    except PermissionError as error:
        raise InputError(f"{path}: the model file cannot be read: {error.strerror}") from error
    except Exception as error:  # zipfile and NumPy raise a dozen kinds on damaged files
        why = (str(error) or type(error).__name__).splitlines()[0][:80]
        if why.startswith("Bad CRC-32"):  # the archive's own checksum
            raise altered from error
        raise InputError(f"{path}: no model of gru4rec_np, or damaged ({why})") from error
    if version > VERSION:
        raise InputError(
            f"{path}: format version {version} is unknown; this program reads up to {VERSION}"
        )
    checksum = arrays.pop("checksum", None)
    if version > 1 or checksum is not None:
        found = _checksum({"about": header, **arrays})
        if checksum is None or not np.array_equal(checksum, found):
            raise altered
    _check_finite(path, arrays)
    return about, arrays


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, kinds: str) -> np.ndarray:
    """One array of an archive, of one of these kinds of type.

    No memory is taken for it before its header, its size in the archive and, by `load`, that of the
    file have agreed: a few bytes cannot ask for gigabytes.

    Raises:
        ValueError: it is no such array. Whatever zipfile and NumPy raise.
    """
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{info.filename} is compressed")
    with archive.open(info) as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"{info.filename} is of another format")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        if dtype.kind not in kinds or not dtype.isnative:
            raise ValueError(f"{info.filename} is of type {dtype}")
        if math.prod(shape) * dtype.itemsize != info.file_size - file.tell():
            raise ValueError(f"{info.filename} is of another size than {shape}")
    with archive.open(info) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _checksum(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """(32,) uint8: the SHA-256 of all arrays' names, types, shapes and bytes, by name."""
    found = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        found.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return np.frombuffer(found.digest(), np.uint8)


def _check_finite(path: str | Path, arrays: dict[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise InputError(f"{path}: {name} has values that are infinite or no numbers")
