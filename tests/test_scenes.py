"""Drawn scenes: bounds, seeds, and the statistics of photographs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttlkit.gap import features
from ttlkit.rain import scenes


@given(shape=st.tuples(st.integers(1, 40), st.integers(1, 40)), seed=st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_any_small_size_suits(shape, seed):
    scene = scenes.dead_leaves(seed, *shape)
    assert scene.shape == (*shape, 3) and scene.dtype == np.float32
    assert np.isfinite(scene).all() and scene.min() >= 0 and scene.max() <= 1


def test_the_seed_decides():
    one, again, other, swapped = (scenes.dead_leaves(seed, 32, 40) for seed in ([1, 2], [1, 2], 3, [2, 1]))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other) and not np.array_equal(one, swapped)


@pytest.mark.parametrize("size", [(0, 4), (4, 0)])
def test_empty_sizes_are_refused(size):
    with pytest.raises(ValueError, match="positive"):
        scenes.dead_leaves(0, *size)


def test_dead_leaves_are_like_photographs_in_spectrum_and_edges():
    made = [scenes.dead_leaves(seed, 160, 240) for seed in range(5)]
    slopes = [features.spectrum_slope(features.Prepared(s)) for s in made]
    assert all(-3.5 < s < -1.5 for s in slopes)
    assert all(np.abs(np.diff(s, axis=1)).max() > 0.25 for s in made)  # sharp edges
    assert all(s.std() > 0.08 for s in made)
    assert np.ptp([s.mean() for s in made]) > 0.05


def test_leaves_hide_one_another_before_a_sky():
    """Many flat patches with sharp borders, and a calmer upper part: most neighbours are alike, few differ a lot."""
    steps = np.concatenate(
        [np.abs(np.diff(scenes.dead_leaves(s, 160, 240).mean(-1), axis=1)).ravel() for s in range(5)]
    )
    assert np.median(steps) < 0.02 and np.quantile(steps, 0.99) > 5 * np.median(steps)
