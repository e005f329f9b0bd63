"""How long does NARM train? The NumPy form and Numba's kernels, in turns, in fresh processes.

    python benchmarks/narm.py --train train.tsv --before ../old      another checkout takes part
    python benchmarks/narm.py --train rare --n-sample 2048           a log of ideas.py

A first short training compiles and is not timed. Seconds are those of the fastest epoch, since
other work can only make one slower; CPU seconds are of all threads, per epoch.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import machine, table
from ideas import LOGS

from gru4rec_np.data.tables import write_table

HERE = Path(__file__).resolve().parents[1]
CODE = """
import json, sys, time
import numpy as np
from gru4rec_np import NARM, read_table
from gru4rec_np.data.tables import as_sessions
backend, threads, settings, epochs, path = sys.argv[1:]
settings = dict(json.loads(settings), seed=1, backend=backend)
if backend == "numba":
    import numba
    numba.set_num_threads(min(int(threads), numba.config.NUMBA_NUM_THREADS))
train = read_table(path)
few = as_sessions(train)
few = few.keep_sessions(np.arange(few.n_sessions) < 500)
NARM(**settings, n_epochs=1).fit(few, verbose=False)
began = time.process_time()
model = NARM(**settings, n_epochs=int(epochs)).fit(train, verbose=False)
cpu = (time.process_time() - began) / int(epochs)
print(json.dumps([min(e["seconds"] for e in model.history), cpu, model.history[-1]["loss"]]))
"""


def main() -> None:
    """Run and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--train", required=True, help=f"a table of training events, or one of {', '.join(LOGS)}"
    )
    parser.add_argument("--n-sample", type=int, help="samples of one more contender")
    parser.add_argument("--before", help="another checkout of the project, to compare with")
    parser.add_argument("--epochs", type=int, default=3, help="of a training; default 3")
    parser.add_argument("--rounds", type=int, default=2, help="trainings of each; default 2")
    args = parser.parse_args()
    contenders: dict[str, tuple[Path, str, int, dict[str, int]]] = {
        "numpy": (HERE, "numpy", 1, {}),
        "numba, 1 thread": (HERE, "numba", 1, {}),
        "numba, 2 threads": (HERE, "numba", 2, {}),
    }
    if args.n_sample:
        of = {"n_sample": args.n_sample}
        contenders[f"numba, 2 threads, {args.n_sample:,} samples"] = (HERE, "numba", 2, of)
    if args.before:
        contenders = {"before": (Path(args.before), "numba", 2, {}), **contenders}
    found: dict[str, list] = {name: [] for name in contenders}
    with tempfile.TemporaryDirectory() as folder:
        path = args.train
        if path in LOGS:
            path = str(Path(folder, "log.parquet"))
            write_table(LOGS[args.train](), path)
        for _ in range(args.rounds):
            for name, (tree, backend, threads, settings) in contenders.items():
                how = backend, str(threads), json.dumps(settings), str(args.epochs), path
                done = subprocess.run(
                    [sys.executable, "-c", CODE, *how],
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
