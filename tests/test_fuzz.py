"""Whatever bytes come in: a result, or an InputError of one line with the file; quick and small.

Each group of targets runs in a process of its own, in which an input may take 5 seconds of CPU and
1 GiB of memory beyond what the process had before. FUZZ is the number of inputs for each target:

    FUZZ=2000 python -m pytest -s tests/test_fuzz.py

Hypothesis draws them.
"""

import contextlib
import dataclasses
import faulthandler
import gzip
import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import EXPLORES
from gru4rec_np import InputError, Sessions, Shop, models
from gru4rec_np.backends import load as load_ops
from gru4rec_np.data import rawlogs
from gru4rec_np.data.tables import read_table
from gru4rec_np.models import checkpoint
from gru4rec_np.models.hyperparameters import Hyperparameters
from gru4rec_np.models.params import parse_params
from gru4rec_np.models.training import Training
from gru4rec_np.train import settings as train_settings

SECONDS = 5  # of CPU, all threads together
MEMORY = 2**30
EXAMPLES = int(os.environ.get("FUZZ", 300 if EXPLORES else 100))

# --- inputs ---------------------------------------------------------------------------------------

NASTY = [
    b"", b"\x00", b"\n", b"\r", b"\r\n", b"\t", b",", b";", b'"', b"'", b"=", b" ", b"-", b"/",
    b"\xff", b"\xef\xbb\xbf", b"\xc2\x85", b"\xe2\x80\xa8", b"\x0c", b"\x1c", "é상".encode(),
    b"nan", b"inf", b"-inf", b"1e999", b"-1", b"0", b"007", b"1.5", b"true", b"null", b"NA",
    b"9223372036854775807", b"9223372036854775808", b"-9223372036854775809", b"9" * 40, b"9" * 5000,
    b"0x" + b"f" * 6000, b"1e-400", b"2014-04-07T10:51:09.277Z", b"9999-99-99", b"262143-01-01",
    b"-290308-01-01T00:00:00", b"0001-01-01", b"SessionId", b"ItemId", b"Time", b"[" * 5000,
    b'{"a":' * 3000, b"{", b"}", b"[]", b"a" * 70_000, b"\n" * 300, b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\xff\x0f", b"\x80" * 9 + b"\x01", b"elu-", b"leaky-nan", b"100/50/", b"#",
    b"\\u0000", b"[[a]]\n", b"a.b=",
]  # fmt: skip


@st.composite
def mutated(draw, bases):
    """Bytes that are valid but for a few changes, or (rarely) just any."""
    data = draw(st.sampled_from(bases))
    if draw(st.integers(0, 19)) == 0:
        return draw(st.binary(max_size=200))
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3, 4]))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from("bit byte put over cut drop again".split()))
        n = draw(st.integers(1, 12))
        if kind == "bit" and at < len(data):
            flipped = data[at] ^ (1 << draw(st.integers(0, 7)))
            data = data[:at] + bytes([flipped]) + data[at + 1 :]
        elif kind == "byte":
            data = data[:at] + draw(st.binary(min_size=1, max_size=4)) + data[at + 1 :]
        elif kind in ("put", "over"):  # between, or in the place of a field
            token = draw(st.sampled_from(NASTY))
            data = data[:at] + token + data[at + (n if kind == "over" else 0) :]
        elif kind == "cut":
            data = data[:at]
        elif kind == "drop":
            data = data[:at] + data[at + n :]
        elif kind == "again":
            data = data[: at + n] + data[at:]
    return data


LEAVES = st.sampled_from(
    [None, True, False, 0, -1, 1, 3, 2**31, 2**63, 10**12, 10**400, 1.5, -0.5, float("nan"),
     float("inf"), 1e308, 1e-320, "", "a", "7", "elu-nan", [], [0], [10**6], [1] * 300, {},
     {"a": 1}]
)  # fmt: skip


@st.composite
def altered_json(draw, value):
    """A JSON value with one of its parts replaced, dropped or added."""
    if isinstance(value, dict) and value and draw(st.integers(0, 9)):
        key = draw(st.sampled_from(sorted(value)))
        kind = draw(st.sampled_from(["deeper", "deeper", "deeper", "drop", "add"]))
        if kind == "drop":
            return {k: v for k, v in value.items() if k != key}
        if kind == "add":
            return {**value, draw(st.sampled_from(["a", "backend", "path"])): draw(LEAVES)}
        return {**value, key: draw(altered_json(value[key]))}
    return draw(LEAVES)


