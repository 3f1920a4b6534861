"""Features and set distances against answers known beforehand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from scipy.stats import kstest

from ttlkit import rain, scenes, stats
from ttlkit.images import resize


def grey_image(values):
    return np.repeat(np.asarray(values, np.float32)[..., None], 3, axis=2)


def draw_streaks(angles, width=2.0, level=0.4, size=256, seed=0):
    """Lines of 40 px on grey, drawn with Pillow at four times the size, so not by the code under test."""
    rng = np.random.default_rng(seed)
    canvas = Image.new("L", (4 * size, 4 * size), 0)
    draw = ImageDraw.Draw(canvas)
    for angle in np.deg2rad(np.resize(angles, 40)):
        y, x = rng.uniform(0, 4 * size, 2)
        dy, dx = 80 * np.cos(angle), 80 * np.sin(angle)
        draw.line((x - dx, y - dy, x + dx, y + dy), fill=255, width=round(4 * width))
    lines = np.asarray(canvas, np.float32).reshape(size, 4, size, 4).mean((1, 3)) / 255
    return grey_image(0.3 + level * lines)


def power_law_noise(exponent, size=256, seed=0):
    rng = np.random.default_rng(seed)
    f = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    f[0, 0] = np.inf
    phase = np.exp(2j * np.pi * rng.random(f.shape))
    field = np.fft.irfft2(phase * f ** (exponent / 2), s=(size, size))
    return grey_image(0.5 + 0.1 * field / field.std())


@pytest.mark.parametrize("angle", [-35, -20, -5, 0, 10, 30, 40])
def test_streak_direction_is_found(angle):
    mean, spread = stats.streak_direction(stats.prepare(draw_streaks([angle])))
    assert mean == pytest.approx(angle, abs=2.5)
    assert spread < 12


def test_streak_direction_spread_of_two_directions():
    # Half the weight at each of +-20 degrees: r = cos 40, spread = sqrt(-2 ln r) / 2 = 20.9 degrees.
    both = stats.streak_direction_spread(stats.prepare(draw_streaks([-20, 20])))
    assert both == pytest.approx(np.rad2deg(np.sqrt(-2 * np.log(np.cos(np.deg2rad(40)))) / 2), abs=3)


def test_noise_has_no_streak_direction():
    noise = np.clip(np.random.default_rng(0).normal(0.5, 0.1, (200, 200)), 0, 1)
    assert stats.streak_direction_spread(stats.prepare(grey_image(noise))) > 22
    assert stats.gradient_orientation_spread(grey_image(noise)) > 0.9


@pytest.mark.parametrize("angle", [0, 25])
def test_streak_width_is_found(angle):
    found = [stats.streak_width(stats.prepare(draw_streaks([angle], width))) for width in (2, 4, 6, 8)]
    assert np.all(np.diff(found) > 0.8)
    assert np.allclose(found, (2, 4, 6, 8), atol=1.6)  # prepare and the pixel grid widen the thin ones


def test_streak_width_does_not_depend_on_the_tilt():
    upright, tilted = (stats.streak_width(stats.prepare(draw_streaks([angle], 6))) for angle in (0, 38))
    assert tilted == pytest.approx(upright, rel=0.08)


def test_streak_contrast_is_found_and_grows_with_the_streaks():
    low, high = (stats.streak_contrast(stats.prepare(draw_streaks([5], 4, level))) for level in (0.2, 0.4))
    assert low == pytest.approx(0.2, abs=0.04) and high == pytest.approx(0.4, abs=0.06)


def test_gradient_spread_knows_one_direction_from_all():
    x = np.linspace(-1, 1, 128)
    stripes = np.tile(0.5 + 0.3 * np.sin(20 * x), (128, 1))
    disc = 0.2 + 0.6 * (np.hypot(x[:, None], x) < 0.6)
    assert stats.gradient_orientation_spread(grey_image(stripes)) < 0.01
    assert stats.gradient_orientation_spread(grey_image(disc)) > 0.95


@pytest.mark.parametrize("exponent", [-1.0, -2.0, -3.0])
def test_spectrum_slope_of_power_law_noise(exponent):
    assert stats.spectrum_slope(power_law_noise(exponent)) == pytest.approx(exponent, abs=0.15)


def test_simple_features_of_simple_images():
    colour = np.zeros((40, 40, 3), np.float32) + np.array([0.9, 0.45, 0.2], np.float32)
    assert stats.saturation(colour) == pytest.approx(0.7 / 0.9, abs=1e-5)
    assert stats.veil(colour) == pytest.approx(0.2, abs=1e-5)
    assert stats.local_contrast(colour) == pytest.approx(0, abs=1e-3)
    noise = np.random.default_rng(0).normal(0.5, 0.05, (200, 200))
    assert stats.local_contrast(grey_image(noise)) == pytest.approx(0.05, abs=0.003)


def test_photoshop_rain_shows_in_the_features():
    clean = scenes.dead_leaves(4, 240, 320)
    before, after = (stats.measure([image]) for image in (clean, rain.photoshop(clean, 4).rainy))
    assert after["streak_direction_spread"][0] < before["streak_direction_spread"][0]


def test_prepare_only_scales_down():
    small, big = random(20, 30), random(600, 960)
    assert stats.prepare(small).shape == small.shape
    assert stats.prepare(big).shape == (300, 480, 3)
    assert stats.prepare(big, long_side=100).shape == (62, 100, 3)
    assert stats.scale_down(small) is small and stats.scale_down(random(1, 2000)).shape == (1, 480, 3)


def random(height, width):
    return np.random.default_rng(0).random((height, width, 3), dtype=np.float32)


def test_resolution_is_not_what_is_measured():
    big = scenes.dead_leaves(0, 640, 960)
    a, b = stats.measure([big]), stats.measure([resize(big, 320, 480)])
    for name in a:
        assert a[name][0] == pytest.approx(b[name][0], rel=0.03, abs=0.01), name


@given(shape=st.tuples(st.integers(1, 33), st.integers(1, 33)), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_every_feature_is_finite_on_any_image(shape, seed):
    rng = np.random.default_rng(seed)
    image = rng.random((*shape, 3), dtype=np.float32)
    values = stats.measure([image, image * 0, image * 0 + 1, np.round(image)])
    assert list(values) == [f.name for f in stats.FEATURES]
    assert all(v.shape == (4,) and v.dtype == np.float64 and np.isfinite(v).all() for v in values.values())


def test_flat_images_have_the_stated_values():
    values = {name: v[0] for name, v in stats.measure([np.full((50, 60, 3), 0.5, np.float32)]).items()}
    none = ("streak_contrast", "streak_width", "saturation", "spectrum_slope")
    assert all(values[name] == 0 for name in none)
    assert values["gradient_orientation_spread"] == 1
    assert values["streak_direction_spread"] == pytest.approx(27.2, abs=0.1)


@pytest.mark.parametrize("bad", [np.zeros((3, 3)), np.zeros((3, 3, 3), np.uint8), np.full((3, 3, 3), 2.0)])
def test_what_is_not_an_image_is_refused(bad):
    with pytest.raises(ValueError, match="an image is"):
        stats.measure([bad])


def test_no_images_are_refused():
    with pytest.raises(ValueError, match="no images"):
        stats.measure([])


def gaussians(count, features, shift=0.0, seed=0):
    values = np.random.default_rng(seed).normal(shift, 1, (features, count))
    return {f"f{i}": row for i, row in enumerate(values)}


@pytest.mark.parametrize("shift, delta", [(0.5, -0.276), (2.0, -0.843)])  # delta = 1 - 2 Phi(shift / sqrt 2)
def test_shifted_gaussians_are_as_far_apart_as_their_means(shift, delta):
    a, b = gaussians(3000, 1), gaussians(2000, 1, shift, seed=1)
    (row,) = stats.compare(a, b, rounds=50)
    assert row["wasserstein"] == pytest.approx(shift, abs=0.06)
    assert row["cliffs_delta"] == pytest.approx(delta, abs=0.03)
    assert row["p_value"] < 1e-10 and row["null"] < 0.1
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
    rows = stats.compare(gaussians(40, 300), gaussians(30, 300, seed=1), rounds=200)
    assert kstest([row["p_value"] for row in rows], "uniform").pvalue > 0.001
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
