"""The rain renderers: bounds, seeds, knobs, and the optics they claim."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.ndimage import distance_transform_edt

from ttlkit import rain
from ttlkit.data.image_files import to_grey
from ttlkit.gap import features, stats
from ttlkit.rain import layers, scenes, simulated
from ttlkit.rain.layers import draw_lines
from ttlkit.words import SettingsError

RENDERERS = [rain.photoshop, rain.physical, rain.layered, rain.traced]
TABLES = {
    rain.photoshop: rain.PHOTOSHOP,
    rain.physical: rain.PHYSICAL,
    rain.layered: rain.LAYERED,
    rain.traced: rain.TRACED,
}
SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 40))
PLAIN = {"noise": 0, "jpeg": 100, "overcast": 0, "contrast": 0, "tint": 0}  # the camera adds nothing of its own


def random_image(height, width, seed=0):
    return np.random.default_rng(seed).random((height, width, 3), dtype=np.float32)


def flat(level, height=120, width=160):
    return np.full((height, width, 3), level, np.float32)


def assert_image(image, shape, dtype=np.float32):
    assert image.shape == shape and image.dtype == dtype
    assert np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1


def assert_rain(result, clean):
    assert_image(result.rainy, clean.shape, clean.dtype)
    assert_image(result.background, clean.shape, clean.dtype)
    assert_image(result.streaks, clean.shape[:2], clean.dtype)
    assert all(type(v) is float and math.isfinite(v) for v in result.parameters.values())


# ---- any image, any seed -------------------------------------------------------------------------------------


@pytest.mark.parametrize("render", RENDERERS)
@given(shape=SHAPES, seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_any_small_image_renders_within_bounds(render, shape, seed):
    clean = random_image(*shape)
    before = clean.copy()
    assert_rain(render(clean, seed), clean)
    assert np.array_equal(clean, before)


@pytest.mark.parametrize("render", RENDERERS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (700, 1), (2, 3000), (3000, 2), (401, 3)])
def test_odd_sizes_render(render, shape):
    for seed in range(3):
        clean = random_image(*shape, seed)
        assert_rain(render(clean, seed), clean)


@pytest.mark.parametrize("render", RENDERERS)
@pytest.mark.parametrize("level", [0.0, 0.02, 0.5, 1.0])
def test_flat_images_render(render, level):
    for seed in range(4):
        clean = flat(level, 40, 50)
        result = render(clean, seed)
        assert_rain(result, clean)
        if level == 0.0 and render is not rain.layered:  # all of its few streaks may miss so small a picture
            assert result.streaks.max() > 0  # rain shows before black
        if level == 1.0:
            assert result.streaks.max() < 0.05  # and hardly before white


@pytest.mark.parametrize("render", RENDERERS)
def test_the_camera_does_not_blacken_a_flat_grey_picture(render):
    for seed in range(6):
        assert 0.35 < render(flat(0.5), seed).background.mean() < 0.8


@given(shape=SHAPES, seed=st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_any_small_shape_suits_the_other_generators(shape, seed):
    assert_image(rain.scatter(random_image(*shape), np.random.default_rng(seed)), (*shape, 3))
    assert_image(rain.streak_holes(shape, np.random.default_rng(seed)), shape)


@pytest.mark.parametrize("render", RENDERERS)
def test_the_seed_decides_everything(render):
    clean = random_image(48, 64)
    one, again, other, swapped = (render(clean, seed) for seed in ([1, 2], [1, 2], 3, [2, 1]))
    for name in ("rainy", "streaks", "background"):
        assert np.array_equal(getattr(one, name), getattr(again, name))
    assert one.parameters == again.parameters
    assert not np.array_equal(one.rainy, other.rainy) and not np.array_equal(one.rainy, swapped.rainy)


@pytest.mark.parametrize("render", RENDERERS)
@pytest.mark.parametrize("seed", range(4))
def test_float64_gives_the_same_picture_with_more_digits(render, seed):
    clean = random_image(90, 120)
    one, two = render(clean, seed), render(clean.astype(np.float64), seed)
    assert_rain(two, clean.astype(np.float64))
    for name in ("rainy", "streaks", "background"):
        apart = np.abs(getattr(one, name) - getattr(two, name))
        assert np.mean(apart > 1e-3) < 0.001, name  # JPEG may round a level the other way


def test_generators_follow_their_seed():
    clean = random_image(32, 32)
    for make in (
        lambda seed: rain.scatter(clean, np.random.default_rng(seed)),
        lambda seed: rain.streak_holes((32, 32), np.random.default_rng(seed)),
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


def test_empty_masks_are_refused():
    with pytest.raises(ValueError, match="positive"):
        rain.streak_holes((4, 0), np.random.default_rng(0))


# ---- knobs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("render", RENDERERS)
def test_drawn_parameters_lie_in_their_ranges_and_use_them(render):
    clean, table = random_image(4, 4), TABLES[render]
    drawn = [render(clean, seed).parameters for seed in range(150)]
    for name, knob in table.items():
        values = np.array([p[name] for p in drawn])
        reach = 4 if knob.scale == "bell" else 1
        middle, half = (knob.low + knob.high) / 2, (knob.high - knob.low) / 2
        assert np.all(np.abs(values - middle) <= reach * half + 1e-9), name
        assert np.all((knob.least <= values) & (values <= knob.most)), name
        spread = np.ptp(np.log(values)) / np.log(knob.high / knob.low) if knob.scale == "log" else None
        if knob.high > knob.low:
            assert (spread or np.ptp(values) / (2 * half)) > 0.85, name
        assert knob.text and knob.unit


@pytest.mark.parametrize("render", RENDERERS)
def test_what_is_given_is_used_and_changes_no_other_parameter(render):
    clean, table = random_image(24, 32), TABLES[render]
    free = render(clean, 5)
    for name, knob in table.items():
        value = knob.low + 0.25 * (knob.high - knob.low) + (0.1 if knob.low == knob.high else 0)
        given = render(clean, 5, **{name: value})
        assert given.parameters == {**free.parameters, name: value}
    same = render(clean, 5, **free.parameters)
    assert np.array_equal(same.rainy, free.rainy) and np.array_equal(same.streaks, free.streaks)


@pytest.mark.parametrize("render", RENDERERS)
def test_bad_knobs_are_refused_by_name(render):
    clean = random_image(8, 8)
    with pytest.raises(SettingsError, match="unknown parameter: 'angel_deg'; did you mean 'angle_deg'"):
        render(clean, 0, angel_deg=3)
    for value in (-500, 500, math.nan, math.inf, "3", None):
        with pytest.raises(SettingsError, match="angle_deg = .*: must be a number from -[89]0 to [89]0 degrees"):
            render(clean, 0, angle_deg=value)
    for name, knob in TABLES[render].items():
        if knob.scale == "log":
            with pytest.raises(SettingsError, match=name):
                render(clean, 0, **{name: -1})
        for value in (knob.least, min(knob.most, 1e4)):  # the ends themselves are possible
            assert_rain(render(clean, 0, **{name: value}), clean)


def test_more_rain_leaves_the_first_drops_in_place():
    clean = flat(0.1, 240, 320)
    few, many = (rain.physical(clean, 3, rate_mm_h=rate, horizon_m=8, **PLAIN).streaks for rate in (20, 25))
    other = rain.physical(clean, 4, rate_mm_h=25, horizon_m=8, **PLAIN).streaks
    assert np.corrcoef(few.ravel(), many.ravel())[0, 1] > 3 * abs(np.corrcoef(few.ravel(), other.ravel())[0, 1]) > 0
    assert many.mean() > few.mean()


# ---- photoshop -----------------------------------------------------------------------------------------------


def test_photoshop_is_a_screen_blend_of_one_grey_layer():
    clean = random_image(64, 64)
    layer = rain.photoshop(np.zeros_like(clean), 5).streaks  # black: the layer itself
    assert layer.max() > 0.1
    screened = 1 - (1 - clean) * (1 - layer[..., None])
    result = rain.photoshop(clean, 5)
    np.testing.assert_allclose(result.rainy, screened, atol=1e-5)
    assert np.array_equal(result.background, clean)


def test_photoshop_streaks_are_as_strong_as_stated():
    for seed in range(6):
        result = rain.photoshop(flat(0, 200, 200), seed)
        assert 0.3 < result.streaks.max() / result.parameters["strength"] < 1.0001


@pytest.mark.parametrize("angle", [-30, -10, 0, 20, 35])
def test_photoshop_streaks_fall_at_the_stated_angle(angle):
    streaks = rain.photoshop(flat(0, 240, 240), 1, angle_deg=angle, length_px=30).streaks
    seen = features.Prepared(np.repeat(streaks[..., None], 3, 2))
    assert features.streak_direction(seen) == pytest.approx(angle, abs=2.5)


def test_photoshop_knobs_do_what_they_say():
    black = flat(0, 160, 200)
    for name, low, high in (("density", 0.003, 0.02), ("strength", 0.3, 0.9)):
        weak, strong = (rain.photoshop(black, 2, **{name: value}).streaks.mean() for value in (low, high))
        assert strong > 2 * weak
    short, long = (rain.photoshop(black, 2, length_px=value, density=0.003, angle_deg=0).streaks for value in (10, 40))
    assert run_length(long) > 2 * run_length(short)


def run_length(streaks):
    """Mean height in px of vertical runs above a tenth of the maximum."""
    lit = np.pad(streaks > 0.1 * streaks.max(), ((1, 1), (0, 0))).astype(int)
    return lit.sum() / (np.diff(lit, axis=0) == 1).sum()


# ---- physics with known answers ------------------------------------------------------------------------------


@pytest.mark.parametrize("diameter, measured", [(1, 4.03), (2, 6.49), (3, 8.06), (4, 8.83), (5, 9.09)])
def test_fall_speeds_are_those_of_gunn_and_kinzer(diameter, measured):
    assert simulated.fall_speed(diameter) == pytest.approx(measured, rel=0.02)


def test_fall_speed_by_hand():
    assert simulated.fall_speed(2.0) == pytest.approx(9.65 - 10.3 * math.exp(-1.2))
    assert simulated.fall_speed(0.0) == 0 and np.all(np.diff(simulated.fall_speed(np.linspace(0.2, 6, 50))) > 0)


@pytest.mark.parametrize("rate", [1, 10, 100])
def test_marshall_and_palmers_drops(rate):
    slope = 4.1 * rate**-0.21
    for smallest in (0, 1, 2.5):
        by_hand = quad(lambda d: 8000 * math.exp(-slope * d), smallest, math.inf)[0]
        assert simulated.drops_per_m3(rate, smallest) == pytest.approx(by_hand, rel=1e-6)


@pytest.mark.parametrize("rate", [2, 10, 50])
def test_drops_and_their_speed_carry_the_rain_rate(rate):
    # The water that falls through a square metre in an hour: pi/6 D^3 v(D) N(D) dD, in mm. Nothing was fitted to it.
    def flux(d):
        return math.pi / 6 * d**3 * simulated.fall_speed(d) * 8000 * math.exp(-4.1 * rate**-0.21 * d)

    assert quad(flux, 0.1, 8)[0] * 3600 * 1e-6 == pytest.approx(rate, rel=0.2)


def test_as_many_drops_are_drawn_as_the_volume_holds():
    shape, focal, near, rate = (320, 480), 576.0, 0.5, 30.0
    drawn = [simulated.drops(np.random.default_rng(seed), shape, focal, near, rate) for seed in range(40)]
    y, x, depth, diameter = np.concatenate(drawn, axis=1)[:4]
    assert depth.min() >= near and depth.max() <= 2 * near and diameter.min() >= 0.8 and diameter.max() <= 6
    seen = (y >= 0) & (y < 320) & (x >= 0) & (x < 480)
    frustum = 320 * 480 / focal**2 * ((2 * near) ** 3 - near**3) / 3  # m^3 that the camera sees at this distance
    assert seen.sum() / 40 == pytest.approx(frustum * simulated.drops_per_m3(rate, 0.8), rel=0.05)
    big = seen & (diameter > 2)
    assert big.sum() / 40 == pytest.approx(frustum * simulated.drops_per_m3(rate, 2), rel=0.1)
    assert np.mean(depth < 1.5 * near) == pytest.approx((1.5**3 - 1) / 7, abs=0.02)


def test_a_single_drops_streak():
    # 2 mm, 5 m away, 1/100 s, 1000 px: v = 6.548 m/s, so 13.1 px long, 0.4 px wide; it hides 2 mm / 65 mm.
    length, width, opacity = simulated.streak_shape(2.0, 5.0, 0.01, 1000.0)
    speed = 9.65 - 10.3 * math.exp(-1.2)
    assert length == pytest.approx(speed * 0.01 * 1000 / 5)
    assert width == pytest.approx(0.4)
    assert opacity == pytest.approx(0.002 / (speed * 0.01))
    assert simulated.streak_shape(2.0, 5.0, 1e-5, 1000.0)[2] == 1  # the drop hardly moves: it hides all behind it


def test_a_line_is_drawn_as_long_and_as_heavy_as_told():
    for length, tilt in ((30.0, 0.0), (30.0, 25.0), (61.5, -40.0)):
        line = [np.array([v]) for v in (60.2, 70.7, length, np.deg2rad(tilt), 0.25)]
        drawn = draw_lines((128, 144), line, 1.0)
        assert drawn.sum() == pytest.approx(0.25 * length * (1 - 1 / 6), rel=0.03)  # a sixth at each end fades
        y, x = np.nonzero(drawn > 0.25 * 0.02)
        assert np.hypot(np.ptp(y), np.ptp(x)) == pytest.approx(length, abs=2.5)
        assert np.average(np.indices(drawn.shape)[0], weights=drawn) == pytest.approx(60.2, abs=0.02)
        assert np.average(np.indices(drawn.shape)[1], weights=drawn) == pytest.approx(70.7, abs=0.02)


def test_a_very_large_number_of_lines_is_drawn_in_parts(monkeypatch):
    rng = np.random.default_rng(0)
    many = np.stack([rng.uniform(0, 50, 9), rng.uniform(0, 40, 9), np.full(9, 5e3), np.zeros(9), np.ones(9)])
    many = np.concatenate([many, rng.uniform(0, 1, (5, 9))])
    one_by_one = sum(draw_lines((50, 40), many[:, [i]], 1.0) for i in range(9))
    parts = []
    monkeypatch.setattr(layers, "MOST_SAMPLES", 12_000)  # two of them at a time
    monkeypatch.setattr(layers, "draw_lines", lambda *args: parts.append(args) or draw_lines(*args))
    np.testing.assert_allclose(draw_lines((50, 40), many, 1.0), one_by_one, rtol=1e-9)
    assert len(parts) == 8 and max(part[1].shape[1] for part in parts) == 5


def test_oscillations_are_those_of_rayleigh():
    # A drop of 2 mm: sqrt(8 x 0.0728 / (1000 x 0.001^3)) = 763 rad/s = 121 Hz; the pear mode is sqrt(30 / 8) as fast.
    assert simulated.oscillation_hz(2.0, 2) == pytest.approx(121.5, abs=0.2)
    assert simulated.oscillation_hz(2.0, 3) / simulated.oscillation_hz(2.0, 2) == pytest.approx(math.sqrt(30 / 8))
    assert simulated.oscillation_hz(4.0, 2) == pytest.approx(simulated.oscillation_hz(2.0, 2) / 8**0.5)


def test_oscillating_drops_make_waves_along_a_streak():
    line, ripple = [100.0, 20.0, 180.0, 0.0, 1.0], [0.6, 5.0, 0.0, 0.3, 0.0]  # five turns; the second wave stands still
    still, waving = (draw_lines((200, 40), np.array([a]).T, 1.0)[30:170, 20] for a in (line, line + ripple))
    wave = waving / still - 1
    power = np.abs(np.fft.rfft(wave - wave.mean(), 1800))
    assert 1800 / np.argmax(power) == pytest.approx(180 / 5, rel=0.1)
    assert wave.max() == pytest.approx(0.4, abs=0.02) and wave.min() == pytest.approx(-0.4, abs=0.02)  # 2/3 of 0.6


def test_extinction_of_a_hundred_millimetres_an_hour():
    # 1.076 x 100^0.67 = 23.5 dB/km: after a kilometre 10^-2.35 of the light is left (ITU-R P.1814).
    assert math.exp(-1000 * simulated.extinction_per_m(100)) == pytest.approx(10**-2.354, rel=0.01)


# ---- the physical picture ------------------------------------------------------------------------------------


@pytest.mark.parametrize("angle", [-25, -8, 0, 12, 30])
def test_physical_streaks_fall_at_the_stated_angle(angle):
    calm = {"fan_deg": 0, "jitter_deg": 0, "exposure_s": 1 / 60, "rate_mm_h": 20, "near_m": 1, "wobble": 0, **PLAIN}
    found = []
    for seed in range(3):
        streaks = rain.physical(flat(0.05, 240, 240), seed, angle_deg=angle, **calm).streaks
        found.append(features.streak_direction(features.Prepared(np.repeat(streaks[..., None], 3, 2))))
    assert found == pytest.approx([angle] * 3, abs=2.5)


def test_exposure_lengthens_and_dims_streaks():
    knobs = {"rate_mm_h": 10, "near_m": 2, "focus_m": 4, "angle_deg": 0, "wobble": 0, "sky": 3, "horizon_m": 8, **PLAIN}
    short, long = (rain.physical(flat(0.1, 240, 320), 3, exposure_s=t, **knobs).streaks for t in (1 / 500, 1 / 60))
    assert run_length(long) > 2 * run_length(short)
    assert long.max() < short.max()


def layer(exposure=1 / 400, focal=1.25, seed=3, near=1.0):
    p = rain.physical(random_image(2, 2), 0, exposure_s=exposure, focal=focal, rate_mm_h=20, near_m=near).parameters
    p |= {"aperture_mm": 0, "focus_m": 4, "wobble": 0}
    return simulated.cover_by_drops(np.random.default_rng(seed), (400, 400), p, np.float32)


def test_exposure_spreads_the_same_light_over_longer_streaks():
    # opacity D / (v T), width D f / z, length v T f / z: the product does not depend on the exposure T.
    short, long = layer(exposure=1 / 400), layer(exposure=1 / 100)
    assert long.sum() == pytest.approx(short.sum(), rel=0.1)
    assert 2 < short.max() / long.max() < 5


def test_defocus_widens_streaks_and_keeps_their_light():
    knobs = {"rate_mm_h": 20, "near_m": 0.5, "focus_m": 20, "focal": 1, "wobble": 0, "exposure_s": 0.01}
    p = rain.physical(random_image(2, 2), 0, **knobs).parameters
    sharp, soft = (
        simulated.cover_by_drops(np.random.default_rng(1), (300, 300), p | {"aperture_mm": a}, np.float32)
        for a in (0.5, 8)
    )
    assert soft.max() < 0.7 * sharp.max() and soft.sum() == pytest.approx(sharp.sum(), rel=0.05)


def test_more_rain_more_streaks():
    amount = [
        np.mean([rain.physical(flat(0.1), s, rate_mm_h=r, horizon_m=8, **PLAIN).streaks.mean() for s in range(3)])
        for r in (0, 5, 30, 150)
    ]
    assert amount[0] == 0 and np.all(np.diff(amount) > 0)


def test_no_rain_and_a_plain_camera_give_the_picture_back():
    clean = scenes.dead_leaves(0, 60, 80)
    result = rain.physical(clean, 1, rate_mm_h=0, **PLAIN)
    np.testing.assert_allclose(result.background, clean, atol=1e-4)
    assert np.abs(result.rainy - clean).mean() < 0.02 and result.streaks.max() == 0  # JPEG alone


def test_veil_grows_with_rain_and_depth():
    black = flat(0.0)

    def lifted(**given):
        return rain.physical(black, 2, **{"rate_mm_h": 30, "horizon_m": 50, **PLAIN, **given}).background.mean()

    assert np.all(np.diff([lifted(rate_mm_h=rate) for rate in (0, 5, 20, 80, 200)]) > 0)
    assert np.all(np.diff([lifted(horizon_m=far) for far in (5, 20, 80, 300)]) > 0)
    assert lifted(contrast=1) < 0.9 * lifted()  # the camera takes some of it back
    result = rain.physical(black, 2, rate_mm_h=60, horizon_m=80, **PLAIN).background
    assert result[:40].mean() > 1.1 * result[-40:].mean()  # what is higher up is taken for farther away


def test_far_things_lose_contrast_and_sharpness():
    scene = random_image(120, 120)
    result = rain.physical(scene, 0, rate_mm_h=60, horizon_m=80, **PLAIN).background
    assert result[:40].std() < result[-40:].std() < scene.std()


def test_overcast_takes_colour_and_leaves_luma():
    red = np.zeros((40, 40, 3), np.float32) + np.array([0.7, 0.2, 0.2], np.float32)
    clear, grey = (
        rain.physical(red, 0, rate_mm_h=0, **{**PLAIN, "overcast": share}).background for share in (0.0, 0.5)
    )
    assert features.saturation(features.Prepared(grey)) < 0.75 * features.saturation(features.Prepared(clear))
    assert to_grey(grey**simulated.GAMMA).mean() == pytest.approx(to_grey(clear**simulated.GAMMA).mean(), rel=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_streaks_are_what_the_rainy_picture_has_more_than_the_background(seed):
    clean = scenes.dead_leaves(seed, 120, 160) * 0.5
    result = rain.physical(clean, seed, **PLAIN)
    more = to_grey(result.rainy) - to_grey(result.background)
    assert np.abs(np.maximum(more, 0) - result.streaks).mean() < 0.004  # JPEG and rounding
    assert np.corrcoef(more.ravel(), result.streaks.ravel())[0, 1] > 0.9


def test_physical_drops_carry_the_sky():
    scene = np.full((96, 192, 3), 0.1, np.float32)
    scene[:, 96:] = 0.95  # drops refract the whole sky, so they show before the dark half
    shown = np.mean([rain.physical(scene, seed).streaks for seed in range(8)], axis=0)
    assert shown[:, :80].mean() > 3 * shown[:, 112:].mean()


def test_zooming_in_shows_fewer_drops_but_bigger_ones():
    # The volume seen falls with f^2, the area D f / z x v T f / z of a streak grows with it.
    # Close drops only: of far ones there are so many that the smallest are left out.
    wide, tele = (np.mean([layer(focal=f, seed=s, near=0.05) for s in range(10)]) for f in (1.25, 2.5))
    assert tele == pytest.approx(wide, rel=0.25)


@pytest.mark.parametrize("render", RENDERERS)
def test_rain_ranges_from_light_to_heavy(render):
    clean = scenes.dead_leaves(1, 120, 160)
    amount = [render(clean, seed).streaks.mean() for seed in range(25)]
    assert max(amount) > 4 * min(amount) and min(amount) > 0


def test_simulated_rain_is_nearer_to_real_rain_than_drawn_rain(shared_data):
    """On the half of the real photographs that the ranges were not tuned on; few images, so that it is quick."""
    from ttlkit.data import image_files

    folder = shared_data / "collection/real"
    real = [image_files.load_image(path) for path in image_files.list_images(folder / "rainy")[1::2][::6]]
    clean = [_scaled(image_files.load_image(path)) for path in image_files.list_images(folder / "clean")[3::24]]

    def measured(pictures):  # what the camera and its files leave is not what is drawn
        return {name: v for name, v in features.measure(pictures).items() if name not in features.CAMERA}

    sets = {f.__name__: measured(f(image, [7, i]).rainy for i, image in enumerate(clean)) for f in RENDERERS}
    mean = stats.closeness(sets, measured(real))[-1]
    assert mean["physical"] < 0.6 * mean["photoshop"]


def _scaled(image, long_side=480):
    from ttlkit.data import image_files

    scale = long_side / max(image.shape)
    return image_files.resize(image, round(image.shape[0] * scale), round(image.shape[1] * scale))


# ---- what the connected tasks use ----------------------------------------------------------------------------


def test_scatter_blurs_and_veils_without_streaks():
    rng = np.random.default_rng(0)
    clean = scenes.dead_leaves(2, 96, 96)
    results = [rain.scatter(clean, rng) for _ in range(30)]
    edges = [np.abs(np.diff(r, axis=1)).mean() / np.abs(np.diff(clean, axis=1)).mean() for r in results]
    assert max(edges) < 1 and np.ptp(edges) > 0.2  # always smoother, by an amount that varies
    grey = rain.scatter(flat(0.2, 48, 48), rng)
    assert grey.std(axis=(0, 1)).max() < 0.02  # nothing but light noise is added to a flat picture


def test_streak_holes_cover_a_few_percent_steeply():
    rng = np.random.default_rng(0)
    masks = [rain.streak_holes((96, 96), rng) for _ in range(100)]
    cover = np.array([(m > 0.5).mean() for m in masks])
    assert 0.06 < cover.mean() < 0.16 and cover.min() > 0.005 and cover.max() < 0.3
    assert all(((m > 0.1) & (m < 0.9)).any() and m.max() > 0.9 for m in masks)  # soft edges, full middles
    tilts = [features.streak_direction(features.Prepared(np.repeat(m[..., None], 3, 2))) for m in masks]
    assert np.abs(tilts).max() < 45 and np.std(tilts) > 5


# ---- layers of every strength --------------------------------------------------------------------------------

BARE = {"veil": 0, "noise": 0, "jpeg": 100, "lamps": 0}


def test_no_layer_and_no_veil_give_the_picture_back():
    clean = scenes.dead_leaves(0, 60, 80)
    result = rain.layered(clean, 1, layers=0, **BARE)
    np.testing.assert_array_equal(result.background, clean)
    assert np.abs(result.rainy - clean).mean() < 0.02 and result.streaks.max() == 0  # JPEG alone


@pytest.mark.parametrize("angle", [-25, 0, 20])
def test_layers_fall_at_the_stated_angle(angle):
    knobs = {"turn_deg": 0, "jitter_deg": 0.5, "layers": 2, "width_px": 2, "slender": 15, "cover": 0.05, "peak": 1}
    found = []
    for seed in range(3):
        streaks = rain.layered(flat(0.05, 240, 240), seed, angle_deg=angle, **knobs, **BARE).streaks
        found.append(features.streak_direction(features.Prepared(np.repeat(streaks[..., None], 3, 2))))
    assert found == pytest.approx([angle] * 3, abs=2.5)


def test_knobs_of_layers_do_what_they_say():
    black, white = flat(0.0, 200, 200), flat(1.0, 200, 200)
    steady = {"layers": 1, "width_px": 3, "slender": 12, "cover": 0.05, "peak": 0.8, "light": 0.8, "edge": 1, **BARE}

    def streaks(clean=black, seed=3, **given):
        return rain.layered(clean, seed, **{**steady, **given}).streaks

    assert streaks(peak=0.2).max() == pytest.approx(0.2 * 0.8, rel=0.15)  # at most peak * light, before black
    assert streaks(cover=0.2).mean() > 2 * streaks().mean()
    assert streaks(layers=3, finer=1).mean() > 1.8 * streaks().mean()
    thick, thin = (distance_transform_edt(streaks(width_px=width) > 0.2).max() for width in (12, 3))
    assert thick > 2 * thin
    assert streaks(edge=4, peak=0.5).mean() > 1.2 * streaks(edge=1, peak=0.5).mean()
    added = rain.layered(white, 3, **{**steady, "hides": 0})
    hidden = rain.layered(white, 3, **{**steady, "hides": 1})
    assert added.rainy.min() > 0.95 and hidden.rainy.min() < 0.9  # white stays white, or grey drops stand before it
    lit = np.zeros((200, 200, 3), np.float32)
    lit[:40, :40] = 1
    by_lamp = rain.layered(lit, 3, **{**steady, "lamps": 1, "hides": 0, "cover": 0.2}).streaks
    assert by_lamp[40:80, 40:80].mean() > 5 * by_lamp[160:, 160:].mean()
    veiled = rain.layered(black, 3, **{**steady, "veil": 0.2})
    assert 0.2 * 0.5 <= veiled.background.mean() <= 0.2 * 0.95 and veiled.background.std() < 1e-6


def test_measured_layers_are_enlarged_to_the_stated_width():
    def measured(side, rng):  # one streak, two pixels wide
        layer = np.zeros((side, side), np.float32)
        layer[:, side // 2 : side // 2 + 2] = 0.3
        return layer

    knobs = {"layers": 1, "peak": 1, "light": 1, "edge": 1, **BARE}
    found = {}
    for width in (2, 8):
        for seed in range(6):
            streaks = rain.layered(flat(0.0, 96, 96), seed, measured, width_px=width, **knobs).streaks
            if streaks.max() > 0.5 and np.ptp(streaks, axis=0).max() < 1e-6:  # upright through all: the measured one
                found[width] = float((streaks[0] > 0.5).sum())
                assert streaks.max() > 0.9  # light * peak, but for the tint of the light
    assert found == {2: 2, 8: pytest.approx(8, abs=1)}
