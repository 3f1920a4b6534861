"""Distances and tests between sets against answers known beforehand, and against scipy and scikit-learn."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest, mannwhitneyu, spearmanr, wasserstein_distance

from ttlkit.gap import stats


def given_seed(test):
    return settings(max_examples=20, deadline=None)(given(seed=st.integers(0, 10_000))(test))


def gaussians(count, features, shift=0.0, seed=0):
    values = np.random.default_rng(seed).normal(shift, 1, (features, count))
    return {f"f{i}": row for i, row in enumerate(values)}


@pytest.mark.parametrize("shift, delta", [(0.5, -0.276), (2.0, -0.843)])  # delta = 1 - 2 Phi(shift / sqrt 2)
def test_shifted_gaussians_are_as_far_apart_as_their_means(shift, delta):
    a, b = gaussians(3000, 1), gaussians(2000, 1, shift, seed=1)
    (row,) = stats.compare(a, b, rounds=200)
    assert row["wasserstein"] == pytest.approx(shift, abs=0.06)
    assert row["cliffs_delta"] == pytest.approx(delta, abs=0.03)
    assert row["p_value"] == pytest.approx(1 / 201) and row["null"] < 0.1
    assert row["wasserstein_low"] < shift < row["wasserstein_high"] < shift + 0.15
    assert row["cliffs_delta_low"] < delta < row["cliffs_delta_high"]
    assert row["median_b"] - row["median_a"] == pytest.approx(shift, abs=0.1)


def test_compare_does_not_depend_on_the_unit_and_is_antisymmetric():
    a, b = gaussians(40, 1), gaussians(30, 1, 0.7, seed=1)
    (row,) = stats.compare(a, b)
    (scaled,) = stats.compare({"f0": a["f0"] * 1000 + 5}, {"f0": b["f0"] * 1000 + 5})
    (swapped,) = stats.compare(b, a)
    for name in ("wasserstein", "null", "cliffs_delta", "p_value"):
        assert scaled[name] == pytest.approx(row[name], rel=1e-6)
    assert swapped["cliffs_delta"] == pytest.approx(-row["cliffs_delta"])
    assert swapped["wasserstein"] == pytest.approx(row["wasserstein"])


def test_sets_from_one_source_look_like_chance():
    rows = stats.compare(gaussians(40, 300), gaussians(30, 300, seed=1), rounds=200, confident=1)
    assert kstest([row["p_value"] for row in rows], "uniform").pvalue > 0.001
    assert min(row["p_holm"] for row in rows) > 0.5  # 300 features and nothing to find
    beyond = np.mean([row["wasserstein"] > row["null"] for row in rows])
    assert 0.01 < beyond < 0.1  # one in twenty


def test_compare_is_deterministic_and_its_seed_counts():
    a, b = gaussians(20, 2), gaussians(25, 2, seed=1)
    assert stats.compare(a, b, seed=3) == stats.compare(a, b, seed=3)
    assert stats.compare(a, b, seed=3)[0]["null"] != stats.compare(a, b, seed=4)[0]["null"]


def test_constant_and_single_values_stay_finite():
    for x, y, distance in (([1, 1], [1, 1, 1], 0), ([0], [1], 2), ([0, 0], [1, 1], 2)):
        (row,) = stats.compare({"f": np.array(x, float)}, {"f": np.array(y, float)}, rounds=20)
        assert row["wasserstein"] == pytest.approx(distance)
        assert np.isfinite([row["null"], row["p_value"], row["cliffs_delta"]]).all()


@pytest.mark.parametrize(
    "a, b, word",
    [
        ({"f": np.array([])}, {"f": np.ones(2)}, "empty"),
        ({}, {}, "different features"),
        ({"f": np.ones(2)}, {"g": np.ones(2)}, "different features"),
        ({"f": np.array([np.nan])}, {"f": np.ones(2)}, "not finite"),
    ],
)
def test_unusable_sets_are_refused(a, b, word):
    with pytest.raises(ValueError, match=word):
        stats.compare(a, b)


def test_closeness_is_the_distance_of_compare_and_its_mean():
    reference, near, far = gaussians(400, 3), gaussians(400, 3, 0.3, seed=1), gaussians(400, 3, 2.0, seed=2)
    rows = stats.closeness({"near": near, "far": far}, reference)
    assert [row["feature"] for row in rows] == ["f0", "f1", "f2", "mean"]
    for row, known in zip(rows, stats.compare(far, reference, rounds=5), strict=False):
        assert row["far"] == known["wasserstein"] and row["near"] < 0.5 < 1.5 < row["far"]
    assert rows[-1]["far"] == pytest.approx(np.mean([row["far"] for row in rows[:-1]]))
    swapped = stats.closeness({"near": {name: near[name] for name in reversed(near)}}, reference)
    assert [row["near"] for row in swapped] == pytest.approx([row["near"] for row in rows])  # by name, not by order
    assert stats.closeness({"itself": reference}, reference)[-1]["itself"] == 0
    with pytest.raises(ValueError, match="no sets"):
        stats.closeness({}, reference)


@given_seed
def test_distance_is_scipys_over_the_spread_within(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(3, 2, rng.integers(2, 40)), rng.gamma(2, 1, rng.integers(2, 40))
    within = np.sqrt((((x - x.mean()) ** 2).sum() + ((y - y.mean()) ** 2).sum()) / (len(x) + len(y) - 2))
    assert stats.distance(x, y) == pytest.approx(wasserstein_distance(x, y) / within, rel=1e-9)


@given_seed
def test_cliffs_delta_is_the_rank_test_of_scipy(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 9, 30).astype(float), rng.integers(2, 12, 20).astype(float)  # with ties
    (row,) = stats.compare({"f": x}, {"f": y}, rounds=5, confident=300)
    delta, low, high = (row[f"cliffs_delta{end}"] for end in ("", "_low", "_high"))
    assert delta == pytest.approx(2 * mannwhitneyu(x, y).statistic / (len(x) * len(y)) - 1)
    assert low <= delta <= high and low >= -1 and high <= 1


def test_rank_correlation_of_few_pairs_counts_the_orders():
    assert stats.rank_correlation([1, 2, 3, 4, 5], [9, 7, 5, 3, -8]) == pytest.approx((-1, 2 / 120), abs=1e-9)
    x, y = np.array([0.3, 2, -1, 5, 4]), [1, 2, 4, 3, 5]
    every = np.array([spearmanr(order, y).statistic for order in permutations(x)])
    rho, p = stats.rank_correlation(x, y)
    assert rho == pytest.approx(spearmanr(x, y).statistic)
    assert p == pytest.approx(np.mean(np.abs(every) > abs(rho) - 1e-9)) and p > 0.05


def test_holm_by_hand():
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.5, 0.9]) == [1, 1] and stats.holm([]) == []


def test_halves_of_one_set_are_near_and_of_two_are_not():
    one = {"f": np.random.default_rng(0).normal(size=200)}
    two = {"f": np.r_[one["f"][:100], one["f"][100:] + 3]}
    assert stats.halves(one)["f"] < 0.25
    assert stats.distance(two["f"][:100], two["f"][100:]) > 2.5
    assert np.isnan(stats.halves({"f": np.ones(3)})["f"])


def clouds(n, m, shift, features=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 1, (n, features)), rng.normal(shift, 1, (m, features))


def test_frechet_distance_of_two_gaussians():
    x, y = clouds(20000, 20000, 0.5)
    assert stats.frechet(x, 2 * y) == pytest.approx(4 * (1**2 + 1**2), abs=0.15)  # means 0 and 1, deviations 1 and 2
    assert stats.frechet(x, x) == pytest.approx(0, abs=1e-6)


def test_correction_takes_the_bias_of_small_samples():
    plain = [stats.frechet(*clouds(40, 40, 0, 12, seed)) for seed in range(12)]
    corrected = [stats.frechet_corrected(*clouds(40, 40, 0, 12, seed)) for seed in range(12)]
    assert np.mean(plain) > 1 and abs(np.mean(corrected)) < 0.3 * np.mean(plain)  # the truth is 0


def test_mmd_is_the_unbiased_estimate():
    x, y = clouds(12, 9, 0.8)
    both = np.concatenate([x, y])
    squared = ((both[:, None] - both[None]) ** 2).sum(-1)
    width = np.median(squared[np.triu_indices(21, 1)])
    kernel = np.exp(-squared / width)
    xx, yy, xy = kernel[:12, :12], kernel[12:, 12:], kernel[:12, 12:]
    expected = (xx.sum() - 12) / (12 * 11) + (yy.sum() - 9) / (9 * 8) - 2 * xy.mean()
    assert stats.mmd(x, y, rounds=20)["value"] == pytest.approx(expected)


@pytest.mark.slow
@pytest.mark.parametrize("shift, found", [(0.0, False), (0.8, True)])
def test_tests_over_all_features_find_what_is_there_and_nothing_else(shift, found):
    x, y = clouds(60, 50, shift)
    rows = stats.overall(x, y, ["a", "b", "c", "d"])
    assert [row["test"] for row in rows] == ["MMD²", "Fréchet distance", "classifier AUC"]
    for row in rows:
        assert (row["p_value"] < 0.05) == found and (row["value"] > row["null"]) == found, row


def p_of_classifier(x, y, seed):
    return stats.classifier(x, y, "abc", seed, rounds=9)["p_value"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "p_value, trials",
    [
        (lambda x, y, seed: stats.mmd(x, y, seed, rounds=100)["p_value"], 120),
        (lambda x, y, seed: stats.frechet_test(x, y, seed, rounds=40)["p_value"], 100),
        (p_of_classifier, 25),
    ],
    ids=["MMD", "Fréchet", "classifier"],
)
def test_p_values_over_all_features_are_uniform_where_there_is_nothing(p_value, trials):
    values = [p_value(*clouds(20, 15, 0, 3, seed), seed) for seed in range(trials)]
    assert kstest(values, "uniform").pvalue > 0.001


def test_the_classifier_says_which_feature_carries_it():
    x, y = clouds(80, 80, 0)
    x[:, 2] += 2
    found = stats.classifier(x, y, ["a", "b", "c", "d"], rounds=30)
    assert found["value"] > 0.85 > found["null"] and found["p_value"] < 0.05
    assert found["note"].startswith("carried by c +")


@pytest.mark.slow
def test_without_names_the_main_directions_are_looked_at():
    x, y = clouds(30, 30, 0, 40)
    x[:], y[:] = (v[:, :1] + 0.3 * v for v in (x + 2, y))  # one direction has nearly all of the variance
    rows = stats.overall(x, y)
    assert rows[0]["p_value"] < 0.05 and rows[2]["p_value"] < 0.05
    assert rows[2]["note"].startswith("carried by direction 1 ")


def test_few_images_get_no_test_over_all_features():
    assert stats.overall(*clouds(stats.LEAST - 1, 50, 1), ["a", "b", "c", "d"]) == []


def test_ten_thousand_images_stay_in_memory():
    import tracemalloc

    a, b = gaussians(10_000, 1), gaussians(10_000, 1, 0.1, seed=1)
    tracemalloc.start()
    (row,) = stats.compare(a, b, rounds=300, confident=100)
    assert tracemalloc.get_traced_memory()[1] < 400e6
    tracemalloc.stop()
    assert row["p_value"] == pytest.approx(1 / 301)


def test_a_resampled_distance_is_that_of_the_sample():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=9), rng.normal(1, 2, 13)
    counts = [rng.multinomial(len(v), np.full(len(v), 1 / len(v)), 5) for v in (x, y)]
    wanted = [stats.distance(np.repeat(x, a), np.repeat(y, b)) for a, b in zip(*counts, strict=True)]
    np.testing.assert_allclose(stats.resampled(x, y, *counts), wanted)
