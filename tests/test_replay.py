"""The replay of a kernel: its steps are what the threads did, and the page shows them."""

import html
import json
import re
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks import cuda
from conftest import examples
from gru4rec_np.backends.emulator import Module, replay
from solutions import ch11

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
SUMS = """\
extern "C" __global__ void sums(const float *x, float *out, int n) {
    __shared__ float part[64];
    const int t = threadIdx.x;
    float s = 0;
    for (int i = t; i < n; i += 64) s += x[blockIdx.x * n + i];
    part[t] = s;
    __syncthreads();
    if (t < 32) part[t] += part[t + 32];
    __syncthreads();
    if (t == 0) for (int i = 0; i < 32; i++) out[blockIdx.x] += part[i];
}
"""


@pytest.fixture(scope="module")
def kernel():
    return Module("sums.cu", (), True, SUMS).get_function("sums")


def launch(kernel, n, blocks=2):
    x, out = np.ones((blocks, n), np.float32), np.zeros(blocks, np.float32)
    report = kernel((blocks,), (64,), (x, out, np.int32(n)), profile=True)
    assert (out == n).all()
    return report


@examples(30)
@given(st.integers(1, 200))
def test_the_steps_are_what_the_threads_did(kernel, n):
    report = launch(kernel, n)
    assert report.threads == 64 and {step.block for step in report.steps} == {0, 1}
    for block in (0, 1):
        steps = [step for step in report.steps if step.block == block]
        lines = [step.place[1] for step in steps]
        read = [s for s in steps if s.place[1] == 5]
        assert all(s.array == "argument 0 (x)" and s.bytes == 8 * n for s in read)
        # Thread t of warp w reads 64 k + 32 w + t of its row, one after another.
        found = sorted(at // 4 for s in read for at in s.offsets.values())
        assert found == [block * n + i for i in range(n)]
        for s in read:
            assert {at // 4 - block * n - t for t, at in s.offsets.items()} <= {
                64 * k + 32 * s.warp for k in range(4)
            }
        barriers = [i for i, s in enumerate(steps) if s.kind == "barrier"]
        assert [steps[i].place[1] for i in barriers] == [7, 9]
        assert set(lines[: barriers[0]]) == {5, 6} and set(lines[barriers[1] + 1 :]) == {10}
        assert set(lines[barriers[0] + 1 : barriers[1]]) == {8}
        assert [s.kind for s in steps if s.place[1] == 6] == ["write", "write"]
        (written,) = (s for s in steps if s.place[1] == 8 and s.kind == "write")
        assert written.is_shared and written.offsets == {t: 4 * t for t in range(32)}


def data_of(page):
    return json.loads(re.search(r"const data = (.*);\n", page)[1])


def test_the_page_has_the_steps_and_only_those(kernel):
    report = launch(kernel, 100)
    data = data_of(replay.page(report, "sums.cu"))
    assert data["source"] == SUMS.splitlines() and data["threads"] == 64
    assert len(data["steps"]) == len(report.steps)
    assert [a["name"] for a in data["arrays"]] == ["x", "part", "out"]
    assert data["arrays"][0]["rows"] == list(range(7))  # 800 bytes
    assert len(data_of(replay.page(report, "sums.cu", most=5))["steps"]) == 5
    with pytest.raises(ValueError, match="no step"):
        replay.page(report, "other.cu")


def test_nothing_is_loaded_from_elsewhere_and_no_text_ends_the_script(kernel):
    report = launch(kernel, 8)
    report.sources["sums.cu"] = "</script><b>"
    page = replay.page(report, "sums.cu")
    assert page.count("</script>") == 1 and "http" not in page
    assert html.unescape(cuda.show_steps(report, "sums.cu").data).count("<!doctype html>") == 1


PUZZLES = {f"11.{i}": name for i, name in enumerate(
    ("sgd", "gather", "row_sums", "softmax", "product", "scatter_add", "gates", "bpr"), 1
)}  # fmt: skip


@pytest.mark.parametrize("number", PUZZLES)
def test_every_puzzle_has_a_replay(number, capsys):
    source = getattr(ch11, PUZZLES[number])
    assert len(cuda.replay(number, source).data) < 300_000
    assert cuda.replay(number, "/* your code */") is None
    assert "step by step" in capsys.readouterr().out


def test_in_a_browser(kernel, tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("there is no chromium on this machine")
    report, errors = launch(kernel, 100), []
    (tmp_path / "a.html").write_text(replay.page(report, "sums.cu"), encoding="utf-8")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("console", lambda line: errors.append(line.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto((tmp_path / "a.html").as_uri())
        for number, step in enumerate(report.steps):
            says = page.inner_text("#says")
            assert f"step {number + 1} of {len(report.steps)}: block {step.block}" in says
            assert f"line {step.place[1]}" in says
            assert page.inner_text("pre .now").split()[0] == str(step.place[1])
            if step.kind != "barrier":
                lit = page.locator(f"#arrays i.{step.kind}").count()
                assert lit == len(set(step.offsets.values()))
                assert page.locator(f"#threads i.{step.kind}").count() == len(step.offsets)
                sectors = len({at // 32 for at in step.offsets.values()})
                assert page.locator(".sector.lit").count() == (0 if step.is_shared else sectors)
            else:
                assert page.locator("#threads i.wait").count() == 64
            page.click("#next")
        browser.close()
    assert not errors
