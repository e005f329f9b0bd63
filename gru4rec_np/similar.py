"""python -m gru4rec_np.similar: the items that a network takes for the most similar to one.

A command: parses options and prints. Imports the models and what is below it.
"""

import argparse

from gru4rec_np import models
from gru4rec_np.console import cli
from gru4rec_np.console.titles import read_titles
from gru4rec_np.errors import InputError
from gru4rec_np.models.neural import Network


def main() -> None:
    """Run the command on sys.argv."""
    p = cli.Parser(
        "similar",
        description="Rank items by the cosine of their rows of the output table.",
    )
    p.add_argument("model", metavar="DIR|model.npz", help="a run's folder, or a saved network")
    p.add_argument("item", metavar="ITEM", help="the item to compare with")
    p.add_argument("-k", type=cli.positive, default=20, metavar="K", help="how many items, >= 1")
    p.add_argument(
        "--names",
        metavar="FILE",
        default=argparse.SUPPRESS,
        help="what items are called: a table of two columns, item and title, with a header",
    )
    args = p.parse_args()
    titles = read_titles(args.names) if "names" in args else {}
    model = models.load(args.model, "numpy")
    if not isinstance(model, Network):
        raise InputError(f"{args.model}: {model.name} has no table of items, as networks have")
    for rank, (item, cosine) in enumerate(model.similar(args.item, args.k), 1):
        title = titles.get(str(item), "")
        print(f"{rank:4}  {cosine:7.4f}  {cli.shown(item)}" + f"  {cli.shown(title)}" * bool(title))


if __name__ == "__main__":
    cli.run(main)
