"""Exercises of notebooks 01 and 01b."""

from functools import cache

import numpy as np
from scipy.ndimage import gaussian_filter, minimum_filter

from ttlkit import rain
from ttlkit.data import image_files, pocket
from ttlkit.lesson.exercises.entry import Exercise
from ttlkit.words import check_name

LESSON, APPENDIX = "01_gap_statistics", "01b_gap_appendix"
STEADY = {"angle_deg": 10.0, "rate_mm_h": 40.0, "horizon_m": 20.0, "near_m": 0.6, "exposure_s": 0.008}  # the explorer's
IDLE = {"angle_deg", "exposure_s", "near_m"}  # what hardly moves the veil
VEIL = 0.6


@cache
def scene():
    """The rain-free photograph of the explorer."""
    return image_files.resize(pocket.bundled("china"), 214, 320)


@cache
def veil(**settings):
    """The feature `veil` of the explorer's picture with these settings; `ttlkit.gap` is out of reach from here."""
    rainy = rain.physical(scene(), 0, **{**STEADY, **settings}).rainy
    return minimum_filter(gaussian_filter(rainy, (0.7, 0.7, 0)).min(axis=2), 15).mean()


def _veil_of(answer):
    if not isinstance(answer, dict):
        raise TypeError("give a dict of knobs, such as {'horizon_m': 50}")
    for name in answer:
        check_name(str(name), STEADY, "knob")  # the renderer has more knobs than the explorer shows
    return veil(**{str(name): float(value) for name, value in answer.items()})


def _remark(answer):
    """What is said of wrong knobs: the veil that they give, and what to turn."""
    turned, given = {name for name, value in answer.items() if value != STEADY[name]}, _veil_of(answer)
    if not turned:
        hint = "all knobs stand where they start; look at the rows above: which one moves the veil most?"
    elif turned <= IDLE:
        hint = "direction, exposure and nearest drops hardly move the veil; look at the rows above: which knob does?"
    elif given > VEIL:
        hint = "far rain hides too much; look through less of it"
    elif turned - IDLE == {"rate_mm_h"}:
        most = veil(rate_mm_h=150.0)
        hint = f"even 150 mm/h, the end of its slider, gives {most:.2f}; through how much rain do we look?"
    else:
        hint = "far rain hides too little; look through more of it"
    return f"your veil is {given:.3g}, wanted is {VEIL:.2f}; {hint}"


def _share(values, distance, more=0):
    return (more + (values >= distance).sum()) / (more + len(values))


_random = np.random.default_rng(1)
_samples = [(_random.normal(0, 1, n), _random.normal(shift, 2, n), 1.5) for n, shift in ((40, 0.5), (25, 2.0))]
_counts = [(_random.integers(0, 9, 30).astype(float), _random.integers(2, 12, 20).astype(float)) for _ in range(2)]
_splits = [(0.4, np.r_[_random.gamma(2, 0.1, 99), 0.4]), (9.0, _random.gamma(2, 0.1, 199))]