NUMBERS = [0, 1, -1, 2, 7, 255, 2**31 - 1, 2**31, 2**62, 0.5, 1e38, -1e38, 1e300, np.nan, np.inf]
TYPES = ["u1", "i1", "i4", "i8", "u8", "f2", "f4", "f8", "?", ">f4", "g", "U3", "M8[s]", "V4", "c8"]


@st.composite
def altered_array(draw, array):
    """An array with another shape, type or values."""
    kind = draw(st.sampled_from("value value all type shape shape fortran giant".split()))
    with np.errstate(all="ignore"):
        if kind in ("value", "all") and array.size:
            array = array.copy()
            place = draw(st.integers(0, array.size - 1)) if kind == "value" else ...
            value = np.array(draw(st.sampled_from(NUMBERS))).astype(array.dtype)
            array.reshape(-1)[place] = value
        elif kind == "type":
            array = np.zeros(array.shape, draw(st.sampled_from(TYPES)))
        elif kind == "shape":
            flat = array.reshape(-1)
            array = draw(
                st.sampled_from(
                    [flat, flat[:0], flat[:-1], array[None], flat.reshape(-1, 1), array[:-1]]
                    if array.ndim
                    else [array, array[None]]
                )
            )
        elif kind == "fortran":
            array = np.asfortranarray(array)
        elif kind == "giant":  # of no size: its file is small
            array = np.empty(draw(st.sampled_from([(10**9, 0), (0, 10**9)])), array.dtype)
    return array


@st.composite
def rebuilt(draw, bases):
    """A model's file with parts changed and a checksum that is right: made, not damaged."""
    about, arrays = draw(st.sampled_from(bases))
    arrays = dict(arrays)
    for _ in range(draw(st.integers(1, 2))):
        kind = draw(st.sampled_from("about about array array array drop swap".split()))
        names = sorted(arrays)
        if kind == "about" or not names:
            about = draw(altered_json(about))
            continue
        name, other = draw(st.sampled_from(names)), draw(st.sampled_from(names))
        if kind == "array":
            arrays[name] = draw(altered_array(arrays[name]))
        elif kind == "drop":
            del arrays[name]
        else:
            arrays[name], arrays[other] = arrays[other], arrays[name]
    return written(about, arrays)


def written(about, arrays):
    """The bytes of a file, as `checkpoint.save` writes it but without its doubts."""
    if isinstance(about, dict):
        about = {"format": checkpoint.FORMAT, "version": checkpoint.VERSION, **about}
    parts = {"about": np.array(json.dumps(about)), **arrays}
    file = io.BytesIO()
    with contextlib.suppress(ValueError, TypeError):  # types that hash to nothing stay without
        parts["checksum"] = checkpoint._checksum(parts)
    np.savez(file, **parts)
    return file.getvalue()


# --- what is done with them -----------------------------------------------------------------------


def check_sessions(log):
    assert isinstance(log, Sessions) and log.n_events == log.offsets[-1] > 0
    assert (log.lengths > 0).all() and np.isfinite(log.times).all()
    assert 0 <= log.items.min() and log.items.max() < log.n_items
    inside = np.ones(log.n_events, bool)
    inside[log.offsets[:-1]] = False
    assert (np.diff(log.times, prepend=log.times[0])[inside] >= 0).all()


def read_params(path):
    text = path.read_bytes().decode(errors="replace")
    Hyperparameters(**parse_params(text).values)


def read_config(path):
    train_settings(["--config", str(path), "--out", str(path.parent / "out")])


def load_and_ask(path):
    model = models.load(path, "numpy")
    with np.errstate(all="ignore"):
        answer = model.recommend(model.item_ids[:2].tolist(), 3)
    assert len(answer) == min(3, len(model.item_ids))


class Target(NamedTuple):
    """What is done with the file's path, the file's ending, valid contents, and what alters one."""

    use: Callable[[Path], None]
    ending: str
    bases: list
    altered: Callable


LOG = Shop(n_items=8).simulate(12)
SMALL = {"layers": [2], "n_sample": 2, "n_epochs": 1, "batch_size": 4}


def resume(path):
    training = Training(Hyperparameters(**{**SMALL, "n_epochs": 2}), load_ops("numpy"), LOG)
    training.load(path)
    with contextlib.suppress(InputError):  # that it diverged, from weights that were large
        training.run()


