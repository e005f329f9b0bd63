"""Models on disk: what is written is read back, anything else is refused in one line."""

import io
import json
import pickle
import tracemalloc
import zipfile
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from conftest import examples
from gru4rec_np import GRU4Rec, InputError, Sessions, models
from gru4rec_np.data.sessions import id_array
from gru4rec_np.models import narm, network
from gru4rec_np.models.checkpoint import (
    FORMAT,
    VERSION,
    _checksum,
    load,
    pack_ids,
    save,
    take_weights,
    unpack_ids,
)

ABOUT = {"model": "GRU4Rec", "hyperparameters": {"layers": [100], "loss": "bpr", "momentum": 0.1}}
WEIGHTS = {"weights/V_y": np.arange(12, dtype=np.float32).reshape(4, 3), "weights/b": np.ones(2)}
IDS = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, unique=True) | st.lists(
    st.text(max_size=4), min_size=1, unique=True
)
FILES = Path(__file__).with_name("files")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


SHAPES = array_shapes(min_dims=0, min_side=0)
FINITE = {"allow_nan": False, "allow_infinity": False}
NAMES = st.text().filter(lambda name: name not in ("format", "version"))


def refused(path, *words):
    """Load it and expect an InputError of one line with the path and the words."""
    with pytest.raises(InputError) as caught:
        load(path)
    message = str(caught.value)
    assert str(path) in message and all(word in message for word in words)
    assert len(message.splitlines()) == 1


@examples(200)
@given(IDS)
def test_ids_round_trip(ids):
    packed = pack_ids(id_array(ids))
    assert all(array.dtype != object for array in packed.values())
    again = unpack_ids(packed)
    assert again.dtype == id_array(ids).dtype
    assert again.tolist() == ids


@examples(200)
@given(
    IDS,
    st.dictionaries(NAMES, JSON, max_size=3),
    st.sampled_from([np.float32, np.float64]).flatmap(lambda t: arrays(t, SHAPES, elements=FINITE))
    | arrays(st.sampled_from([np.int32, np.int64, np.uint8]), SHAPES),
)
def test_save_and_load_round_trip(tmp_path_factory, ids, about, array):
    path = tmp_path_factory.getbasetemp() / "model.npz"
    save(path, about, {"weights/W": array, **pack_ids(id_array(ids))})
    got_about, got = load(path)
    assert got_about == about
    assert unpack_ids(got).tolist() == ids
    assert set(got) == {"weights/W", *pack_ids(id_array(ids))}
    assert got["weights/W"].dtype == array.dtype
    np.testing.assert_array_equal(got["weights/W"], array)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.npz"
    save(path, ABOUT, {**WEIGHTS, **pack_ids(id_array(["é", "상품", ""]))})
    return path


def test_a_directory_stands_for_its_model(saved):
    assert load(saved.parent)[0] == load(str(saved))[0] == ABOUT


def test_a_model_is_no_pickle(saved):
    """Its parts are plain .npy arrays that any NumPy reads without unpickling."""
    with zipfile.ZipFile(saved) as file:
        for name in file.namelist():
            np.lib.format.read_array(file.open(name), allow_pickle=False)


# --- what is refused ------------------------------------------------------------------------------


def test_missing_files(tmp_path):
    refused(tmp_path / "none.npz", "no such model file")
    with pytest.raises(InputError, match=r"model\.npz: no such model file"):
        load(tmp_path)


