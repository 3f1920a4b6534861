"""Are two sets of measurements from one source? Distances, effect sizes, tests, and the null beside each."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy.spatial.distance import pdist, squareform
from scipy.stats import permutation_test, spearmanr

MOST = 2000  # rows of a set that MMD, which needs all pairs of rows, looks at
AT_ONCE = 2_000_000  # values of random splits in memory at a time
LEAST = 10  # rows of a set below which the tests over all features are left out
Row = dict[str, Any]
Values = Mapping[str, np.ndarray]  # feature to (n,)


def compare(a: Values, b: Values, seed: int = 0, rounds: int = 2000, confident: int = 500) -> list[Row]:
    """Difference of two measured sets, one row a feature: effect sizes, intervals, p-values, and what chance gives.

    wasserstein: `distance`. null, p_value: its 95th percentile over `rounds` random splits of all images into sets of
    the same sizes, and the share of splits (with the one seen) that reach it; p_holm: corrected by `holm`.
    cliffs_delta: P(a > b) - P(a < b), -1 to 1 (Cliff 1993). *_low, *_high: 95 % bootstrap intervals over images,
    `confident` rounds; that of a distance lies above 0 also when the sets are alike, so hold it against the null.
    Raises ValueError when a set is empty, the features differ or a value is not finite.
    """
    _check(a, b)
    rows: list[Row] = []
    for name in a:
        values, first = _sorted(a[name], b[name])
        chance = _against_chance(partial(_apart, values), first, seed, rounds)
        rng, drawn, batch = np.random.default_rng(seed), [], max(1, AT_ONCE // len(values))
        for start in range(0, confident, batch):
            size = min(batch, confident - start)
            counts = [rng.multinomial(own.sum(), own / own.sum(), size) for own in (first, ~first)]
            drawn.append([_apart(values, *counts), _delta(values, *counts)])
        low, high = np.quantile(np.concatenate(drawn, axis=1), (0.025, 0.975), axis=1).tolist()
        rows.append({
            "feature": name, "median_a": float(np.median(a[name])), "median_b": float(np.median(b[name])),
            "wasserstein": chance["value"], "wasserstein_low": low[0], "wasserstein_high": high[0],
            "null": chance["null"], "cliffs_delta": float(_delta(values, first, ~first)),
            "cliffs_delta_low": low[1], "cliffs_delta_high": high[1], "p_value": chance["p_value"],
        })  # fmt: skip
    return [{**row, "p_holm": p} for row, p in zip(rows, holm([row["p_value"] for row in rows]), strict=True)]


def distance(x: np.ndarray, y: np.ndarray) -> float:
    """Wasserstein distance of two samples over the standard deviation within them (overall where that is 0)."""
    values, first = _sorted(x, y)
    return float(_apart(values, first, ~first))


def resampled(x: np.ndarray, y: np.ndarray, x_counts: np.ndarray, y_counts: np.ndarray) -> np.ndarray:
    """`distance` (rounds,) of samples drawn from x (n,) and y (m,); *_counts: how often each is in it, (rounds, n)."""
    both = np.concatenate([x, y]).astype(np.float64)
    order = np.argsort(both, kind="stable")
    blank_x, blank_y = np.zeros_like(y_counts), np.zeros_like(x_counts)
    first, second = np.hstack([x_counts, blank_x])[:, order], np.hstack([blank_y, y_counts])[:, order]
    return _apart(both[order], first, second)


def closeness(sets: Mapping[str, Values], reference: Values) -> list[Row]:
    """How far each measured set is from `reference`: the Wasserstein distance of `compare`, smaller is closer.

    Rows {"feature", <name of a set>: distance, ...}, the last one, 'mean', over all features. Raises ValueError as
    `compare` does, and when there is no set.
    """
    if not sets:
        raise ValueError("no sets to compare with the reference")
    for measured in sets.values():
        _check(measured, reference)
    table = pd.DataFrame({n: {f: distance(v[f], reference[f]) for f in reference} for n, v in sets.items()})
    table.loc["mean"] = table.mean()
    return table.rename_axis("feature").reset_index().to_dict("records")


def halves(a: Values, seed: int = 0, rounds: int = 20) -> dict[str, float]:
    """Mean distance between two random halves of one set, by feature; NaN below 4 images."""
    count = len(next(iter(a.values())))
    rng, cut = np.random.default_rng(seed), count // 2
    orders = [rng.permutation(count) for _ in range(rounds if count >= 4 else 0)]
    found = {n: [distance(v[o[:cut]], v[o[cut:]]) for o in orders] for n, v in a.items()}
    return {name: float(np.mean(values)) if values else float("nan") for name, values in found.items()}


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Spearman's rho of two samples (n,), and its two-sided p-value over all orders, or 10,000 where there are more.

    The p-value of scipy's `spearmanr` is one for many pairs; of five it says 0 where 1 in 60 orders does as well.
    """
    found = permutation_test((x,), lambda order: spearmanr(order, y).statistic, permutation_type="pairings", rng=0)
    return float(found.statistic), float(found.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number, in their order: Holm, Scand. J. Statist. 6, 1979."""
    ranked = pd.Series(p_values, dtype=float).sort_values(kind="stable")
    corrected = (ranked * np.arange(len(ranked), 0, -1)).cummax().clip(upper=1)
    return corrected.sort_index().tolist()


def overall(x: np.ndarray, y: np.ndarray, names: Sequence[str] | None = None, seed: int = 0) -> list[Row]:
    """Three tests on all features, (n, features) each: MMD, Fréchet distance, classifier; [] below LEAST rows a set.

    Features are standardised first. Without `names` the tests look at their main directions, at most 16.
    Rows {"test", "value", "null", "p_value", "note"}; null: what 95 % of random splits stay below.
    """
    if min(len(x), len(y)) < LEAST:
        return []
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    both = StandardScaler().fit_transform(np.concatenate([x, y]))
    if names is None:
        main = PCA(min(16, *both.shape), svd_solver="full").fit_transform(both)
        both, names = StandardScaler().fit_transform(main), [f"direction {i + 1}" for i in range(main.shape[1])]
    x, y = both[: len(x)], both[len(x) :]
    return [
        {"test": "MMD²", **mmd(x, y, seed), "note": "Gaussian kernel, median distance"},
        {"test": "Fréchet distance", **frechet_test(x, y, seed), "note": "extrapolated to many images"},
        {"test": "classifier AUC", **classifier(x, y, names, seed)},
    ]


def mmd(x: np.ndarray, y: np.ndarray, seed: int = 0, rounds: int = 500) -> Row:
    """Squared maximum mean discrepancy, unbiased, {'value', 'null', 'p_value'}: Gretton et al., JMLR 13, 2012.

    Gaussian kernel whose width is the median distance; p from `rounds` random splits. At most MOST rows a set.
    """
    rng = np.random.default_rng(seed)
    x, y = (v if len(v) <= MOST else rng.choice(v, MOST, replace=False) for v in (x, y))
    n, m = len(x), len(y)
    squared = pdist(np.concatenate([x, y]), "sqeuclidean")
    kernel = squareform(np.exp(-squared / (np.median(squared) or 1.0)))  # its diagonal, of no use here, is 0
    total = kernel.sum()

    def unbiased(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        xx, yy = (((own @ kernel) * own).sum(-1) for own in (first, second))
        return xx / (n * (n - 1)) + yy / (m * (m - 1)) - (total - xx - yy) / (n * m)

    return _against_chance(unbiased, np.arange(n + m) < n, seed, rounds)


def frechet(x: np.ndarray, y: np.ndarray) -> float:
    """|mean_x - mean_y|^2 + trace(C_x + C_y - 2 sqrt(C_x C_y)) of two samples (n, d); biased upwards for few rows.

    Dowson & Landau, J. Multivar. Anal. 12, 1982.
    """
    cx, cy = (np.atleast_2d(np.cov(v, rowvar=False)) for v in (x, y))
    root = np.sqrt(np.linalg.eigvals(cx @ cy).real.clip(0)).sum()
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(cx) + np.trace(cy) - 2 * root)


def frechet_corrected(x: np.ndarray, y: np.ndarray, seed: int = 0) -> float:
    """`frechet` without its bias for small samples: its line over 1 / n, through random halves, read at 1 / n = 0.

    Chong & Forsyth, CVPR 2020. May fall below 0 for sets that are alike.
    """
    rng = np.random.default_rng(seed)
    half = [frechet(*(rng.permutation(v)[: max(3, (len(v) + 1) // 2)] for v in (x, y))) for _ in range(4)]
    return 2 * frechet(x, y) - float(np.mean(half))


def frechet_test(x: np.ndarray, y: np.ndarray, seed: int = 0, rounds: int = 60) -> Row:
    """`frechet_corrected` against the same over random splits: {'value', 'null', 'p_value'}."""
    both = np.concatenate([x, y])

    @partial(np.vectorize, signature="(n),(n)->()")
    def corrected(first: np.ndarray, second: np.ndarray) -> float:
        return frechet_corrected(both[first], both[second], seed)

    return _against_chance(corrected, np.arange(len(both)) < len(x), seed, rounds)


def classifier(x: np.ndarray, y: np.ndarray, names: Sequence[str], seed: int = 0, rounds: int = 100) -> Row:
    """Classifier two-sample test: can a logistic regression tell the sets apart on images that it has not seen?

    'value': AUC over 5 folds, 0.5 is chance; 'null', 'p_value': over `rounds` shuffles of the labels; 'note': the
    largest weights, above 0: more of it in x. Lopez-Paz & Oquab, ICLR 2017.
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
    weights = pd.Series(model.fit(both, truth).coef_[0], list(names)).sort_values(key=abs, ascending=False)
    note = ", ".join(f"{name} {weight:+.2f}" for name, weight in weights[:4].items())
    null = float(np.quantile(chance, 0.95))
    return {"value": float(auc), "null": null, "p_value": float(p_value), "note": f"carried by {note}"}


def _check(a: Values, b: Values) -> None:
    if a.keys() != b.keys() or not a:
        raise ValueError(f"the sets have different features: {sorted(a)} and {sorted(b)}")
    for name in a:
        if not len(a[name]) or not len(b[name]):
            raise ValueError(f"{name}: a set is empty ({len(a[name])} and {len(b[name])} images)")
        if not np.isfinite([*a[name], *b[name]]).all():
            raise ValueError(f"{name}: a value is not finite")


def _against_chance(statistic: Callable[..., np.ndarray], first: np.ndarray, seed: int, rounds: int) -> Row:
    """'value': statistic(which rows (..., n) are of the first set, which of the second); its 'null' and 'p_value'."""

    def of_splits(drawn: np.ndarray, axis: int) -> np.ndarray:
        return statistic(drawn, ~drawn)

    found = permutation_test(
        (first,), of_splits, permutation_type="pairings", vectorized=True, n_resamples=rounds,
        batch=max(1, AT_ONCE // len(first)), rng=seed,
    )  # fmt: skip
    value, chance = float(found.statistic), found.null_distribution
    reached = (chance >= value - 1e-9 * abs(value)).sum()  # the same split, summed in another order, reaches it
    p_value = float((1 + reached) / (1 + len(chance)))
    return {"value": value, "null": float(np.quantile(chance, 0.95)), "p_value": p_value}


def _sorted(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All values in order, and which of them are of x."""
    both = np.concatenate([x, y]).astype(np.float64)
    order = np.argsort(both, kind="stable")
    return both[order], order < len(x)


def _apart(values: np.ndarray, x_count: np.ndarray, y_count: np.ndarray) -> np.ndarray:
    """`distance` (...) of two samples, given as how often each of the sorted `values` (n,) is in them (..., n)."""
    middle = values - values.mean()  # so that the squares below keep their digits
    ahead, inside = np.zeros(()), np.zeros(())
    for count, sign in ((x_count, 1), (y_count, -1)):
        total = count.sum(-1)
        ahead = ahead + sign * np.cumsum(count, -1) / total[..., None]  # the difference of the distribution functions
        inside = inside + np.maximum(count @ middle**2 - (count @ middle) ** 2 / total, 0)
    spread = np.sqrt(inside / max(1, len(values) - 2))
    spread = np.where(spread > 1e-9 * np.abs(values).max(), spread, middle.std() or 1.0)
    return np.abs(ahead[..., :-1]) @ np.diff(values) / spread


def _delta(values: np.ndarray, x_count: np.ndarray, y_count: np.ndarray) -> np.ndarray:
    """P(x > y) - P(x < y) (...) of two samples, given as in `_apart`."""
    below = np.insert(np.cumsum(y_count, -1), 0, 0, axis=-1)  # how many of y are among the first k values
    before, after = (below[..., np.searchsorted(values, values, side)] for side in ("left", "right"))
    total = below[..., -1]
    return (x_count * (before + after - total[..., None])).sum(-1) / (x_count.sum(-1) * total)
