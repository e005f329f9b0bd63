"""The page in a real browser: what it shows is what the service answers."""

import json
import re
import shutil
from urllib.parse import quote

import pytest
from test_http import SHOP, folder, models, request, running  # noqa: F401 - fixtures among them

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
CHROMIUM = next((p for p in map(shutil.which, ("chromium", "chromium-browser")) if p), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")


@pytest.fixture(scope="module")
def port(folder):  # noqa: F811
    from gru4rec_np.console.served import load_runs

    with running(load_runs([folder / "shop", folder / "narm"])) as port:
        yield port


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, port):
    """The page, opened; it must not have an error on its console at the end."""
    page = browser.new_page(viewport={"width": 1200, "height": 900}, reduced_motion="reduce")
    page.set_default_timeout(10_000)
    errors = []
    page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("requestfailed", lambda sent: errors.append(sent.url))
    page.goto(f"http://127.0.0.1:{port}/")
    page.wait_for_selector("body[data-shown]")
    yield page
    page.close()
    assert not errors


def after(page, action, *arguments):
    """Do something, and wait until its rankings are shown."""
    shown = page.get_attribute("body", "data-shown")
    action(*arguments)
    page.wait_for_function("before => document.body.dataset.shown !== before", arg=shown)


def session(page):
    return page.locator("#clicks .name").all_inner_texts()


def ranking(page, column="one"):
    return page.locator(f"#rankings .{column} .ranking .name").all_inner_texts()


def first_found(page, text):
    page.fill("#search", text)
    page.locator("#found button", has_text=text).first.click()


def add(page, *items):
    for item in items:
        after(page, first_found, page, item)


def test_three_clicks_are_ranked_as_the_service_ranks_them(page, port, models):  # noqa: F811
    ids = models["shop"].item_ids.tolist()
    add(page, ids[7])
    for _ in range(2):
        after(page, page.locator("#rankings .one .ranking button").nth(3).click)
    clicked = session(page)
    assert clicked[0] == ids[7] and len(clicked) == 3
    for column, model in (("one", "shop"), ("two", "narm")):
        body = {"session": clicked, "k": 12, "model": model}
        _, answer = request(port, "POST", "/recommend", body)
        assert ranking(page, column) == [row["item"] for row in answer["items"]]
    for part in ("intents", "attention", "gates", "states"):
        assert page.locator(f"#{part}").is_visible()
    # Update and reset gate of both models; the path's stops are the start and three clicks.
    assert page.locator("#gates svg image").count() == 4
    assert page.locator("#states .one .stopped").all_text_contents() == list("0123")
    assert page.locator("#attention .two svg").count() == 1


def test_moved_says_how_far(page, models):  # noqa: F811
    ids = models["shop"].item_ids.tolist()
    add(page, ids[3])
    rows = page.locator("#rankings .one .ranking li")
    assert page.locator("#rankings .one .ranking .moved").all_inner_texts() == [""] * 12
    before = {row["item"]: i for i, row in enumerate(page.evaluate("answers[0].items"))}
    add(page, ids[20])
    for i in range(12):
        name, moved = rows.nth(i).get_attribute("data-item"), rows.nth(i).locator(".moved")
        up = before[name] - i
        sign = "▲" if up > 0 else "▼"
        assert moved.inner_text() == (f"{sign} {abs(up)}" if up else "")


def test_undo_and_start_again(page, models):  # noqa: F811
    ids = models["shop"].item_ids.tolist()
    add(page, ids[7])
    one = ranking(page)
    add(page, ids[30])
    assert ranking(page) != one
    after(page, page.click, "#undo")
    assert session(page) == [ids[7]] and ranking(page) == one
    after(page, page.click, "#clear")
    assert session(page) == [] and ranking(page) == [] and not page.locator("#gates").is_visible()
    after(page, page.keyboard.press, "Control+z")
    assert session(page) == [ids[7]] and ranking(page) == one


def test_dragging_reorders(page, models):  # noqa: F811
    ids = models["shop"].item_ids.tolist()
    add(page, *ids[10:13])
    before = ranking(page)
    chips = page.locator("#clicks li")
    start, end = chips.nth(0).bounding_box(), chips.nth(2).bounding_box()
    middle = start["y"] + start["height"] / 2
    page.mouse.move(start["x"] + 12, middle)
    page.mouse.down()
    page.mouse.move(end["x"] + end["width"] * 0.7, middle, steps=12)
    after(page, page.mouse.up)
    assert session(page) == [ids[11], ids[12], ids[10]]
    assert ranking(page) != before


