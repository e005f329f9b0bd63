"""tutorials/pictures.py: every picture can be drawn and stands in a notebook."""

import inspect
import re
import warnings

import matplotlib.pyplot as plt
import pytest

import pictures
import run

SHARED = {"canvas", "label", "cells", "frame", "arrow", "brace"}
PICTURES = [
    name
    for name, value in inspect.getmembers(pictures, inspect.isfunction)
    if value.__module__ == "pictures" and name not in SHARED
]
CALLS = [
    call
    for path in run.notebooks().values()
    for call in re.findall(r"pictures\.(\w+\([^)]*\))", path.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_stands_in_a_notebook(name):
    assert any(call.startswith(f"{name}(") for call in CALLS)


@pytest.mark.parametrize("call", CALLS)
def test_what_the_notebooks_call_draws_one_picture_and_nothing_outside_of_it(call, monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.gcf()))
    with plt.style.context(run.TUTORIALS / "course.mplstyle"), warnings.catch_warnings():
        warnings.simplefilter("error")
        eval(f"pictures.{call}", {"pictures": pictures})
        (figure,) = shown
        figure.canvas.draw()
    (ax,) = figure.axes
    for text in ax.texts:
        box = text.get_window_extent().transformed(ax.transAxes.inverted())
        assert -0.01 < box.x0 and box.x1 < 1.01 and -0.01 < box.y0 and box.y1 < 1.01, text
    plt.close(figure)
