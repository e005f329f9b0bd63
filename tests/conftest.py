"""Settings of every test. Hypothesis draws the same examples each time; `make explore` others."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("same", deadline=None, print_blob=True, derandomize=True)
settings.register_profile("explore", deadline=None, print_blob=True)
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "same")
settings.load_profile(PROFILE)

only_explored = pytest.mark.skipif(PROFILE != "explore", reason="takes minutes: `make explore`")

SHARED = Path(__file__).resolve().parents[2] / "shared"


def shared(name: str) -> Path:
    """A file of the shared data that is not part of the project; skips the test without it."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"the shared data is absent: no ../shared/{name}")
    return path