def test_it_works_by_keyboard(page, models):  # noqa: F811
    ids = models["shop"].item_ids.tolist()
    page.focus("#search")
    page.keyboard.type(ids[5])
    page.wait_for_function("() => document.querySelectorAll('#found button').length === 1")
    after(page, page.keyboard.press, "Enter")
    assert session(page) == [ids[5]]
    add(page, ids[6], ids[8])
    page.focus("#clicks li[tabindex='0']")
    page.keyboard.press("ArrowLeft")
    after(page, page.keyboard.press, "Alt+ArrowLeft")
    assert session(page) == [ids[6], ids[5], ids[8]]
    after(page, page.keyboard.press, "Delete")
    assert session(page) == [ids[5], ids[8]]
    page.focus("#rankings .one .ranking li:first-child button")
    first = ranking(page)[0]
    after(page, page.keyboard.press, "Enter")
    assert session(page) == [ids[5], ids[8], first]
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, input, select')].filter(el => "
        "!el.innerText && !el.getAttribute('aria-label') && !el.labels?.length).length"
    )
    assert unnamed == 0


def test_another_model_takes_the_other_column(page, port, models):  # noqa: F811
    ids = models["shop"].item_ids.tolist()
    add(page, ids[3], ids[9])
    after(page, page.select_option, "#rankings .two select", "oracle")
    _, answer = request(port, "POST", "/recommend", {"session": ids[3:10:6], "model": "oracle"})
    assert ranking(page, "two") == [row["item"] for row in answer["items"][:12]]
    assert page.locator("#intents .name").count() == 5
    after(page, page.select_option, "#rankings .two select", "")
    assert ranking(page, "two") == [] and len(ranking(page)) == 12


def test_the_address_keeps_the_session(page, models):  # noqa: F811
    ids = models["shop"].item_ids.tolist()
    add(page, ids[3], ids[9])
    one = ranking(page)
    page.reload()
    page.wait_for_selector("#rankings .one .ranking button")
    assert session(page) == [ids[3], ids[9]] and ranking(page) == one


def test_an_unknown_item_is_marked(page, port, models):  # noqa: F811
    known = models["shop"].item_ids[0]
    state = {"session": [{"item": "stranger"}, {"item": known}], "models": ["shop"]}
    page.goto(f"http://127.0.0.1:{port}/#{quote(json.dumps(state))}")
    page.reload()
    page.wait_for_selector("#clicks li.unknown")
    assert session(page) == ["stranger", known]
    assert page.locator("#clicks li.unknown").count() == 1


def test_a_late_answer_takes_no_click(page, models):  # noqa: F811
    """An answer that arrives while a found item is being clicked."""
    first, other = models["shop"].item_ids[:2].tolist()
    page.fill("#search", str(first))
    page.locator("#found button", has_text=str(first)).first.hover()
    held = []
    page.route(re.compile("/items"), lambda route: held.append(route))
    with page.expect_request(re.compile("/items")):
        page.fill("#search", str(other))

    def click():
        page.mouse.down()
        with page.expect_response(re.compile("/items")):
            held[-1].continue_()
        page.wait_for_timeout(100)
        page.mouse.up()

    after(page, click)
    assert session(page) == [str(first)]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(page, models, scheme):  # noqa: F811
    """WCAG's contrast ratio of every text colour on the page is 4.5 or more."""
    page.emulate_media(color_scheme=scheme)
    add(page, models["shop"].item_ids[3])
    colours = page.evaluate("['--paper', '--soft', '--ink', '--dim'].map(name => css(name))")

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    paper, soft, *texts = map(luminance, colours)
    for text in texts:
        for ground in (paper, soft):
            low, high = sorted((text, ground))
            assert (high + 0.05) / (low + 0.05) >= 4.5


def test_it_fits_a_phone(page):
    page.set_viewport_size({"width": 390, "height": 844})
    after(page, page.click, "#example")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    for name in page.locator("#rankings .name").all():
        assert name.evaluate("el => el.scrollWidth <= el.clientWidth")
    for button in page.locator("main button:visible").all():
        assert button.bounding_box()["height"] >= 36


def test_an_error_of_the_server_is_shown(page, models):  # noqa: F811
    page.route(re.compile("/inside"), lambda route: route.fulfill(body="no JSON"))
    after(page, first_found, page, models["shop"].item_ids[2])
    assert page.inner_text("#error") == "The server's answer cannot be read."
