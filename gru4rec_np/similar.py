"""python -m gru4rec_np.similar: the items that a network takes for the most similar to one.

A command: parses options and prints. Imports the models and what is below it.
"""

from gru4rec_np import models
from gru4rec_np.console import cli
from gru4rec_np.console.titles import read_titles
from gru4rec_np.errors import InputError
from gru4rec_np.models.neural import Network

ARGUMENTS: cli.Arguments = {
    "model": ({"metavar": "DIR|model.npz"}, "a run's folder, or a saved network"),
    "item": ({"metavar": "ITEM"}, "the item to compare with"),
    "-k": (cli.K | {"default": 20}, "how many items, >= 1"),
    "--names": (cli.NAMES[0] | cli.UNSET, cli.NAMES[1]),
}


def main() -> None:
    """Run the command on sys.argv."""
    p = cli.Parser(
        "similar",
        description="Rank items by the cosine of their rows of the output table.",
    )
    cli.add_arguments(p, ARGUMENTS)
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
