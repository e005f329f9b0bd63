"""What the service answers, whom it refuses, and that it stays up."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from test_commands import command, refuses

from gru4rec_np import GRU4Rec, InputError, Shop
from gru4rec_np.console.served import load_runs
from gru4rec_np.console.titles import read_titles
from gru4rec_np.models import NARM

uvicorn = pytest.importorskip("uvicorn", reason="needs the extra [serve]")
pytest.importorskip("starlette", reason="needs the extra [serve]")

from gru4rec_np.console import service  # noqa: E402

SHOP = Shop(n_items=60)
A, B = "application/json", {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def models():
    log, small = SHOP.simulate(300), {"n_epochs": 1, "backend": "numpy"}
    gru = GRU4Rec.published(layers=[12], n_sample=16, **small).fit(log)
    return {"shop": gru, "narm": NARM(embedding=8, hidden=8, **small).fit(log)}


@pytest.fixture(scope="module")
def folder(models, tmp_path_factory):
    """Runs: `shop` with the configuration of the simulated shop, `narm` a model alone."""
    folder = tmp_path_factory.mktemp("runs")
    for name, model in models.items():
        (folder / name).mkdir()
        model.save(folder / name / "model.npz")
    (folder / "shop" / "config.toml").write_text(f"shop_items = {SHOP.n_items}\n")
    return folder


@contextmanager
def running(served, **options):
    """A server of these models in a thread: its port."""
    app = service.application(served, ["127.0.0.1"], **options)
    config = uvicorn.Config(app, log_config=None, lifespan="off")  # pytest sees what it logs
    server, listening = uvicorn.Server(config), socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(20)
        listening.close()
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def port(folder):
    with running(load_runs([folder / "shop", folder / "narm"])) as port:
        yield port


@pytest.fixture
def ids(models):
    return models["shop"].item_ids.tolist()


def request(port, method, path, body=None, headers=None):
    """(status, answer): the body is sent as JSON, bytes as they are."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
    try:
        connection.request(method, path, body, headers or B)
        response = connection.getresponse()
        raw = response.read()
    finally:
        connection.close()
    is_json = response.getheader("content-type") == A
    return response.status, json.loads(raw) if is_json else raw.decode()


def pairs(answer):
    return [(row["item"], row["score"]) for row in answer["items"]]


# --- recommendations ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["shop", "narm"])
def test_a_recommendation_is_the_models(port, models, ids, name):
    session = [ids[3], "stranger", ids[7]]
    status, answer = request(
        port, "POST", "/recommend", {"session": session, "k": 5, "model": name}
    )
    assert status == 200 and answer["model"] == name and answer["ignored"] == ["stranger"]
    assert pairs(answer) == models[name].recommend(session, 5)  # JSON keeps every bit


def test_the_first_model_is_the_default_and_k_is_20(port, models, ids):
    _, answer = request(port, "POST", "/recommend", {"session": [ids[3]]})
    assert answer["model"] == "shop" and pairs(answer) == models["shop"].recommend([ids[3]])


@pytest.mark.parametrize(
    "choice", [{"exclude": "seen"}, {"exclude": "some"}, {"candidates": "some"}], ids=str
)
def test_items_are_chosen_as_in_python(port, models, ids, choice):
    choice = {name: ids[2:9] if value == "some" else value for name, value in choice.items()}
    session = {"session": ids[:4], "k": 30}
    _, answer = request(port, "POST", "/recommend", {**session, **choice})
    assert pairs(answer) == models["shop"].recommend(**session, **choice)
    _, same = request(port, "POST", "/recommend", session)
    assert pairs(same) != pairs(answer)
    nulls = {"exclude": None, "candidates": None}
    assert request(port, "POST", "/recommend", session | nulls)[1] == same


def test_what_is_chosen_is_the_ranking_without_the_others(models, ids):
    for model in models.values():
        session, every = ids[:4], model.recommend(ids[:4], 60)
        left = [(item, score) for item, score in every if item not in session]
        assert model.recommend(session, 9, exclude="seen") == left[:9]
        assert model.recommend(session, 9, exclude={*session, "stranger"}) == left[:9]
        some = [(item, score) for item, score in left if item in ids[:20]]
        assert model.recommend(session, 60, "seen", [*ids[:20], "stranger"]) == some
        assert model.recommend(session, candidates=["stranger"]) == []
        for wrong in ("sen", 7, b"x"):
            with pytest.raises(InputError, match="exclude: must be item ids"):
                model.recommend(session, exclude=wrong)


