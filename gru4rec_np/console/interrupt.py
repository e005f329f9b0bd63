"""Ctrl-C during the imports of a command ends it with one line, not with a traceback.

The package imports this first. Imports nothing of ours.
"""

import os
import signal
import sys


def _stop(number: int, frame: object) -> None:
    os.write(2, b"stopped\n")
    os._exit(128 + number)  # an exception would surface as a traceback through the imports


# argv[0] is "-m" only while Python looks for the module of `python -m gru4rec_np.COMMAND`. Then
# nobody else can have a handler. `cli.run` restores the usual one.
if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _stop)
