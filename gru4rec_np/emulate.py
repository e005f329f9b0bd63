"""python -m gru4rec_np.emulate: run a CUDA program without a GPU, with checks for faults."""

import argparse
import signal
import sys

from gru4rec_np.backends.emulator import REMEDIES, Fault, run_program
from gru4rec_np.console import cli


def main() -> None:
    """Run the command on sys.argv."""
    p = cli.Parser(
        "emulate",
        usage="%(prog)s FILE.cu [ARGUMENTS]",
        description="Compile a .cu file that has a main with g++ and run it on the CPU. The exit "
        "status is the program's. The first fault that is found, such as a race, ends it with "
        "status 1.",
        argument_default=argparse.SUPPRESS,
    )
    p.add_argument("file", metavar="FILE.cu", help="a CUDA program with a main")
    p.add_argument("arguments", nargs=argparse.REMAINDER, help="the program's arguments")
    args = p.parse_args()
    sys.stdout.flush()
    try:
        status = run_program(args.file, args.arguments)
    except Fault as fault:
        cli.say(str(fault))
        if fault.kind in REMEDIES:
            cli.say(f"remedy: {REMEDIES[fault.kind]}")
        sys.exit(1)
    if status < 0:
        cli.say(f"{args.file}: ended by {signal.Signals(-status).name}")
        status = 128 - status
    sys.exit(status)


if __name__ == "__main__":
    cli.run(main)
