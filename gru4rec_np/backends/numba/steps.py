"""`FusedSteps`: step.py's kernels on the arrays of a model, as a `Stepper`.

It covers the defaults and the published configurations: one recurrent layer and nothing after it,
bptt = 1, no L2 and no gradient clipping. It computes what network.py does, up to rounding and the
dropout masks, and is faster for four reasons: no Python between steps, no temporary arrays, an item
that was drawn several times is scored once and weighted, and threads. Each step is split into a
fixed number of parts, so results do not depend on the number of threads. They depend on the number
of parts, which is chosen by the hyperparameters and the machine's cores (see `parts_for`): the same
seed on the same machine gives the same bits.
"""

from __future__ import annotations

import os
from typing import Any

import numba
import numpy as np
from threadpoolctl import threadpool_info

from gru4rec_np.backends.base import Memory, Ops, Weights, coded, multiplications
from gru4rec_np.backends.numba.compiled import float_type, prepare
from gru4rec_np.backends.numba.kernels import apart, copy_apart, search
from gru4rec_np.backends.numba.parts import SIZES, index_arrays, own_arrays, shared_arrays
from gru4rec_np.backends.numba.step import PHASES
from gru4rec_np.backends.numba.threads import Team, work
from gru4rec_np.data.batches import Batches
from gru4rec_np.ops import scoring
from gru4rec_np.ops.cells import State
from gru4rec_np.ops.losses import LOSSES

MOST_PARTS = 8
WORTH_PARTS = 2**20  # multiplications of a step that gains by being split


def parts_for(hp: Any) -> int:
    """How many parts a step is split into: 1 for a small step, else a power of two up to 8.

    2 on machines with one or two cores, else the largest power of two up to the cores. The number
    of threads that Numba may use does not count, so it does not change the results.
    """
    if multiplications(hp) < WORTH_PARTS or hp.layers[0] < 2:
        return 1
    most = min(os.cpu_count() or 1, MOST_PARTS, hp.layers[0])
    return max(2, 1 << most.bit_length() - 1)


def _small() -> int:
    """The most multiplications of a matrix product that goes fastest in one piece.

    For processors with AVX-512, OpenBLAS has code for small products that is a fifth faster than
    its other. Elsewhere all should be as large as they can.
    """
    names = {lib.get("architecture") for lib in threadpool_info()}
    return 100**3 if names & {"SkylakeX", "Cooperlake", "SapphireRapids"} else 2**40


