"""python -m gru4rec_np.similar: the items that a network takes for the most similar to one."""

from gru4rec_np import models
from gru4rec_np.console import cli
from gru4rec_np.console.titles import print_ranking, read_titles, require_header
from gru4rec_np.data.sessions import index_of
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
    titles, header = read_titles(args.names) if "names" in args else (None, "")
    model = models.load(args.model, "numpy")
    if not isinstance(model, Network):
        raise InputError(f"{args.model}: {model.name} has no table of items, as networks have")
    if titles is not None:
        require_header(args.names, header, index_of(model.item_ids))
    print_ranking(model.similar(args.item, args.k), "cosine", titles)


if __name__ == "__main__":
    cli.run(main)
