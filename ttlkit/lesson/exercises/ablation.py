"""Exercises of notebook 06."""

import numpy as np

from ttlkit.lesson.exercises.entry import Exercise

NOTEBOOK = "06_ablation"
ENDS = (0.025, 0.975)  # of a 95 % interval

_random = np.random.default_rng(6)
_scores = _random.normal(28, 3, (2, 1, 9)) + _random.normal(0, 1, (2, 3, 1)) + _random.normal(0, 0.2, (2, 3, 9))
_seeds, _images = _random.integers(0, 3, (3000, 3)), _random.integers(0, 9, (3000, 9))


def _drawn(gains, seeds, images):
    """The drawn gains (R, S, N): in each round the same images for all seeds."""
    return gains[seeds[:, :, None], images[:, None, :]]


EXERCISES = (
    Exercise(
        name="seeds",
        notebook=NOTEBOOK,
        question="How much does one run depend on its seed? `scores` (S, N) are dB of S seeds on N images. Give the "
        "standard deviation over seeds of the mean over images, with S - 1 in the denominator.",
        takes="scores",
        begin="first one number for each seed: over which axis is that mean?",
        right=lambda s: s.mean(1).std(ddof=1),
        wrong={
            "with few seeds it matters: divide by S - 1, not by S (numpy's ddof)": lambda s: s.mean(1).std(),
            "that is the spread of images, which are hard or easy for every seed": lambda s: s.mean(0).std(ddof=1),
            "all scores in one pot: images differ far more than seeds do": lambda s: s.std(ddof=1),
            "asked is the spread of single seeds, not the error of their mean": lambda s: (
                s.mean(1).std(ddof=1) / len(s) ** 0.5
            ),
            "average over images first: the noise of single images is in yours": lambda s: s.std(0, ddof=1).mean(),
        },
        probes=[(_scores[0],), (_scores[1],)],
        solution="def answer(scores):\n    return scores.mean(axis=1).std(ddof=1)",
    ),
    Exercise(
        name="two-levels",
        notebook=NOTEBOOK,
        question="Write the interval of this notebook, which draws seeds *and* images. `gains` (S, N) of S seeds on N "
        "images; round r takes the seeds `seeds[r]` (S,) and, for all of them, the same images `images[r]` (N,). Give "
        "[low, high], the ends of the middle 95 % of the means.",
        takes="gains, seeds, images",
        begin="gains[s][:, i] are the drawn images i of the drawn seeds s; that is one round",
        right=lambda g, s, i: np.quantile(_drawn(g, s, i).mean((1, 2)), ENDS),
        wrong={
            "images are drawn, seeds are not: as if these seeds were all there are": lambda g, s, i: np.quantile(
                [g[:, b].mean() for b in i], ENDS
            ),
            "seeds are drawn, images are not": lambda g, s, i: np.quantile([g[a].mean() for a in s], ENDS),
            "these are single scores; asked is where the mean lies": lambda g, s, i: np.quantile(g, ENDS),
            "one number for each round: mean over seeds too": lambda g, s, i: np.quantile(
                _drawn(g, s, i).mean(2), ENDS
            ),
            "one number for each round: mean over images too": lambda g, s, i: np.quantile(
                _drawn(g, s, i).mean(1), ENDS
            ),
            "percentile takes 2.5 and 97.5": lambda g, s, i: np.quantile(
                _drawn(g, s, i).mean((1, 2)), np.divide(ENDS, 100)
            ),
            "low first, then high": lambda g, s, i: np.quantile(_drawn(g, s, i).mean((1, 2)), ENDS[::-1]),
        },
        within=0.01,
        probes=[(_scores[i] - 27, _seeds, _images) for i in range(2)],
        solution="def answer(gains, seeds, images):\n"
        "    means = [gains[s][:, i].mean() for s, i in zip(seeds, images)]\n"
        "    return np.quantile(means, [0.025, 0.975])",
    ),
    Exercise(
        name="coin",
        notebook=NOTEBOOK,
        question="Suppose that two rows are equally good, so that for each seed a coin decides which is ahead. How "
        "likely is it that the same row, no matter which, is ahead for all `n` seeds? Answer for every n.",
        takes="n",
        begin="what is it for one seed? and how much less with each further seed?",
        right=lambda n: 2 * 0.5**n,
        wrong={
            "that is for one row, named before; either of the two may be the one": lambda n: 0.5**n,
            "for one seed it must be 1: some row is always ahead": lambda n: 1 / (n + 1),
            "right for n = 1 and 2 only: each further seed halves it": lambda n: 1 / n,
            "with more seeds it becomes less likely, not more": lambda n: 1 - 2 * 0.5**n,
        },
        probes=[(1,), (2,), (3,), (8,)],
        solution="def answer(n):\n    return 2 * 0.5**n  # three seeds: one time in four",
    ),
)
