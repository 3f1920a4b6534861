"""Features of rain against answers known beforehand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from ttlkit import rain
from ttlkit.data.image_files import recompress, resize
from ttlkit.gap import features
from ttlkit.rain import scenes


def grey_image(values):
    return np.repeat(np.asarray(values, np.float32)[..., None], 3, axis=2)


def plain(values):
    """A grey image as features see it, not blurred."""
    return features.Prepared(grey_image(values))


def draw_streaks(angles, width=2.0, level=0.4, size=256, seed=0, length=40, count=40):
    """Lines of `length` px on grey, drawn with Pillow at four times the size, so not by the code under test."""
    rng = np.random.default_rng(seed)
    canvas = Image.new("L", (4 * size, 4 * size), 0)
    draw = ImageDraw.Draw(canvas)
    for angle in np.deg2rad(np.resize(angles, count)):
        y, x = rng.uniform(0, 4 * size, 2)
        dy, dx = 2 * length * np.cos(angle), 2 * length * np.sin(angle)
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
    seen = features.prepare(draw_streaks([angle]))
    mean, spread = features.streak_direction(seen), features.streak_direction_spread(seen)
    assert mean == pytest.approx(angle, abs=2)
    assert spread < 12


def test_streak_direction_spread_of_two_directions():
    # Half the weight at each of +-20 degrees: r = cos 40, spread = sqrt(-2 ln r) / 2 = 20.9 degrees.
    both = features.streak_direction_spread(features.prepare(draw_streaks([-20, 20])))
    assert both == pytest.approx(np.rad2deg(np.sqrt(-2 * np.log(np.cos(np.deg2rad(40)))) / 2), abs=3)


def test_noise_has_no_streak_direction():
    noise = np.clip(np.random.default_rng(0).normal(0.5, 0.1, (200, 200)), 0, 1)
    assert features.streak_direction_spread(features.prepare(grey_image(noise))) > 22
    assert features.edge_spread(plain(noise)) > 0.9


@pytest.mark.parametrize("angle", [0, 25])
def test_streak_width_is_found(angle):
    found = [features.streak_width(features.prepare(draw_streaks([angle], width))) for width in (2, 4, 6, 8)]
    assert np.all(np.diff(found) > 0.8)
    assert np.allclose(found, (2, 4, 6, 8), atol=1.6)  # prepare and the pixel grid widen the thin ones


def test_streak_width_does_not_depend_on_the_tilt():
    upright, tilted = (features.streak_width(features.prepare(draw_streaks([angle], 6))) for angle in (0, 38))
    assert tilted == pytest.approx(upright, rel=0.08)


def test_streak_contrast_is_found_and_grows_with_the_streaks():
    low, high = (features.streak_contrast(features.prepare(draw_streaks([5], 4, level))) for level in (0.2, 0.4))
    assert low == pytest.approx(0.2, abs=0.04) and high == pytest.approx(0.4, abs=0.06)


@pytest.mark.parametrize("angle", [0, 20])
def test_streak_length_is_found(angle):
    found = [
        features.streak_length(features.prepare(draw_streaks([angle], 2, length=length, count=12)))
        for length in (10, 20, 40)
    ]
    assert found == pytest.approx([10, 20, 40], rel=0.25)


def test_streak_density_counts_lines():
    stripes = np.full((120, 200), 0.3)
    stripes[:, 10::20] = 0.7  # ten lines in 200 px: five in a row of 100
    assert features.streak_density(features.prepare(grey_image(stripes))) == pytest.approx(5, abs=0.6)
    more, fewer = (features.streak_density(features.prepare(draw_streaks([5], count=n))) for n in (40, 10))
    assert 2.5 < more / fewer < 5


def stripes_over(ramp, add, opacity):
    """Upright lines of 3 px on a ground that brightens downwards: ground (1 - opacity) + add."""
    image = np.repeat(np.linspace(*ramp, 160)[:, None], 160, 1)
    for x in range(10, 160, 20):
        image[:, x : x + 3] = image[:, x : x + 3] * (1 - opacity) + add
    return image


def test_fading_is_the_opacity_of_the_streaks():
    for opacity, add in ((0.0, 0.2), (0.3, 0.3), (0.6, 0.6)):
        seen = plain(stripes_over((0.1, 0.6), add, opacity))
        assert features.streak_fading(seen) == pytest.approx(opacity, abs=0.05)


def test_sign_and_colour_of_streaks():
    bright = stripes_over((0.3, 0.3), 0.2, 0)
    assert features.streak_sign(plain(bright)) > 0.9
    assert features.streak_sign(plain(1 - bright)) < -0.9
    red = grey_image(bright)
    red[..., 1:] = 0.3
    assert features.streak_colour(plain(bright)) < 0.02 and features.streak_colour(features.Prepared(red)) > 0.9


def test_detail_that_is_lost_with_depth():
    noise = np.random.default_rng(0).normal(0, 0.15, (160, 160))
    depth = np.linspace(0, 1, 160)[:, None]
    hazy = np.clip(0.3 + noise * (1 - 0.9 * depth) + 0.5 * depth, 0, 1)
    assert features.depth_fading(features.prepare(grey_image(hazy))) > 0.8
    even = np.clip(0.3 + noise, 0, 1)
    assert abs(features.depth_fading(features.prepare(grey_image(even)))) < features.depth_fading(
        features.prepare(grey_image(hazy))
    )


def test_upright_lines_have_a_spectrum_that_leans():
    upright = features.spectrum_anisotropy(features.prepare(draw_streaks([0])))
    level = features.spectrum_anisotropy(features.prepare(draw_streaks([0]).transpose(1, 0, 2)))
    assert upright > 0.5 and level == pytest.approx(-upright, abs=0.1)


def test_noise_is_found():
    flat = np.full((200, 200), 0.5)
    for sigma in (0.01, 0.03, 0.08):
        noisy = flat + np.random.default_rng(0).normal(0, sigma, flat.shape)
        assert features.noise(plain(noisy)) == pytest.approx(sigma, rel=0.05)


def test_blocks_of_jpeg_are_found():
    photograph = scenes.dead_leaves(3, 200, 240)
    values = [features.blockiness(features.Prepared(image)) for image in (photograph, recompress(photograph, 15))]
    assert abs(values[0]) < 0.1 and values[1] > values[0] + 0.2


def test_every_feature_of_rain_has_a_map_to_look_at():
    seen = features.prepare(rain.photoshop(scenes.dead_leaves(4, 120, 160), 4).rainy)
    for feature in (one for one in features.FEATURES if one.group != "camera"):
        shown = getattr(seen, feature.shown)
        assert shown.ndim == 2 and np.isfinite(shown).all() and shown.min() >= -1e-6 and shown.max() > 0, feature.name


def test_gradient_spread_knows_one_direction_from_all():
    x = np.linspace(-1, 1, 128)
    stripes = np.tile(0.5 + 0.3 * np.sin(20 * x), (128, 1))
    disc = 0.2 + 0.6 * (np.hypot(x[:, None], x) < 0.6)
    assert features.edge_spread(plain(stripes)) < 0.01
    assert features.edge_spread(plain(disc)) > 0.95


@pytest.mark.parametrize("exponent", [-1.0, -2.0, -3.0])
def test_spectrum_slope_of_power_law_noise(exponent):
    assert features.spectrum_slope(features.Prepared(power_law_noise(exponent))) == pytest.approx(exponent, abs=0.15)


def test_simple_features_of_simple_images():
    colour = np.zeros((40, 40, 3), np.float32) + np.array([0.9, 0.45, 0.2], np.float32)
    assert features.saturation(features.Prepared(colour)) == pytest.approx(0.7 / 0.9, abs=1e-5)
    assert features.veil(features.Prepared(colour)) == pytest.approx(0.2, abs=1e-5)
    assert features.local_contrast(features.Prepared(colour)) == pytest.approx(0, abs=1e-3)
    noise = np.random.default_rng(0).normal(0.5, 0.05, (200, 200))
    assert features.local_contrast(plain(noise)) == pytest.approx(0.05, abs=0.003)


def test_photoshop_rain_shows_in_the_features():
    clean = scenes.dead_leaves(4, 240, 320)
    before, after = (features.measure([image]) for image in (clean, rain.photoshop(clean, 4).rainy))
    assert after["streak_direction_spread"][0] < before["streak_direction_spread"][0]


def test_prepare_only_scales_down():
    small, big = random(20, 30), random(600, 960)
    assert features.prepare(small).image.shape == small.shape
    assert features.prepare(big).image.shape == (300, 480, 3)
    assert features.prepare(big, long_side=100).image.shape == (62, 100, 3)
    assert features.scale_down(small) is small and features.scale_down(random(1, 2000)).shape == (1, 480, 3)


def random(height, width):
    return np.random.default_rng(0).random((height, width, 3), dtype=np.float32)


def test_resolution_is_not_what_is_measured():
    big = scenes.dead_leaves(0, 640, 960)
    a, b = features.measure([big]), features.measure([resize(big, 320, 480)])
    for name in a:
        if name not in features.CAMERA:  # those are of the image as it was loaded
            assert a[name][0] == pytest.approx(b[name][0], rel=0.03, abs=0.03), name


@given(shape=st.tuples(st.integers(1, 33), st.integers(1, 33)), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_every_feature_is_finite_on_any_image(shape, seed):
    rng = np.random.default_rng(seed)
    image = rng.random((*shape, 3), dtype=np.float32)
    values = features.measure([image, image * 0, image * 0 + 1, np.round(image)])
    assert list(values) == [f.name for f in features.FEATURES]
    assert all(v.shape == (4,) and v.dtype == np.float64 and np.isfinite(v).all() for v in values.values())


def test_flat_images_have_the_stated_values():
    values = {name: v[0] for name, v in features.measure([np.full((50, 60, 3), 0.5, np.float32)]).items()}
    none = ("streak_contrast", "streak_width", "saturation", "spectrum_slope")
    assert all(values[name] == 0 for name in none)
    assert values["edge_spread"] == 1
    assert values["streak_direction_spread"] == pytest.approx(27.2, abs=0.1)


@pytest.mark.parametrize("bad", [np.zeros((3, 3)), np.zeros((3, 3, 3), np.uint8), np.full((3, 3, 3), 2.0)])
def test_what_is_not_an_image_is_refused(bad):
    with pytest.raises(ValueError, match="an image is"):
        features.measure([bad])


def test_no_images_are_refused():
    with pytest.raises(ValueError, match="no images"):
        features.measure([])