class FusedSteps:
    """Trains consecutive steps in compiled code: a `backends.Stepper`.

    The loop works on copies of the dense weights, split by part and transposed. `fetch` writes
    them back; it runs by itself after the last step of an epoch.

    Args:
        ops: the backend, which draws the negatives.
        hp: hyperparameters for which `backends.can_fuse_steps` holds.
        W, memory: weights and optimiser memory. log_support: (I,) for logQ.
    """

    def __init__(
        self, ops: Ops, hp: Any, W: Weights, memory: Memory, log_support: np.ndarray
    ) -> None:
        self.draw_negatives = ops.draw_negatives
        self.H, self.dtype = hp.layers[0], W["V_y"].dtype
        f = float_type(self.dtype)
        prepare([work, search, *(k for phase in PHASES for k in phase)], f)
        B, S, H, n_parts = hp.batch_size, hp.n_extra, self.H, parts_for(hp)
        self.onehot = hp.input == "onehot"
        X = 3 * H if self.onehot else len(W["W_x"])
        self.mark = apart((len(W["b_y"]), 2), np.int32)
        self.mark[:] = -1
        self.stamp = 0  # of the next step. Never the same twice, so mark needs no clearing.
        self.learning_rate = hp.learning_rate
        self.drops = hp.dropout_p_embed > 0 or hp.dropout_p_hidden > 0
        shared: dict[str, Any] = {
            "parts": n_parts, "H": H, "small": _small(), "onehot": self.onehot,
            "tied": hp.input == "shared", "reset_after": hp.reset_after, "skip": hp.skips,
            "fade": hp.fade_in_use, "cosine": hp.cosine_in_use, "tiny": scoring.TINY,
            "hidden_act": np.array(coded(hp.hidden_activation)),
            "final_act": np.array(coded(hp.final_activation)), "loss_kind": LOSSES.index(hp.loss),
            "bpreg": hp.bpreg, "smoothing": hp.smoothing, "corrects": hp.corrects,
            "sample_alpha": 1.0 if hp.corrects else hp.sample_alpha,
            "logq": hp.logq if hp.loss == "cross-entropy" else 0.0, "batch_size": hp.batch_size,
            "how": np.array([hp.adapt == "adagrad", hp.learning_rate, hp.momentum], np.float64),
            "dropout_embed": hp.dropout_p_embed,
            "dropout_hidden": hp.dropout_p_hidden, "mark": self.mark,
            "log_support": log_support.astype(self.dtype),
            "first_row": np.zeros(1, np.int64), "target": apart((B,), np.int64),
            "sizes": apart((n_parts, SIZES), np.int64),
        }  # fmt: skip
        shared |= self._floats(shared_arrays(B, S, H, X, n_parts))
        shared["e_mask"][:] = 1  # and so it stays where nothing is dropped
        shared["de_T"][:] = 0  # of a 1-of-N input each part writes its units' columns only
        # Where a step leaves the arrays of `State.h`.
        self.state = [shared["h_new"], shared["m_new"]] if hp.fade_in_use else [shared["h_new"]]
        self._copies: list[tuple[np.ndarray, np.ndarray]] = []  # (a part's copy, its original)
        parts = []
        for part in range(n_parts):
            lo, hi = part * H // n_parts, (part + 1) * H // n_parts
            own = shared | {"part": part, "lo": lo, "hi": hi}
            own |= self._floats(own_arrays(B, S, H, X, hi - lo))
            own |= {name: apart(n, np.int64) for name, n in index_arrays(B, S).items()}
            parts.append(own)
        for prefix, of in (("", "weights"), ("a_", "a"), ("v_", "v")):
            arrays = W if of == "weights" else {n: m[of] for n, m in memory.items() if of in m}
            tables = self._tables(arrays, hp.input)
            for own in parts:
                dense = self._dense(arrays, own["lo"], own["hi"])
                own |= {prefix + name: array for name, array in (tables | dense).items()}
        self.team = Team(PHASES, f, parts)

    def _floats(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
        return {name: apart(shape, self.dtype) for name, shape in shapes.items()}

    def _tables(self, arrays: dict[str, np.ndarray], input_: str) -> dict[str, np.ndarray]:
        """Weights with a row for each item, or one kind of the optimiser's memory of them.

        `table` is the one that the input reads; biases are a column.
        """
        none = np.empty((1, 0), self.dtype)
        if not arrays:
            return dict.fromkeys(("table", "V_y", "b_y"), none)
        biases = self._copied(arrays["b_y"][:, None])
        table = arrays[{"onehot": "W_x", "embedding": "E", "shared": "V_y"}[input_]]
        return {"table": table, "V_y": arrays["V_y"], "b_y": biases.reshape(-1, 1)}

    def _dense(self, arrays: dict[str, np.ndarray], lo: int, hi: int) -> dict[str, np.ndarray]:
        """The other weights, or their memory, of the units from lo to hi, transposed.

        They have a row for each unit's r, then for each z, then for each n; s, s_m have one gate.
        """

        def own(name: str, gates: slice, of: int = 3) -> np.ndarray:
            if name not in arrays or (name == "W_x" and self.onehot):
                return np.empty((1, 0), self.dtype)
            return self._copied(arrays[name].reshape(-1, of, self.H)[:, gates, lo:hi])

        rz, n, all_gates = slice(2), slice(2, 3), slice(3)
        return {
            "W_x": own("W_x", all_gates), "U_rz": own("U0", rz), "U_n": own("U0", n),
            "b": own("b0", all_gates), "c": own("c0", all_gates), "s": own("s", all_gates, 1),
            "s_m": own("s_m", all_gates, 1),
        }  # fmt: skip

    def _copied(self, whole: np.ndarray) -> np.ndarray:
        """A copy of a weight (n, ...), as (rest, n), that `fetch` writes back."""
        self._copies.append((copy_apart(whole.reshape(len(whole), -1).T), whole))
        return self._copies[-1][0]

    def fetch(self) -> None:
        """As `Stepper.fetch`."""
        for own, whole in self._copies:
            whole[:] = own.T.reshape(whole.shape)

    def __call__(
        self,
        batches: Batches,
        steps: range,
        samples: np.ndarray,
        state: State,
        rng: np.random.Generator,
        rates: np.ndarray | None = None,
    ) -> tuple[np.ndarray, State]:
        """As `Stepper.__call__`."""
        H, lanes = self.H, batches.lanes[steps.start : steps.stop]
        if self.stamp + len(steps) > np.iinfo(self.mark.dtype).max:
            self.mark[:], self.stamp = -1, 0
        before = len(state.h[0])
        for own, array in zip(self.state, state.h, strict=True):
            own[: before * H].reshape(H, before)[:] = array.T
        now = {
            name: getattr(batches, name)[steps.start : steps.stop]
            for name in ("x", "y", "lanes", "reset", "keep")
        }
        now |= {"before": np.append(before, lanes[:-1]), "samples": samples, "stamp": self.stamp}
        # Drawn only where needed, so that without dropout all backends draw the same negatives.
        now["seed"] = int(rng.integers(2**32)) if self.drops else 0
        now["rates"] = np.full(len(steps), self.learning_rate) if rates is None else rates
        now["losses"] = losses = np.empty(len(steps))
        self.team.run(len(steps), now, numba.get_num_threads())
        self.stamp += len(steps)
        if steps.stop == len(batches):
            self.fetch()
        n = lanes[-1]
        h = [np.ascontiguousarray(own[: n * H].reshape(H, n).T) for own in self.state]
        return losses, state._replace(h=h, history=state.history[:n])
