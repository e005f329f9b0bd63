"""Signals that ask a process to stop: SIGINT, SIGTERM and SIGHUP. Imports nothing of ours."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn


def stopping() -> list[signal.Signals]:
    """Those that are not ignored. nohup ignores SIGHUP, and a background job SIGINT."""
    all_ = (getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP"))
    return [s for s in all_ if s and signal.getsignal(s) not in (signal.SIG_IGN, None)]


def stop(number: int, frame: object) -> NoReturn:
    """A handler: what is at work ends as it does after Ctrl-C, and removes its temporary files."""
    raise KeyboardInterrupt(number)


def status_of(stopped: KeyboardInterrupt) -> int:
    """The exit status of a command that a signal stopped: 128 and its number."""
    return 128 + (stopped.args[0] if stopped.args else signal.SIGINT)


@contextmanager
def handled(handler: Callable[[int, Any], object], once: bool = False) -> Iterator[None]:
    """Signals that ask to stop call a handler for as long as the block runs.

    Args:
        once: only the first one. Later ones find the handlers that were there before.
    """
    before: dict[signal.Signals, Any] = {}

    def restore() -> None:
        for number, earlier in before.items():
            signal.signal(number, earlier)

    def handle(number: int, frame: object) -> None:
        if once:
            restore()
        handler(number, frame)

    with suppress(ValueError):  # not in the main thread, which alone can have handlers
        for number in stopping():
            before[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        restore()
