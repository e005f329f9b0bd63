"""Every hyperparameter: what it accepts, what it refuses and how it is written as text."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import examples
from gru4rec_np import InputError
from gru4rec_np.console.advice import unusual
from gru4rec_np.models.checked import allowed
from gru4rec_np.models.hyperparameters import (
    FIELDS,
    INPUTS,
    NAMES,
    Hyperparameters,
    check_names,
    parse_activation,
    parse_value,
)
from gru4rec_np.models.params import OFFICIAL, parse_params
from gru4rec_np.ops.activations import ACTIVATIONS
from gru4rec_np.ops.cells import UNITS
from gru4rec_np.ops.losses import LOSSES
from gru4rec_np.ops.optim import OPTIMISERS

SIZES = st.lists(st.integers(1, 2000), max_size=3)
ACTIVATION = st.sampled_from(ACTIVATIONS) | st.builds(
    "{}-{}".format, st.sampled_from(["elu", "leaky"]), st.floats(0, 9)
)
BELOW_1 = st.floats(0, 1, exclude_max=True)
POSITIVE = st.floats(0, 1e6)

# What each may be. A hyperparameter that is missing here or below fails test_none_is_forgotten.
GOOD = {
    "layers": SIZES.filter(bool),
    "unit": st.sampled_from(tuple(UNITS)),
    "input": st.sampled_from(INPUTS),
    "embedding": st.integers(0, 500),
    "discount": st.floats(0, 0.99, exclude_min=True),
    "reset_after": st.booleans(),
    "hidden_act": ACTIVATION,
    "input_to_all_layers": st.booleans(),
    "feedforward": SIZES,
    "skip": st.booleans(),
    "fade": st.floats(0, 1),
    "repeat": st.floats(0, 1),
    "cosine": POSITIVE,
    "bptt": st.integers(1, 100),
    "loss": st.sampled_from(LOSSES),
    "final_act": ACTIVATION | st.just("auto"),
    "elu_param": POSITIVE,
    "bpreg": POSITIVE,
    "smoothing": BELOW_1,
    "logq": st.floats(0, 4),
    "logq_corrected": st.booleans(),
    "n_sample": st.integers(0, 10**5) | st.just("all"),
    "sample_alpha": POSITIVE,
    "batch_size": st.integers(1, 10**5),
    "n_epochs": st.integers(1, 100),
    "train_random_order": st.booleans(),
    "adapt": st.sampled_from(OPTIMISERS),
    "learning_rate": st.floats(0, 1e3, exclude_min=True),
    "decay": st.booleans(),
    "momentum": BELOW_1,
    "dropout_p_embed": BELOW_1,
    "dropout_p_hidden": BELOW_1,
    "lmbd": POSITIVE,
    "grad_cap": POSITIVE,
    "sigma": POSITIVE,
    "init_as_normal": st.booleans(),
    "seed": st.integers(0, 2**64),
}

NOT_TEXT = [None, 3, True, ["tanh"], b"tanh", ""]
NOT_BOOL = [None, 0, 1, 1.0, "True", "false", []]
NOT_NUMBER = [None, True, "0.5", [0.5], 1j, np.nan, np.inf, -np.inf]
NOT_SIZES = [
    None,
    100,
    "100",
    b"ab",
    [0],
    [-5],
    [2.5],
    [None],
    ["100"],
    [[1]],
    [np.inf],
    [True],
    [2**31],
]
NEGATIVE = [-1, -1e-9]
NOT_SEED = [*NOT_NUMBER, -1, 2.5]
NOT_COUNT = [*NOT_SEED, 2**31, 99999999999]

BAD = {
    "layers": [*NOT_SIZES, []],
    "unit": [*NOT_TEXT, "GRU", "mgu"],
    "input": [*NOT_TEXT, "one-hot", "Shared"],
    "embedding": NOT_COUNT,
    "discount": [*NOT_NUMBER, 0, 1, -0.5, 0.991],
    "reset_after": NOT_BOOL,
    "hidden_act": [*NOT_TEXT, "auto", "tanh-1", "elu--1", "elu-x", "elu-nan", "elu-inf"],
    "input_to_all_layers": NOT_BOOL,
    "feedforward": NOT_SIZES,
    "skip": NOT_BOOL,
    "fade": [*NOT_NUMBER, *NEGATIVE, 1.01],
    "repeat": [*NOT_NUMBER, *NEGATIVE, 1.01],
    "cosine": [*NOT_NUMBER, *NEGATIVE],
    "bptt": [*NOT_COUNT, 0],
    "loss": [*NOT_TEXT, "bprmax", "BPR"],
    "final_act": [*NOT_TEXT, "softmax", "auto-1", "relu-2", "leaky--1", "leaky-inf"],
    "elu_param": [*NOT_NUMBER, *NEGATIVE],
    "bpreg": [*NOT_NUMBER, *NEGATIVE],
    "smoothing": [*NOT_NUMBER, *NEGATIVE, 1, 1.5],
    "logq": [*NOT_NUMBER, *NEGATIVE],
    "n_sample": [*NOT_COUNT, "ALL", "2048", ""],
    "sample_alpha": [*NOT_NUMBER, *NEGATIVE],
    "batch_size": [*NOT_COUNT, 0],
    "n_epochs": [*NOT_COUNT, 0],
    "train_random_order": NOT_BOOL,
    "adapt": [*NOT_TEXT, "adamm"],
    "learning_rate": [*NOT_NUMBER, *NEGATIVE, 0],
    "decay": NOT_BOOL,
    "logq_corrected": NOT_BOOL,
    "momentum": [*NOT_NUMBER, *NEGATIVE, 1],
    "dropout_p_embed": [*NOT_NUMBER, *NEGATIVE, 1],
    "dropout_p_hidden": [*NOT_NUMBER, *NEGATIVE, 1],
    "lmbd": [*NOT_NUMBER, *NEGATIVE],
    "grad_cap": [*NOT_NUMBER, *NEGATIVE],
    "sigma": [*NOT_NUMBER, *NEGATIVE],
    "init_as_normal": NOT_BOOL,
    "seed": NOT_SEED,
}


def test_none_is_forgotten():
    assert set(GOOD) == set(BAD) == set(NAMES)


def one_line_error(*words):
    """Expect an InputError of one line that starts with the first word and has the others."""
    return pytest.raises(InputError, match=r"\A" + ".*".join(map(re.escape, words)) + r".*\Z")


@pytest.mark.parametrize(("name", "value"), [(name, v) for name in BAD for v in BAD[name]])
def test_bad_values_are_refused_by_name(name, value):
    with one_line_error(f"{name}: must be ", f"not {value!r}"):
        Hyperparameters(**{name: value})


@pytest.mark.parametrize("name", ["loss", "adapt", "input", "batch_size"])
def test_an_array_is_refused_by_name(name):
    """Comparing an array with the allowed values is ambiguous, which is not the user's problem."""
    with one_line_error(f"{name}: must be "):
        Hyperparameters(**{name: np.array(["bpr", "top1"])})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"embedding": 32, "input": "shared"}, ["embedding: 32", "'embedding'", "'shared'"]),
        ({"smoothing": 0.1, "loss": "bpr"}, ["smoothing: 0.1", "'cross-entropy'", "'bpr'"]),
        ({"smoothing": 0.1, "logq_corrected": True}, ["smoothing: 0.1", "logq_corrected"]),
        ({"n_sample": 0, "batch_size": 1}, ["batch_size: 1", "n_sample"]),
        ({"n_sample": "all", "loss": "top1"}, ["n_sample: all", "'cross-entropy'", "'top1'"]),
        ({"n_sample": "all", "smoothing": 0.1}, ["n_sample: all", "smoothing=0 ", "0.1"]),
        ({"n_sample": "all", "final_act": "tanh"}, ["n_sample: all", "linear", "'tanh'"]),
    ],
)
def test_values_that_do_not_go_together(values, words):
    with one_line_error(*words):
        Hyperparameters(**values)


