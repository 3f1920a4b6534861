"""Are two sets of measurements from one source? Distances, effect sizes, tests, and the null beside each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist
from scipy.stats import permutation_test, spearmanr

MOST = 2000  # rows of a set that tests over all pairs of rows look at
LEAST = 10  # rows of a set below which the tests over all features are left out
Row = dict[str, Any]
Values = Mapping[str, np.ndarray]  # feature to (n,)


def compare(a: Values, b: Values, seed: int = 0, rounds: int = 2000, confident: int = 500) -> list[Row]:
    """Difference of two measured sets, one row a feature: effect sizes, intervals, p-values, and what chance gives.

    wasserstein: distance over the standard deviation within the sets. null, p_value: 95th percentile of that figure
    over `rounds` random splits of all images into sets of the same sizes, and the share of splits (with the one seen)
    that reach it. p_holm: corrected for the number of features (Holm 1979). cliffs_delta: P(a > b) - P(a < b), -1 to 1
    (Cliff 1993). *_low, *_high: 95 % bootstrap intervals over images, `confident` rounds; that of a distance lies
    above 0 also when the sets are alike, so hold it against the null.
    Raises ValueError when a set is empty, the features differ or a value is not finite.
    """
    _check(a, b)
    rows: list[Row] = []
    for name in a:
        x, y = np.asarray(a[name], np.float64), np.asarray(b[name], np.float64)
        rng = np.random.default_rng(seed)
        found = distance(x, y)
        chance = _drawn_distances(x, y, rng, rounds, _split)
        low, high = _interval(_drawn_distances(x, y, rng, confident, _resample))
        delta, delta_low, delta_high = cliffs_delta(x, y, rng, confident)
        rows.append({
            "feature": name, "median_a": float(np.median(x)), "median_b": float(np.median(y)),
            "wasserstein": found, "wasserstein_low": low, "wasserstein_high": high,
            "null": float(np.quantile(chance, 0.95)),
            "cliffs_delta": delta, "cliffs_delta_low": delta_low, "cliffs_delta_high": delta_high,
            "p_value": float((1 + (chance >= found * (1 - 1e-9)).sum()) / (1 + rounds)),
        })  # fmt: skip
    for row, p in zip(rows, holm([row["p_value"] for row in rows]), strict=True):
        row["p_holm"] = p
    return rows


def distance(x: np.ndarray, y: np.ndarray) -> float:
    """Wasserstein distance of two samples over the standard deviation within them (overall where that is 0)."""
    values, first = _sorted(x, y)
    return float(_distances(values, first[None], ~first[None])[0])


def closeness(sets: Mapping[str, Values], reference: Values) -> list[Row]:
    """How far each measured set is from `reference`: the Wasserstein distance of `compare`, smaller is closer.

    One row a feature, {"feature", <name of a set>: distance, ...}, and last the mean over the features, called 'mean'.
    Raises ValueError as `compare` does, and when there is no set.
    """
    if not sets:
        raise ValueError("no sets to compare with the reference")
    for measured in sets.values():
        _check(measured, reference)
    table: list[Row] = [
        {"feature": f, **{name: distance(measured[f], reference[f]) for name, measured in sets.items()}}
        for f in reference
    ]
    return [*table, {"feature": "mean", **{n: float(np.mean([row[n] for row in table])) for n in sets}}]


def halves(a: Values, seed: int = 0, rounds: int = 20) -> dict[str, float]:
    """Mean distance between two random halves of one set, for each feature: how far apart likes are at that size."""
    count = len(next(iter(a.values())))
    if count < 4:
        return dict.fromkeys(a, float("nan"))
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(count) for _ in range(rounds)]
    cut = count // 2
    return {n: float(np.mean([distance(v[o[:cut]], v[o[cut:]]) for o in orders])) for n, v in a.items()}


def cliffs_delta(x: np.ndarray, y: np.ndarray, rng: np.random.Generator, rounds: int) -> tuple[float, float, float]:
    """P(x > y) - P(x < y) and its 95 % bootstrap interval: (delta, low, high). Cliff, Psych. Bull. 114, 1993."""
    few = [v if len(v) <= MOST else rng.choice(v, MOST, replace=False) for v in (x, y)]
    sign = np.sign(few[0][:, None] - few[1][None, :])
    x_weight, y_weight = (_times_drawn(rng, len(v), rounds) / len(v) for v in few)
    return float(sign.mean()), *_interval(((x_weight @ sign) * y_weight).sum(1))


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Spearman's rho of two samples (n,), and its two-sided p-value over all orders, or 10,000 where there are more.

    The p-value of scipy's `spearmanr` is one for many pairs; of five it says 0 where 1 in 60 orders does as well.
    """
    found = permutation_test((x,), lambda order: spearmanr(order, y).statistic, permutation_type="pairings", rng=0)
    return float(found.statistic), float(found.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number, in their order: Holm, Scand. J. Statist. 6, 1979."""
    order = np.argsort(p_values, kind="stable")
    scaled = np.asarray(p_values, np.float64)[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return [float(p) for p in corrected]


# ---- over all features at once ----------------------------------------------------------------------------------


def standardised(a: Values, b: Values) -> tuple[np.ndarray, np.ndarray]:
    """Both sets as (n, features), each feature less its mean and over its standard deviation in both together."""
    _check(a, b)
    x, y = (np.stack([np.asarray(v, np.float64) for v in (m[n] for n in a)], axis=1) for m in (a, b))
    both = np.concatenate([x, y])
    mean, spread = both.mean(0), both.std(0)
    spread[spread < 1e-9 * np.maximum(np.abs(mean), 1e-9)] = 1
    return (x - mean) / spread, (y - mean) / spread


def overall(x: np.ndarray, y: np.ndarray, names: Sequence[str], seed: int = 0, rounds: int = 500) -> list[Row]:
    """Three tests on all features, (n, features) each: MMD, Fréchet distance, classifier; [] below LEAST rows a set.

    Rows {"test", "value", "null", "p_value", "note"}; null: what 95 % of random splits stay below.
    """
    if min(len(x), len(y)) < LEAST:
        return []
    auc, p_value, null, carried = classifier(x, y, names, seed)
    note = ", ".join(f"{name} {weight:+.2f}" for name, weight in carried[:4])
    return [
        {"test": "MMD²", **mmd(x, y, seed, rounds), "note": "Gaussian kernel, median distance"},
        {"test": "Fréchet distance", **frechet_test(x, y, seed), "note": "extrapolated to many images"},
        {"test": "classifier AUC", "value": auc, "null": null, "p_value": p_value, "note": f"carried by {note}"},
    ]


def mmd(x: np.ndarray, y: np.ndarray, seed: int = 0, rounds: int = 500) -> Row:
    """Squared maximum mean discrepancy, unbiased, {'value', 'null', 'p_value'}: Gretton et al., JMLR 13, 2012.

    Gaussian kernel whose width is the median distance; p from `rounds` random splits. At most MOST rows a set.
    """
    rng = np.random.default_rng(seed)
    x, y = (v if len(v) <= MOST else rng.choice(v, MOST, replace=False) for v in (x, y))
    both = np.concatenate([x, y])
    squared = cdist(both, both, "sqeuclidean")
    width = np.median(squared[np.triu_indices(len(both), 1)]) or 1.0
    kernel = np.exp(-squared / width)
    np.fill_diagonal(kernel, 0)
    first = np.zeros((rounds + 1, len(both)))
    first[:, : len(x)] = 1
    first[1:] = rng.permuted(first[1:], axis=1)
    n, m, second = len(x), len(y), 1 - first
    pairs = ((first, first), (second, second), (first, second))
    xx, yy, xy = (((one @ kernel) * other).sum(1) for one, other in pairs)
    values = xx / (n * (n - 1)) + yy / (m * (m - 1)) - 2 * xy / (n * m)
    return _against_chance(values[0], values[1:])


def frechet(x: np.ndarray, y: np.ndarray) -> float:
    """|mean_x - mean_y|^2 + trace(C_x + C_y - 2 sqrt(C_x C_y)) of two samples (n, d); biased upwards for few rows.

    Dowson & Landau, J. Multivar. Anal. 12, 1982.
    """
    cx, cy = (np.atleast_2d(np.cov(v, rowvar=False)) for v in (x, y))
    root = sqrtm(cx @ cy)
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(cx) + np.trace(cy) - 2 * np.trace(np.real(root)))


def frechet_corrected(x: np.ndarray, y: np.ndarray, seed: int = 0, draws: int = 3) -> float:
    """`frechet` without its bias for small samples: the line through subsets over 1 / n, read at 1 / n = 0.

    Chong & Forsyth, CVPR 2020. May fall below 0 for sets that are alike.
    """
    rng = np.random.default_rng(seed)
    shares, found = np.array([0.5, 0.6, 0.75, 1.0]), []
    for share in shares:
        sizes = [max(3, round(share * len(v))) for v in (x, y)]
        values = [
            frechet(*(v[rng.permutation(len(v))[:size]] for v, size in zip((x, y), sizes, strict=True)))
            for _ in range(draws if share < 1 else 1)
        ]
        found.append(np.mean(values))
    return float(np.polyfit(1 / shares, found, 1)[1])


def frechet_test(x: np.ndarray, y: np.ndarray, seed: int = 0, rounds: int = 60) -> Row:
    """`frechet_corrected` against the same over random splits: {'value', 'null', 'p_value'}."""
    rng = np.random.default_rng(seed)
    both = np.concatenate([x, y])
    chance = []
    for _ in range(rounds):
        order = rng.permutation(len(both))
        chance.append(frechet_corrected(both[order[: len(x)]], both[order[len(x) :]], seed, draws=1))
    return _against_chance(frechet_corrected(x, y, seed), np.array(chance))


def classifier(
    x: np.ndarray, y: np.ndarray, names: Sequence[str], seed: int = 0, rounds: int = 100
) -> tuple[float, float, float, list[tuple[str, float]]]:
    """Classifier two-sample test: can a logistic regression tell the sets apart on images that it has not seen?

    (AUC over 5 folds, its p-value and 95th percentile over `rounds` shuffles of the labels, [(feature, weight)] with
    the largest first; weight above 0: more of it in x). 0.5 is chance. Lopez-Paz & Oquab, ICLR 2017.
    """
    from sklearn import config_context
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, permutation_test_score

    both, truth = np.concatenate([x, y]), np.r_[np.ones(len(x), int), np.zeros(len(y), int)]
    # Its default solver hands tiny products to all threads of BLAS, and takes eight times as long.
    model = LogisticRegression(solver="newton-cholesky", class_weight="balanced")
    folds = StratifiedKFold(min(5, len(x), len(y)), shuffle=True, random_state=seed)
    with config_context(assume_finite=True, skip_parameter_validation=True):  # its checks take half of the time
        auc, chance, p_value = permutation_test_score(
            model, both, truth, cv=folds, scoring="roc_auc", n_permutations=rounds, random_state=seed
        )
    weights = model.fit(both, truth).coef_[0]
    carried = sorted(zip(names, map(float, weights), strict=True), key=lambda pair: -abs(pair[1]))
    return float(auc), float(p_value), float(np.quantile(chance, 0.95)), carried


def _check(a: Values, b: Values) -> None:
    if a.keys() != b.keys() or not a:
        raise ValueError(f"the sets have different features: {sorted(a)} and {sorted(b)}")
    for name in a:
        sizes = len(a[name]), len(b[name])
        if not all(sizes):
            raise ValueError(f"{name}: a set is empty ({sizes[0]} and {sizes[1]} images)")
        if not (np.isfinite(a[name]).all() and np.isfinite(b[name]).all()):
            raise ValueError(f"{name}: a value is not finite")


def _against_chance(value: float, chance: np.ndarray) -> Row:
    p_value = (1 + (chance >= value).sum()) / (1 + len(chance))
    return {"value": float(value), "null": float(np.quantile(chance, 0.95)), "p_value": float(p_value)}


def _interval(drawn: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(drawn, [0.025, 0.975]) if len(drawn) else (np.nan, np.nan)
    return float(low), float(high)


def _sorted(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All values in order, and which of them are of x."""
    both = np.concatenate([x, y])
    order = np.argsort(both, kind="stable")
    return both[order], order < len(x)


def _drawn_distances(x: np.ndarray, y: np.ndarray, rng: np.random.Generator, rounds: int, draw: Callable) -> np.ndarray:
    """Distances (rounds,) of what draw(rng, which are of x, size) gives, in parts so that memory stays bounded."""
    values, first = _sorted(x, y)
    most = max(1, 2_000_000 // len(values))
    sizes = [min(most, rounds - start) for start in range(0, rounds, most)]
    return np.concatenate([np.empty(0), *(_distances(values, *draw(rng, first, size)) for size in sizes)])


def _split(rng: np.random.Generator, first: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Random splits of all values into two sets of the same sizes: what is in each (size, n)."""
    drawn = rng.permuted(np.tile(first, (size, 1)), axis=1)
    return drawn, ~drawn


def _resample(rng: np.random.Generator, first: np.ndarray, size: int) -> np.ndarray:
    """Bootstrap samples of each set: how often each value is in it (2, size, n)."""
    drawn = np.zeros((2, size, len(first)))
    for counts, own in zip(drawn, (first, ~first), strict=True):
        counts[:, own] = _times_drawn(rng, own.sum(), size)
    return drawn


def _times_drawn(rng: np.random.Generator, count: int, rounds: int) -> np.ndarray:
    """How often each of `count` values is in a bootstrap sample (rounds, count)."""
    return rng.multinomial(count, np.full(count, 1 / count), rounds)


def _distances(values: np.ndarray, x_weight: np.ndarray, y_weight: np.ndarray) -> np.ndarray:
    """Scaled Wasserstein distance (rounds,) of two samples of sorted `values` (n,), given as counts (rounds, n)."""
    middle = values - values.mean()  # so that the squares below keep their digits
    ahead, inside = np.zeros(x_weight.shape), np.zeros(len(x_weight))
    for weight, sign in ((x_weight, 1), (y_weight, -1)):
        count = weight.sum(1)
        ahead += sign * np.cumsum(weight, 1) / count[:, None]  # the difference of the two distribution functions
        inside += np.maximum(weight @ middle**2 - (weight @ middle) ** 2 / count, 0)
    found = np.abs(ahead[:, :-1]) @ np.diff(values)
    spread = np.sqrt(inside / max(1, len(values) - 2))
    overall = middle.std()
    return found / np.where(spread > 1e-9 * np.abs(values).max(), spread, overall if overall > 0 else 1.0)
