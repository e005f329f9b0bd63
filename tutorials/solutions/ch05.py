"""Solutions of notebook 5, mini-batches."""

from itertools import pairwise

import numpy as np

# exercise 5.1


def padding_share(steps, B):
    cells = sum(len(block) * block.max() for block in np.split(steps, range(B, len(steps), B)))
    return 1 - steps.sum() / cells


# exercise 5.2


def session_parallel(sessions, B):
    waiting = [session for session in sessions if len(session) >= 2]
    lanes = [(waiting.pop(0), 0) for _ in range(min(B, len(waiting)))]
    B = len(lanes)
    x, y, reset = [], [], []
    while len(lanes) >= 2:
        gone = [-1] * (B - len(lanes))
        x.append([session[at] for session, at in lanes] + gone)
        y.append([session[at + 1] for session, at in lanes] + gone)
        reset.append([at == 0 for _, at in lanes] + [False] * len(gone))
        after = []
        for session, at in lanes:
            if at + 2 < len(session):
                after.append((session, at + 1))
            elif waiting:
                after.append((waiting.pop(0), 0))
        lanes = after
    return np.array(x), np.array(y), np.array(reset)


# exercise 5.3


def questions(items, offsets):
    x, y = [], []
    for a, z in pairwise(offsets):
        x.extend(items[a : z - 1])
        y.extend(items[a + 1 : z])
    return np.array(x), np.array(y)


# exercise 5.4


def states(x, reset, W, U):
    h = np.zeros((x.shape[1], len(U)))
    out = []
    for t in range(len(x)):
        h = np.where(reset[t][:, None], 0, h)
        h = np.tanh(W[x[t]] + h @ U)
        out.append(h)
    return np.array(out)


# exercise 5.5


def enter_step(h, keep, reset):
    h = h[keep]
    h[reset] = 0
    return h


# exercise 5.6


def loss(h, V, target):
    scores = h @ V.T
    top = scores.max(axis=1, keepdims=True)
    log_p = scores - top - np.log(np.exp(scores - top).sum(axis=1, keepdims=True))
    return -log_p[np.arange(len(target)), target]


# exercise 5.7


def padded_loss(log_p, y):
    s, t = np.indices(y.shape)
    return -log_p[s, t, y][y >= 0].mean()


# exercise 5.8


def rank(scores, targets):
    own = scores[np.arange(len(targets)), targets]
    return (scores >= own[:, None]).sum(axis=1)