@st.composite
def valid(draw):
    """Some hyperparameters with values that are allowed, also together."""
    names = draw(st.sets(st.sampled_from(NAMES)))
    values = {name: draw(GOOD[name]) for name in sorted(names)}
    if values.get("embedding"):
        values["input"] = "embedding"
    if values.get("smoothing"):
        values |= {"loss": "cross-entropy", "logq_corrected": False}
    if values.get("batch_size") == 1:
        values["n_sample"] = 8
    if values.get("n_sample") == 0:
        values["batch_size"] = 32
    if values.get("n_sample") == "all":
        values |= {"loss": "cross-entropy", "smoothing": 0.0, "final_act": "auto"}
    return values


@examples(200)
@given(valid())
def test_round_trip_through_plain_values(values):
    first = Hyperparameters(**values)
    plain = first.as_dict()
    assert tuple(plain) == NAMES
    assert {name: plain[name] for name in values} == values
    again = Hyperparameters(**plain)
    assert again == first
    assert [type(v) for v in again.as_dict().values()] == [type(v) for v in plain.values()]


@examples(300)
@given(st.sampled_from(NAMES).flatmap(lambda name: st.tuples(st.just(name), GOOD[name])))
def test_values_survive_as_text(case):
    name, value = case
    text = "/".join(map(str, value)) if isinstance(value, list) else str(value)
    parsed = parse_value(name, text)
    assert parsed == value and type(parsed) is type(value)
    assert parse_value(name, text.lower()) == value