def test_a_file_cut_short_anywhere(saved):
    whole = saved.read_bytes()
    cuts = {*range(0, len(whole), len(whole) // 60), *range(8), len(whole) - 1}
    for cut in sorted(cuts):
        saved.write_bytes(whole[:cut])
        refused(saved)


def test_a_file_with_a_changed_byte(saved):
    """Refused, or the byte was one that does not matter (a date in the archive)."""
    whole, (about, parts) = saved.read_bytes(), load(saved)
    for at in range(0, len(whole), 5):
        for flip in (0x01, 0xFF):
            saved.write_bytes(whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :])
            try:
                got_about, got = load(saved)
            except InputError as error:
                assert str(saved) in str(error) and len(str(error).splitlines()) == 1
            else:
                assert got_about == about and list(got) == list(parts)
                assert all(np.array_equal(a, parts[n]) for n, a in got.items())


# --- the checksum ---------------------------------------------------------------------------------

ALTERED = "damaged: its checksum does not match"


def rewrite(path, change):
    """Write an archive anew, its own CRCs right, after `change` of its name to array."""
    with np.load(path) as file:
        parts = dict(file)
    change(parts)
    np.savez(path, **parts)


def more(parts):
    parts["weights/b"] = parts["weights/b"] + 1


def other_header(parts):
    parts["about"] = np.array(str(parts["about"]).replace("bpr", "bpr-max"))


def swapped(parts):
    parts["weights/b"], parts["weights/V_y"] = parts["weights/V_y"], parts["weights/b"]


@pytest.mark.parametrize(
    "change",
    [
        more,
        other_header,
        swapped,
        lambda parts: parts.update({"weights/b": parts["weights/b"].astype(np.float32)}),
        lambda parts: parts.update({"weights/V_y": parts["weights/V_y"].reshape(3, 4)}),
        lambda parts: parts.update({"weights/c": parts["weights/b"]}),
        lambda parts: parts.pop("weights/b"),
        lambda parts: parts.pop("checksum"),
        lambda parts: parts.update(checksum=parts["checksum"][:-1]),
        lambda parts: parts.update(about=np.array(str(parts["about"]).replace(": 2", ": 1", 1))),
    ],
)
def test_altered_content(saved, change):
    """Not only what the archive's own CRCs see."""
    rewrite(saved, lambda parts: None)
    load(saved)  # so it is not the new archive
    rewrite(saved, change)
    refused(saved, ALTERED)


def test_a_byte_of_a_weight(saved):
    whole = saved.read_bytes()
    at = whole.index(WEIGHTS["weights/V_y"].tobytes())
    saved.write_bytes(whole[: at + 9] + b"\x07" + whole[at + 10 :])
    refused(saved, ALTERED)


def test_the_checksum_is_of_all_that_makes_an_array():
    a = np.arange(6, dtype=np.int32)
    others = [
        {"a": a.reshape(2, 3)},
        {"a": a.reshape(3, 2)},
        {"a": a.view(np.float32)},
        {"b": a},
        {"a": a + 1},
        {"a": a, "b": a[:0]},
        {},
    ]
    found = {_checksum(parts).tobytes() for parts in [{"a": a}, *others]}
    assert len(found) == 1 + len(others)
    square = a[:4].reshape(2, 2)
    assert (_checksum({"a": square}) == _checksum({"a": np.asfortranarray(square)})).all()
    assert (_checksum({"a": a, "b": a}) == _checksum({"b": a, "a": a})).all()


# --- files of version 1, written in November 2026 before there was a checksum ---------------------


@pytest.mark.parametrize(
    ("name", "session", "expected"),
    [
        (
            "gru4rec-v1",
            ["é2", "상품3"],
            [("b6", 3.3025618), ("c d", 1.5122077), ("a1", 0.6270535), ("Ω5", 0.2453202)],
        ),
        (
            "item-knn-v1",
            [103, 105],
            [(111, 0.3254070), (108, 0.2703690), (103, 0.2330866), (102, 0.2073221)],
        ),
        (
            "narm-v1",
            ["é2", "상품3"],
            [("c d", 0.3291768), ("상품3", 0.2444875), ("007", 0.1883520), ("b6", 0.1397945)],
        ),
    ],
)
def test_files_of_version_1_are_read(name, session, expected, tmp_path):
    model = models.load(FILES / f"{name}.npz", "numpy")
    found = model.recommend(session, 4)
    assert [item for item, _ in found] == [item for item, _ in expected]
    np.testing.assert_allclose([s for _, s in found], [s for _, s in expected], rtol=1e-5)
    model.save(tmp_path / "model.npz")  # as version 2
    assert models.load(tmp_path, "numpy").recommend(session, 12) == model.recommend(session, 12)


# --- what a file may hold -------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite(saved, value):
    before = saved.read_bytes()
    wrong = {**WEIGHTS, "weights/b": np.array([1, value])}
    with pytest.raises(InputError, match=r"model.npz: weights/b has values that are infinite"):
        save(saved, ABOUT, wrong)
    assert saved.read_bytes() == before

    def change(parts):
        parts.update(wrong)
        parts["checksum"] = _checksum({n: a for n, a in parts.items() if n != "checksum"})

    rewrite(saved, change)
    refused(saved, "weights/b has values that are infinite or no numbers")


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"ids": np.array([1, 2, 1])}, "the item id 1 is there twice"),
        (
            {"ids_utf8": np.frombuffer(b"aba", np.uint8), "ids_length": np.array([1, 1, 1])},
            "the item id 'a' is there twice",
        ),
        ({"ids": np.array([1, 2], np.int32)}, "ids is int32"),
        ({"ids": np.array([[1, 2]])}, "no ids in one dimension"),
        ({"ids_D": np.array([1.0, 2.0])}, "no ids in one dimension"),
        ({"ids_us": np.array([3, 3])}, "is there twice"),
        ({"ids_utf8": np.frombuffer(b"ab", np.uint8), "ids_length": np.array([1])}, "do not fit"),
        ({"ids_utf8": np.zeros(1, np.uint8), "ids_length": np.array([2, -1])}, "do not fit"),
        ({"ids_utf8": np.zeros(0, np.uint8), "ids_length": np.array([2**62] * 4)}, "do not fit"),
        ({"ids_utf8": np.zeros(1), "ids_length": np.array([1])}, "do not fit"),
        ({"ids_utf8": np.frombuffer(b"\xff", np.uint8), "ids_length": np.array([1])}, "decode"),
    ],
)
def test_ids_that_are_none(parts, words):
    with pytest.raises(ValueError, match=words):
        unpack_ids(parts)
    with pytest.raises(KeyError):
        unpack_ids({n: a for n, a in parts.items() if n == "ids_utf8"})