def tables():
    rows = "1\t11\t100.5\n1\t12\t101\n2\ta b\t1e3\n2\t11\t2000\n"
    dates = (
        'SessionId,ItemId,Time,x\n1,"a,b",2014-04-07T10:51:09.277Z,\n'
        '1,"c""",2014-04-08T00:00:00Z,"\n"\n'
    )
    tsv = [f"SessionId\tItemId\tTime\n{rows}".encode(), b"x\tTime\tItemId\tSessionId\n1\t2\t3\t4\n"]
    csv = [dates.encode(), tsv[0].replace(b"\t", b","), b"\xef\xbb\xbf" + dates.encode()]
    stray = [b'SessionId,ItemId,Time,x\n1,a,3,tv 32"\n1,"b, ""c""",4,19" "rack"\n2,d,5,\n']
    semicolons = [csv[0].replace(b",", b";"), tsv[0].replace(b"\t", b";")]
    return {
        name: Target(lambda path: check_sessions(read_table(path)), f".{name}", bases, mutated)
        for name, bases in {
            "tsv": tsv,
            "csv": csv + stray,
            "dat": semicolons + stray,
            "tsv.gz": [gzip.compress(text, mtime=0) for text in tsv],
        }.items()
    } | {
        "lists": Target(
            lambda path: check_sessions(read_table(path, layout="lists")),
            ".txt",
            [b"1 2 3\n4 5\n", "a  é\r\n\n1\n".encode()],
            mutated,
        )
    }


def logs():
    bases = {
        "rsc15": "1,2014-04-07T10:51:09.277Z,214536502,0\n1,2014-04-07T10:54:09.868Z,2145365,S\n",
        "diginetica": "sessionId;userId;itemId;timeframe;eventdate\n1;NA;81766;526309;2016-05-09\n"
        "1;NA;31331;1031018;2016-05-09\n",
        "retailrocket": "timestamp,visitorid,event,itemid,transactionid\n"
        "1433221332117,257597,view,355908,\n1433224214164,257597,view,248676,\n",
        "otto": '{"session":0,"events":[{"aid":15,"ts":1659304800025,"type":"clicks"},'
        '{"aid":14,"ts":1659304904511,"type":"carts"}]}\n{"session":1,"events":[]}\n',
    }
    return {
        name: Target(
            lambda path, read=rawlogs.READERS[name]: check_sessions(read(path)),
            ".txt",
            [text.encode(), text.encode(), gzip.compress(text.encode(), mtime=0)],
            mutated,
        )
        for name, text in bases.items()
    }


def options():
    params = [
        b"layers=224,batch_size=80,loss=bpr-max,constrained_embedding=True,final_act=elu-0.5",
        b"layers=100/50,embedding=layersize,learning_rate=0.05,momentum=0.1,train_random_order=1",
        b"input=weighted,discount=0.5,unit=lstm,bptt=3,seed=7,feedforward=5/6",
    ]
    config = [
        b'# a run\nlayers = [100, 50]\nloss = "bpr-max"\nlearning_rate = 0.05\nn_sample = 0x10\n'
        b'split = "1d"\ntrain_random_order = true\nfinal_act = "elu-0.5"\nbackend = "numpy"\n',
        b'train = "log.tsv"\nitem_column = """a\nb"""\nseed = 1_000\nvalidation = "0.1"\n'
        b"patience = 2\nembedding = 8\ninput = 'embedding'\nties = 'median'\ncheckpoint = '10m'\n",
        b"shop_items = 50\nshop_sessions = 30\nshop_seed = 3\ndropout_p_embed = 2e-1\n",
    ]
    return {
        "params": Target(read_params, ".params", params, mutated),
        "config": Target(read_config, ".toml", config, mutated),
    }


def files():
    bases, contents = [], []
    folder = Path(os.environ["TMPDIR"])
    for name, cls in (models.BASELINES | models.ON_A_BACKEND).items():
        more = {
            "oracle": {"shop": Shop(n_items=8)},
            "BPR-MF": {"factors": 2, "n_epochs": 1},
            "GRU4Rec": {**SMALL, "backend": "numpy"},
            "hybrid": {**SMALL, "backend": "numpy"},
            "NARM": {"embedding": 2, "hidden": 2, "n_sample": 2, "n_epochs": 1, "backend": "numpy"},
        }
        kinds = [more.get(name, {})]
        if name == "GRU4Rec":
            kinds.append({**kinds[0], "unit": "lstm", "input": "weighted", "feedforward": [3]})
            kinds.append({**kinds[0], "unit": "rnn", "input": "embedding", "layers": [2, 3]})
        for kind in kinds:
            cls(**kind).fit(LOG).save(folder / "base.npz")
            bases.append(checkpoint.load(folder / "base.npz"))
            contents.append((folder / "base.npz").read_bytes())
    v1 = Path(__file__).with_name("files").glob("*.npz")
    contents += [path.read_bytes() for path in sorted(v1)]
    training = Training(Hyperparameters(**SMALL), load_ops("numpy"), LOG)
    training.chunk = 4
    saved = []

    def keep(*_):
        training.save(folder / "training.npz")
        saved.append(checkpoint.load(folder / "training.npz"))

    training.run(keep, keep, lambda: {"recall@20": 0.5})
    return {
        "model": Target(load_and_ask, ".npz", contents, mutated),
        "made-model": Target(load_and_ask, ".npz", bases, rebuilt),
        "made-training": Target(resume, ".npz", saved, rebuilt),
    }