EXERCISES = (
    Exercise(
        name="wasserstein",
        notebook=LESSON,
        question="Write the distance of two sets with equally many images. `x` and `y` (n,) are the values of one "
        "feature, `sigma` is the standard deviation within the sets. Then the integral is a mean: the smallest value "
        "of `x` goes with the smallest of `y`, the next with the next, and so on.",
        takes="x, y, sigma",
        begin="np.sort(x) puts the smallest first",
        right=lambda x, y, sigma: np.abs(np.sort(x) - np.sort(y)).mean() / sigma,
        wrong={
            "that compares images in the order of their files; which y goes with the smallest x?": lambda x, y, s: (
                np.abs(x - y).mean() / s
            ),
            "what lies above and what lies below cancel out: differences of both signs must count": lambda x, y, s: (
                abs(x.mean() - y.mean()) / s
            ),
            "pairs and differences are right; the unit is still that of the feature": lambda x, y, s: np.abs(
                np.sort(x) - np.sort(y)
            ).mean(),
            "with twice as many images your distance doubles": lambda x, y, s: (
                np.abs(np.sort(x) - np.sort(y)).sum() / s
            ),
            "squared, a few far pairs decide; the integral is over |...|": lambda x, y, s: (
                np.sqrt(((np.sort(x) - np.sort(y)) ** 2).mean()) / s
            ),
            "differences of both signs cancel: where is |...|?": lambda x, y, s: (np.sort(x) - np.sort(y)).mean() / s,
        },
        stops={"x.sort() sorts in place and gives None; np.sort(x) gives the sorted values": "NoneType"},
        probes=_samples,
        solution="def answer(x, y, sigma):\n    return np.abs(np.sort(x) - np.sort(y)).mean() / sigma",
    ),
    Exercise(
        name="far-rain",
        notebook=LESSON,
        question=f"Bring the veil of the explorer's picture to {VEIL:.2f}, within 0.01. Give only the knobs that you "
        'turn, by the names beside the sliders, such as `answer = {"angle_deg": -10}`; all others stay where the '
        "sliders start. The picture is rendered again, and its veil is measured.",
        takes="",
        begin='answer = {"name of a knob": value, ...}; look at the rows above: which knob moves the veil most?',
        right=lambda: {"horizon_m": 225},
        wrong={},  # the remark knows them by the knobs that are turned: other knobs may give the same veil
        remark=_remark,
        probes=[()],
        solution='answer = {"horizon_m": 225}  # so does {"rate_mm_h": 150, "horizon_m": 88}',
        seen=_veil_of,
        within=0.01 / VEIL,
    ),
    Exercise(
        name="p-value",
        notebook=APPENDIX,
        question="How likely is such a distance by chance? `distance` is that of the two sets, `splits` (n,) are those "
        "of n random splits of all their images. Write the p-value: the share of splits that are at least as far "
        "apart, where the sets as they are count as one split more.",
        takes="distance, splits",
        begin="(splits >= distance).sum() counts those that are at least as far apart",
        right=lambda distance, splits: _share(splits, distance, 1),
        wrong={
            "no p-value is 0 after some splits: the sets as they are count as one more": lambda d, s: _share(s, d),
            "a split that is exactly as far apart counts too": lambda d, s: (1 + (s > d).sum()) / (1 + len(s)),
            "that is the share of splits that are nearer: large where the sets differ": lambda d, s: (s < d).mean(),
            "one split more: it counts among all splits too, not only above": lambda d, s: (
                (1 + (s >= d).sum()) / len(s)
            ),
        },
        probes=_splits,
        solution="def answer(distance, splits):\n    return (1 + (splits >= distance).sum()) / (1 + len(splits))",
    ),
    Exercise(
        name="cliffs-delta",
        notebook=APPENDIX,
        question="Write Cliff's delta of `x` (n,) and `y` (m,): the chance that a value of `x` is larger than one of "
        "`y`, less the chance that it is smaller, over all n·m pairs.",
        takes="x, y",
        begin="x[:, None] > y[None, :] compares every value of x with every one of y",
        right=lambda x, y: np.sign(x[:, None] - y[None, :]).mean(),
        wrong={
            "the sign is turned: above 0 means more of it in x": lambda x, y: np.sign(y[:, None] - x[None, :]).mean(),
            "that is the first chance alone": lambda x, y: (x[:, None] > y[None, :]).mean(),
            "equal values are no win for either side": lambda x, y: 2 * (x[:, None] > y[None, :]).mean() - 1,
            "that is how much they differ; how often is asked": lambda x, y: (x[:, None] - y[None, :]).mean(),
        },
        probes=_counts,
        solution="def answer(x, y):\n    larger, smaller = x[:, None] > y[None, :], x[:, None] < y[None, :]\n"
        "    return larger.mean() - smaller.mean()",
    ),
)
