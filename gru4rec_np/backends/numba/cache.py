"""Machine code on disk, in one file.

The file stands in NUMBA_CACHE_DIR if that is set; else beside this module, as cache.pyo, a name
that pip uninstalls with cache.py; else in the user's cache; else in a temporary folder. It is
replaced as a whole, so no process reads half of it. Two processes that compile at once may lose
what the other one wrote, and compile that again. A file that is damaged, or was made from other
sources, counts as empty.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from functools import cached_property
from pathlib import Path

from tqdm import tqdm

Objects = tuple[bytes, bytes]  # of a kernel, see compiled.py
HERE = Path(__file__).resolve()


def sources() -> str:
    """A hash of all that kernels are made of: these files and the constants of ops/."""
    found = hashlib.sha256()
    for path in sorted([*HERE.parent.glob("*.py"), *HERE.parents[2].glob("ops/*.py")]):
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()[:32]


def read(path: Path, made_of: str) -> dict[str, Objects]:
    """What a file holds; nothing if it is absent, damaged or made of other sources."""
    try:
        if path.parent == _temporary() and not _is_ours(path.parent):
            return {}
        data = path.read_bytes()
        digest, head, body = data[:32], *data[32:].split(b"\n", 1)
        about = json.loads(head)
        if digest != hashlib.sha256(data[32:]).digest() or about["sources"] != made_of:
            return {}
    except (OSError, ValueError):
        return {}
    found = {}
    for key, (first, second) in about["sizes"].items():
        found[key], body = (body[:first], body[first : first + second]), body[first + second :]
    return found


def write(path: Path, made_of: str, found: dict[str, Objects]) -> None:
    """Replace a file.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.parent == _temporary() and not _is_ours(path.parent):
        raise PermissionError(path.parent)
    about = {
        "sources": made_of,
        "sizes": {key: [len(o) for o in two] for key, two in found.items()},
    }
    data = json.dumps(about).encode() + b"\n" + b"".join(o for two in found.values() for o in two)
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(data).digest() + data)
        os.chmod(part, 0o644)  # all who use the package
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise


class Cache:
    """The kernels that were compiled, by a key that says for which processor."""

    def __init__(self) -> None:
        self._path: Path | None = None  # where to write; found by the first `put`
        self._found: dict[str, Objects] = {}
        self._said = False

    @cached_property
    def _sources(self) -> str:
        return sources()

    def get(self, key: str) -> Objects | None:
        """The two object files that `put` kept under this key, perhaps in another process."""
        if key not in self._found:
            for path in self._places():
                self._found = read(path, self._sources) | self._found
        return self._found.get(key)

    def put(self, key: str, objects: Objects) -> None:
        """Keep two object files, on disk where that is possible."""
        self._found[key] = objects
        for path in [self._path] if self._path else self._places():
            try:
                write(path, self._sources, read(path, self._sources) | self._found)
            except OSError:
                continue
            if not self._path and path.parent == _temporary():
                self._say(f"it is kept in {path.parent}, as no better folder is writable")
            self._path = path
            return
        self._say("it is not kept, as no folder is writable, not even a temporary one")

    def _say(self, text: str) -> None:
        if not self._said:
            tqdm.write(f"compiled code: {text}", file=sys.stderr)
            self._said = True

    def _places(self) -> list[Path]:
        """Where the file may stand, the best place first."""
        name = f"gru4rec_np-{self._sources}.pyo"
        if chosen := os.environ.get("NUMBA_CACHE_DIR"):
            return [Path(chosen, name), _temporary() / name]
        user = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        return [HERE.with_suffix(".pyo"), Path(user, "gru4rec_np", name), _temporary() / name]


def _temporary() -> Path:
    user = os.getuid() if hasattr(os, "getuid") else "user"  # Windows has a folder for each user
    return Path(tempfile.gettempdir(), f"gru4rec_np-{user}")


def _is_ours(folder: Path) -> bool:
    """Whether nobody else could put code there: a temporary folder's parent is everybody's."""
    about = folder.lstat()
    return not hasattr(os, "getuid") or (about.st_uid == os.getuid() and not about.st_mode & 0o077)


cache = Cache()
