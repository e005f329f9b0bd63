"""What is likely not meant in a run, and which shipped configuration would fit it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gru4rec_np.console.options import CONFIGURATIONS, read_config
from gru4rec_np.data.sessions import Sessions
from gru4rec_np.models.hyperparameters import ALL, DEFAULTS, Hyperparameters

LARGE_TEST = 1 / 3  # of all events
# A larger value is likely a typing error.
USUAL = {"sigma": 1, "lmbd": 1, "bpreg": 100, "elu_param": 100, "sample_alpha": 4}
USUAL |= {"learning_rate": 10, "batch_size": 10_000, "n_sample": 100_000}


def unusual(values: Mapping[str, Any]) -> list[str]:
    """A sentence for each hyperparameter that is far beyond the values in use."""
    return [
        f"{name}: {values[name]:g} is far beyond the usual values, which are below {most:g}"
        for name, most in USUAL.items()
        if values[name] != ALL and values[name] > most
    ]


def cautions(
    hp: Hyperparameters,
    train: Sessions,
    tests: Mapping[str, Sessions],
    is_split: bool,
    validation: Sessions | None = None,
) -> list[str]:
    """What is likely not meant in a run's data and hyperparameters, a line for each.

    Args:
        tests: name to test set. is_split: they are cut from the training log.
        validation: sessions that were held out of the training sessions.
    """
    found = unusual(hp.as_dict())
    if hp.batch_size > train.n_sessions:
        found.append(
            f"batch_size: {hp.batch_size} is larger than the {train.n_sessions:,} training "
            f"sessions, so a step never has as many; try {max(1, train.n_sessions // 10)} or less"
        )
    n_events, advice = train.n_events, "{} 0.1 makes it the last tenth of the sessions"
    if validation:
        n_events += validation.n_events
        share = validation.n_events / n_events
        if share > LARGE_TEST:
            found.append(
                f"validation: the validation set has {share:.0%} of the training events; "
                + advice.format("--validation")
            )
    for name, test in tests.items():
        share = test.n_events / (n_events + test.n_events)
        if share > LARGE_TEST:
            smaller = "; " + advice.format("--split") if is_split else ""
            found.append(f"{name}: the test set has {share:.0%} of the events{smaller}")
    return found


# What the published settings were tuned for, apart from sizes.
TUNED = (
    "final_activation", "n_sample", "sample_alpha", "batch_size", "adapt", "learning_rate",
    "momentum", "dropout_p_embed", "dropout_p_hidden",
)  # fmt: skip
OF_LOSS = {"cross-entropy": ("logq", "smoothing"), "bpr-max": ("bpreg",)}
SMALL = 1_000_000  # events; below, the settings for the first 100,000 clicks of RSC15 are closer


def fitting_config(hp: Hyperparameters, n_events: int) -> str | None:
    """A line that names the shipped configuration for a loss, if the settings are far from all.

    Far means that two or more of the tuned hyperparameters differ. The default dropout is not far.
    """
    names = (*TUNED, *OF_LOSS.get(hp.loss, ()))
    differences: dict[str, list[str]] = {}
    for config in CONFIGURATIONS:
        other = Hyperparameters(**read_config(config))
        if (other.loss, other.unit, other.input) == (hp.loss, hp.unit, hp.input):
            differences[config] = [
                n
                for n in names
                if getattr(hp, n) != getattr(other, n)
                and not (n == "dropout_p_embed" and hp.dropout_p_embed == DEFAULTS[n])
            ]
    if not differences or min(map(len, differences.values())) < 2:
        return None

    def distance(config: str) -> tuple[bool, int]:
        for_small = config.startswith("rsc15-100k")
        return for_small != (n_events < SMALL), len(differences[config])

    best = min(differences, key=distance)
    changed = ", ".join(differences[best]).replace("final_activation", "final_act")
    return (
        f"loss={hp.loss} was published with other values of {changed}; "
        f"for a log of this size try --config {best}"
    )
