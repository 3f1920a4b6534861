"""The rain renderers: bounds, seeds, and the optics they claim."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttlkit import rain, stats

RENDERERS = [rain.photoshop, rain.physical]
SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 40))


def random_image(height, width, seed=0):
    return np.random.default_rng(seed).random((height, width, 3), dtype=np.float32)


def assert_image(image, shape):
    assert image.shape == shape and image.dtype == np.float32
    assert np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1


@pytest.mark.parametrize("render", RENDERERS)
@given(shape=SHAPES, seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_any_small_image_renders_within_bounds(render, shape, seed):
    clean = random_image(*shape)
    before = clean.copy()
    result = render(clean, seed)
    assert_image(result.rainy, clean.shape)
    assert_image(result.streaks, shape)
    assert all(type(v) is float and np.isfinite(v) for v in result.parameters.values())
    assert np.array_equal(clean, before)


@given(shape=SHAPES, seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_any_small_shape_suits_the_other_generators(shape, seed):
    assert_image(rain.scatter(random_image(*shape), np.random.default_rng(seed)), (*shape, 3))
    assert_image(rain.streak_holes(shape, np.random.default_rng(seed)), shape)
    assert_image(rain.dead_leaves(seed, *shape), (*shape, 3))


@pytest.mark.parametrize("render", RENDERERS)
def test_the_seed_decides_everything(render):
    clean = random_image(48, 64)
    one, again, other, swapped = (render(clean, seed) for seed in ([1, 2], [1, 2], 3, [2, 1]))
    assert np.array_equal(one.rainy, again.rainy) and np.array_equal(one.streaks, again.streaks)
    assert one.parameters == again.parameters
    assert not np.array_equal(one.rainy, other.rainy) and not np.array_equal(one.rainy, swapped.rainy)


def test_generators_follow_their_seed():
    clean = random_image(32, 32)
    for make in (
        lambda seed: rain.scatter(clean, np.random.default_rng(seed)),
        lambda seed: rain.streak_holes((32, 32), np.random.default_rng(seed)),
        lambda seed: rain.dead_leaves(seed, 32, 32),
    ):
        assert np.array_equal(make(7), make(7)) and not np.array_equal(make(7), make(8))


@pytest.mark.parametrize(
    "bad, word",
    [
        (np.zeros((4, 4), np.float32), "shape"),
        (np.zeros((4, 4, 4), np.float32), "shape"),
        (np.zeros((0, 4, 3), np.float32), "shape"),
        (np.zeros((4, 4, 3), np.uint8), "uint8"),
        (np.full((4, 4, 3), 255.0, np.float32), "255"),
        (np.full((4, 4, 3), np.nan, np.float32), "nan"),
    ],
)
def test_bad_images_are_refused_by_name(bad, word):
    for call in (rain.photoshop, rain.physical, lambda x, s: rain.scatter(x, np.random.default_rng(s))):
        with pytest.raises(ValueError, match=word):
            call(bad, 0)


def test_empty_sizes_are_refused():
    with pytest.raises(ValueError, match="positive"):
        rain.dead_leaves(0, 0, 4)
    with pytest.raises(ValueError, match="positive"):
        rain.streak_holes((4, 0), np.random.default_rng(0))


def test_photoshop_is_a_screen_blend_of_one_grey_layer():
    clean = random_image(64, 64)
    layer = rain.photoshop(np.zeros_like(clean), 5).streaks  # black: the layer itself
    assert layer.max() > 0.1
    screened = 1 - (1 - clean) * (1 - layer[..., None])
    np.testing.assert_allclose(rain.photoshop(clean, 5).rainy, screened, atol=1e-5)


def test_photoshop_streaks_are_as_strong_as_stated():
    for seed in range(6):
        result = rain.photoshop(np.zeros((200, 200, 3), np.float32), seed)
        assert 0.3 < result.streaks.max() / result.parameters["strength"] < 1.0001


def test_streaks_fall_at_the_stated_angle():
    black, dim = np.zeros((240, 240, 3), np.float32), np.full((240, 240, 3), 0.05, np.float32)
    shop = [rain.photoshop(black, seed) for seed in range(6)]
    assert np.ptp([r.parameters["angle_deg"] for r in shop]) > 20
    real = [rain.physical(dim, seed) for seed in range(12)]
    long = [r for r in real if r.parameters["exposure_s"] > 1 / 200]
    assert len(long) >= 3
    for result, tolerance in [(r, 3) for r in shop] + [(r, 4) for r in long]:
        picture = np.repeat(result.streaks[..., None], 3, axis=2)
        mean, _ = stats.streak_direction(picture)
        assert mean == pytest.approx(result.parameters["angle_deg"], abs=tolerance)


@pytest.mark.parametrize("render", RENDERERS)
def test_rain_ranges_from_light_to_heavy(render):
    clean = rain.dead_leaves(1, 120, 160)
    amount = [render(clean, seed).streaks.mean() for seed in range(25)]
    assert max(amount) > 4 * min(amount) and min(amount) > 0


def test_physical_drops_carry_the_sky():
    scene = np.full((96, 192, 3), 0.1, np.float32)
    scene[:, 96:] = 0.95  # drops refract the whole sky, so they show before the dark half
    shown = np.mean([rain.physical(scene, seed).streaks for seed in range(8)], axis=0)
    assert shown[:, :80].mean() > 3 * shown[:, 112:].mean()


def test_physical_veils_what_is_far():
    scene = random_image(120, 120)
    top, bottom = [], []
    for seed in range(8):
        rainy = rain.physical(scene, seed).rainy
        top.append(rainy[:40].std() / scene[:40].std())
        bottom.append(rainy[-40:].std() / scene[-40:].std())
    assert np.mean(top) < np.mean(bottom) < 1
    scene = np.full((120, 120, 3), 0.05, np.float32)
    rainy = np.mean([rain.physical(scene, seed).rainy - scene for seed in range(8)], axis=0)
    assert rainy[:40].mean() > 1.1 * rainy[-40:].mean() > 0  # airlight on black


def near_streaks(exposure=1 / 400, focal=500, seed=3):
    rng = np.random.default_rng(seed)
    return rain._streak_layer(rng, (400, 400), 1.0, 20, exposure, focal, 0, 4, 0.001)


def test_exposure_spreads_the_same_light_over_longer_streaks():
    # opacity D / (v T), width D f / z, length v T f / z: the product does not depend on the exposure T.
    short, long = near_streaks(exposure=1 / 400), near_streaks(exposure=1 / 100)
    assert long.sum() == pytest.approx(short.sum(), rel=0.1)
    assert 2 < short.max() / long.max() < 5


def test_zooming_in_shows_fewer_drops_but_bigger_ones():
    # The volume seen falls with f^2, the area D f / z x v T f / z of a streak grows with it.
    wide, tele = (np.mean([near_streaks(focal=f, seed=s) for s in range(6)]) for f in (500, 1000))
    assert tele == pytest.approx(wide, rel=0.25)


def test_scatter_blurs_and_veils_without_streaks():
    rng = np.random.default_rng(0)
    clean = rain.dead_leaves(2, 96, 96)
    results = [rain.scatter(clean, rng) for _ in range(30)]
    edges = [np.abs(np.diff(r, axis=1)).mean() / np.abs(np.diff(clean, axis=1)).mean() for r in results]
    assert max(edges) < 1 and np.ptp(edges) > 0.2  # always smoother, by an amount that varies
    flat = rain.scatter(np.full((48, 48, 3), 0.2, np.float32), rng)
    assert flat.std(axis=(0, 1)).max() < 0.02  # nothing but light noise is added to a flat picture


def test_streak_holes_cover_a_few_percent_steeply():
    rng = np.random.default_rng(0)
    masks = [rain.streak_holes((96, 96), rng) for _ in range(100)]
    cover = np.array([(m > 0.5).mean() for m in masks])
    assert 0.06 < cover.mean() < 0.16 and cover.min() > 0.005 and cover.max() < 0.3
    assert all(((m > 0.1) & (m < 0.9)).any() and m.max() > 0.9 for m in masks)  # soft edges, full middles
    tilts = [stats.streak_direction(np.repeat(m[..., None], 3, 2))[0] for m in masks]
    assert np.abs(tilts).max() < 45 and np.std(tilts) > 5


def test_dead_leaves_are_like_photographs_in_spectrum_and_edges():
    scenes = [rain.dead_leaves(seed, 160, 240) for seed in range(5)]
    slopes = [stats.spectrum_slope(s) for s in scenes]
    assert all(-3.5 < s < -1.5 for s in slopes)
    assert all(np.abs(np.diff(s, axis=1)).max() > 0.25 for s in scenes)  # sharp edges
    assert all(s.std() > 0.08 for s in scenes)
    assert np.ptp([s.mean() for s in scenes]) > 0.05
