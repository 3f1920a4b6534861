"""Exercises of notebook 04."""

import numpy as np

from ttlkit.lesson.exercises.entry import Exercise

NOTEBOOK = "04_fine_tuning"


def _charbonnier(restored, clean, epsilon):
    return np.sqrt((restored - clean) ** 2 + epsilon**2)


def _chosen(dry, where_dry, where_rainy):
    return np.where(dry[:, None, None, None] > 0.5, where_dry, where_rainy)


_random = np.random.default_rng(4)
_real = _random.random((2, 4, 3, 6, 5))
_made = _real + _random.normal(0, 0.4, _real.shape)  # leaves [0, 1] here and there
_dry = np.array([[1.0, 0, 0, 1], [0, 1, 0, 1]])
_weights = _random.normal(0, 1, (2, 5, 3))

EXERCISES = (
    Exercise(
        name="charbonnier",
        notebook=NOTEBOOK,
        question="Write the larger part of the loss: the mean over all pixels of $\\sqrt{d^2 + \\epsilon^2}$, with the "
        "difference $d$ of two images. One number.",
        takes="restored, clean, epsilon",
        begin="d = restored - clean",
        right=lambda r, c, e: _charbonnier(r, c, e).mean(),
        wrong={
            "that is the mean of |d|: where does epsilon make the corner round?": lambda r, c, e: np.abs(r - c).mean(),
            "first the root at every pixel, then the mean; yours is the other way round": lambda r, c, e: np.sqrt(
                ((r - c) ** 2).mean() + e**2
            ),
            "both are squared below the root, the difference and epsilon": lambda r, c, e: np.sqrt(
                (r - c) ** 2 + e
            ).mean(),
            "mean over the pixels, not their sum": lambda r, c, e: _charbonnier(r, c, e).sum(),
            "one number: the mean over all pixels is missing": _charbonnier,
            "epsilon belongs below the root, squared as d is": lambda r, c, e: np.abs(r - c).mean() + e,
            "epsilon belongs below the root": lambda r, c, e: np.abs(r - c).mean() + e**2,
            "the root is missing": lambda r, c, e: ((r - c) ** 2 + e**2).mean(),
            "that is the mean square: where are epsilon and the root?": lambda r, c, e: ((r - c) ** 2).mean(),
        },
        probes=[(_made[0, 0], _real[0, 0], 0.1), (_made[1, 0], _real[1, 0], 0.05)],
        solution="def answer(restored, clean, epsilon):\n"
        "    return np.sqrt((restored - clean) ** 2 + epsilon**2).mean()",
    ),
    Exercise(
        name="target",
        notebook=NOTEBOOK,
        question="What must come out of a real photograph? `photographs` and `made`, what the guide makes of them, are "
        "arrays (B, 3, H, W); `dry` (B,) is 1 for a rain-free photograph. It has to stay as it is; a rainy one has to "
        "become what the guide makes of it, clipped to [0, 1].",
        takes="photographs, made, dry",
        begin="np.where(condition, ..., ...) with dry[:, None, None, None] in the condition",
        right=lambda p, m, d: _chosen(d, p, m.clip(0, 1)),
        wrong={
            "the wrong way round: now rain stays and rain-free photographs change": lambda p, m, d: _chosen(
                d, m.clip(0, 1), p
            ),
            "the guide's picture leaves [0, 1] here and there": lambda p, m, d: _chosen(d, p, m),
            "the guide decides everywhere: rain-free photographs should stay as they are": lambda p, m, d: m.clip(0, 1),
        },
        probes=[(_real[i], _made[i], _dry[i]) for i in range(2)],
        solution="def answer(photographs, made, dry):\n"
        "    return np.where(dry[:, None, None, None] > 0.5, photographs, made.clip(0, 1))",
    ),
    Exercise(
        name="blend",
        notebook=NOTEBOOK,
        question="Blend the weights of a network, an array, after its fine-tuning: `share` of those it started from "
        "comes back.",
        takes="learned, start, share",
        begin="at share = 0 nothing changes, at share = 1 it is the start again",
        right=lambda learned, start, share: (1 - share) * learned + share * start,
        wrong={
            "at share = 0 all that was learned is gone: the wrong way round": lambda learned, start, share: (
                share * learned + (1 - share) * start
            ),
            "weights grow: the two shares together must be 1": lambda learned, start, share: learned + share * start,
            "half of each, whatever the share is": lambda learned, start, share: (learned + start) / 2,
            "and what comes back of the start?": lambda learned, start, share: (1 - share) * learned,
        },
        probes=[(*_weights, 0.1), (*_weights, 0.8)],
        solution="def answer(learned, start, share):\n    return (1 - share) * learned + share * start",
    ),
)
