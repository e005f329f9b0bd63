"""Models on disk: what is written is read back, anything else is refused in one line."""

import json
import pickle
import zipfile
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from gru4rec_np import InputError
from gru4rec_np.checkpoint import FORMAT, VERSION, load, pack_ids, save, unpack_ids
from gru4rec_np.sessions import id_array

ABOUT = {"model": "GRU4Rec", "hyperparameters": {"layers": [100], "loss": "bpr", "momentum": 0.1}}
WEIGHTS = {"weights/V_y": np.arange(12, dtype=np.float32).reshape(4, 3), "weights/b": np.ones(2)}
IDS = st.lists(st.integers(-(2**63), 2**63 - 1)) | st.lists(st.text(max_size=4))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


SHAPES = array_shapes(min_dims=0, min_side=0)
NAMES = st.text().filter(lambda name: name not in ("format", "version"))


def refused(path, *words):
    """Load it and expect an InputError of one line with the path and the words."""
    with pytest.raises(InputError) as caught:
        load(path)
    message = str(caught.value)
    assert str(path) in message and all(word in message for word in words)
    assert len(message.splitlines()) == 1


@settings(max_examples=200)
@given(IDS)
def test_ids_round_trip(ids):
    packed = pack_ids(id_array(ids))
    assert all(array.dtype != object for array in packed.values())
    again = unpack_ids(packed)
    assert again.dtype == id_array(ids).dtype
    assert again.tolist() == ids


@settings(max_examples=200)
@given(
    IDS,
    st.dictionaries(NAMES, JSON, max_size=3),
    arrays(st.sampled_from([np.float32, np.float64, np.int32]), SHAPES),
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
    whole = saved.read_bytes()
    for at in range(0, len(whole), 5):
        for flip in (0x01, 0xFF):
            saved.write_bytes(whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :])
            try:
                load(saved)
            except InputError as error:
                assert str(saved) in str(error) and len(str(error).splitlines()) == 1


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
