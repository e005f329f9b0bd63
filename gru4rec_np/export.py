"""python -m gru4rec_np.export: a trained network as an ONNX file, for other programs."""

from __future__ import annotations

import argparse
from pathlib import Path

from gru4rec_np import __version__, models
from gru4rec_np.console import cli
from gru4rec_np.errors import InputError
from gru4rec_np.files import write_whole
from gru4rec_np.models import onnx_graph


def onnx_file(text: str) -> Path:
    """A file name that ends in .onnx, as an option's type."""
    if not text.lower().endswith(".onnx"):
        raise argparse.ArgumentTypeError(f"must end in .onnx, not {text!r}")
    return Path(text)


ARGUMENTS: cli.Arguments = {
    "model": ({"metavar": "RUN|model.npz"}, "a run's folder, or a saved model"),
    "out": ({"metavar": "model.onnx", "type": onnx_file}, "the file to write"),
    "--graph": ({"choices": onnx_graph.GRAPHS, "default": "step"},
                "step: item and state in, new state and all scores out, for GRU4Rec; sessions: "
                "whole sessions in, the best items out"),
    "-k": (cli.K | cli.UNSET,
           "with --graph sessions: how many items to return, >= 1 (default: 20)"),
}  # fmt: skip


def parser() -> cli.Parser:
    """The command's options."""
    p = cli.Parser(
        "export",
        description="Write GRU4Rec or NARM as an ONNX file; docs/model-file.md describes it.",
    )
    cli.add_arguments(p, ARGUMENTS)
    return p


def main() -> None:
    """Run the command on sys.argv."""
    args = parser().parse_args()
    if args.graph == "step" and hasattr(args, "k"):
        raise InputError("-k: goes with --graph sessions; the step graph returns all scores")
    model = models.load(args.model, "numpy")
    try:
        proto = onnx_graph.build(model, args.graph, getattr(args, "k", 20), __version__)
    except ImportError as error:
        raise InputError(f"export: {error.name} is not installed; pip install onnx") from None
    n_items = len(model.item_ids)
    if getattr(args, "k", 0) > n_items:
        cli.say(f"-k {args.k}: the model has {n_items:,} items, so the graph returns {n_items:,}")
    data = proto.SerializeToString()
    write_whole(args.out, lambda part: part.write_bytes(data))
    print(
        f"{args.out}: {model.name}, graph {args.graph}, {n_items:,} items, {len(data) / 1e6:.1f} MB"
    )


if __name__ == "__main__":
    cli.run(main)