GROUPS = {"tables": tables, "logs": logs, "options": options, "files": files}

# --- the process of a group -----------------------------------------------------------------------


def one_line(error, path, target):
    """What an InputError must be: a line with the file, or with the option that a text sets."""
    message = str(error)
    assert len(message.splitlines()) == 1, message
    if target in ("params", "config"):
        names = [f.name for f in dataclasses.fields(Hyperparameters)]
        known = (str(path), "--params", "split", "shop_", "train", "test", "checkpoint", "patience")
        known += ("validation", "backend", "constrained_embedding", "min_", "merge_", "ties")
        known += ("session_column", "item_column", "time_column", *names)
        assert message.startswith(known), message
    else:
        assert str(path) in message, message


def size(what):
    """Of this process in bytes: VmSize, or VmHWM, the most memory it ever had."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(what))
    return int(line.split()[1]) * 1024


def run_group(group):
    """Run the group's targets."""
    import conftest  # noqa: F401  the same settings as every test

    faulthandler.enable()
    faulthandler.register(signal.SIGPROF, chain=True)  # where it stood, then the end of it
    for name, target in GROUPS[group]().items():
        path = Path(os.environ["TMPDIR"], name + target.ending)
        for base in target.bases:  # starts threads and loads what is loaded late, too
            path.write_bytes(base if isinstance(base, bytes) else written(*base))
            target.use(path)
        run_target(name, target, path)


def run_target(name, target, path):
    found, slowest, began_with = {"ok": 0, "refused": 0}, 0.0, size("VmHWM")

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(target.altered(target.bases))
    def try_one(data):
        nonlocal slowest
        path.write_bytes(data)
        began = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            target.use(path)
            found["ok"] += 1
        except InputError as error:
            one_line(error, path, name)
            found["refused"] += 1
        except pl.exceptions.PanicException as error:  # no Exception
            raise AssertionError(f"Polars panicked: {error}") from None
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        slowest = max(slowest, time.process_time() - began)

    most = size("VmSize") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
    began = time.process_time()
    try:
        try_one()
    except BaseException:
        print(f"{name}: the input is {path.read_bytes()[:300]!r}", file=sys.stderr)
        raise
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
    grown = size("VmHWM") - began_with
    assert grown < MEMORY
    print(
        f"{name:14}{sum(found.values()):6} inputs,{found['refused']:6} refused,"
        f"{time.process_time() - began:7.1f} s CPU, slowest {slowest:.2f} s,"
        f" memory +{grown / 2**20:.0f} MiB to {size('VmHWM') / 2**20:.0f} MiB",
        flush=True,
    )


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measures memory as Linux does")
@pytest.mark.parametrize("group", GROUPS)
def test_whatever_comes_in(group, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, group],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=60 + 2 * EXAMPLES,
        env={**os.environ, "TMPDIR": str(tmp_path), "POLARS_MAX_THREADS": "2"},
    )
    print(done.stdout)
    left = [p.read_bytes()[:300] for p in tmp_path.iterdir() if p.is_file()]
    assert done.returncode == 0, f"{done.stdout}{done.stderr[-6000:]}\nthe last inputs: {left!r}"


# --- what it has found ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        b"seed = " + b"9" * 5000,  # Python reads no such number
        b"seed = 0x" + b"f" * 6000,  # and writes none
        b"layers = [0x" + b"f" * 6000 + b"]",
        b"layers = " + b"[" * 5000,
        b"layers = " + b"[" * 5000 + b"]" * 5000,
    ],
)
def test_found_in_configurations(text, tmp_path):
    path = tmp_path / "config.toml"
    path.write_bytes(text)
    with pytest.raises(InputError, match=r"config\.toml: not a TOML file") as caught:
        read_config(path)
    one_line(caught.value, path, "config")


