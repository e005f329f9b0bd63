"""What do denormal numbers cost, the float32 numbers under 1.2e-38?

Settings B and C of speed.py twice: as they are, and with scores so far apart that most of the
softmax's weights are denormal. One item in fifty starts with a bias of SPREAD, so that a step's
best score is about that, and e^(score - best) of the others about e^-SPREAD:

    python benchmarks/denormals.py [--train FILE] [--rounds 4]

Needs the `bench` extra.
"""

import argparse

import numpy as np
import speed
import torch
from common import in_turns, machine, name_of, table
from torch import Tensor
from torch_peer import PlainPeer

from gru4rec_np import GRU4Rec, Sessions
from gru4rec_np.backends import one_blas_thread
from gru4rec_np.data.batches import session_parallel
from gru4rec_np.models import network

# e^-SPREAD is 3e-42, in the middle of float32's denormal numbers, 1e-45 to 1.2e-38.
SPREAD = 95.5
# Steps too small to train the spread away; without logQ, which would shift each score by its item's
# frequency.
SETTINGS = {
    "cross-entropy": {**speed.SETTINGS["B"], "logq": 0, "learning_rate": 1e-6},
    "BPR-max": {**speed.SETTINGS["C"], "learning_rate": 1e-6},
}
STEPS = 50


class WrittenOut(PlainPeer):
    """Its softmax as an exponential, a mask, a sum and a quotient, as the reference has it."""

    def loss_of_columns(self, r: Tensor, items: Tensor) -> Tensor:
        """As Peer.loss_of_columns."""
        B = torch.arange(len(r))
        e = torch.exp(r - r.amax(dim=1, keepdim=True))
        if self.hp.loss == "cross-entropy":
            return -torch.log(e[B, B] / e.sum(dim=1) + 1e-24).sum()
        e = e * (self.no_target[: len(r), : len(items)] == 0)
        s = e / e.sum(dim=1, keepdim=True)
        above = (s * torch.sigmoid(r.diagonal()[:, None] - r)).sum(dim=1)
        return (self.hp.bpreg * (s * r * r).sum(dim=1) - torch.log(above + 1e-24)).sum()


def weights(hp: GRU4Rec, n_items: int, spread: float) -> network.Weights:
    """Initial weights, one item in fifty with a bias of `spread`."""
    W = network.init_weights(hp, n_items, np.random.default_rng(0))
    W["b_y"][np.random.default_rng(1).random(n_items) < 0.02] = spread
    return W


@one_blas_thread
def denormal_share(train: Sessions, W: network.Weights) -> float:
    """The share of softmax weights that are denormal, for small random states."""
    rng = np.random.default_rng(0)
    items = rng.choice(train.n_items, 2048, p=train.support / train.support.sum())
    h = rng.uniform(-0.1, 0.1, (32, W["V_y"].shape[1])).astype(np.float32)
    r = h @ W["V_y"][items].T + W["b_y"][items]
    e = np.exp(r - r.max(axis=1, keepdims=True))
    return float(((e > 0) & (e < np.finfo(np.float32).tiny)).mean())


def contenders(loss: str, train: Sessions, spread: float) -> dict:
    """Name to something to train, all on one thread."""
    hp = GRU4Rec(**SETTINGS[loss], backend="numpy")
    batches = session_parallel(train, hp.batch_size)
    W = weights(hp, train.n_items, spread)
    found = {}
    for backend in ("numpy", "numba"):
        own = {name: array.copy() for name, array in W.items()}
        model = GRU4Rec(**SETTINGS[loss], backend=backend)
        found[backend] = speed.Ours(model, own, train, batches)
    for name, peer_of in {**speed.PEERS, "PyTorch, softmax written out": WrittenOut}.items():
        found[name] = peer_of(hp, W, train.support)
        found[name].begin(batches)
    return found


def measure(train: Sessions, rounds: int) -> str:
    """A Markdown table."""
    calls = {}
    for loss, setting in SETTINGS.items():
        lanes = session_parallel(train, setting["batch_size"]).lanes
        full = max(1, int(np.count_nonzero(lanes == setting["batch_size"])) // STEPS)
        for spread in (0, SPREAD):
            for name, contender in contenders(loss, train, spread).items():

                def call(r: int, contender=contender, full=full) -> float:
                    return contender.train(range(r % full * STEPS, (r % full + 1) * STEPS))

                calls[name, loss, spread] = 1, call
    seconds, losses = in_turns(calls, rounds)
    if not np.isfinite(list(losses.values())).all():
        raise SystemExit("error: a loss is not finite")
    rows = []
    for name in dict.fromkeys(name for name, _, _ in calls):
        row = [name_of(name, 1)]
        for loss in SETTINGS:
            usual, spread = (1000 * seconds[name, loss, s].min() / STEPS for s in (0, SPREAD))
            row += [f"{usual:.2f}", f"{spread:.2f}", f"{spread / usual:.2f}"]
        rows.append(row)
    head = ["ms per step"]
    for loss in SETTINGS:
        hp = GRU4Rec(**SETTINGS[loss], backend="numpy")
        shares = [denormal_share(train, weights(hp, train.n_items, s)) for s in (0, SPREAD)]
        head += [f"{loss}, {100 * share:.0f} % denormal" for share in shares] + ["ratio"]
    return table(head, rows)


def main() -> None:
    """Print the table."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--train", help="a table of sessions; the simulated shop if left out")
    p.add_argument("--rounds", type=int, default=4)
    args = p.parse_args()
    print(machine(), end="\n\n")
    print(measure(speed.training_log(args.train), args.rounds))


if __name__ == "__main__":
    main()
