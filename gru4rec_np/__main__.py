"""`python -m gru4rec_np`: lists the commands; `--version`."""

import argparse
import ast
import sys
from pathlib import Path

from gru4rec_np import __version__
from gru4rec_np.console.cli import Parser, run

COMMANDS = (
    "train", "evaluate", "recommend", "similar", "serve", "export", "compare", "search", "prepare",
    "emulate", "course",
)  # fmt: skip


def main() -> None:
    """Run the command on sys.argv."""
    parser = Parser(
        usage="python -m gru4rec_np.COMMAND [options]",
        description="GRU4Rec in NumPy. Each command is a module; --help lists its options.",
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--version", action="version", version=f"gru4rec_np {__version__}")
    if len(sys.argv) > 1 and sys.argv[1] in COMMANDS:
        parser.error(f"commands are modules: python -m gru4rec_np.{sys.argv[1]}")
    parser.parse_args()
    parser.print_help()
    print("\ncommands:")
    for name in COMMANDS:
        source = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
        text = (ast.get_docstring(ast.parse(source)) or "").splitlines()[0]
        print(f"  python -m gru4rec_np.{name:10} {text.split(': ', 1)[-1]}")


if __name__ == "__main__":
    run(main)