def test_all_items_instead_of_samples():
    hp = Hyperparameters(n_sample="all", batch_size=1)
    assert hp.scores_all and hp.n_extra == 0 and "n_sample='all'" in repr(hp)
    assert not Hyperparameters().scores_all and Hyperparameters(n_sample=3).n_extra == 3
    with one_line_error("n_sample: must be a whole number or all, not 'every'"):
        parse_value("n_sample", "every")
    with one_line_error("batch_size: must be a whole number, not 'all'"):
        parse_value("batch_size", "all")
    assert allowed(FIELDS["n_sample"].metadata["check"]) == "a whole number >= 0, or all"
    assert unusual(hp.as_dict()) == []


@examples(200)
@given(valid())
def test_a_params_string_builds_the_same_model(values):
    text = ",".join(
        f"{name}={'/'.join(map(str, v)) if isinstance(v, list) else v}"
        for name, v in ({"input": "shared"} | values).items()
    )
    assert Hyperparameters(**parse_params(text).values) == Hyperparameters(**values)


def test_whole_floats_become_int_and_int_becomes_float():
    """As they come from a TOML file or a notebook."""
    hp = Hyperparameters(batch_size=64.0, learning_rate=1, layers=(100.0, 50))
    assert (hp.batch_size, hp.learning_rate, hp.layers) == (64, 1.0, [100, 50])
    assert [type(v) for v in (hp.batch_size, hp.learning_rate, *hp.layers)] == [
        int, float, int, int
    ]  # fmt: skip


def test_defaults_are_not_shared():
    one, two = Hyperparameters(), Hyperparameters()
    one.layers.append(7)
    assert two.layers == Hyperparameters().layers == [100]


# --- text -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (
            "layers=224,batch_size=80,loss=bpr-max,constrained_embedding=True",
            {"layers": [224], "batch_size": 80, "loss": "bpr-max", "input": "shared"},
        ),
        ("layers=100/50", {"layers": [100, 50]}),
        ("layers=[8]", {"layers": [8]}),
        ("layers=[100, 50],n_epochs=3", {"layers": [100, 50], "n_epochs": 3}),
        ("embedding=0", {"embedding": 0}),
        ("embedding=0,constrained_embedding=False", {"embedding": 0, "input": "onehot"}),
        ("embedding=64", {"embedding": 64, "input": "embedding"}),
        ("embedding=layersize", {"embedding": 0, "input": "embedding"}),
        ("constrained_embedding=False", {"input": "onehot"}),
        ("constrained_embedding=1,embedding=0", {"embedding": 0, "input": "shared"}),
        ("input=weighted,constrained_embedding=False", {"input": "weighted"}),
        (" momentum = 0.3 ,, final_act=elu-0.5, ", {"momentum": 0.3, "final_act": "elu-0.5"}),
        ("train_random_order=TRUE,reset_after=0", {"train_random_order": True}),
        ("feedforward=,logq=1e-3", {"feedforward": [], "logq": 0.001}),
    ],
)
def test_parse_params(text, values):
    parsed = parse_params(text).values
    assert {name: parsed[name] for name in values} == values
    named = set(re.findall(r"(\w+)\s*=", text)) - {"constrained_embedding"}
    assert set(parsed) == named | (set(values) & {"input"})


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("final_act=softmax", {"loss": "cross-entropy"}),
        ("loss=cross-entropy,final_act=softmax", {"loss": "cross-entropy"}),
        ("loss=xe_logit,final_act=softmax_logit", {"loss": "cross-entropy"}),
        ("loss=xe_logit", {"loss": "cross-entropy"}),
        ("loss=bpr-max,final_act=elu-0.5", {"loss": "bpr-max", "final_act": "elu-0.5"}),
        ("hidden_act=selu-1.0507-1.67326", {"hidden_act": "selu"}),
        ("hidden_act=selu-1-0.7", {"hidden_act": "elu-0.7"}),
        ("loss=bpr,final_act=selu-1.0-1.0", {"loss": "bpr", "final_act": "elu-1.0"}),
        ("adapt=None", {"adapt": "sgd"}),
        ("adapt=adagrad,adapt_params=[]", {"adapt": "adagrad"}),
        ("adapt_params=", {}),
        ("time_sort=True,device=cuda:0", {}),
    ],
)
def test_params_of_the_reference_that_mean_the_same_here(text, values):
    assert parse_params(text).values == values


