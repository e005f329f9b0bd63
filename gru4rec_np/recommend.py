"""python -m gru4rec_np.recommend: the next items of a session, ranked.

A command: parses options and prints. Imports the model and what is below it.
"""

import argparse
import sys

from gru4rec_np import cli
from gru4rec_np.errors import InputError
from gru4rec_np.gru4rec import GRU4Rec
from gru4rec_np.kernels import BACKENDS


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    p = cli.Parser(
        prog="python -m gru4rec_np.recommend",
        description="Rank the items that may follow in a session.",
    )
    p.add_argument("model", metavar="DIR|model.npz", help="what the training command left")
    p.add_argument("items", metavar="ITEM", nargs="+", help="the session so far, oldest first")
    p.add_argument("-k", type=cli.positive, default=20, metavar="K", help="how many to show")
    # A few steps: NumPy is done before Numba would have loaded.
    p.add_argument("--backend", choices=BACKENDS, default="numpy", help="what runs the model")
    return p


def main() -> None:
    """Run the command on sys.argv."""
    args = parser().parse_args()
    model = GRU4Rec.load(args.model, args.backend)
    session = model.session()
    unknown = [text for text in args.items if not session.feed(text)]
    names = ", ".join(text[:60] for text in unknown)
    if len(unknown) == len(args.items):
        raise InputError(
            f"{args.model}: none of the given items is among the model's "
            f"{len(model.item_ids):,}, such as {model.item_ids[0]}: {names}"
        )
    if unknown:
        print(cli.one_line(f"unknown to the model, passed over: {names}"), file=sys.stderr)
    best = session.recommend(args.k)
    width = max(len("item"), *(len(str(item)) for item, _ in best))
    print(f"rank  {'item':{width}}    score")
    for rank, (item, score) in enumerate(best, 1):
        print(f"{rank:4}  {item!s:{width}} {score:8.4f}")


if __name__ == "__main__":
    cli.run(main)
