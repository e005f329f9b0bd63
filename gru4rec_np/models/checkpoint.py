"""Model files: an .npz of plain arrays, written completely or not at all, and never unpickled.

Declared sizes are compared with the length of the file before memory is allocated, and the content
with a checksum. The checksum detects damage. It does not detect tampering: whoever changes a file
can write a new checksum.
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
NUMBERS = "biuf"  # kinds of NumPy types: bool, integers, floats


def pack_ids(ids: np.ndarray) -> dict[str, np.ndarray]:
    """Item ids as arrays of numbers: text as UTF-8 and lengths, dates as days or microseconds."""
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
        KeyError: an array is missing. ValueError: it has another shape or type.
    """
    unit = next((unit for unit in ("D", "us") if f"ids_{unit}" in arrays), None)
    if unit or "ids" in arrays:
        ids = arrays[f"ids_{unit}" if unit else "ids"]
        # The types of `Sessions.item_ids`.
        if (ids.dtype != np.int64 and (unit or ids.dtype.kind not in "fb")) or ids.ndim != 1:
            raise ValueError(f"ids is {ids.dtype} {ids.shape}, not int64, float or bool (items,)")
        ids = ids.astype(f"datetime64[{unit}]") if unit else ids
    else:
        length, text = arrays["ids_length"], arrays["ids_utf8"]
        if length.dtype != np.int64 or length.ndim != 1 or text.dtype != np.uint8:
            raise ValueError("ids_length must be int64 (items,), and ids_utf8 uint8")
        if length.sum() != text.size:
            raise ValueError(f"ids_length counts {length.sum()} bytes, ids_utf8 has {text.size}")
        ends, utf8 = np.cumsum(length).tolist(), text.tobytes()
        ids = np.empty(len(ends), object)
        ids[:] = [
            utf8[end - n : end].decode() for end, n in zip(ends, length.tolist(), strict=True)
        ]
    if len(ids) == 0:
        raise ValueError("there are no items")
    return ids


def take_weights(
    arrays: dict[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """The weights of a network from a file, with their shapes and types checked.

    Args:
        arrays: of the file. shapes: name to shape.

    Raises:
        KeyError: one is missing. ValueError: one has another shape; or not all are float32, or all
            float64.
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
    """Write arrays and their description. An existing file is replaced at once.

    Args:
        path: of the .npz file.
        about: JSON values.
        arrays: name to array of numbers.

    Raises:
        InputError: a number is NaN or infinite.
        OSError: the file cannot be written; an existing file is unchanged.
    """
    for name, array in arrays.items():
        if array.dtype.kind not in NUMBERS:
            raise TypeError(f"{name} is of type {array.dtype}, not of numbers")
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
        InputError: the file is missing, truncated, damaged, of another program or of a newer
            version; or a number is NaN or infinite.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "model.npz"
    if not path.is_file():
        raise InputError(f"{path}: no such model file")
    altered = InputError(f"{path}: damaged: its checksum does not match")
    version, arrays = 0, {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            if sum(info.file_size for info in members.values()) > path.stat().st_size:
                raise ValueError("its arrays would be larger than the file")
            header = _read(archive, members.pop("about"), "U")
            about = json.loads(str(header[()]))
            if about.pop("format") != FORMAT:
                raise ValueError("of another program")
            version = int(about.pop("version"))
            if version <= VERSION:
                arrays = {name: _read(archive, info, NUMBERS) for name, info in members.items()}
    except Exception as error:  # zipfile and NumPy raise many types for damaged files
        why = (str(error) or type(error).__name__).splitlines()[0][:80]
        if why.startswith("Bad CRC-32"):  # the archive's checksum
            raise altered from error
        raise InputError(f"{path}: no model of gru4rec_np, or damaged ({why})") from error
    if version > VERSION:
        raise InputError(
            f"{path}: format version {version} is unknown; this program reads up to {VERSION}"
        )
    checksum = arrays.pop("checksum", None)
    if checksum is None:
        intact = version <= 1
    else:
        intact = np.array_equal(checksum, _checksum({"about": header, **arrays}))
    if not intact:
        raise altered
    _check_finite(path, arrays)
    return about, arrays


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, kinds: str) -> np.ndarray:
    """Read one array of an archive.

    Memory is allocated only if its header agrees with its size in the archive, which `load` has
    compared with the length of the file. A few bytes therefore cannot claim gigabytes.

    Args:
        kinds: the allowed kinds of its type.

    Raises:
        ValueError: another type, size or format. zipfile and NumPy raise many other types.
    """
    with archive.open(info) as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"{info.filename} has another format of .npy")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        if dtype.kind not in kinds or not dtype.isnative:
            raise ValueError(f"{info.filename} is of type {dtype}")
        if math.prod(shape) * dtype.itemsize != info.file_size - file.tell():
            raise ValueError(f"{info.filename} has another size than {shape} of {dtype}")
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
            raise InputError(f"{path}: {name} has values that are NaN or infinite")
