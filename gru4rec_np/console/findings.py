"""What a search shows while it runs, and leaves: trials.csv, pictures, what tuning brought."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from gru4rec_np.console.comparison import per_case
from gru4rec_np.console.spaces import Space
from gru4rec_np.console.trials import Job, complete, finished, parameters, require_optuna
from gru4rec_np.data.sessions import Sessions
from gru4rec_np.files import as_csv, write_text
from gru4rec_np.ops.bootstrap import interval, resampled_means

if TYPE_CHECKING:
    import optuna


class Shown:
    """What a search shows while it runs: a bar, and a line for each trial that matters."""

    def __init__(self, job: Job) -> None:
        self.job, self._best = job, -np.inf
        self._seen: set[int] | None = None

    def __enter__(self) -> Shown:
        self._bar = tqdm(
            total=self.job.trials,
            desc=self.job.model,
            unit="trial",
            dynamic_ncols=True,
            disable=None,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def look(self, study: optuna.Study) -> None:
        """Show what is new since the last look."""
        done = finished(study)
        if self._seen is None:  # trials of an earlier start say nothing about the speed
            self._seen, self._bar.initial, self._bar.n = set(), len(done), len(done)
        self._bar.update(len(done) - self._bar.n)
        for trial in done:
            if trial.number not in self._seen and (line := self._line(trial)):
                tqdm.write(line, file=sys.stdout)
                sys.stdout.flush()
            self._seen.add(trial.number)
        if np.isfinite(self._best):
            self._bar.set_postfix_str(f"best {self.job.primary} {self._best:.4f}")

    def _line(self, trial: optuna.trial.FrozenTrial) -> str:
        if trial.state.name == "COMPLETE" and trial.value is not None and trial.value > self._best:
            self._best = trial.value
            values = " ".join(f"{n}={_short(v)}" for n, v in trial.params.items())
            seconds = trial.user_attrs.get("seconds", 0.0)
            metric = f"{self.job.primary} {trial.value:.4f}"
            return f"trial {trial.number:3}  {metric}  {seconds:5.1f} s  {values}"
        if "error" in trial.user_attrs:
            why = trial.user_attrs["error"].split("; ")[0]
            return f"trial {trial.number:3}  failed: {why[:200]}"
        return ""


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def write_trials(
    path: Path, studies: dict[str, Any], spaces: dict[str, Space], primary: str
) -> None:
    """Write a line for each trial: its parameters, and its metrics after each epoch."""
    rows: list[dict[str, Any]] = []
    for name, study in studies.items():
        for trial in finished(study):
            row = {
                "model": name,
                "trial": trial.number,
                "state": "FAILED" if trial.state.name == "FAIL" else trial.state.name,
                primary: trial.value,
                "seconds": trial.user_attrs.get("seconds"),
                "error": trial.user_attrs.get("error"),
                **parameters(spaces[name], trial),
            }
            for after in trial.user_attrs.get("history", []):
                row |= {f"{m} epoch {after['epoch']}": v for m, v in after.items() if m != "epoch"}
            rows.append(row)
    fields = dict.fromkeys(field for row in rows for field in row if " epoch " not in field)
    fields |= dict.fromkeys(field for row in rows for field in row)
    write_text(path, as_csv(fields, rows))


def gain(
    ranks: dict[str, np.ndarray], name: str, test: Sessions, k: int = 20
) -> dict[str, tuple[float, float, float]]:
    """What tuning brings in Recall@k and MRR@k: the difference, and its 95 % interval.

    A paired bootstrap over the test sessions, see `bootstrap.resampled_means`.
    """
    session = np.searchsorted(test.offsets, test.cases, side="right")
    tuned, defaults = (per_case(ranks[f"{name}, {how}"][None], k) for how in ("tuned", "defaults"))
    out = {}
    for metric, title in (("recall", "Recall"), ("mrr", "MRR")):
        means = resampled_means([tuned[metric], defaults[metric]], session)
        low, high = interval(means[:, 0] - means[:, 1])
        difference = float(tuned[metric].mean() - defaults[metric].mean())
        out[f"{title}@{k}"] = difference, float(low), float(high)
    return out


def plots(study: optuna.Study, out: Path, name: str, primary: str) -> list[str]:
    """Draw Optuna's pictures of a study; returns the names of the files, none for few trials."""
    optuna = require_optuna()
    done = complete(study)
    if len(done) < 4 or len({t.value for t in done}) < 2:
        return []
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from optuna.visualization import matplotlib as draw

    pictures = {
        "history": lambda: draw.plot_optimization_history(study, target_name=primary),
        "parameters": lambda: draw.plot_slice(study, target_name=primary),
        "importance": lambda: draw.plot_param_importances(
            study, target_name=primary, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
        ),
    }
    written = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for what, picture in pictures.items():
            try:
                axes: Any = picture()
            except (RuntimeError, ValueError):  # too few values of a parameter for it
                continue
            figure = np.ravel(axes)[0].figure
            if what != "parameters":
                figure.set_size_inches(8, 4.5)
            figure.savefig(out / f"{name}-{what}.png", dpi=120, bbox_inches="tight")
            plt.close(figure)
            written.append(f"{name}-{what}.png")
    return written
