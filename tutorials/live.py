"""Pages that react, in the notebooks: no server, nothing loaded from elsewhere.

import live
live.pushes()        six sliders and what five losses say (notebook 6)
"""

import html
import warnings
from pathlib import Path

from IPython.display import HTML

HERE = Path(__file__).parent


def show(page: str, title: str, height: int) -> HTML:
    """A page of HTML in a frame of its own, also where a notebook is only rendered.

    Args:
        page: its text. height: of the frame, in pixels.
    """
    content = html.escape(page, quote=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # IPython would have an address instead of the page itself
        return HTML(
            f'<iframe srcdoc="{content}" title="{html.escape(title)}" '
            f'style="width: 100%; height: {height}px; border: 1px solid #888"></iframe>'
        )


def pushes() -> HTML:
    """Six scores to move, and the push of each of the five losses on each score."""
    page = (HERE / "pushes.html").read_text(encoding="utf-8")
    return show(page, "pushes of five losses", 430)