def test_many_threads_get_what_one_gets(port, models, ids):
    asked = [("shop" if i % 3 else "narm", ids[i % 50 : i % 50 + 1 + i % 5]) for i in range(60)]

    def ask(one):
        name, session = one
        body = {"model": name, "session": session, "k": 10}
        return pairs(request(port, "POST", "/recommend", body)[1])

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, asked))
    assert found == [models[name].recommend(session, 10) for name, session in asked]


def test_the_oracle_joins_the_runs_of_the_shop(port, ids):
    _, answer = request(port, "GET", "/models")
    assert [one["name"] for one in answer["models"]] == ["shop", "narm", "oracle"]
    assert [one["kind"] for one in answer["models"]] == ["GRU4Rec", "NARM", "oracle"]
    assert all(item["item"] in ids for item in answer["models"][0]["examples"][0])
    _, answer = request(port, "POST", "/recommend", {"session": ids[:2], "model": "oracle"})
    assert len(answer["items"]) == 20 and all(0 <= score <= 1 for _, score in pairs(answer))


def test_health(port):
    status, answer = request(port, "GET", "/health")
    assert status == 200 and answer["status"] == "ok"


def test_items_are_found_by_all_words(port, ids):
    kind, brand = ids[11].split(".")[:2]
    _, answer = request(port, "GET", f"/items?search={brand.upper()}+{kind}&k=60")
    found = [row["item"] for row in answer["items"]]
    assert found == [i for i in ids if kind in i and brand in i] and ids[11] in found
    _, answer = request(port, "GET", "/items?skip=58&k=5")
    assert [row["item"] for row in answer["items"]] == ids[58:]


def test_titles_come_with_the_items(folder, ids):
    served = load_runs([folder / "narm"], titles={ids[4]: "A red bicycle"})
    with running(served) as port:
        _, answer = request(port, "GET", "/items?search=red+BICYCLE")
        assert answer["items"] == [{"item": ids[4], "name": "A red bicycle"}]
        _, answer = request(port, "POST", "/recommend", {"session": [ids[0]], "k": 60})
    assert [row["item"] for row in answer["items"] if "name" in row] == [ids[4]]


# --- sessions that are fed ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["shop", "narm"])
def test_a_session_fed_by_clicks_is_the_session_as_a_list(port, models, ids, name):
    at = f"/sessions/fed-{name}"
    for i, item in enumerate([*ids[:3], "stranger"]):
        status, answer = request(port, "POST", f"{at}/clicks", {"item": item, "model": name})
        assert status == 200
        assert answer == {"model": name, "known": i < 3, "clicks": min(i + 1, 3)}
    _, answer = request(port, "GET", f"{at}/recommend?k=7&model={name}")
    assert pairs(answer) == models[name].recommend(ids[:3], 7)
    _, answer = request(port, "GET", f"{at}/recommend?k=7&model={name}&exclude=seen")
    assert pairs(answer) == models[name].recommend(ids[:3], 7, exclude="seen")
    assert request(port, "DELETE", f"{at}?model={name}")[0] == 204
    assert request(port, "GET", f"{at}/recommend?model={name}")[0] == 404


def test_the_least_recently_used_session_is_dropped(folder, ids):
    def recommended(name):
        return request(port, "GET", f"/sessions/{name}/recommend")[0] == 200

    with running(load_runs([folder / "shop"]), most_sessions=2) as port:
        for name in "ab":
            request(port, "POST", f"/sessions/{name}/clicks", {"item": ids[0]})
        assert recommended("a")
        request(port, "POST", "/sessions/c/clicks", {"item": ids[0]})
        assert [recommended(name) for name in "abc"] == [True, False, True]
        assert request(port, "GET", "/health")[1]["sessions"] == 2


def test_clicks_of_one_session_at_once_all_count(port, ids):
    with ThreadPoolExecutor(8) as pool:
        click = {"item": ids[1]}
        done = list(
            pool.map(lambda _: request(port, "POST", "/sessions/many/clicks", click), range(24))
        )
    assert sorted(answer["clicks"] for _, answer in done) == list(range(1, 25))