def test_params_say_what_they_ignore_and_which_columns_they_name():
    found = parse_params(
        "device=cuda:0,time_sort=1,adapt_params=[],session_key=S,item_key=ItemId,time_key=T"
    )
    assert found.columns == {"session_column": "S", "item_column": "ItemId", "time_column": "T"}
    assert [text.split()[0] for text in found.ignored] == [
        "device=cuda:0", "time_sort=True", "adapt_params=[]"
    ]  # fmt: skip


def test_the_official_defaults():
    """Those of the constructor in gru4rec_pytorch.py; each is a value that we accept."""
    assert OFFICIAL == {
        "layers": [100], "loss": "cross-entropy", "batch_size": 64, "dropout_p_embed": 0,
        "dropout_p_hidden": 0, "learning_rate": 0.05, "momentum": 0, "sample_alpha": 0.5,
        "n_sample": 2048, "input": "shared", "n_epochs": 10, "bpreg": 1, "elu_param": 0.5,
        "logq": 0, "skip": False, "fade": 0, "cosine": 0, "repeat": 0, "decay": False,
    }  # fmt: skip
    hp = Hyperparameters(**OFFICIAL)
    assert hp.reset_after and (hp.adapt, hp.hidden_act, hp.unit) == ("adagrad", "tanh", "gru")


PARAMETER_FILE = """\
# a comment
from collections import OrderedDict
gru4rec_params = OrderedDict([
('loss', 'bpr-max'),
('constrained_embedding', True),
('embedding', 0),
('elu_param', 1),
('layers', [512]),
('learning_rate', 5e-2),
('adapt', None),
('adapt_params', []),
])
"""


