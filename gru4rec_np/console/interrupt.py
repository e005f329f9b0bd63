"""Ctrl-C during the imports of a command ends it with one line, not with a traceback.

The package imports this first. Imports nothing of ours.
"""

import os
import signal
import sys


def _stop(number: int, frame: object) -> None:
    os.write(2, b"stopped\n")
    os._exit(128 + number)  # an exception would surface as a traceback through the imports


def _is_command() -> bool:
    """Whether Python is looking for the module of `python -m gru4rec_np.COMMAND`.

    argv[0] is "-m" only until that module is found.
    """
    after = sys.orig_argv[sys.orig_argv.index("-m") + 1 :] if "-m" in sys.orig_argv else []
    return sys.argv[:1] == ["-m"] and after[:1] != [] and after[0].startswith("gru4rec_np")


if _is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _stop)  # until `cli.run` restores the usual handler
