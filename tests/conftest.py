"""Settings of every test. Hypothesis draws the same examples each time; `make explore` others."""

import hashlib
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("same", deadline=None, print_blob=True, derandomize=True)
settings.register_profile("explore", deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

# Numba keeps compiled code by the file of each function, and does not see when a function that it
# calls in another file has changed: one cache for each state of the kernels.
_sources = sorted((Path(__file__).resolve().parents[1] / "gru4rec_np/backends/numba").glob("*.py"))
_state = hashlib.sha256(b"".join(path.read_bytes() for path in _sources)).hexdigest()[:16]
os.environ["NUMBA_CACHE_DIR"] = str(Path(tempfile.gettempdir(), f"gru4rec_np-numba-{_state}"))

SHARED = Path(__file__).resolve().parents[2] / "shared"


def shared(name: str) -> Path:
    """A file of the shared data that is not part of the project; skips the test without it."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"the shared data is absent: no ../shared/{name}")
    return path
