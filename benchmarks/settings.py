"""The settings that are timed, as in docs/performance.md. Imports neither PyTorch nor Numba."""

from typing import Any

from gru4rec_np.models.hyperparameters import PUBLISHED

SETTINGS: dict[str, dict[str, Any]] = {
    "A": dict(
        input="onehot", reset_after=False, layers=[100], batch_size=32, loss="cross-entropy",
        n_sample=0, logq=0, dropout_p_embed=0.1,
    ),
    "B": dict(
        input="shared", layers=[100], batch_size=32, loss="cross-entropy", n_sample=2048,
        sample_alpha=0.75, logq=1, dropout_p_embed=0,
    ),
    "C": dict(
        input="shared", layers=[224], batch_size=80, loss="bpr-max", elu_param=0.5, n_sample=2048,
        sample_alpha=0.5, learning_rate=0.05, momentum=0.4, dropout_p_embed=0.5,
        dropout_p_hidden=0.05,
    ),
}  # fmt: skip
SETTINGS = {name: PUBLISHED | setting for name, setting in SETTINGS.items()}