@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_a_parameter_file_is_read(start, tmp_path):
    path = tmp_path / "best.py"
    path.write_text(start + PARAMETER_FILE, encoding="utf-8")
    assert parse_params(str(path)).values == {
        "loss": "bpr-max", "input": "shared", "embedding": 0, "elu_param": 1.0, "layers": [512],
        "learning_rate": 0.05, "adapt": "sgd",
    }  # fmt: skip
    path.write_text("gru4rec_params = {'layers': [7], 'constrained_embedding': False}")
    assert parse_params(str(path)).values == {"layers": [7], "input": "onehot"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gru4rec_params = OrderedDict([('layers', [f()])])", ["literals", "malformed"]),
        ("gru4rec_params = OrderedDict(open('x', 'w'))", ["literals"]),
        ("gru4rec_params = exec('raise SystemExit')", ["neither an OrderedDict nor a dict"]),
        ("gru4rec_params = __import__('os').system('touch x')", ["neither"]),
        ("gru4rec_params = 7", ["literals"]),
        ("params = {}", ["assigned 0 times"]),
        ("gru4rec_params = {}\ngru4rec_params = {}", ["assigned 2 times"]),
        ("gru4rec_params = {'layers': [1], 'layers': [2]}", []),
        ("gru4rec_params = [('loss', 'bpr'), ('loss', 'top1')]", ["given twice"]),
        ("gru4rec_params = {'layer': [1]}", ["unknown name 'layer'"]),
        ("def f(:", ["not a parameter file"]),
        ("gru4rec_params = " + "[" * 5000, ["not a parameter file"]),
        ("\0", ["not a parameter file"]),
    ],
)
def test_a_parameter_file_is_never_run(text, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.py").write_text(text)
    if not words:  # as Python reads it: the last one
        assert parse_params("p.py").values == {"layers": [2]}
        return
    with one_line_error("--params", *words):
        parse_params("p.py")
    assert [p.name for p in tmp_path.iterdir()] == ["p.py"]


def test_a_parameter_file_that_is_not_there(tmp_path):
    with one_line_error("--params none.py: no such file"):
        parse_params("none.py")
    (tmp_path / "d.py").mkdir()
    with one_line_error(f"--params {tmp_path}/d.py: cannot be read"):
        parse_params(str(tmp_path / "d.py"))


def test_params_name_an_input_only_if_they_say_so():
    assert parse_params("").values == parse_params(" , ").values == {}
    for text, wanted in (
        ("bptt=2", None),
        ("embedding=0", None),
        ("constrained_embedding=True", "shared"),
        ("constrained_embedding=False", "onehot"),
        ("embedding=layersize", "embedding"),
        ("embedding=7,constrained_embedding=False", "embedding"),
        ("input=onehot,constrained_embedding=True", "onehot"),
    ):
        assert parse_params(text).values.get("input") == wanted, text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("layers", ["--params", "'layers'", "name=value"]),
        ("loss=bpr,80", ["--params", "'80'", "name=value"]),
        ("layer=100", ["--params: unknown name 'layer'", "layers"]),
        ("=5", ["--params: unknown name ''"]),
        ("loss=bpr,loss=top1", ["--params: loss is given twice"]),
        ("constrained_embedding=1,constrained_embedding=1", ["constrained_embedding", "twice"]),
        ("constrained_embedding=yes", ["constrained_embedding", "true or false", "'yes'"]),
        ("constrained_embedding=True,embedding=5", ["constrained_embedding=True and embedding"]),
        ("constrained_embedding=1,embedding=layersize", ["--params", "embedding"]),
        ("embedding=big", ["embedding", "whole number", "'big'"]),
        ("batch_size=80.5", ["batch_size", "whole number", "'80.5'"]),
        ("layers=100x50", ["layers", "100/50", "'100x50'"]),
        ("learning_rate=fast", ["learning_rate", "number", "'fast'"]),
        ("reset_after=yes", ["reset_after", "true or false", "'yes'"]),
        ("loss=bpr-max,final_act=softmax", ["final_act", "softmax", "bpr-max"]),
        ("loss=cross-entropy,final_act=softmax_logit", ["final_act", "softmax_logit", "xe_logit"]),
        ("loss=xe_logit,final_act=softmax", ["final_act", "softmax", "xe_logit"]),
        ("loss=xe_logit,final_act=linear", ["final_act", "linear", "xe_logit"]),
        ("hidden_act=selu-2-1", ["hidden_act", "'selu-2-1'", "X=1"]),
        ("hidden_act=selu-x", ["hidden_act", "'selu-x'"]),
        ("adapt_params=0.9/0.999", ["adapt_params", "empty", "0.9"]),
        ("time_sort=False", ["time_sort", "train_random_order"]),
        ("time_sort=perhaps", ["time_sort", "true or false"]),
        ("layers=[100", ["layers"]),
    ],
)
def test_params_that_are_refused(text, words):
    with pytest.raises(InputError, match=r"\A.*" + ".*".join(map(re.escape, words)) + r".*\Z"):
        parse_params(text)


def test_allowed_values_in_words():
    """What --help shows of each; none accepts just anything."""
    for field in FIELDS.values():
        assert re.match(r"(a|one|true)\b", allowed(field.metadata["check"])), field.name


def test_values_far_beyond_the_usual_are_told():
    assert unusual(Hyperparameters().as_dict()) == []
    found = unusual(Hyperparameters(sigma=1e10, lmbd=1e9).as_dict())
    assert [line.split(" is ")[0] for line in found] == ["sigma: 1e+10", "lmbd: 1e+09"]


def test_check_names():
    check_names({"layers": 1, "loss": 2}, "train.toml")
    with one_line_error("train.toml: unknown name 'layer'", "layers"):
        check_names({"loss": 2, "layer": 1}, "train.toml")


# --- activations ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "activation"),
    [
        ("tanh", ("tanh", 0.0)),
        ("elu", ("elu", 1.0)),
        ("elu-0.5", ("elu", 0.5)),
        ("leaky", ("leaky", 0.01)),
        ("leaky-1e-3", ("leaky", 0.001)),
    ],
)
def test_activations(text, activation):
    assert parse_activation(text) == activation
    assert Hyperparameters(hidden_act=text).hidden_activation == activation
    assert Hyperparameters(final_act=text).final_activation == activation


def test_the_automatic_final_activation():
    assert Hyperparameters(loss="bpr-max", elu_param=0.7).final_activation == ("elu", 0.7)
    assert Hyperparameters(loss="bpr-max", elu_param=0).final_activation == ("linear", 0.0)
    assert Hyperparameters(loss="top1-max").final_activation == ("linear", 0.0)
    assert Hyperparameters(loss="bpr-max", final_act="tanh").final_activation == ("tanh", 0.0)
