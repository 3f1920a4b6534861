"""Render rain and rain-like degradations: (clean, seed) -> rainy; everything follows from the seed.

A float32 image gives float32 results. A float64 image is computed in float64 throughout, whose last bits (they differ
between processors) vanish when the result is rounded to uint8: so the pocket collection is the same everywhere.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np
from scipy.ndimage import gaussian_filter, uniform_filter, uniform_filter1d, zoom

from ttlkit.images import recompress, to_grey

Seed = int | Sequence[int]
GAMMA = 2.2
SURFACE_TENSION, WATER = 0.0728, 1000.0  # N/m and kg/m^3, of water at 20 degrees Celsius
LARGEST = 6.0  # mm; bigger drops break up


class RainError(ValueError):
    """A parameter of a renderer is unknown or impossible; the message says what is known or possible."""


@dataclass(frozen=True)
class Knob:
    """A parameter of a renderer, drawn between `low` and `high` for every picture, unless it is given.

    scale: 'even', 'log' (evenly in the logarithm), or 'bell' (normal, `low` and `high` at two standard deviations).
    What is given may lie outside of that, but not outside of `least` to `most`.
    """

    text: str
    unit: str
    low: float
    high: float
    scale: str = "even"
    least: float = 0.0
    most: float = math.inf

    def draw(self, rng: np.random.Generator) -> float:
        """One value from the range."""
        if self.scale == "log":
            return _log_uniform(rng, self.low, self.high)
        if self.scale == "bell":
            value = rng.normal((self.low + self.high) / 2, (self.high - self.low) / 4)
            return float(np.clip(value, self.least, self.most))
        return float(rng.uniform(self.low, self.high))


PHOTOSHOP = {
    "angle_deg": Knob(
        "direction of all streaks, right on the way down above 0", "degrees", -35, 35, least=-90, most=90
    ),
    "strength": Knob("brightness of the layer", "1", 0.35, 0.95, most=1),
    "length_px": Knob("length of the motion blur", "px", 10, 45, least=1, most=1000),
    "grain_px": Knob("size of a noise grain", "px", 1, 2.2, least=1, most=100),
    "density": Knob("share of noise that becomes streaks", "1", 0.002, 0.03, "log", most=1),
}

# Ranges: what rain does and hand-held cameras do. Within that, and for what no physics gives (sky, blur, overcast,
# contrast), they were tuned on half of a set of photographs of real rain and checked on the other half: notebook 01.
PHYSICAL = {
    "rate_mm_h": Knob("rain rate", "mm/h", 3, 150, "log", most=500),
    "exposure_s": Knob("exposure time", "s", 1 / 500, 1 / 30, "log", least=1e-5, most=1),
    "focal": Knob("focal length, in long sides of the picture", "1", 0.9, 1.6, least=0.1, most=20),
    "angle_deg": Knob(
        "direction of the rain, right on the way down above 0", "degrees", -18, 18, "bell", least=-80, most=80
    ),
    "fan_deg": Knob("by how much streaks fan out over the width", "degrees", 5, 5, most=45),
    "jitter_deg": Knob("scatter of single streaks (gusts)", "degrees", 1, 5, most=45),
    "near_m": Knob("distance of the nearest drops", "m", 0.4, 3, "log", least=0.05, most=100),
    "focus_m": Knob("distance in focus", "m", 2, 20, "log", least=0.1),
    "aperture_mm": Knob("width of the aperture", "mm", 1, 8, "log", most=50),
    "horizon_m": Knob("distance of the farthest things", "m", 8, 120, "log", most=5000),
    "wobble": Knob("oscillation of drops, share of a streak's brightness", "1", 0.2, 0.8, most=1),
    "sky": Knob("light of a drop over the sky's as the camera shows it", "1", 3, 14, "log", most=100),
    "blur": Knob("forward scattering of far things, thousandths of the long side", "1", 1.7, 4.6, most=50),
    "overcast": Knob("share of colour lost for want of sun", "1", 0.1, 0.7, most=1),
    "contrast": Knob("share of the veil that the camera takes back", "1", 0.6, 1, most=1),
    "tint": Knob("colour of the sky, warm above 0", "1", -0.04, 0.04, "bell", least=-0.5, most=0.5),
    "noise": Knob("sensor noise after gamma", "1", 0.002, 0.015, most=1),
    "jpeg": Knob("JPEG quality, rounded", "1", 60, 95, least=1, most=100),
}


@dataclass(frozen=True)
class Rain:
    """A rendered picture; all arrays in [0, 1], in the dtype of the image that was given.

    rainy: (H, W, 3). streaks: (H, W), the luma that streaks add. parameters: what was drawn or given; units stand in
    the table of the renderer, PHOTOSHOP or PHYSICAL. background: (H, W, 3), the picture before the streaks (and noise
    and JPEG): veil and blur are in it, so it is what a remover of streaks alone could reach.
    """

    rainy: np.ndarray
    streaks: np.ndarray
    parameters: dict[str, float]
    background: np.ndarray


def photoshop(clean: np.ndarray, seed: Seed, **given: float) -> Rain:
    """Lay Photoshop rain over `clean` (H, W, 3) in [0, 1]: the recipe behind most synthetic rain sets.

    Noise, threshold, motion blur along one angle, contrast, then screen: rainy = 1 - (1 - clean)(1 - layer).
    Nothing else of the picture changes, which is the gap to real rain. `given` fixes parameters of the table
    PHOTOSHOP; the others stay what they are for that seed. Raises ValueError on a bad image, RainError (a
    ValueError) on a bad parameter.
    """
    clean = _check(clean)
    p, rng = _draw(PHOTOSHOP, seed, given)
    size = 2 * int(p["length_px"] / 2) + 5
    middle, tilt = np.array([size // 2]), np.deg2rad([p["angle_deg"]])
    length = np.array([p["length_px"]])
    kernel = _draw_lines((size, size), (middle, middle, length, tilt, 1 / length), 0.25)
    canvas = np.add(clean.shape[:2], size - 1)
    coarse = np.ceil(canvas / p["grain_px"]).astype(int)
    noise = zoom(rng.standard_normal(coarse, dtype=np.float32).astype(clean.dtype), canvas / coarse, order=1)
    dots = (noise > np.quantile(noise, 1 - p["density"])).astype(clean.dtype)
    from scipy.signal import fftconvolve  # here, since it takes a second to import and no training needs it

    layer = fftconvolve(dots, kernel.astype(clean.dtype), mode="valid")
    contrast = p["length_px"] / 3  # a single dot, smeared over the length, is lifted to a third of white
    layer = np.clip(layer * contrast, 0, 1) * p["strength"]

    rainy = 1 - (1 - clean) * (1 - layer[..., None])
    return Rain(np.clip(rainy, 0, 1), np.clip(to_grey(rainy - clean), 0, 1), p, clean.copy())


def physical(clean: np.ndarray, seed: Seed, **given: float) -> Rain:
    """Simulate a photograph of `clean` (H, W, 3) in [0, 1] taken in rain; a stand-in, not real rain.

    The rain: `drops_per_m3`. The streaks: `streak_shape` and, along them, `oscillation_hz`. A drop shows the bright sky
    that it refracts, L = B + (sky - B) opacity before a background B, unsharp by the circle of confusion
    f A |1/z - 1/focus|. Far rain is a veil, B = J t + sky (1 - t) with t = exp(-beta z) by `extinction_per_m`, and a
    blur; the scene has lost colour for want of sun. All of this is light; then the camera takes back some of the veil,
    and gamma, noise and JPEG follow. The depth z is a guess from height and brightness. Garg & Nayar, Vision and Rain,
    IJCV 75, 2007, and Photorealistic rendering of rain streaks, SIGGRAPH 2006 (the brightness across a streak is a
    Gaussian here, theirs is measured).

    `given` fixes parameters of the table PHYSICAL; the others, and the places of the drops, stay what they are for
    that seed. Raises ValueError on a bad image, RainError (a ValueError) on a bad parameter.
    """
    clean = _check(clean)
    p, rng = _draw(PHYSICAL, seed, given)
    scene = clean.transpose(2, 0, 1).copy()  # channels first: several times faster below
    scene **= GAMMA
    depth = _depth(clean)
    scene = _mix(scene, _luma(scene), np.minimum(p["overcast"] * (0.6 + depth), 1))  # the sky loses its colour first
    sky = _sky(scene) * np.array([1 + p["tint"], 1, 1 - p["tint"]], clean.dtype)[:, None, None]

    through = np.exp(-extinction_per_m(p["rate_mm_h"]) * p["horizon_m"] * depth)
    blur = p["blur"] * max(depth.shape) / 1000
    scene = _mix(scene, gaussian_filter(scene, (0, blur, blur), truncate=3), 1 - through**2)
    misty = _mix(scene, sky, 1 - through)
    lit = _mix(misty, sky * p["sky"], np.clip(_cover(rng, depth.shape, p, clean.dtype), 0, 1))

    veil = float(sky.mean()) * (1 - float(through.mean()))  # flat dark things are left alone: only the veil comes off
    black = p["contrast"] * min(_quantile(misty[1], 0.01), veil, 0.9)
    rainy, background = _develop(lit, black), _develop(misty, black)
    streaks = np.clip(_luma(rainy) - _luma(background), 0, 1)
    noise = rng.standard_normal(rainy.shape, dtype=np.float32)
    noise *= p["noise"]
    rainy = (rainy + noise).clip(0, 1).transpose(1, 2, 0)
    rainy = recompress(rainy, round(p["jpeg"])).astype(clean.dtype, copy=False)
    return Rain(rainy, streaks, p, np.ascontiguousarray(background.transpose(1, 2, 0)))


def drops_per_m3(rate_mm_h: float, smallest_mm: float, largest_mm: float = math.inf) -> float:
    """Drops of these diameters in a cubic metre: the integral of N(D) = 8000 exp(-4.1 R^-0.21 D) per m^3 and mm.

    Marshall & Palmer, The distribution of raindrops with size, J. Meteor. 5, 1948.
    """
    slope = _slope(rate_mm_h)
    return 8000 / slope * (math.exp(-slope * smallest_mm) - math.exp(-slope * largest_mm))


def fall_speed(diameter_mm: np.ndarray | float) -> np.ndarray | float:
    """Terminal speed v = 9.65 - 10.3 exp(-0.6 D) in m/s, D in mm; 0 below 0.11 mm.

    Atlas, Srivastava & Sekhon, Doppler radar characteristics of precipitation, Rev. Geophys. 11, 1973.
    """
    return np.maximum(9.65 - 10.3 * np.exp(-0.6 * np.asarray(diameter_mm, np.float64)), 0.0)


def oscillation_hz(diameter_mm: np.ndarray | float, mode: int) -> np.ndarray | float:
    """Frequency sqrt(n (n - 1) (n + 2) sigma / (rho r^3)) / 2 pi in Hz at which a falling drop changes shape.

    Mode n = 2: long and flat in turns; 3: pear. Rayleigh 1879; as used for streaks by Garg & Nayar, SIGGRAPH 2006.
    """
    radius = np.asarray(diameter_mm, np.float64) / 2000
    return np.sqrt(mode * (mode - 1) * (mode + 2) * SURFACE_TENSION / (WATER * radius**3)) / (2 * np.pi)


def streak_shape(diameter_mm, depth_m, exposure_s: float, focal_px: float):
    """Length v T f / z [px], width D f / z [px] and opacity D / (v T), at most 1, of the streak that a drop draws.

    A drop D wide hides each pixel of its streak for that share of the exposure T. Garg & Nayar, IJCV 75, 2007.
    """
    speed, diameter = fall_speed(diameter_mm), np.asarray(diameter_mm, np.float64) / 1000
    opacity = np.minimum(diameter / np.maximum(speed * exposure_s, 1e-9), 1.0)
    return speed * exposure_s * focal_px / depth_m, diameter * focal_px / depth_m, opacity


def extinction_per_m(rate_mm_h: float) -> float:
    """Share of light that a metre of rain takes away, 1.076 R^0.67 dB/km in 1/m. ITU-R P.1814."""
    return 1.076 * rate_mm_h**0.67 * math.log(10) / 10 / 1000


def scatter(clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur and veil `clean` (H, W, 3) in [0, 1] as scattering by rain does, without streaks; float32.

    The point spread is a narrow core with a wide tail (multiple scattering: Narasimhan & Nayar, CVPR 2003),
    half of the time drawn out along the vertical; then I = J t + A (1 - t) and light noise.
    Raises ValueError on a bad image.
    """
    clean = _check(clean).astype(np.float32, copy=False)
    core, tail, share = rng.uniform(0.4, 1.6), int(rng.integers(4, 12)), rng.uniform(0.1, 0.4)
    through, noise = rng.uniform(0.55, 1), rng.uniform(0, 0.01)
    airlight = rng.uniform(0.55, 0.95) + rng.normal(0, 0.02, 3)

    image = gaussian_filter(clean, (core, core, 0), truncate=2.5)
    if rng.random() < 0.5:
        image = uniform_filter1d(image, int(rng.integers(2, 8)), axis=0)
    wide = uniform_filter(uniform_filter(image, (tail, tail, 1)), (tail, tail, 1))  # two boxes: a tent
    image = image + np.float32(share) * (wide - image)
    image = image * np.float32(through) + (airlight * (1 - through)).astype(np.float32)
    return np.clip(image + np.float32(noise) * rng.standard_normal(image.shape, dtype=np.float32), 0, 1)


