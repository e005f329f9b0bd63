"""The inputs of test_fuzz.py, chosen by Atheris: what led to new branches is changed further.

    python tests/fuzz_by_branches.py GROUP TARGET RUNS

What it changes are the choices that Hypothesis makes an input of, so inputs are of the same kind.
"""

import os
import random
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["gru4rec_np"]):
    import test_fuzz

LENGTH = 2000  # bytes, enough for all choices of an input


def drive(try_one):
    """Never returns: Atheris ends the process."""
    first = Path(os.environ["TMPDIR"], "choices")
    first.mkdir()
    for i in range(20):
        (first / str(i)).write_bytes(random.Random(i).randbytes(LENGTH // 2))
    options = [f"-runs={runs}", f"-max_len={LENGTH}", "-len_control=0", "-seed=1"]
    atheris.Setup([sys.argv[0], *options, str(first)], try_one.hypothesis.fuzz_one_input)
    atheris.Fuzz()


group, target, runs = sys.argv[1:]
test_fuzz.run_group(group, target, drive)
