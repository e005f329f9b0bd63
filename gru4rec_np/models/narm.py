"""NARM: a GRU over a session's clicks, and attention over all of its hidden states.

Li et al., "Neural Attentive Session-based Recommendation" (CIKM 2017, arXiv 1711.04725), forward
and backward written by hand. Read it from top to bottom: sessions side by side, the network with
its loss, the model. The GRU over whole sessions and the attention are in ops/encoders.py, which
also says what `there` (T, B) is and in which order the E events of a batch are stored.

Weights (I items, X = embedding, H = hidden units):
    emb     (I, X)      embedding of each item, for the input and for the scores
    W_x     (X, 3H), U (H, 3H), b (3H,)   the GRU, see cells.gru
    A1, A2  (H, H), v (H,)                the attention
    B       (X, 2H)     score_k = emb_k B c
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike

from gru4rec_np.backends import Memory, Ops, Weights, one_blas_thread
from gru4rec_np.data.batches import draw_negatives, guide_table, negative_distribution
from gru4rec_np.data.sessions import Sessions
from gru4rec_np.data.tables import as_sessions
from gru4rec_np.errors import InputError
from gru4rec_np.models import going_on
from gru4rec_np.models.base import by_length
from gru4rec_np.models.checked import WIDEST, Checked, declare, flag, number, whole
from gru4rec_np.models.network import Gradients, drop, dropout_mask
from gru4rec_np.models.neural import Network, highest_loss, history_row, progress
from gru4rec_np.ops.encoders import attend
from gru4rec_np.ops.optim import adam_waits, init_memory
from gru4rec_np.ops.scoring import expected_columns

LONGEST = 200  # events of a session in one piece, see `pieces`
EVAL_PIECES = 256  # pieces to evaluate side by side
# The largest numbers of cases and of scores in one call of the loss.
LOSS_CASES, LOSS_SCORES = 512, 2**22
PLAIN = Ops()
LOSS_IS_CHECKED: Any = {"over": "ignore", "invalid": "ignore", "divide": "ignore"}

# The values of the paper where they differ from the defaults.
PAPER = {
    "embedding": 50,
    "normalise": False,
    "learning_rate": 1e-3,
    "decay": False,
    "dropout_p_embed": 0.25,
}

# --- sessions side by side ------------------------------------------------------------------------


def pieces(n: np.ndarray, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut sessions into pieces of at most LONGEST events, so that cost grows linearly with length.

    Each piece starts `new` events after the one before, and from state 0. Training uses disjoint
    pieces, new = LONGEST. Evaluation uses new = LONGEST / 2 and, except in a session's first piece,
    only the outputs of the last `new` events. Each output then depends on all events so far, up to
    LONGEST of them; in longer sessions on the last LONGEST / 2 or more.

    Args:
        n: (sessions,) events of each, >= 1. new: events.

    Returns:
        for each piece: its session, its first event in that session, and its number of events.
    """
    count = 1 + np.maximum(0, -(-(n - LONGEST) // new))
    session = np.repeat(np.arange(len(n)), count)
    first = new * (np.arange(len(session)) - np.repeat(np.cumsum(count) - count, count))
    return session, first, np.minimum(n[session] - first, LONGEST)


def side_by_side(first: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Arrange pieces of a log as a batch.

    Args:
        first: (B,) the first event of each piece in the log. n: (B,) its events, >= 1.

    Returns:
        events (E,): the log's events, step after step, the longest piece first; there (T, B).
    """
    order = np.argsort(-n, kind="stable")
    first, n = first[order], n[order]
    t = np.arange(n.max(initial=0))[:, None]
    there = t < n
    return (first + t)[there], there


# --- hyperparameters ------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class NARMHyperparameters(Checked):
    """The hyperparameters of NARM."""

    fixed: ClassVar = ("embedding", "hidden", "normalise")

    embedding: int = declare(100, "width of the items' embedding", whole(1, WIDEST))
    hidden: int = declare(100, "units of the GRU", whole(1, WIDEST))
    normalise: bool = declare(True, "the attention's weights are a softmax", flag)
    n_sample: int = declare(
        0, "negatives a step, shared by its cases, besides their targets; 0: all items", whole(0)
    )
    sample_alpha: float = declare(0.5, "they are drawn by support^sample_alpha", number(0))
    batch_size: int = declare(64, "sessions a step", whole(1))
    n_epochs: int = declare(8, "passes over the training sessions", whole(1))
    learning_rate: float = declare(5e-3, "step size of Adam", number(0, above=True))
    decay: bool = declare(True, "it falls to 0 in a straight line over all updates", flag)
    dropout_p_embed: float = declare(0.5, "share of the input embedding dropped", number(0, 1))
    dropout_p_context: float = declare(0.5, "share of c dropped", number(0, 1))
    grad_cap: float = declare(0.0, "largest norm of a step's gradient; 0: no limit", number(0))
    seed: int = declare(0, "seed of everything random", whole(0, np.inf))


# --- the network and its loss ---------------------------------------------------------------------


def shapes(hp: NARMHyperparameters, n_items: int) -> dict[str, tuple[int, ...]]:
    """The shape of each weight, by name."""
    X, H = hp.embedding, hp.hidden
    return {
        "emb": (n_items, X),
        "W_x": (X, 3 * H),
        "U": (H, 3 * H),
        "b": (3 * H,),
        "A1": (H, H),
        "A2": (H, H),
        "v": (H,),
        "B": (X, 2 * H),
    }


def init_weights(
    hp: NARMHyperparameters, n_items: int, rng: np.random.Generator, dtype: DTypeLike = np.float32
) -> Weights:
    """New weights: each gate's block uniform in ±sqrt(6 / (rows + columns)), biases 0."""

    def uniform(rows: int, columns: int) -> np.ndarray:
        scale = np.sqrt(6 / (rows + columns))
        return rng.uniform(-scale, scale, (rows, columns)).astype(dtype)

    X, H = hp.embedding, hp.hidden
    return {
        "emb": uniform(n_items, X),
        "W_x": np.hstack([uniform(X, H) for _ in range(3)]),
        "U": np.hstack([uniform(H, H) for _ in range(3)]),
        "b": np.zeros(3 * H, dtype),
        "A1": uniform(H, H),
        "A2": uniform(H, H),
        "v": uniform(H, 1)[:, 0],
        "B": uniform(X, 2 * H),
    }


def encode(
    W: Weights,
    hp: NARMHyperparameters,
    ops: Ops,
    x: np.ndarray,
    there: np.ndarray,
    rng: np.random.Generator | None = None,
) -> tuple[np.ndarray, tuple]:
    """The vector that scores the next item after each event: B c, c = [c_g | c_l], c_g = h_t.

    Args:
        x: (E,) items. there: (T, B). rng: draws the dropout masks; None for no dropout.

    Returns:
        (E, X), and the cache of `encode_backward`.
    """
    e = W["emb"][x]
    mask_e = dropout_mask(rng, e, hp.dropout_p_embed)
    e = drop(e, mask_e)
    h, steps = ops.unroll(e @ W["W_x"], there, W["U"], W["b"])
    c_l, looks = ops.local(h, there, W["A1"], W["A2"], W["v"], hp.normalise)
    c = np.hstack([h, c_l])
    mask_c = dropout_mask(rng, c, hp.dropout_p_context)
    c = drop(c, mask_c)
    return c @ W["B"].T, (x, there, e, mask_e, steps, looks, c, mask_c)


def encode_backward(
    dout: np.ndarray, cache: tuple, W: Weights, hp: NARMHyperparameters, ops: Ops, g: Gradients
) -> None:
    """Gradients of `encode`, added into g: dout (E, X)."""
    x, there, e, mask_e, steps, looks, c, mask_c = cache
    g.add("B", dout.T @ c)
    dc = drop(dout @ W["B"], mask_c)
    dh, *dlocal = ops.local_backward(
        dc[:, hp.hidden :], looks, there, W["A1"], W["A2"], W["v"], hp.normalise
    )
    for name, gradient in zip(("A1", "A2", "v"), dlocal, strict=True):
        g.add(name, gradient)
    dxW, dU, db = ops.unroll_backward(dh + dc[:, : hp.hidden], steps, there, W["U"])
    g.add("U", dU)
    g.add("b", db)
    g.add("W_x", e.T @ dxW)
    g.add_rows("emb", x, drop(dxW @ W["W_x"].T, mask_e))


def decode(
    out: np.ndarray,
    emb: np.ndarray,
    y: np.ndarray,
    samples: np.ndarray | None,
    chances: np.ndarray,
    ops: Ops,
    g: Gradients,
    n_cases: int | None = None,
) -> tuple[float, np.ndarray]:
    """The scores emb_k·out, their mean cross-entropy over the cases, and its gradient.

    At most LOSS_CASES cases at a time. With samples, the sum over all items, in the softmax of a
    case, is estimated without bias from the other targets of its part and the samples: an item that
    is among them n times, where c times are expected, counts n / c times. The case's own target is
    not drawn and counts once (Khrylchenko et al. 2025, arXiv 2507.09331).

    Args:
        out: (E, X) from `encode`. y: (E,) targets. samples: (S,) items; None to score all items.
        chances: (2, I) each item's probability as a case's target, and as a sample.
        g: the gradient of emb is added to it.
        n_cases: what the sum is divided by; None for E.

    Returns:
        loss, dout (E, X).
    """
    total, dout = 0.0, np.empty_like(out)
    n_cases = n_cases or len(y)
    columns = len(emb) if samples is None else LOSS_CASES + len(samples)
    size = max(1, min(LOSS_CASES, LOSS_SCORES // columns))
    share = out / n_cases  # instead of dr, which is wider
    for first in range(0, len(y), size):
        part = slice(first, first + size)
        if samples is None:
            V = emb
            losses, dr = ops.softmax_loss(out[part] @ V.T, y[part])
            g.add("emb", dr.T @ share[part])
        else:
            n = len(y[part])
            items, column, count = np.unique(
                np.concatenate([y[part], samples]), return_inverse=True, return_counts=True
            )
            own = np.arange(n), column[:n]
            expected = expected_columns(chances[:, items], n - 1, len(samples))
            log_weight = np.log(count / expected).astype(emb.dtype)
            V = emb[items]
            r = out[part] @ V.T
            of_targets = r[own]
            r += log_weight
            r[own] = of_targets
            losses, dr = ops.softmax_loss(r, column[:n])
            g.add_rows("emb", items, dr.T @ share[part])
        total += float(losses.sum())
        np.matmul(dr, V, out=dout[part])
    dout /= n_cases
    return total / n_cases, dout


def loss_and_gradients(
    W: Weights,
    hp: NARMHyperparameters,
    ops: Ops,
    x: np.ndarray,
    y: np.ndarray,
    there: np.ndarray,
    samples: np.ndarray | None,
    chances: np.ndarray,
    rng: np.random.Generator | None = None,
    n_cases: int | None = None,
) -> tuple[float, Gradients]:
    """The mean loss of a batch over its E cases, and the gradient of each weight.

    Args:
        x, y: (E,) items, and the items that follow them. there: (T, B). n_cases: of the whole
            batch, if this is a part of it. For the others see `encode` and `decode`.

    Returns:
        loss, and Gradients; those of emb are summed over its uses as input and output.
    """
    g = Gradients()
    out, cache = encode(W, hp, ops, x, there, rng)
    loss, dout = decode(out, W["emb"], y, samples, chances, ops, g, n_cases)
    encode_backward(dout, cache, W, hp, ops, g)
    g.sum_rows()
    return loss, g


# --- the model ------------------------------------------------------------------------------------


class NARM(Network):
    """Neural Attentive Session-based Recommendation, with the interface of GRU4Rec.

        model = NARM().fit(train)
        model.evaluate(test, k=(5, 20))            {"recall@5": ..., ...}
        model.recommend(["a12", "b7"], k=20)       [(item, score), ...]
        model.attention(["a12", "b7"])             the weight of each click

    The arguments are the fields of `NARMHyperparameters`, and `backend`, see `backends.load`. The
    defaults were the best of a few on the last day of RSC15's first 100,000 clicks, without their
    test set. `NARM(**PAPER)` has those of the paper. Sessions longer than LONGEST events are cut,
    see `pieces`.
    """

    name = "NARM"
    Hyperparameters = NARMHyperparameters
    hp: NARMHyperparameters

    def _shapes(self, n_items: int) -> dict[str, tuple[int, ...]]:
        return shapes(self.hp, n_items)

    # --- training ---------------------------------------------------------------------------------

    def fit(
        self,
        train: Any,
        on_epoch: Callable[[dict[str, float]], None] | None = None,
        verbose: bool | None = None,
    ) -> NARM:
        """Train from new weights, with Adam, on batches of whole sessions in random order.

        Args:
            train: `Sessions`, or a frame as for GRU4Rec.fit.
            on_epoch: called after each epoch with its dict of `history`.
            verbose: show a progress bar: True, False, or None for only on a terminal or in a
                notebook.

        Returns:
            self.

        Raises:
            InputError: nothing to train on, or the loss is NaN or exploded; the model stays what it
                was.
        """
        train = as_sessions(train)
        train = train.keep_sessions(train.lengths >= 2).compact()
        with self._unchanged_after(InputError):
            return self._train(train, train.support, None, on_epoch, verbose)

    def fit_more(
        self,
        new: Any,
        keep_counts: bool = False,
        on_epoch: Callable[[dict[str, float]], None] | None = None,
        verbose: bool | None = None,
    ) -> NARM:
        """Go on with new sessions: weights and Adam's memory continue, items are added.

        A new item starts from the mean of the items that it shares sessions with, see
        `going_on.start_from`. A model from a file has no memory, which then starts fresh. With
        `decay` the learning rate falls from its first value again. `history` and `losses` are
        those of this training alone. With n_sample, a new item's first steps are up to 3 times too
        large: Adam's bias correction there counts the steps of the trainings before.

        Args:
            new: as `train` of `fit`. Items that the model does not know join `item_ids`, at its
                end.
            keep_counts: with n_sample, negatives are drawn by the events of the trainings before,
                too; else by those of the new sessions alone.
            on_epoch, verbose: as in `fit`.

        Returns:
            self.

        Raises:
            InputError: as in `fit`; the model stays what it was. Or the model is not trained, has
                no counts to keep, or ids of new items are of another type.
        """
        new, support = self._more(new, keep_counts)
        with self._unchanged_after(InputError):
            return self._train(new, support, (self.weights, self.memory), on_epoch, verbose)

    @np.errstate(**LOSS_IS_CHECKED)
    @one_blas_thread
    def _train(
        self,
        train: Sessions,
        support: np.ndarray,
        old: tuple[Weights, Memory | None] | None,
        on_epoch: Callable[[dict[str, float]], None] | None,
        verbose: bool | None,
    ) -> NARM:
        """Train on sessions of 2 events or more.

        Args:
            support: (I,) events of each item, which negatives are drawn by.
            old: weights and memory to go on from, see `going_on.start_from`; None for fresh ones.
        """
        if train.n_sessions == 0:
            raise InputError("nothing to train on: no session with 2 events or more")
        hp, rng = self.hp, np.random.default_rng(self.hp.seed)
        self._set_catalogue(train.item_ids)
        self.support, self.history = support, []
        self.weights = init_weights(hp, train.n_items, rng)
        self.memory = {name: init_memory(p, "adam", 0) for name, p in self.weights.items()}
        if old is not None:
            going_on.start_from(self.weights, self.memory, *old, train)
        negatives = negative_distribution(support, hp.sample_alpha)
        chances = np.diff([negative_distribution(train.support, 1), negatives], prepend=0)
        guide = guide_table(negatives)
        session, first, n = pieces(train.lengths - 1, LONGEST)
        first += train.offsets[session]
        n_updates, total = hp.n_epochs * -(-len(first) // hp.batch_size), int(n.sum())
        losses: list[float] = []
        n_parts = self.ops.parts
        rngs = rng.spawn(n_parts)  # one for the dropout of each part
        # With samples, the rows of emb that a step does not use wait, see optim.adam_waits.
        emb, of_emb = self.weights["emb"], self.memory["emb"]
        step = int(self.memory["b"]["t"].max())
        moved = np.zeros(step + n_updates + 1)

        def train_part(part: tuple) -> tuple[float, Gradients]:
            events, there, samples, rng, n_cases = part
            with np.errstate(**LOSS_IS_CHECKED):  # of this thread
                return loss_and_gradients(
                    self.weights, hp, self.ops, train.items[events], train.items[events + 1],
                    there, samples, chances, rng, n_cases,
                )  # fmt: skip

        with progress(hp.n_epochs, verbose) as show:
            self.ops.prepare(np.float32)
            for epoch in range(1, hp.n_epochs + 1):
                began, total_loss, done = time.perf_counter(), 0.0, 0
                order = rng.permutation(len(first))
                for batch in np.split(order, range(hp.batch_size, len(order), hp.batch_size)):
                    n_cases = int(n[batch].sum())
                    samples = None
                    if hp.n_sample:
                        samples = draw_negatives(rng, negatives, (hp.n_sample,), guide)
                    batch = batch[np.argsort(-n[batch], kind="stable")]
                    parts = [
                        (*side_by_side(first[own], n[own]), samples, rngs[i], n_cases)
                        for i in range(min(n_parts, len(batch)))
                        for own in [batch[i::n_parts]]
                    ]
                    if samples is not None:
                        used = [train.items[events + i] for events, *_ in parts for i in (0, 1)]
                        rows = np.unique(np.concatenate([samples, *used]))
                        self.ops.adam_catch_up(emb, of_emb, rows, step, moved)
                    (loss, g), *others = self.ops.each(train_part, parts)
                    for other_loss, other in others:
                        loss += other_loss
                        g.merge(other)
                    if not loss <= highest_loss(losses[0] if losses else 1.0):
                        raise InputError(
                            f"the loss is {loss} in epoch {epoch}: training diverged; try a lower "
                            f"learning_rate than {hp.learning_rate:g} or a grad_cap of 1"
                        )
                    rate = hp.learning_rate
                    if hp.decay:
                        rate *= 1 - len(losses) / n_updates
                    self._update(g, rate)
                    step += 1
                    adam_waits(moved, step, rate)
                    losses.append(loss)
                    total_loss += loss * n_cases
                    done += n_cases
                    show(epoch, done, total, total_loss / done)
                if hp.n_sample:
                    self.ops.adam_catch_up(emb, of_emb, np.arange(len(emb)), step, moved)
                seconds = time.perf_counter() - began
                self.history.append(history_row(epoch, total_loss, total, seconds))
                if on_epoch:
                    on_epoch(self.history[-1])
        self.losses = np.array(losses)
        return self

    def _update(self, g: Gradients, rate: float) -> None:
        """One step of Adam, in place. Only the rows of emb that have a gradient change."""
        memory = self.memory
        assert memory is not None  # since _train
        g.clip(self.hp.grad_cap)

        def update(name: str) -> None:
            rows, gradient = g.rows[name] if name in g.rows else (..., g.dense[name])
            self.ops.update(self.weights[name], gradient, memory[name], "adam", rate, 0.0, rows)

        self.ops.each(update, self.weights)

    # --- evaluation and recommendation ------------------------------------------------------------

    def _last_vectors(self, test: Sessions) -> np.ndarray:
        session, start, n = pieces(test.lengths - 1, LONGEST // 2)
        first = test.offsets[session] + start
        # Where two pieces overlap, the outputs of the first one have seen more events.
        answers_from = first + np.where(start > 0, LONGEST - LONGEST // 2, 0)
        at_event = np.empty((test.n_events, self.hp.embedding), self.weights["emb"].dtype)
        for block in by_length(n, EVAL_PIECES):
            events, there = side_by_side(first[block], n[block])
            out, _ = encode(self.weights, self.hp, self.ops, test.items[events], there)
            answers = events >= np.broadcast_to(answers_from[block], there.shape)[there]
            at_event[events[answers]] = out[answers]
        return at_event[test.cases]

    def _output(self) -> tuple[np.ndarray, np.ndarray]:
        emb = self.weights["emb"]
        return emb, np.zeros(len(emb), emb.dtype)

    def _vectors(self, sessions: Sessions, which: np.ndarray) -> np.ndarray:
        # Of a long session its last piece, as _encode_last takes it.
        session, start, n = pieces(sessions.lengths[which], LONGEST // 2)
        last = np.flatnonzero(np.append(np.diff(session) > 0, True))
        events, there = side_by_side(sessions.offsets[which] + start[last], n[last])
        out, _ = encode(self.weights, self.hp, self.ops, sessions.items[events], there)
        at = np.empty(sessions.n_events, np.int64)
        at[events] = np.arange(len(events))
        return out[at[sessions.offsets[which + 1] - 1]]

    def _encode_last(self, items: np.ndarray, ops: Ops) -> tuple[int, np.ndarray, tuple]:
        """The last piece of a session of items (n,): its first event, B c (E, X), and the cache."""
        first = int(pieces(np.array([len(items)]), LONGEST // 2)[1][-1])
        x = items[first:]
        there = np.ones((len(x), 1), bool)
        return first, *encode(self.weights, self.hp, ops, x, there)

    @one_blas_thread
    def _scores_after(self, items: np.ndarray) -> np.ndarray:
        _, out, _ = self._encode_last(items, self.ops)
        return self.weights["emb"] @ out[-1]

    @one_blas_thread
    def attention(self, session: Sequence[Any]) -> np.ndarray:
        """The weights α of the local encoder after the last click.

        Args:
            session: item ids, oldest first.

        Returns:
            (len(session),) floats, 0 for an unknown item or one too far back. With `normalise` they
            are >= 0 and sum to 1.

        Raises:
            InputError: the session is not a list of items, or the catalogue has none of them.
        """
        places, items = self._known(session)
        first, _, cache = self._encode_last(items, PLAIN)
        _, q, keys, states = cache[5]
        _, (_, a) = attend(q[-1:], keys, states, self.weights["v"], self.hp.normalise)
        weights = np.zeros(len(session), a.dtype)
        weights[places[first:]] = a[:, 0]
        return weights