def test_weights_of_a_wrong_shape_or_type():
    parts = {"weights/a": np.zeros((2, 3)), "weights/b": np.zeros(2)}
    shapes = {"a": (2, 3), "b": (2,)}
    assert list(take_weights(parts, shapes)) == ["a", "b"]
    for wrong in (np.zeros(3), np.zeros(2, np.float32), np.zeros(2, np.float16), np.zeros(2, int)):
        with pytest.raises(ValueError, match=r"b is .*, not float64"):
            take_weights({**parts, "weights/b": wrong}, shapes)
    with pytest.raises(KeyError):
        take_weights(parts, {**shapes, "c": (1,)})


@pytest.mark.parametrize("unit", ["gru", "lstm", "rnn"])
@pytest.mark.parametrize("input", ["onehot", "embedding", "shared", "weighted"])
def test_shapes_are_those_of_fresh_weights(unit, input):
    hp = GRU4Rec.published(
        layers=[3, 5], feedforward=[4], unit=unit, input=input, input_to_all_layers=True,
        backend="numpy",
    )  # fmt: skip
    fresh = network.init_weights(hp, 7, np.random.default_rng(0))
    assert {n: a.shape for n, a in fresh.items()} == network.shapes(hp, 7)
    hp = narm.NARM(embedding=3, hidden=4, backend="numpy")
    fresh = narm.init_weights(hp, 7, np.random.default_rng(0))
    assert {n: a.shape for n, a in fresh.items()} == narm.shapes(hp, 7)


# --- small files that ask for much memory ---------------------------------------------------------


def archive(path, name, content, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        about = io.BytesIO()
        np.save(about, np.array(json.dumps({"format": FORMAT, "version": 1})))
        file.writestr("about.npy", about.getvalue())
        file.writestr(name, content)


def npy(shape, dtype, content=b""):
    file = io.BytesIO()
    described = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, described)
    return file.getvalue() + content


def refused_cheaply(path, *words):
    tracemalloc.start()
    refused(path, *words)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**23


def test_a_declared_size_takes_no_memory(tmp_path):
    path = tmp_path / "model.npz"
    for shape in ((10**12,), (10**6, 10**6), (2**63, 2), (10**12, -1)):
        archive(path, "weights/a.npy", npy(shape, "<f4", b"1234"))
        refused_cheaply(path, "of another size")
    archive(path, "weights/a.npy", npy((10**12,), "<U0"))
    refused_cheaply(path, "of type")
    archive(path, "weights/a.npy", npy((0, 10**12), "<f4"))
    assert load(path)[1]["weights/a"].shape == (0, 10**12)


def test_a_size_that_the_archive_declares_takes_no_memory(tmp_path):
    path = tmp_path / "model.npz"
    content = npy((2**29,), "<f4", b"1234")
    archive(path, "weights/a.npy", content)
    whole, size = path.read_bytes(), len(content).to_bytes(4, "little")
    large = (len(content) - 4 + 2**31).to_bytes(4, "little")
    path.write_bytes(whole.replace(2 * size, 2 * large))
    assert path.read_bytes() != whole
    refused_cheaply(path, "larger than the file")


def test_what_is_compressed_is_not_expanded(tmp_path):
    path = tmp_path / "model.npz"
    zeros = npy((2**26,), "|u1", bytes(2**26))
    archive(path, "weights/a.npy", zeros, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10**5
    refused_cheaply(path, "larger than the file")
    archive(path, "weights/a.npy", npy((2,), "|u1", b"12") + b"", zipfile.ZIP_DEFLATED)
    refused_cheaply(path)


def test_names_that_are_there_twice(tmp_path):
    path = tmp_path / "model.npz"
    with pytest.warns(UserWarning, match="Duplicate"):
        archive(path, "about.npy", npy((2,), "|u1", b"12"))
    refused(path, "twice")


def test_a_header_that_describes_a_giant(tmp_path):
    """Sizes come from the hyperparameters too: nothing of such a size is made to compare with."""
    path = tmp_path / "model.npz"
    log = Sessions.from_lists([[1, 2], [2, 1]])
    small = {"n_epochs": 1, "n_sample": 2, "backend": "numpy"}
    for model, changes in (
        (GRU4Rec.published(layers=[2], **small), {"layers": [50_000]}),
        (narm.NARM(embedding=2, hidden=2, **small), {"hidden": 50_000, "embedding": 50_000}),
    ):
        model.fit(log).save(path)
        about, parts = load(path)
        about["hyperparameters"] |= changes
        save(path, about, parts)
        tracemalloc.start()
        with pytest.raises(InputError, match=r"does not fit together: .*50000"):
            models.load(path, "numpy")
        assert tracemalloc.get_traced_memory()[1] < 2**23
        tracemalloc.stop()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"PK",
        b"PK\x03\x04",
        b"\x93NUMPY\x01\x00",
        b"\x00" * 999,
        b"SessionId\tItemId\tTime\n",
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06",
        b"PAR1" + bytes(40) + b"PAR1",
        b"PK\x05\x06" + bytes(18),  # an empty archive
        b"PK\x05\x06" + b"\xff" * 18,
        pickle.dumps({"weights": [1, 2]}),
    ],
)
def test_foreign_files(tmp_path, content):
    path = tmp_path / "model.npz"
    path.write_bytes(content)
    refused(path)


