"""Simulated rain: a photograph taken in it, by the physics of falling drops; a stand-in, not real rain.

A drop shows the bright sky that it refracts, L = B + (sky - B) opacity before a background B. Far rain is a veil,
B = J t + sky (1 - t) with t = exp(-beta z), and a blur. Garg & Nayar, Vision and Rain, IJCV 75, 2007, and
Photorealistic rendering of rain streaks, SIGGRAPH 2006. Ours: the guess of the depth z, of the sky and of the camera;
that a streak is a Gaussian across, where theirs is measured.
"""

import math
from collections.abc import Mapping
from functools import reduce

import numpy as np
from scipy.ndimage import gaussian_filter, uniform_filter

from ttlkit.data.image_files import recompress, to_grey
from ttlkit.rain.knobs import Knob, Rain, Seed, checked, draw_parameters
from ttlkit.rain.layers import draw_lines

GAMMA = 2.2
SURFACE_TENSION, WATER = 0.0728, 1000.0  # N/m and kg/m^3, of water at 20 degrees Celsius
LARGEST = 6.0  # mm; bigger drops break up
SHARPEST = 0.45  # px, standard deviation of the blur of the lens

# Ranges: what rain does and hand-held cameras do. Within that, and for what no physics gives (sky, blur, overcast,
# contrast), they were tuned on half of a set of photographs of real rain and checked on the other half: notebook 01.
PHYSICAL = {
    "rate_mm_h": Knob("rain rate", "mm/h", 3, 150, "log", most=500),
    "exposure_s": Knob("exposure time", "s", 1 / 500, 1 / 30, "log", least=1e-5, most=1),
    "focal": Knob("focal length, in long sides of the picture", "1", 0.9, 1.6, least=0.1, most=20),
    "angle_deg": Knob("direction, right on the way down above 0", "degrees", -18, 18, "bell", least=-80, most=80),
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


def size_slope(rate_mm_h: float) -> float:
    """Slope [1/mm] of the sizes of drops, N(D) = 8000 exp(-slope D) per m^3 mm: Marshall & Palmer, J. Meteor. 1948."""
    return 4.1 * max(rate_mm_h, 1e-3) ** -0.21


def drops_per_m3(rate_mm_h: float, smallest_mm: float) -> float:
    """Drops of at least this diameter in a cubic metre, the integral of N(D) (`size_slope`)."""
    slope = size_slope(rate_mm_h)
    return 8000 / slope * math.exp(-slope * smallest_mm)


def fall_speed(diameter_mm):
    """Terminal speed 9.65 - 10.3 exp(-0.6 D) in m/s, D in mm; 0 below 0.11 mm. Atlas et al., Rev. Geophys. 11, 1973."""
    return np.maximum(9.65 - 10.3 * np.exp(-0.6 * np.asarray(diameter_mm, np.float64)), 0.0)


def oscillation_hz(diameter_mm, mode: int):
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


def physical(clean: np.ndarray, seed: Seed, **given: float) -> Rain:
    """Simulate a photograph of `clean` (H, W, 3) in [0, 1] taken in rain.

    In light: the scene loses colour for want of sun, is blurred and veiled by far rain, then covered by the streaks
    of near drops. Then the camera takes back some of the veil, and gamma, noise and JPEG follow. `given` fixes
    parameters of the table PHYSICAL; the others, and the places of the drops, stay what they are for that seed.
    """
    clean = checked(clean)
    p, rng = draw_parameters(PHYSICAL, seed, given)
    scene = np.ascontiguousarray(clean.transpose(2, 0, 1)) ** GAMMA  # channels first: several times faster below
    depth = _depth(clean)
    every = max(1, int((depth.size / 10_000) ** 0.5))  # about 10,000 pixels are enough for a quantile
    grey = to_grey(scene.transpose(1, 2, 0))
    scene = _mix(scene, grey, np.minimum(p["overcast"] * (0.6 + depth), 1))  # the sky loses its colour first
    sky = _sky(scene[:, ::every, ::every]) * np.array([1 + p["tint"], 1, 1 - p["tint"]], clean.dtype)[:, None, None]

    through = np.exp(-extinction_per_m(p["rate_mm_h"]) * p["horizon_m"] * depth)
    blur = p["blur"] * max(depth.shape) / 1000
    scene = _mix(scene, gaussian_filter(scene, (0, blur, blur), truncate=3), 1 - through**2)
    misty = _mix(scene, sky, 1 - through)
    lit = _mix(misty, sky * p["sky"], np.clip(cover_by_drops(rng, depth.shape, p, clean.dtype), 0, 1))

    veil = float(sky.mean()) * (1 - float(through.mean()))  # flat dark things are left alone: only the veil comes off
    black = p["contrast"] * min(float(np.quantile(misty[1, ::every, ::every], 0.01)), veil, 0.9)
    developed = [((light - black) / (1 - black)).clip(0, 1) ** (1 / GAMMA) for light in (lit, misty)]
    developed.append((developed[0] + p["noise"] * rng.standard_normal(scene.shape, np.float32)).clip(0, 1))
    exact, background, noisy = (planes.transpose(1, 2, 0) for planes in developed)
    rainy = recompress(noisy, round(p["jpeg"])).astype(clean.dtype, copy=False)
    streaks = np.clip(to_grey(exact) - to_grey(background), 0, 1)
    return Rain(rainy, streaks, p, np.ascontiguousarray(background))


def cover_by_drops(rng: np.random.Generator, shape: tuple[int, int], p: Mapping[str, float], dtype) -> np.ndarray:
    """Share (H, W) of the exposure for which drops hide each pixel; `p` as of the table PHYSICAL."""
    height, width = shape
    focal = max(shape) * p["focal"]
    shells = [drops(r, shape, focal, p["near_m"] * 2**i, p["rate_mm_h"]) for i, r in enumerate(rng.spawn(5))]
    y, x, depth, diameter, gust, *phases = np.concatenate(shells, axis=1)
    length, thick, opacity = streak_shape(diameter, depth, p["exposure_s"], focal)
    shown = np.clip(length, 1, 1.5 * height + 1)
    tilt = np.deg2rad(p["angle_deg"] + p["fan_deg"] * (x / width - 0.5) + p["jitter_deg"] * gust)
    turns = [p["exposure_s"] * oscillation_hz(diameter, mode) * np.minimum(shown / length, 1) for mode in (2, 3)]
    weight = opacity * thick * np.minimum(length, 1)  # a pixel is the least to draw
    lines = np.array([y, x, shown, tilt, weight, np.full(len(y), p["wobble"]), *turns, *phases])

    confusion = focal * p["aperture_mm"] / 1000 * np.abs(1 / depth - 1 / p["focus_m"])
    sigma = np.sqrt(SHARPEST**2 + (thick / 3) ** 2 + (confusion / 2) ** 2)  # lens, drop and defocus, as Gaussians
    sharpness = (np.log(sigma / SHARPEST) / np.log(1.6)).astype(int)
    cover = np.zeros(shape, dtype)
    for level in np.unique(sharpness):  # one blur for all drops that are about as unsharp
        like = sharpness == level
        grid = draw_lines(shape, lines[:, like], 1.0).astype(dtype)
        cover += gaussian_filter(grid, sigma[like].mean(), truncate=3)
    return cover


def drops(rng: np.random.Generator, shape: tuple[int, int], focal: float, near: float, rate: float) -> np.ndarray:
    """Drops `near` to twice as many metres away, (7, n): y, x [px], depth [m], diameter [mm], gust, two phases.

    The gust is a standard normal number. More drops leave the first ones where they are.
    """
    height, width = shape
    volume = 1.8 * height * width / focal**2 * 7 / 3 * near**3  # with the rim that streaks enter from
    most = max(1.0, 2500 * height * width / (320 * 480))  # of very many drops only the biggest are drawn
    slope = size_slope(rate)
    smallest = max(0.8, np.log(8000 * volume / (slope * most)) / slope)
    count = rng.poisson(volume * drops_per_m3(rate, smallest)) if rate else 0
    places, gusts = rng.spawn(2)
    down, across, far, size, *phases = places.random((count, 6)).T
    y, x, depth = (1.5 * down - 0.25) * height, (1.2 * across - 0.1) * width, near * np.cbrt(1 + 7 * far)
    diameter = (smallest - np.log1p(-size) / slope).clip(max=LARGEST)
    return np.stack([y, x, depth, diameter, gusts.standard_normal(count), *(2 * np.pi * np.array(phases))])


def _depth(clean: np.ndarray) -> np.ndarray:
    """Guess of relative depth (H, W) in [0, 1]: higher up and brighter in all channels is farther away."""
    up = np.linspace(1, 0, len(clean), dtype=clean.dtype)[:, None]
    darkest = reduce(np.minimum, np.moveaxis(clean, 2, 0))  # ten times faster than clean.min(axis=2)
    size = max(3, round(max(clean.shape) / 24))
    hazy = uniform_filter(uniform_filter(darkest, size), size)
    return np.clip(0.15 + 0.55 * up + 0.5 * hazy, 0, 1)


def _sky(scene: np.ndarray) -> np.ndarray:
    """Light of the sky (3, 1, 1) of linear light (3, H, W): its brightest tenth, most of the colour removed."""
    total = scene.sum(axis=0)
    bright = scene[:, total >= np.quantile(total, 0.9)].mean(1)
    return (0.25 * bright + 0.75 * bright.mean()).clip(0.15, 0.8)[:, None, None]


def _mix(a: np.ndarray, b: np.ndarray, share: np.ndarray) -> np.ndarray:
    return a + (b - a) * share
