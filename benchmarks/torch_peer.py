"""The same GRU4Rec in PyTorch: what `speed.py` compares this package with.

One recurrent layer, cross-entropy or BPR-max, gradients by autograd; on PyTorch's default device.

PlainPeer is how it is usually written: tables are `nn.Embedding(sparse=True)`, each drawn item is
gathered and scored, and a sparse Adagrad sums the gradients of equal rows.

Peer is as fast as we could make it: each choice is the fastest of those we timed on a CPU. Most of
all it borrows from our compiled loop: a step gathers the distinct rows that it uses of each table,
scores those, and repeats columns of scores where an item was drawn twice; so a row's gradient comes
out summed, and neither a sparse tensor nor a walk over the table is needed.

Both are eager. Peer can also be compiled, captured as a CUDA graph, or both. Then its shapes must
not depend on the values, so the distinct rows are padded to as many as were drawn.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gru4rec_np.data.batches import Batches, negative_distribution
from gru4rec_np.models.hyperparameters import Hyperparameters
from gru4rec_np.ops.optim import EPSILON

CHUNK = 64  # steps whose negatives are drawn at once, as in GRU4Rec.fit
WARM_UP = 3  # steps before one is captured as a graph


class PaperGRUCell(nn.Module):
    """The GRU of `cells.gru`, its reset gate before the product, over an input of rows of W_x."""

    def __init__(self, U: Tensor, b: Tensor) -> None:
        super().__init__()
        self.H = len(U)
        self.U_rz = nn.Parameter(U[:, : 2 * self.H].contiguous())
        self.U_n = nn.Parameter(U[:, 2 * self.H :].contiguous())
        self.b = nn.Parameter(b)

    def forward(self, xW: Tensor, h: Tensor) -> Tensor:
        """(B, 3H) and (B, H) to the new state (B, H)."""
        x_rz, x_n = (xW + self.b).split([2 * self.H, self.H], dim=1)
        r, z = torch.addmm(x_rz, h, self.U_rz).sigmoid().chunk(2, dim=1)
        return torch.lerp(h, torch.addmm(x_n, r * h, self.U_n).tanh(), z)


def torch_gru_cell(W: dict[str, Tensor]) -> nn.GRUCell:
    """PyTorch's cell with our weights. There z weighs the old state: its part changes sign."""
    X, H = W["W_x"].shape[0], W["U0"].shape[0]
    cell = nn.GRUCell(X, H, dtype=W["U0"].dtype)
    sign = torch.tensor([1, -1, 1]).repeat_interleave(H)
    ours = {"weight_ih": "W_x", "weight_hh": "U0", "bias_ih": "b0", "bias_hh": "c0"}
    cell.load_state_dict({theirs: (W[name] * sign).t() for theirs, name in ours.items()})
    return cell


def index(array: np.ndarray) -> Tensor:
    return torch.tensor(array.astype(np.int64))


def gather(tables: list[Tensor], rows: list[Tensor]) -> list[Tensor]:
    return [table.index_select(0, at) for table, at in zip(tables, rows, strict=True)]


def scatter(tables: list[Tensor], rows: list[Tensor], values: list[Tensor]) -> None:
    for table, at, value in zip(tables, rows, values, strict=True):
        table.index_copy_(0, at, value)


