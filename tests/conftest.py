"""Settings of every test: Hypothesis draws the same examples each time where CI is set."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("local", deadline=None, print_blob=True)
settings.register_profile("ci", parent=settings.get_profile("local"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")

SHARED = Path(__file__).resolve().parents[2] / "shared"


def shared(name: str) -> Path:
    """A file of the shared data that is not part of the project; skips the test without it."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"the shared data is absent: no ../shared/{name}")
    return path