def header(**changes):
    return np.array(json.dumps({"format": FORMAT, "version": VERSION} | changes))


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        ({}, []),
        ({"weights/V_y": np.ones(3)}, []),
        ({"about": np.ones(3)}, []),
        ({"about": np.array("no json")}, []),
        ({"about": np.array("[1, 2]")}, []),
        ({"about": np.array("3")}, []),
        ({"about": np.array('{"format": "' + FORMAT + '"}')}, []),
        ({"about": header(version="new")}, []),
        ({"about": header(version=float("inf"))}, []),
        ({"about": np.array({"format": FORMAT}, dtype=object)}, []),
        ({"about": header(), "ids": np.array([{}], dtype=object)}, []),
        ({"about": header(), "ids": np.array(["text"])}, ["of type <U4"]),
        ({"about": header(), "ids": np.array([1], ">i8")}, ["of type >i8"]),
        ({"about": header(), "ids": np.array([1j])}, ["of type complex128"]),
        ({"about": header()}, [ALTERED]),  # without a checksum
        (
            {"about": header(version=VERSION + 1), "x": np.array(["text"])},
            [f"version {VERSION + 1}", f"up to {VERSION}"],
        ),
        ({"about": header(version=VERSION + 1)}, [f"version {VERSION + 1}", f"up to {VERSION}"]),
    ],
)
def test_archives_that_are_no_model(tmp_path, contents, words):
    np.savez(tmp_path / "model.npz", **contents)
    refused(tmp_path / "model.npz", *words)


def test_an_array_that_is_no_archive(tmp_path):
    np.save(tmp_path / "model.npy", np.ones(3))
    refused(tmp_path / "model.npy")


def test_another_programs_model_is_not_called_a_version_problem(tmp_path):
    """'version 1 is unknown, this program reads up to 1' helps nobody."""
    np.savez(tmp_path / "model.npz", about=header(format="some other model"))
    with pytest.raises(InputError) as caught:
        load(tmp_path / "model.npz")
    assert "version" not in str(caught.value)


class Bomb:
    """Unpickling this would make a directory."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.place),)


def test_nothing_is_ever_unpickled(tmp_path):
    bomb = np.empty(1, object)
    bomb[0] = Bomb(tmp_path / "exploded")
    np.savez(tmp_path / "model.npz", about=header(), ids=bomb)
    refused(tmp_path / "model.npz")
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    refused(tmp_path / "model.pkl")
    assert not (tmp_path / "exploded").exists()


# --- a failing write ------------------------------------------------------------------------------


def disk_full(file, *args, **kwargs):
    file.write(b"PK half a model")
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("there", [True, False])
def test_a_failing_write_changes_nothing(tmp_path, there):
    path = tmp_path / "model.npz"
    if there:
        save(path, ABOUT, WEIGHTS)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with mock.patch.object(np, "savez", disk_full), pytest.raises(OSError, match="No space"):
        save(path, ABOUT, WEIGHTS)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("about", "arrays_"), [({}, {"a": np.array([{}], object)}), ({"a": object()}, {})]
)
def test_what_cannot_be_saved_leaves_nothing_behind(saved, about, arrays_):
    before = saved.read_bytes()
    with pytest.raises((ValueError, TypeError)):
        save(saved, about, arrays_)
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]
    assert saved.read_bytes() == before


def test_an_existing_model_is_replaced(saved):
    save(saved, {"model": "new"}, {"a": np.ones(1)})
    assert load(saved)[0] == {"model": "new"} and list(load(saved)[1]) == ["a"]
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_an_error_names_the_file_and_not_the_temporary_one(tmp_path):
    with pytest.raises(OSError, match=r"folder/model\.npz'$"):
        save(tmp_path / "no folder/model.npz", ABOUT, WEIGHTS)
