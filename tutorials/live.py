"""Pages that react, for the notebooks: no server, nothing loaded from elsewhere.

import live
live.pushes()        six sliders and what five losses say (notebook 6)
"""

import html
import warnings
from pathlib import Path

from IPython.display import HTML

HERE = Path(__file__).parent


def pushes() -> HTML:
    """Six scores to move, and the push of each of the five losses on each score."""
    content = html.escape((HERE / "pushes.html").read_text(encoding="utf-8"), quote=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # IPython would have an address instead of the page itself
        return HTML(
            f'<iframe srcdoc="{content}" title="pushes of five losses" '
            'style="width: 100%; height: 430px; border: 1px solid #888"></iframe>'
        )
