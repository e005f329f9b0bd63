"""python -m gru4rec_np.serve: recommendations over HTTP, and a page that shows a model at work."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import webbrowser
from pathlib import Path
from types import FrameType

from gru4rec_np.backends import BACKENDS
from gru4rec_np.console import cli
from gru4rec_np.console.served import load_runs
from gru4rec_np.console.titles import read_titles, require_header
from gru4rec_np.errors import InputError

DEMO = Path("runs", "demo")  # what `make demo` trains
# Seconds that running requests get to finish after SIGTERM.
GRACE = 30


def port(text: str) -> int:
    """A port number, as an option's type."""
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) < 2**16):
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to 65535, not {text!r}")
    return int(text)


ARGUMENTS: cli.Arguments = {
    "runs": (cli.UNSET | {"metavar": "RUN", "nargs": "*"},
             f"folders of runs, or saved models; the first is the default (default: {DEMO})"),
    "--port": ({"type": port, "default": 8000}, "0 to 65535; 0 takes a free port"),
    "--host": ({"default": "127.0.0.1"}, "address to listen on; 0.0.0.0 for all of this machine"),
    "--allow-host": (cli.SEVERAL | cli.UNSET | {"metavar": "NAME"},
                     "names that clients may call this server by, besides --host and localhost; "
                     "the Host header is checked, and *.example.com allows all names below "
                     "example.com"),
    "--live-sessions": (cli.COUNT | {"default": 10_000},
                        "sessions fed by POST /sessions/ID/clicks that are kept, >= 1; the least "
                        "recently used is dropped"),
    "--names": (cli.FILE | cli.UNSET,
                "titles of items: a text file of two columns, item id and title, with a header and "
                "tabs or commas between"),
    "--open": (cli.FLAG, "open the page in this machine's web browser"),
    # numpy: it answers before Numba would have loaded.
    "--backend": ({"choices": BACKENDS, "default": "numpy"}, "what runs a network"),
}  # fmt: skip


def parser() -> cli.Parser:
    """The command's options."""
    p = cli.Parser(
        "serve",
        description="Serve trained models over HTTP, with a page at / that shows what they compute "
        "as a session grows. Ctrl-C or SIGTERM stops it after the requests that are running, a "
        "second one at once.",
    )
    cli.add_arguments(p, ARGUMENTS)
    return p


def main() -> None:
    """Run the command on sys.argv."""
    args = parser().parse_args()
    runs = getattr(args, "runs", [])
    if not runs and not DEMO.exists():
        raise InputError(
            "serve: name a run's folder, such as runs/clicks; train makes one, and without a name "
            f"{DEMO} is served, which `make demo` makes"
        )
    try:
        import uvicorn

        from gru4rec_np.console.service import application
    except ImportError as error:
        if error.name and error.name.startswith("gru4rec_np"):
            raise
        raise InputError(
            f"serve: {error.name} is not installed; pip install starlette uvicorn"
        ) from None

    # Uvicorn finishes what is running, then calls the handler that it found.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    hang_up = getattr(signal, "SIGHUP", None)  # Windows has none
    if hang_up is not None and signal.getsignal(hang_up) is not signal.SIG_IGN:
        signal.signal(hang_up, lambda *_: signal.raise_signal(signal.SIGTERM))
    titles, header = read_titles(args.names) if hasattr(args, "names") else ({}, "")
    served = load_runs(runs or [str(DEMO)], args.backend, titles)
    for one in served.values() if hasattr(args, "names") else ():
        require_header(args.names, header, one.model._index)
    listening = _listen(args.host, args.port)
    hosts = ["127.0.0.1", "localhost", args.host, *getattr(args, "allow_host", [])]
    config = uvicorn.Config(
        application(served, hosts, args.live_sessions),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE,
    )
    address = f"http://{args.host}:{listening.getsockname()[1]}"

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            print(f"{', '.join(served)} at {address} (Ctrl-C stops)", flush=True)
            if args.open:
                webbrowser.open(address)

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            if self.should_exit:  # a second signal: running requests get no answer
                cli.say("stopped")
                os._exit(128 + sig)
            super().handle_exit(sig, frame)

    Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections.

    Raises:
        InputError: the address cannot be listened on.
    """
    try:
        listening = socket.create_server((host, port), backlog=2048)
    except (OSError, UnicodeError) as error:  # a host name may be no name
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"--host {host} --port {port}: cannot listen there: {reason}") from None
    # Connections inherit it. Without it the body of an answer waits 40 ms for the client's
    # delayed acknowledgement of the head; asyncio only sets it where the protocol is named.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


if __name__ == "__main__":
    cli.run(main)
