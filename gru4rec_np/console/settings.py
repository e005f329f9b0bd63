"""What a training is to do: from options, --params, --config and an earlier run to a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gru4rec_np import models
from gru4rec_np.console import cli, options, runs
from gru4rec_np.errors import InputError
from gru4rec_np.models import hyperparameters
from gru4rec_np.models.gru4rec import GRU4Rec
from gru4rec_np.models.hybrid import Hybrid
from gru4rec_np.models.hyperparameters import DEFAULTS, FIELDS, Hyperparameters
from gru4rec_np.models.params import OFFICIAL, parse_params

Say = Callable[[str], object]


def settle(given: dict[str, Any], say: Say) -> tuple[dict[str, Any], GRU4Rec, Path]:
    """Everything that a run needs, from options, --params and --config.

    Args:
        given: the command's options, from `options.parse`; changed.
        say: called with lines about what --params left out.

    Returns:
        data and run options, the model, the output directory. The model is untrained, or that of
        start_from.

    Raises:
        InputError: a value or a combination that cannot be used.
    """
    out, config, params = (given.pop(name, None) for name in ("out", "config", "params"))
    overwrite, resume = given.pop("overwrite", False), given.pop("resume", None)
    if resume is not None:
        if set(given) - {"n_epochs"} or overwrite or (out, config, params) != (None, None, None):
            raise InputError(
                "resume: allows no other option but --n-epochs; the run's are in its folder"
            )
        out, config = resume, runs.to_resume(Path(resume), "n_epochs" in given)

    values: dict[str, Any] = options.read_config(config) if config else {}
    if resume is not None:
        values = Hyperparameters.earlier | values
    if "start_from" in given:
        if config is not None or params is not None:
            raise InputError("start_from: not with --config or --params, the run's values hold")
        values = _settings_of(runs.run_of(given["start_from"]))
    logs = {name: given.get(name, values.get(name, [])) for name in ("train", "test")}
    if "start_from" in given and "train" not in given:
        raise InputError("start_from: needs the new sessions, --train FILE")
    if "train" in given or "test" in given:  # what the file says of its own log may not fit
        values = {name: value for name, value in values.items() if name not in options.unused(logs)}
    if params is not None:
        values = _with_params(values, params, config is None, given, say)
    for name, text in given.items():
        if name in FIELDS and isinstance(text, str):
            text = hyperparameters.parse_value(name, text)
        values[name] = text

    options.require_no_days(given, values.get("layout", ""))
    data = options.data_settings(values) | options.run_settings(values)
    if "primary_metric" in given and not data["validation"]:
        raise InputError("primary_metric: needs --validation")
    hp = {name: value for name, value in values.items() if name not in data}
    if data["start_from"]:
        if data["baselines"] not in ("auto", "none"):
            raise InputError("baselines: not with --start-from, they would know the new log only")
        started = models.load(data["start_from"], data["backend"])
        data["hybrid"] = isinstance(started, Hybrid)
        model = started.network if isinstance(started, Hybrid) else started
        if not isinstance(model, GRU4Rec):
            raise InputError(
                f"{data['start_from']}: holds {model.name}; --start-from takes GRU4Rec or hybrid"
            )
        kept = runs.run_of(data["start_from"]) / runs.TRAINING
        if kept.is_file():
            model.read_memory(kept)
        else:
            cli.say(
                f"warning: {kept} is missing, so {model.adapt}'s memory starts fresh and the model "
                "may become worse"
            )
        model.set_params(**hp)
    else:
        model = GRU4Rec(**hp, backend=data["backend"])
    for line in model.hp.without_use(given):
        cli.say(f"warning: {line}")
    if out is None:
        folder = runs.default_folder(data["train"])
    else:
        folder = Path(out)
    if resume is None:
        runs.require_idle(folder)  # before its files are called those of an unfinished run
        runs.require_free(folder, overwrite)
    if data["start_from"] and folder.resolve() == runs.run_of(data["start_from"]).resolve():
        raise InputError(f"--out {folder}: is the run to start from; choose another folder")
    how = {"overwrite": overwrite, "resume": resume is not None, "names_folder": out is not None}
    return data | how, model, folder


def _settings_of(run: Path) -> dict[str, Any]:
    """Hyperparameters and columns of a run, as far as its folder has them."""
    config = run / "config.toml"
    values = Hyperparameters.earlier | options.read_config(str(config)) if config.is_file() else {}
    return {
        name: value
        for name, value in values.items()
        if name in FIELDS or name in options.TABLE_OPTIONS or name in ("backend", "ties")
    }


def _with_params(
    values: dict[str, Any], text: str, official: bool, given: dict[str, Any], say: Say
) -> dict[str, Any]:
    """The values with those of --params, and with what it leaves out.

    Args:
        values: of --config. official: whether the reference's defaults hold.
        given: the command line's options, which win in the end.
    """
    params = parse_params(text)
    defaults = {n: v for n, v in OFFICIAL.items() if n not in params.values} if official else {}
    columns = {n: v for n, v in params.columns.items() if v != options.DATA_OPTIONS[n][0]}
    left_out = {n: v for n, v in defaults.items() if n not in given}
    if left_out:
        listed = ", ".join(f"{n}={short(v)}" for n, v in left_out.items())
        say(f"--params: names left out take the official defaults: {listed}")
    if "input" not in params.values and "input" not in given:
        now = defaults.get("input", values.get("input", DEFAULTS["input"]))
        of = "the official default, constrained_embedding=True" if official else "from --config"
        say(f"--params: names no input; it is {now} ({of})")
    if params.ignored:
        say(f"--params: ignored: {', '.join(params.ignored)}")
    return {**defaults, **values, **columns, **params.values}


def short(value: Any) -> str:
    """A value as it stands on the command line."""
    return "/".join(map(str, value)) if isinstance(value, list) else str(value)
