"""python -m gru4rec_np.recommend: the next items of a session, ranked.

A command: parses options and prints. Imports the models and what is below it.
"""

import argparse

from gru4rec_np import models
from gru4rec_np.backends import BACKENDS
from gru4rec_np.console import cli
from gru4rec_np.data.sessions import index_of
from gru4rec_np.errors import InputError
from gru4rec_np.models.narm import NARM

WIDTH = 60  # characters of an id that are shown


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    p = cli.Parser(
        prog="python -m gru4rec_np.recommend",
        description="Rank the items that may follow in a session.",
    )
    p.add_argument("model", metavar="DIR|model.npz", help="a run's folder, or a saved model")
    p.add_argument("items", metavar="ITEM", nargs="+", help="the session so far, oldest first")
    p.add_argument(
        "-k", type=cli.positive, default=20, metavar="K", help="how many items to show, >= 1"
    )
    # numpy: it answers before Numba would have loaded.
    p.add_argument("--backend", choices=BACKENDS, default="numpy", help="what runs a network")
    return p


def main() -> None:
    """Run the command on sys.argv."""
    args = parser().parse_args()
    model = models.load(args.model, args.backend)
    known = index_of(model.item_ids)
    unknown = list(dict.fromkeys(text for text in args.items if text not in known))
    names = ", ".join(cli.shown(text, WIDTH) for text in unknown)
    if all(text not in known for text in args.items):
        raise InputError(
            f"{args.model}: none of the given items is among the model's "
            f"{len(model.item_ids):,}, such as {cli.shown(model.item_ids[0], WIDTH)}: {names}"
        )
    if unknown:
        cli.say(f"ignored, unknown to the model: {names}")
    best = [(cli.shown(item, WIDTH), score) for item, score in model.recommend(args.items, args.k)]
    width = max(len("item"), *(len(item) for item, _ in best))
    print(f"rank  {'item':{width}}    score")
    for rank, (item, score) in enumerate(best, 1):
        print(f"{rank:4}  {item:{width}} {score:8.4f}")
    if isinstance(model, NARM):
        clicks = zip(args.items, model.attention(args.items).tolist(), strict=True)
        print("attention: " + ", ".join(f"{cli.shown(i, WIDTH)} {a:.3f}" for i, a in clicks))


if __name__ == "__main__":
    cli.run(main)