def streak_holes(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Soft mask (H, W) float32 in [0, 1] of steep streaks, 8 to 60 px long and 1 to 4 px wide.

    They cover about 3 to 20 % of the area; angle and width change from call to call.
    Raises ValueError on an empty shape.
    """
    if min(shape) < 1:
        raise ValueError(f"shape must be positive, got {shape}")
    angle, wide, longest = rng.normal(0, 14), rng.uniform(1, 4), rng.uniform(20, 60)
    room = (shape[0] + longest) * (shape[1] + longest)  # streaks may enter from outside
    count = max(1, round(rng.uniform(0.04, 0.23) * room / (wide * (longest + 8) / 2)))
    y, x = ((rng.uniform(-0.5, 0.5, count) * (n + longest) + n / 2) for n in shape)
    tilt = np.deg2rad(angle + rng.normal(0, 2, count))
    length, weight = rng.uniform(8, longest, count), rng.uniform(0.7, 1.3, count)
    mask = _draw_lines(shape, (y, x, length, tilt, weight), step=0.8).astype(np.float32)
    sigma = max(0.4, wide / 3)  # with the gain below, the half-height width is about 3 sigma
    return np.clip(gaussian_filter(mask, sigma, truncate=2.5) * (1.5 * math.sqrt(2 * math.pi) * sigma), 0, 1)


def lay(clean: np.ndarray, layer: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lay a grey streak layer (H, W) over `clean` (H, W, 3), both in [0, 1]; float32.

    Half of the time light is added, rainy = clean + a layer; else streaks hide what is behind them,
    rainy = clean (1 - layer) + a layer. Contrast (0.2 to 1.5), brightness and colour of the streaks are drawn.
    Raises ValueError on a bad image.
    """
    clean = _check(clean).astype(np.float32, copy=False)
    cover = np.clip(layer * _log_uniform(rng, 0.2, 1.5), 0, 1)[..., None].astype(np.float32)
    bright = np.float32(rng.uniform(0.6, 1)) * (1 + rng.normal(0, 0.02, 3)).astype(np.float32)
    behind = clean if rng.random() < 0.5 else clean * (1 - cover)
    return np.clip(behind + bright * cover, 0, 1)


def in_places(rainy: np.ndarray, clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rain in some places of `clean` (H, W, 3), weaker or none in others: a smooth random mix of the two; float32."""
    cells = rng.random((int(rng.integers(2, 6)),) * 2, np.float32)
    places = zoom(cells, np.divide(clean.shape[:2], cells.shape), order=1, mode="nearest", grid_mode=True)
    share = np.clip(3 * (places - 0.5) + np.float32(rng.random()), 0, 1)[..., None]
    return clean + share * (rainy - clean)


def _check(image: np.ndarray) -> np.ndarray:
    shape = np.shape(image)
    if len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise ValueError(f"an image is an array (H, W, 3), got shape {shape}")
    if not np.issubdtype(image.dtype, np.floating):
        raise ValueError(f"an image is float in [0, 1], got {image.dtype}; use ttlkit.images.to_float")
    if not (image.min() >= 0 and image.max() <= 1):  # written so that NaN fails too
        raise ValueError(f"an image lies in [0, 1], got {image.min()} to {image.max()}")
    return image if image.dtype == np.float64 else image.astype(np.float32, copy=False)


def _draw(table: Mapping[str, Knob], seed: Seed, given: Mapping[str, float]):
    """Parameters by name, and the generator for everything else; what is given changes neither."""
    for name, value in given.items():
        if name not in table:
            near = difflib.get_close_matches(name, table, 1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise RainError(f"unknown parameter '{name}'{hint} Known: {', '.join(table)}")
        least, most = table[name].least, table[name].most
        if not (isinstance(value, Real) and least <= value <= most and math.isfinite(value)):
            raise RainError(f"{name} = {value!r}: must be a number from {least:g} to {most:g} {table[name].unit}")
    root = np.random.default_rng(seed)
    knobs, rest = root.spawn(2)
    drawn = {name: knob.draw(knobs) for name, knob in table.items()}
    return {name: float(given.get(name, value)) for name, value in drawn.items()}, rest


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _slope(rate_mm_h: float) -> float:
    return 4.1 * max(rate_mm_h, 1e-3) ** -0.21


def _cover(rng: np.random.Generator, shape: tuple[int, int], p: Mapping[str, float], dtype) -> np.ndarray:
    """Share (H, W) of the exposure for which drops hide each pixel."""
    height, width = shape
    focal = max(shape) * p["focal"]
    layers = [_drops(layer, shape, focal, p["near_m"] * 2**i, p["rate_mm_h"]) for i, layer in enumerate(rng.spawn(5))]
    y, x, depth, diameter, gust, *waves = np.concatenate(layers, axis=1)
    length, thick, opacity = streak_shape(diameter, depth, p["exposure_s"], focal)
    shown = np.clip(length, 1, 1.5 * height + 1)
    tilt = np.deg2rad(p["angle_deg"] + p["fan_deg"] * (x / width - 0.5) + p["jitter_deg"] * gust)
    turns = [p["exposure_s"] * oscillation_hz(diameter, mode) * np.minimum(shown / length, 1) for mode in (2, 3)]

    confusion = focal * p["aperture_mm"] / 1000 * np.abs(1 / depth - 1 / p["focus_m"])
    sigma = np.sqrt(0.45**2 + (thick / 3) ** 2 + (confusion / 2) ** 2)  # lens, drop and defocus, as Gaussians
    sharpness = (np.log(sigma / 0.45) / np.log(1.6)).astype(int)
    lines = np.array([y, x, shown, tilt, opacity * thick * np.minimum(length, 1)])  # a pixel is the least to draw
    ripple = np.array([np.full(len(y), p["wobble"]), *turns, *waves])
    cover = np.zeros(shape, dtype)
    for level in np.unique(sharpness):  # one blur for all drops that are about as unsharp
        like = sharpness == level
        grid = _draw_lines(shape, lines[:, like], 1.0, ripple[:, like]).astype(dtype)
        cover += gaussian_filter(grid, sigma[like].mean(), truncate=3)
    return cover


def _drops(rng: np.random.Generator, shape: tuple[int, int], focal: float, near: float, rate: float) -> np.ndarray:
    """Drops `near` to twice as many metres away, (7, n): y, x [px], depth [m], diameter [mm], gust, two phases.

    The gust is a standard normal number. More drops leave the first ones where they are.
    """
    height, width = shape
    volume = 1.8 * height * width / focal**2 * 7 / 3 * near**3  # with the rim that streaks enter from
    most = max(1.0, 2500 * height * width / (320 * 480))  # of very many drops only the biggest are drawn
    slope = _slope(rate)
    smallest = max(0.8, np.log(8000 * volume / (slope * most)) / slope)
    count = rng.poisson(volume * drops_per_m3(rate, smallest)) if rate else 0
    places, gusts = rng.spawn(2)
    random = places.random((count, 6)).T
    diameter = (smallest - np.log1p(-random[3]) / slope).clip(max=LARGEST)
    depth = near * np.cbrt(1 + 7 * random[2])
    y, x = (1.5 * random[0] - 0.25) * height, (1.2 * random[1] - 0.1) * width
    return np.stack([y, x, depth, diameter, gusts.standard_normal(count), *(2 * np.pi * random[4:])])


def _draw_lines(shape: tuple[int, int], lines, step: float, ripple=None) -> np.ndarray:
    """Sum (H, W), float64, of soft-ended lines: middle y and x, length, tilt from the vertical [rad], weight a pixel.

    ripple (5, n): strength, turns (2) and phases (2) of two waves, the second half as high, that the brightness
    follows along each line.
    """
    height, width = shape
    y, x, length, tilt, weight = lines
    samples = np.maximum(2, np.ceil(length / step)).astype(int)
    if len(samples) > 1 and samples.sum() > 4_000_000:  # in two halves, or a large picture takes all the memory
        half = len(samples) // 2
        halves = slice(None, half), slice(half, None)
        ripples = [None if ripple is None else ripple[:, h] for h in halves]
        one, two = (_draw_lines(shape, [v[h] for v in lines], step, r) for h, r in zip(halves, ripples, strict=True))
        return one + two
    line = np.repeat(np.arange(len(samples)), samples)
    place = np.arange(len(line)) - np.repeat(np.cumsum(samples) - samples, samples)
    along = (place + 0.5) / samples[line] - 0.5
    value = (weight * length / samples)[line] * np.minimum(1, 6 * (0.5 - np.abs(along)))
    if ripple is not None:
        strength, *waves = ripple[:, line]
        angle = [2 * np.pi * turns * along + phase for turns, phase in zip(waves[:2], waves[2:], strict=True)]
        value *= 1 + strength * (2 * np.sin(angle[0]) + np.sin(angle[1])) / 3
    y = y[line] + along * (length * np.cos(tilt))[line]
    x = x[line] + along * (length * np.sin(tilt))[line]
    keep = (y > -1) & (y < height) & (x > -1) & (x < width)
    y, x, value = y[keep] + 1, x[keep] + 1, value[keep]
    row, column = y.astype(int), x.astype(int)
    down, right = y - row, x - column
    stride = width + 2  # a one-pixel rim takes what falls outside
    base = row * stride + column
    index = np.concatenate([base, base + 1, base + stride, base + stride + 1])
    parts = np.concatenate([value * (1 - down) * (1 - right), value * (1 - down) * right,
                            value * down * (1 - right), value * down * right])  # fmt: skip
    return np.bincount(index, parts, minlength=(height + 2) * stride).reshape(-1, stride)[1:-1, 1:-1]


def _quantile(values: np.ndarray, q: float) -> float:
    """Quantile of about 10,000 evenly spread values."""
    stride = max(1, int((values.size / 10_000) ** 0.5))
    return float(np.quantile(values[::stride, ::stride], q))


def _luma(planes: np.ndarray) -> np.ndarray:
    return to_grey(planes.transpose(1, 2, 0))


def _mix(a: np.ndarray, b: np.ndarray, share: np.ndarray) -> np.ndarray:
    """a + (b - a) share, with one array beside it: fresh memory costs more than the arithmetic."""
    mixed = b - a
    mixed *= share
    mixed += a
    return mixed


def _develop(light: np.ndarray, black: float) -> np.ndarray:
    """Light to picture, in place: black level, white at 1, gamma."""
    light -= black
    light /= 1 - black
    np.clip(light, 0, 1, out=light)
    light **= 1 / GAMMA
    return light


def _sky(scene: np.ndarray) -> np.ndarray:
    """Light of the sky (3, 1, 1) of linear light (3, H, W): its brightest tenth, most of the colour removed."""
    stride = max(1, int((scene[0].size / 10_000) ** 0.5))
    few = scene[:, ::stride, ::stride].reshape(3, -1)
    total = few[0] + few[1] + few[2]
    bright = few[:, total >= np.quantile(total, 0.9)].mean(1)
    return (0.25 * bright + 0.75 * bright.mean()).clip(0.15, 0.8)[:, None, None]


def _depth(clean: np.ndarray) -> np.ndarray:
    """Guess of relative depth (H, W) in [0, 1]: higher up and brighter in all channels is farther away."""
    up = np.linspace(1, 0, len(clean), dtype=clean.dtype)[:, None]
    darkest = np.minimum(np.minimum(clean[..., 0], clean[..., 1]), clean[..., 2])
    size = max(3, round(max(clean.shape) / 24))
    hazy = uniform_filter(uniform_filter(darkest, size), size)
    return np.clip(0.15 + 0.55 * up + 0.5 * hazy, 0, 1)