def test_found_in_logs(tmp_path):
    """A header with a line break of Unicode's made a message of two lines."""
    path = tmp_path / "events.csv"
    path.write_text("timestamp,visitorid,event,itemid,x\x85y\u2028\n1,2\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"line 2: 2 columns where 5") as caught:
        rawlogs.read_retailrocket(path)
    one_line(caught.value, path, "retailrocket")


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("oracle", {"ids": np.array([7, 8])}, "the shop has no item '7'"),
        ("oracle", {"ids": np.empty(0, np.int64)}, "there are no items"),
        ("oracle", {"shop": {"n_items": 10**17}}, "n_items is a number"),
        ("oracle", {"shop": {"tail": 10**20}}, "tail is a number"),
        ("oracle", {"shop": {"n_items": None}}, "n_items is a number"),
        ("V-SKNN", {"idf": None}, "idf: must be a number >= 0, not None"),
        ("V-SKNN", {"k": 10**400}, "k: must be a whole number"),
        ("Item-KNN", {"lmbd": float("nan")}, "lmbd: must be a number"),
        ("Item-KNN", {"learnt/similarity/data": np.float16}, "not floats"),
    ],
)
def test_found_in_models(name, change, words, tmp_path):
    path = tmp_path / "model.npz"
    more = {"shop": Shop(n_items=8)} if name == "oracle" else {}
    models.BASELINES[name](**more).fit(LOG).save(path)
    about, arrays = checkpoint.load(path)
    for key, value in change.items():
        if key == "ids":
            arrays = {"ids": value}
        elif key in arrays:
            arrays[key] = arrays[key].astype(value)
        else:
            about["hyperparameters"][key] = value
    path.write_bytes(written(about, arrays))
    with pytest.raises(InputError, match=f"does not fit together: .*{words}") as caught:
        load_and_ask(path)
    one_line(caught.value, path, "model")


def test_found_in_models_of_another_width(tmp_path):
    """Sessions as float64 do not fit where float32 scores are made."""
    path, fitted = tmp_path / "model.npz", models.BASELINES["V-SKNN"]().fit(LOG)
    fitted.save(path)
    about, arrays = checkpoint.load(path)
    arrays["learnt/sessions/data"] = arrays["learnt/sessions/data"].astype(np.float64)
    path.write_bytes(written(about, arrays))
    clicks = fitted.item_ids[:2].tolist()
    assert models.load(path, "numpy").recommend(clicks) == fitted.recommend(clicks)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"step": 10**6}, "no epoch has 1000000 steps"),
        ({"step": -1}, "it stands at step -1"),
        ({"epoch": float("inf")}, "infinity"),
        ({"seconds": 0}, "in 0.0 s"),
        ({"epoch_began": 3}, "state must be a dict"),
        ({"h/0": np.zeros((1, 2), np.float32)}, r"the lanes' h of layer 0 is float32 \(1, 2\)"),
        ({"lane_history": np.full((4, 20), 99, np.int32)}, "items that are none"),
        ({"lane_history": np.empty((10**9, 0), np.int32)}, "the lanes' history is"),
    ],
)
def test_found_in_trainings(changes, words, tmp_path):
    path = tmp_path / "training.npz"
    hp = Hyperparameters(**SMALL, input="weighted")
    training = Training(hp, load_ops("numpy"), LOG)
    training.chunk = 2

    def keep(epoch, done, *_):
        if not path.exists():
            training.save(path)

    training.run(keep)
    resumed = Training(hp, load_ops("numpy"), LOG)
    resumed.load(path)
    about, arrays = checkpoint.load(path)
    for key, value in changes.items():
        (arrays if key in arrays else about)[key] = value
    path.write_bytes(written(about, arrays))
    with pytest.raises(InputError, match=f"cannot resume from this file: .*{words}") as caught:
        resumed.load(path)
    one_line(caught.value, path, "training")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="as above")
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("while True: pass", "File"),
        ("bytearray(2**31)", "MemoryError"),
        ("1 / 0", "ZeroDivisionError"),
        ("raise InputError('two\\nlines')", "AssertionError"),
        ("raise InputError('another file')", "AssertionError"),
    ],
)
def test_what_it_would_find(fault, words, tmp_path):
    """The limits hold, and a failure is seen."""
    code = (
        "import test_fuzz; from gru4rec_np import InputError\n"
        "def use(path):\n"
        "    if path.read_bytes() != b'ab':\n"
        f"        {fault}\n"
        "test_fuzz.SECONDS, test_fuzz.EXAMPLES = 0.3, 20\n"
        "target = test_fuzz.Target(use, '.x', [b'ab'], test_fuzz.mutated)\n"
        "test_fuzz.GROUPS['x'] = lambda: {'x': target}\n"
        "test_fuzz.run_group('x')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        errors="replace",
        cwd=Path(__file__).parent,
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode != 0 and words in done.stderr


if __name__ == "__main__":
    run_group(sys.argv[1])
