"""Types hold: mypy finds nothing, with the settings of pyproject.toml."""

import subprocess
import sys
from pathlib import Path


def test_mypy():
    run = subprocess.run(
        [sys.executable, "-m", "mypy"],
        cwd=Path(__file__).resolve().parents[1],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