class Peer:
    """GRU4Rec(layers=[H], input=onehot or shared, adapt=adagrad, bptt=1) in PyTorch.

    Args:
        hp: the hyperparameters. reset_after with input=shared, not with onehot.
        weights: what to start from, with the names and layout of network.py; copied.
        support: (I,) training events of each item.
        compiled: a step is one function through torch.compile; before PyTorch 2.13 three.
        graph: a step is replayed as a CUDA graph, after WARM_UP steps without it.

    With `compiled` or `graph` the shapes and addresses of a step are static: see `static_step`.
    """

    def __init__(
        self,
        hp: Hyperparameters,
        weights: dict,
        support: np.ndarray,
        compiled: bool = False,
        graph: bool = False,
    ) -> None:
        self.hp, self.shared, self.graph = hp, hp.input == "shared", graph
        self.static = compiled or graph
        if hp.reset_after != self.shared or hp.input not in ("shared", "onehot"):
            raise ValueError("input must be shared, or onehot with reset_after=False")
        if hp.skips or hp.cosine_in_use:
            raise ValueError("skip and cosine must be off: see PUBLISHED in hyperparameters.py")
        if (hp.loss, hp.final_activation[0]) not in (
            ("cross-entropy", "linear"),
            ("bpr-max", "elu"),
        ):
            raise ValueError("loss must be cross-entropy, or bpr-max with elu_param > 0")
        W = {name: torch.tensor(array) for name, array in weights.items()}
        self.cell = torch_gru_cell(W) if self.shared else PaperGRUCell(W["U0"], W["b0"])
        self.dense = list(self.cell.parameters())
        # A spare row stands for "no row": its gradient is 0, so it never changes.
        tables = ["V_y", "b_y"] if self.shared else ["V_y", "b_y", "W_x"]
        self.tables = [torch.cat([W[name], torch.zeros_like(W[name][:1])]) for name in tables]
        self.spare = len(support)
        # Adagrad's sums of squares, and the velocities with momentum: a list for each of the two.
        memories = range(2 if hp.momentum else 1)
        self.dense_memory = [[torch.zeros_like(p).detach() for p in self.dense] for _ in memories]
        self.table_memory = [[torch.zeros_like(p) for p in self.tables] for _ in memories]
        self.log_support = torch.tensor(np.log(support)).to(W["V_y"].dtype)
        self.distribution = torch.tensor(negative_distribution(support, hp.sample_alpha))
        if compiled and torch.__version__ >= "2.13":
            torch._dynamo.config.trace_autograd_ops = True
            self.static_step = torch.compile(self.static_step, fullgraph=True, dynamic=False)
        elif compiled:  # before, autograd.grad cannot be inside: what is around it
            for name in ("places", "loss_of_leaves", "apply"):
                whole = torch.compile(getattr(self, name), fullgraph=True, dynamic=False)
                setattr(self, name, whole)

    def begin(self, batches: Batches) -> None:
        """Take in an epoch; states start at zero."""
        dtype, B = self.log_support.dtype, batches.x.shape[1]
        self.x, self.y = index(batches.x), index(batches.y)
        self.lanes, self.keep = batches.lanes.tolist(), torch.tensor(batches.keep)
        self.old = torch.tensor(~batches.reset).to(dtype)[:, :, None]
        self.h = torch.zeros(B, self.hp.layers[0], dtype=dtype)
        self.no_target = torch.zeros(B, B + self.hp.n_sample, dtype=dtype)
        self.no_target.fill_diagonal_(-torch.inf)
        # What a static step reads and writes: a chunk's operands and losses, and the step's number.
        rows = [a.new_zeros((CHUNK, *a.shape[1:])) for a in (self.x, self.y, self.old)]
        self.chunk = [*rows, self.x.new_zeros((CHUNK, self.hp.n_sample))]
        self.losses = torch.zeros(CHUNK, dtype=dtype)
        self.k = torch.zeros(1, dtype=torch.int64)
        self.replay, self.warm_up = None, WARM_UP

    def draw(self, shape: tuple[int, int]) -> Tensor:
        """Items ∝ support^sample_alpha."""
        drawn = torch.searchsorted(self.distribution, torch.rand(shape, dtype=torch.float64))
        return drawn.clamp_(max=len(self.distribution) - 1)

    def train(self, steps: range) -> float:
        """Train on these steps of the epoch: the sum of their events' losses."""
        loss = torch.zeros((), dtype=torch.float64)  # read once: a GPU would be waited for
        for first in range(steps.start, steps.stop, CHUNK):
            chunk = range(first, min(first + CHUNK, steps.stop))
            loss += self.train_chunk(chunk, self.draw((len(chunk), self.hp.n_sample))).sum()
        return loss.item()

    def train_chunk(self, steps: range, samples: Tensor) -> Tensor:
        """Train on at most CHUNK steps with the given negatives: each step's loss, as of `step`."""
        if not self.static:
            return torch.stack([self.step(*both) for both in zip(steps, samples, strict=True)])
        n = len(steps)
        if self.lanes[steps[-1]] < len(self.h):
            raise ValueError(f"step {steps[-1]} has fewer lanes: a static step needs all")
        for buffer, of in zip(self.chunk, (self.x, self.y, self.old), strict=False):
            buffer[:n] = of[steps.start : steps.stop]
        self.chunk[-1][:n] = samples
        self.k.zero_()
        for _ in steps:
            self.replay() if self.replay else self.capture() if self.graph else self.static_step()
        return self.losses[:n].clone()

    def static_step(self) -> None:
        """The next step of a chunk, on tensors whose shapes and addresses are always the same."""
        x, y, old, extra = (buffer.index_select(0, self.k)[0] for buffer in self.chunk)
        loss, h = self.update(x, torch.cat([y, extra]), self.h * old)
        self.h.copy_(h)
        self.losses.index_copy_(0, self.k, loss[None])
        self.k += 1

    def capture(self) -> None:
        """A static step without a graph; the last one of the warm-up is followed by the capture."""
        side, current = torch.cuda.Stream(), torch.cuda.current_stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            self.static_step()
        current.wait_stream(side)
        self.warm_up -= 1
        if not self.warm_up:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self.static_step()  # is recorded, does not run
            self.replay = graph.replay

    def step(self, t: int, extra: Tensor) -> Tensor:
        """One update with the given negatives (n_sample,): the sum of the lanes' losses before."""
        n = self.lanes[t]
        if n < len(self.h):
            self.h = self.h[self.keep[t, : len(self.h)]]
        items = torch.cat([self.y[t, :n], extra])
        loss, self.h = self.update(self.x[t, :n], items, self.h * self.old[t, :n])
        return loss

    def update(self, x: Tensor, items: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """One update, from inputs (B,), scored items (N,) and states: the loss, new states."""
        used, leaves, at_x, columns = self.places(x, items)
        leaves = [p.requires_grad_() for p in leaves]
        loss, h = self.loss_of_leaves(leaves, at_x, columns, items, h)
        gradients = torch.autograd.grad(loss / self.hp.batch_size, self.dense + leaves)
        with torch.no_grad():
            self.apply(used, [p.detach() for p in leaves], gradients)
        return loss.detach(), h.detach()

    def places(self, x: Tensor, items: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor, Tensor]:
        """The distinct rows of each table, their values, and where among them each use is."""
        if self.shared:
            rows, where = self.distinct(torch.cat([x, items]))
            at_x, columns = where[: len(x)], where[len(x) :]
            # A row that is only an input has no use of its bias: its velocity must not move that.
            scored = torch.zeros_like(rows, dtype=torch.bool).index_fill_(0, columns, True)
            used = [rows, rows.where(scored, self.spare)]
        else:
            (rows, columns), (rows_x, at_x) = self.distinct(items), self.distinct(x)
            used = [rows, rows, rows_x]
        return used, gather(self.tables, used), at_x, columns

    def loss_of_leaves(
        self, leaves: list[Tensor], at_x: Tensor, columns: Tensor, items: Tensor, h: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The sum of the lanes' losses, and the new states, from the rows that `places` found."""
        V, b, *others = leaves
        inputs = others[0] if others else V
        h, scores = self.forward(inputs.index_select(0, at_x), h, V, b)
        r = self.activate(scores).index_select(1, columns)  # lane b's target is column b
        return self.loss_of_columns(r, items), h

    def apply(self, used: list[Tensor], leaves: list[Tensor], gradients: list[Tensor]) -> None:
        """The update of all weights, in place."""
        parts = [gather(memory, used) for memory in self.table_memory]
        whole = zip(self.dense_memory, parts, strict=True)
        self.adagrad(self.dense + leaves, gradients, *(dense + part for dense, part in whole))
        scatter(self.tables, used, leaves)
        for memory, part in zip(self.table_memory, parts, strict=True):
            scatter(memory, used, part)

    def distinct(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """The distinct items, and where among them each is.

        Of a static step there are as many as `items`: the spare row fills the rest.
        """
        if not self.static:
            return torch.unique(items, return_inverse=True)
        ordered, order = items.sort()
        at = (ordered.diff(prepend=ordered[:1]) != 0).cumsum(0)
        rows = torch.full_like(items, self.spare).index_copy_(0, at, ordered)
        return rows, torch.empty_like(at).index_copy_(0, order, at)

    def forward(self, x: Tensor, h: Tensor, V: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """The new states, and the scores of the items with rows V and biases b."""
        h = self.cell(F.dropout(x, self.hp.dropout_p_embed), h)
        h = F.dropout(h, self.hp.dropout_p_hidden)
        return h, torch.addmm(b, h, V.T)

    def activate(self, scores: Tensor) -> Tensor:
        """The output activation."""
        kind, a = self.hp.final_activation
        return F.elu(scores, a) if kind == "elu" else scores

    def loss_of_columns(self, r: Tensor, items: Tensor) -> Tensor:
        """The sum of the lanes' losses, from activated scores r (B, N) of the items (N,)."""
        hp, B = self.hp, len(r)
        if hp.loss == "cross-entropy":
            if hp.logq:
                log_q = self.log_support.index_select(0, items)
                log_q[B:] *= hp.sample_alpha
                r = r - hp.logq * log_q
            return F.cross_entropy(r, torch.arange(B, device=r.device), reduction="sum")
        s = (r + self.no_target[:B, : len(items)]).softmax(dim=1)
        above = (s * torch.sigmoid(r.diagonal()[:, None] - r)).sum(dim=1)
        return (hp.bpreg * (s * r * r).sum(dim=1) - torch.log(above + 1e-24)).sum()

    @torch.no_grad()
    def adagrad(
        self, params: list[Tensor], g: list[Tensor], a: list[Tensor], v: list[Tensor] = ()
    ) -> None:
        """`optim.update` of all tensors at once, in place; g: gradients; a, v: memory."""
        torch._foreach_addcmul_(a, g, g)
        step = torch._foreach_add(a, EPSILON)
        torch._foreach_rsqrt_(step)
        torch._foreach_mul_(step, g)
        torch._foreach_mul_(step, -self.hp.learning_rate)
        if v:
            torch._foreach_mul_(v, self.hp.momentum)
            torch._foreach_add_(v, step)
        torch._foreach_add_(params, v or step)


class PlainPeer(Peer):
    """The same as Peer, written the usual way; see the module's text."""

    def __init__(self, hp: Hyperparameters, weights: dict, support: np.ndarray) -> None:
        super().__init__(hp, weights, support)
        self.embeddings = [
            nn.Embedding.from_pretrained(table.reshape(len(table), -1), freeze=False, sparse=True)
            for table in self.tables
        ]  # on the memory of self.tables
        self.optimiser = SparseAdagrad(
            [*self.dense, *(e.weight for e in self.embeddings)], hp.learning_rate, hp.momentum
        )

    def step(self, t: int, extra: Tensor) -> Tensor:
        """As Peer.step."""
        hp, n = self.hp, self.lanes[t]
        if n < len(self.h):
            self.h = self.h[self.keep[t, : len(self.h)]]
        x, items = self.x[t, :n], torch.cat([self.y[t, :n], extra])
        if self.shared:
            embedded, V = self.embeddings[0](torch.cat([x, items])).split([n, len(items)])
        else:
            embedded, V = self.embeddings[2](x), self.embeddings[0](items)
        b = self.embeddings[1](items).T
        h, scores = self.forward(embedded, self.h * self.old[t, :n], V, b)
        self.h = h.detach()
        loss = self.loss_of_columns(self.activate(scores), items)
        self.optimiser.zero_grad()
        (loss / hp.batch_size).backward()
        self.optimiser.step()
        return loss.detach()


class SparseAdagrad(torch.optim.Optimizer):
    """`optim.update` for dense and sparse gradients: Adagrad, with momentum on what it makes."""

    def __init__(self, params: list[Tensor], learning_rate: float, momentum: float) -> None:
        super().__init__(params, {"lr": learning_rate, "momentum": momentum})
        for p in params:
            self.state[p] = {"a": torch.zeros_like(p)}
            if momentum:
                self.state[p]["v"] = torch.zeros_like(p)

    @torch.no_grad()
    def step(self) -> None:
        """One update from the gradients."""
        (group,) = self.param_groups
        for p in group["params"]:
            a, v = self.state[p]["a"], self.state[p].get("v")
            if not p.grad.is_sparse:
                a.addcmul_(p.grad, p.grad)
                step = (p.grad / (a + EPSILON).sqrt_()).mul_(-group["lr"])
                p.add_(step if v is None else v.mul_(group["momentum"]).add_(step))
                continue
            grad = p.grad.coalesce()  # equal rows are summed
            rows, g = grad.indices()[0], grad.values()
            part = a.index_select(0, rows).addcmul_(g, g)
            a.index_copy_(0, rows, part)
            step = (g / part.add_(EPSILON).sqrt_()).mul_(-group["lr"])
            if v is not None:
                step.add_(v.index_select(0, rows), alpha=group["momentum"])
                v.index_copy_(0, rows, step)
            p.index_add_(0, rows, step)
