"""What the documents show is what happens: their Python is run, their files exist."""

import re
from pathlib import Path

import numpy as np
import pytest

from gru4rec_np import GradientError, Shop, gradcheck
from gru4rec_np.data.tables import write_table
from gru4rec_np.ops.cells import dense, dense_backward

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    "README.md",
    "tutorials/README.md",
    "docs/architecture.md",
    "docs/http.md",
    "docs/model-file.md",
    "docs/performance.md",
    "docs/performance-gpu.md",
    "docs/reliability.md",
    "docs/results.md",
    "docs/serving.md",
    "docs/search.md",
]


def python_blocks(name):
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)


def test_the_reading_course_runs(capsys):
    scope = {}
    for block in python_blocks("tutorials/README.md"):
        if "the ratio 2 tells" in block:
            with pytest.raises(GradientError, match=r"ratio 2,"):
                exec(block, scope)
        else:
            exec(block, scope)
    assert "top1-max" in capsys.readouterr().out


def test_the_readme_runs(tmp_path, monkeypatch):
    log = Shop(n_items=60).simulate(400)
    ids = np.array(["a12", "b7", *(f"i{i}" for i in range(58))], object)
    write_table(type(log)(log.items, log.offsets, log.times, ids, log.session_ids),
                tmp_path / "clicks.tsv")  # fmt: skip
    monkeypatch.chdir(tmp_path)
    first, second = python_blocks("README.md")
    exec(first, {})
    call, message = second.strip().splitlines()
    rng = np.random.default_rng(0)
    x, F, f, dy = (rng.normal(size=s) for s in ((4, 3), (3, 2), 2, (4, 2)))
    _, dF, _ = dense_backward(dy, dense(x, F, f)[1], F)
    scope = {"gradcheck": gradcheck, "dense": dense, "x": x, "F": F, "f": f, "dy": dy, "dF": dF}
    with pytest.raises(GradientError) as error:
        exec(call, scope)
    shape = r"F\[\d, \d\]: gradient \S+, finite difference \S+, ratio -1, relative error 2.0e\+00"
    assert re.match(shape, str(error.value)) and re.search(shape, message)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_are_whole(name):
    """No gap left open, and every file that is named exists."""
    text = (ROOT / name).read_text()
    assert not re.search(r"\b[A-Z]+_TABLE\b", text)
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        if not link.startswith("http"):
            assert ((ROOT / name).parent / link).exists(), link
    for file in re.findall(r"`([\w/]+\.py)`", text):
        assert (ROOT / file).exists() or list((ROOT / "gru4rec_np").rglob(file)), file
