"""How long does NARM train? The NumPy form and Numba's kernels, in turns, in fresh processes.

    python benchmarks/narm.py --train train.tsv --before ../old      another checkout takes part

A first short training compiles and is not timed. Seconds are those of the fastest epoch, since
other work can only make one slower; CPU seconds are of all threads, per epoch.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from common import machine, table

HERE = Path(__file__).resolve().parents[1]
CODE = """
import json, sys, time
import numpy as np
from gru4rec_np import NARM, read_table
from gru4rec_np.data.tables import as_sessions
backend, threads, epochs, path = sys.argv[1:]
if backend == "numba":
    import numba
    numba.set_num_threads(min(int(threads), numba.config.NUMBA_NUM_THREADS))
train = read_table(path)
few = as_sessions(train)
few = few.keep_sessions(np.arange(few.n_sessions) < 500)
NARM(seed=1, n_epochs=1, backend=backend).fit(few, verbose=False)
began = time.process_time()
model = NARM(seed=1, n_epochs=int(epochs), backend=backend).fit(train, verbose=False)
cpu = (time.process_time() - began) / int(epochs)
print(json.dumps([min(e["seconds"] for e in model.history), cpu, model.history[-1]["loss"]]))
"""


def main() -> None:
    """Run and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", required=True, help="a table of training events")
    parser.add_argument("--before", help="another checkout of the project, to compare with")
    parser.add_argument("--epochs", type=int, default=3, help="of a training; default 3")
    parser.add_argument("--rounds", type=int, default=2, help="trainings of each; default 2")
    args = parser.parse_args()
    contenders = {
        "numpy": (HERE, "numpy", 1),
        "numba, 1 thread": (HERE, "numba", 1),
        "numba, 2 threads": (HERE, "numba", 2),
    }
    if args.before:
        contenders = {"before": (Path(args.before), "numba", 2), **contenders}
    found: dict[str, list] = {name: [] for name in contenders}
    for _ in range(args.rounds):
        for name, (tree, backend, threads) in contenders.items():
            done = subprocess.run(
                [sys.executable, "-c", CODE, backend, str(threads), str(args.epochs), args.train],
                env={**os.environ, "PYTHONPATH": str(tree.resolve())}, cwd=tree, check=True,
                capture_output=True, text=True,
            )  # fmt: skip
            found[name].append(json.loads(done.stdout))
    best = {name: np.min(runs, axis=0) for name, runs in found.items()}
    slowest = max(seconds for seconds, _, _ in best.values())
    rows = [
        [name, f"{s:.2f}", f"{cpu:.2f}", f"{slowest / s:.1f}", f"{loss:.3f}"]
        for name, (s, cpu, loss) in best.items()
    ]
    head = ["one epoch", "seconds", "CPU seconds", "speed, slowest = 1", "last epoch's loss"]
    print(machine(), table(head, rows), sep="\n")


if __name__ == "__main__":
    main()
