"""The course's pages that react, in a real browser."""

import shutil

import live
import numpy as np
import pytest

from gru4rec_np.ops.losses import loss_and_gradient

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")


def test_the_pushes_are_those_of_the_package():
    errors = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("console", lambda line: errors.append(line.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.set_content(live.pushes().data)
        frame = page.frames[1]
        for scores in ([0, 2, 0.5, -0.5, -1, -3], [4.9, -5, 5, 0, 0, 1.3], [-5, 5, 5, -5, 2, 2]):
            for j, score in enumerate(scores):
                frame.fill(f"#r{j}", str(score))
            for loss in ("cross-entropy", "bpr", "top1", "bpr-max", "top1-max"):
                bars = frame.locator(f'svg[aria-label="{loss}"] rect')
                found = [float(bars.nth(j).get_attribute("data-push")) for j in range(6)]
                _, dr = loss_and_gradient(np.array([scores], float), loss, bpreg=1.0)
                np.testing.assert_allclose(found, -dr[0], atol=1e-9, err_msg=loss)
        browser.close()
    assert not errors