def test_a_fed_session_has_a_longest_length(port, ids, monkeypatch):
    monkeypatch.setattr(service, "MOST_CLICKS", 2)
    done = [request(port, "POST", "/sessions/full/clicks", {"item": ids[0]})[0] for _ in range(3)]
    assert done == [200, 200, 422]


# --- what is refused ------------------------------------------------------------------------------

BAD = {
    "no JSON": (b"{", 400, "not JSON"),
    "nothing": (b"", 400, "not JSON"),
    "no UTF-8": (b'{"session": ["\xff"]}', 400, "not UTF-8, at byte 14"),
    "NaN": (b'{"session": [NaN]}', 400, "NaN is no number"),
    "deep": (b"[" * 100_000, 400, "nested too deeply"),
    "deep within": (b'{"session": [' + b"[" * 900 + b"]" * 900 + b"]}", 422, "session[0]: must be"),
    "infinite": (b'{"session": [1e999]}', 422, "session[0]: must be an item id"),
    "a long number": (b'{"session": ["a"], "k": 1' + b"0" * 5000 + b"}", 400, "not JSON"),
    "a list": ([], 422, "must be an object"),
    "no session": ({"k": 3}, 422, "the field session is missing"),
    "another field": ({"session": ["a"], "sesion": 1}, 422, "unknown field 'sesion'"),
    "empty": ({"session": []}, 422, "at least one item"),
    "text": ({"session": "a12"}, 422, "must be a list of item ids"),
    "null": ({"session": ["a", None]}, 422, "session[1]: must be an item id"),
    "unknown items": ({"session": ["x", "\ud800"]}, 422, "none of the 2 items is known"),
    "long": ({"session": ["x"] * 100_000}, 422, "at most 1,000 items, not 100,000"),
    "k": ({"session": ["x"], "k": 10**9}, 422, "from 1 to 1000, not 1000000000"),
    "k of 0": ({"session": ["x"], "k": 0}, 422, "k: must be"),
    "k as text": ({"session": ["x"], "k": "7"}, 422, "not '7'"),
    "k as truth": ({"session": ["x"], "k": True}, 422, "not true"),
    "exclude": ({"session": ["x"], "exclude": "sen"}, 422, 'exclude, if not "seen"'),
    "candidates": ({"session": ["x"], "candidates": 7}, 422, "candidates: must be a list"),
    "model": ({"session": ["x"], "model": "nix"}, 404, "one of shop, narm, oracle, not 'nix'"),
    "model as list": ({"session": ["x"], "model": []}, 404, "not a list"),
    "large": (b'{"session": ["' + b"x" * 2**21 + b'"]}', 413, "at most 1,048,576 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("path", ["/recommend", "/inside"])
def test_bad_requests_are_told_what_is_wrong(port, caplog, path, case):
    body, status, words = BAD[case]
    if path == "/inside":
        if case in ("exclude", "candidates"):
            return
        words = words.replace("1,000 items", "50 items")
    found, answer = request(port, "POST", path, body)
    assert found == status and list(answer) == ["error"]
    assert words in answer["error"] and "\n" not in answer["error"]
    assert len(answer["error"]) < 300
    assert not caplog.records


def test_no_depth_is_deep_enough_for_an_error(port, caplog):
    """Near the depth that Python can read, what has been read may be too deep to be written."""
    for depth in range(800, 1100, 5):
        deep = b'{"session": ["a"], "k": ' + b"[" * depth + b"]" * depth + b"}"
        assert request(port, "POST", "/recommend", deep)[0] in (400, 422)
    assert not caplog.records


@pytest.mark.parametrize(
    "method, path, body, status, words",
    [
        ("GET", "/nix", None, 404, "'/nix': not found"),
        ("GET", "/models/", None, 404, "'/models/': not found"),
        ("GET", "/recommend", None, 405, "method not allowed"),
        ("GET", "/items?k=x", None, 422, "k: must be"),
        ("GET", "/items?skip=-1", None, 422, "skip: must be"),
        ("GET", "/items?q=x", None, 422, "unknown name 'q'"),
        ("GET", "/map?model=nix", None, 404, "must be one of shop"),
        ("GET", "/sessions/none/recommend", None, 404, "no live session of that id"),
        ("GET", "/sessions/none/recommend?exclude=x", None, 422, "exclude: must be seen"),
        ("POST", "/sessions/a%20b/clicks", {"item": "x"}, 422, "session id"),
        ("POST", f"/sessions/{'x' * 129}/clicks", {"item": "x"}, 422, "session id"),
        ("POST", "/sessions/a/clicks", {"item": None}, 422, "item: must be an item id"),
        ("DELETE", "/sessions/none", None, 404, "no live session of that id"),
    ],
)
def test_other_bad_requests(port, caplog, method, path, body, status, words):
    found, answer = request(port, method, path, body)
    assert found == status and words in answer["error"], answer
    assert not caplog.records


def test_a_session_of_strangers_has_no_recommendation(port):
    request(port, "POST", "/sessions/strangers/clicks", {"item": "stranger"})
    status, answer = request(port, "GET", "/sessions/strangers/recommend")
    assert status == 422 and answer["error"]
    request(port, "POST", "/sessions/strangers/clicks", {"item": "stranger", "model": "narm"})
    assert request(port, "GET", "/sessions/strangers/recommend?model=narm")[0] == 422


def test_a_form_is_refused(port):
    """Other sites may make a browser send forms and text, JSON only if it asks first."""
    status, answer = request(
        port, "POST", "/sessions/a/clicks", b"item=x", {"Content-Type": "text/plain"}
    )
    assert status == 415 and "application/json" in answer["error"]


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", ""])
def test_other_hosts_are_refused(port, host):
    """A name that an attacker lets point here must not read what is served."""
    status, answer = request(port, "GET", "/models", headers={"Host": host})
    assert status == 400
    assert answer == {"error": f"Host: {host!r} is not allowed; serve --allow-host adds names"}


def test_a_body_of_100_mb_is_not_read(port):
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        head = f"POST /recommend HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {A}\r\n"
        connection.sendall(f"{head}Content-Length: 100000000\r\n\r\n".encode())
        sent = 0
        try:
            while sent < 100_000_000:
                sent += connection.send(b"x" * 2**16)
        except OSError:
            pass
    assert sent < 50_000_000
    assert request(port, "GET", "/health")[0] == 200


@pytest.mark.parametrize("stop", ["in the head", "in the body", "before the answer"])
def test_clients_that_vanish_leave_no_trace(port, ids, caplog, stop):
    body = json.dumps({"session": ids * 15}).encode()
    head = f"POST /recommend HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {A}\r\n"
    sent = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    end = {"in the head": 30, "in the body": len(sent) - 9, "before the answer": len(sent)}[stop]
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(sent[:end])
    time.sleep(0.1)
    assert request(port, "GET", "/health")[0] == 200
    assert not caplog.records


def test_a_body_that_never_comes_is_not_waited_for(port, monkeypatch):
    monkeypatch.setattr(service, "MOST_SECONDS", 0.05)
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        head = f"POST /recommend HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {A}\r\n"
        connection.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        assert b" 408 " in connection.recv(1000)


def test_a_model_file_replaced_while_serving_changes_nothing(models, ids, tmp_path):
    models["shop"].save(tmp_path / "model.npz")
    body = {"session": ids[:2]}
    with running(load_runs([tmp_path])) as port:
        before = request(port, "POST", "/recommend", body)
        models["narm"].save(tmp_path / "model.npz")
        assert request(port, "POST", "/recommend", body) == before
        (tmp_path / "model.npz").write_bytes(b"no model")
        assert request(port, "POST", "/recommend", body) == before
        (tmp_path / "model.npz").unlink()
        assert request(port, "POST", "/recommend", body) == before


# --- for the page ---------------------------------------------------------------------------------


def test_the_page_loads_nothing_from_elsewhere(port):
    status, page = request(port, "GET", "/")
    assert status == 200 and page.startswith("<!DOCTYPE html>")
    assert "src=" not in page and "@import" not in page and "url(" not in page
    links = page.replace('"http://www.w3.org/2000/svg"', "")  # a name, not an address
    assert "http:" not in links and "https:" not in links


@pytest.mark.parametrize("name", ["shop", "narm", "oracle"])
def test_the_inside_comes_with_the_same_ranking(port, ids, name):
    body = {"session": [ids[5], "stranger", ids[9]], "model": name, "k": 10}
    _, answer = request(port, "POST", "/inside", body)
    _, ranking = request(port, "POST", "/recommend", body)
    assert answer["items"] == ranking["items"] and answer["known"] == [0, 2]
    assert sum(row["belief"] for row in answer["intents"]) == pytest.approx(1)
    _, found = request(port, "GET", f"/map?model={name}")
    if name == "oracle":
        assert answer["layers"] is answer["path"] is found["points"] is None
        return
    assert len(answer["path"]) == 3 and len(found["points"]) == len(found["items"])
    assert [len(values) for values in answer["layers"][0].values()] == [2, 2]
    assert len(answer["layers"][0]["update"][0]) == len(found["orders"][0])
    assert (answer["attention"] is None) == (name == "shop")


# --- the command ----------------------------------------------------------------------------------


def test_the_command_says_what_is_wrong(folder, tmp_path, monkeypatch):
    refuses(command("serve", cwd=tmp_path), "name a run's folder", "runs/demo")
    refuses(command("serve", tmp_path / "nix"), tmp_path / "nix")
    refuses(command("serve", folder / "shop", "--port", "x"), "--port", "'x'")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        refuses(command("serve", folder / "shop", "--port", number), number, "cannot listen")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    refuses(
        command("serve", folder / "shop"),
        "uvicorn is not installed",
        "pip install starlette uvicorn",
    )


def test_titles_are_read(folder, ids, tmp_path):
    path = tmp_path / "names.tsv"
    path.write_text('\ufeffid\tname\n007\tThe "new"\n\n8\tÉlan, red\n', encoding="utf-8")
    assert read_titles(path)[0] == {"007": 'The "new"', "8": "Élan, red"}
    path.write_text('id,name\n7,"Red, ""new"""\n')
    assert read_titles(path)[0] == {"7": 'Red, "new"'}
    for text, words in (
        (b"id,name\n7,a\n8\n", "line 3: must have 2 columns, item and title, not 1"),
        (b"id,name\n7,a\n7,b\n", "line 3: item '7' is there twice"),
        (b"id,name\n7,\xff\n", "not UTF-8"),
    ):
        path.write_bytes(text)
        with pytest.raises(InputError, match=words):
            read_titles(path)
    refuses(command("serve", tmp_path, "--names", path), path, "not UTF-8")
    path.write_text(f"{ids[3]}\tJeans\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:  # so that it does not serve
        more = ("--port", taken.getsockname()[1], "--names", path)
        refuses(command("serve", folder / "shop", *more), f"line 1: '{ids[3]}' is an item")


def started(folder):
    """A server in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "gru4rec_np.serve", folder / "shop", "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(folder, ids, number):
    """While a request is half sent. Nothing but one line is printed."""
    process = started(folder)
    try:
        port = int(process.stdout.readline().split(":")[2].split()[0])
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            head = f"POST /recommend HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {A}\r\n"
            connection.sendall(f"{head}Content-Length: 9\r\n\r\n".encode())
            assert request(port, "GET", "/health")[0] == 200  # so the head has been read
            process.send_signal(number)
            with pytest.raises(OSError):  # the first one has been heeded
                while True:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
            process.send_signal(number)
            status = process.wait(20)
    finally:
        process.kill()
        _, errors = process.communicate()
    assert (status, errors) == (128 + number, "stopped\n")


def test_a_signal_right_after_the_line(folder):
    process = started(folder)
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (130, "stopped\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_lets_what_runs_finish(folder, ids, number):
    """It comes while a request is half sent: that is answered, others are not."""
    process = started(folder)
    try:
        line = process.stdout.readline()
        assert line.startswith("shop, oracle at http://127.0.0.1:"), process.stderr.read()
        port = int(line.split(":")[2].split()[0])
        assert request(port, "GET", "/health")[0] == 200
        body = json.dumps({"session": ids[:2]}).encode()
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            head = f"POST /recommend HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {A}\r\n"
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:5])
            assert request(port, "GET", "/health")[0] == 200  # so the head has been read
            process.send_signal(number)
            until = time.monotonic() + 20
            while time.monotonic() < until:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                except OSError:
                    break
                time.sleep(0.02)
            connection.sendall(body[5:])
            assert b" 200 " in connection.recv(10_000)
        status = process.wait(20)
    finally:
        process.kill()
        _, errors = process.communicate()
    assert (status, errors) == ((130, "stopped\n") if number == signal.SIGINT else (0, ""))
