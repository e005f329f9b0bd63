"""Settings of every test. Hypothesis draws the same examples each time, `make explore` others."""

import contextlib
import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("same", deadline=None, print_blob=True, derandomize=True, max_examples=35)
settings.register_profile("explore", deadline=None, print_blob=True)
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "same")
settings.load_profile(PROFILE)
EXPLORES = PROFILE == "explore"


def examples(most: int) -> settings:
    """So many examples in `make explore`, a third in `make test`, which always draws the same."""
    return settings(max_examples=most if EXPLORES else min(most, max(20, most // 3)))


# A shell starts background jobs, and nohup every job, with signals ignored. Children inherit that,
# and the tests of stopping would see no stop.
for name, handler in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
    number = getattr(signal, name, None)  # Windows has no SIGHUP
    if number is not None and signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)

only_explored = pytest.mark.skipif(not EXPLORES, reason="takes minutes: `make explore`")

SHARED = Path(__file__).resolve().parents[2] / "shared"


def shared(name: str) -> Path:
    """A file of the shared data that is not part of the project; skips the test without it."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"the shared data is absent: no ../shared/{name}")
    return path


@contextlib.contextmanager
def files_of_at_most(size: int):
    """Nothing can write a file larger than `size` bytes in the block, as on a full disk."""
    resource = pytest.importorskip("resource")  # Windows has none
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
