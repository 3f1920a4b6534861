"""Render rain, rain-like degradations and procedural scenes; everything follows from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from scipy import fft
from scipy.ndimage import gaussian_filter, uniform_filter, uniform_filter1d, zoom

from ttlkit.images import recompress, to_grey

Seed = int | Sequence[int]
GAMMA = 2.2


@dataclass(frozen=True)
class Rain:
    """A rendered picture: `rainy` (H, W, 3); `streaks` (H, W), the luma the streaks add; all in [0, 1]."""

    rainy: np.ndarray
    streaks: np.ndarray
    parameters: dict[str, float]


def photoshop(clean: np.ndarray, seed: Seed) -> Rain:
    """Lay Photoshop rain over `clean` (H, W, 3) in [0, 1]: the recipe behind most synthetic rain sets.

    Noise, threshold, motion blur along one angle, contrast, then screen: rainy = 1 - (1 - clean)(1 - layer).
    Nothing else of the picture changes, which is the gap to real rain. Raises ValueError on a bad image.
    """
    clean = _check(clean)
    rng = np.random.default_rng(seed)
    angle, strength = rng.uniform(-35, 35), rng.uniform(0.35, 0.95)
    length, grain = rng.uniform(10, 45), rng.uniform(1, 2.2)
    density = _log_uniform(rng, 0.002, 0.03)

    size = 2 * int(length / 2) + 5
    line = np.array([[size // 2], [size // 2], [length], [np.deg2rad(angle)], [1 / length]])
    kernel = _draw_lines((size, size), line, step=0.25)
    canvas = np.add(clean.shape[:2], size - 1)
    coarse = np.ceil(canvas / grain).astype(int)
    noise = zoom(rng.standard_normal(coarse, dtype=np.float32), canvas / coarse, order=1)
    dots = (noise > np.quantile(noise, 1 - density)).astype(np.float32)
    from scipy.signal import fftconvolve  # here, since it takes a second to import and no training needs it

    layer = fftconvolve(dots, kernel, mode="valid")
    contrast = length / 3  # a single dot, smeared over `length` pixels, is lifted to a third of white
    layer = _finish(layer * contrast) * np.float32(strength)

    rainy = 1 - (1 - clean) * (1 - layer[..., None])
    settings = dict(angle_deg=angle, length_px=length, grain_px=grain, density=density, strength=strength)
    return Rain(_finish(rainy), _finish(to_grey(rainy - clean)), {k: float(v) for k, v in settings.items()})


def physical(clean: np.ndarray, seed: Seed) -> Rain:
    """Simulate a photograph of `clean` (H, W, 3) in [0, 1] taken in rain; a stand-in, not real rain.

    Drop diameters D [mm] follow N(D) = 8000 exp(-4.1 R^-0.21 D) per m^3 and mm at R mm/h (Marshall & Palmer,
    J. Meteor. 5, 1948); they fall at v = 9.65 - 10.3 exp(-0.6 D) m/s (Atlas et al., Rev. Geophys. 11, 1973).
    At depth z a drop draws a streak v T f / z pixels long and D f / z wide, and hides each pixel for the
    share D / (v T) of the exposure T, in which the pixel sees the bright sky that the drop refracts (Garg &
    Nayar, Vision and Rain, IJCV 75, 2007). Far rain is a veil, t = exp(-beta z), with beta = 1.076 R^0.67
    dB/km (ITU-R P.1814), and a blur. All in linear light; then noise, gamma and JPEG.
    Raises ValueError on a bad image.
    """
    clean = _check(clean)
    rng = np.random.default_rng(seed)
    height, width = clean.shape[:2]
    rate = _log_uniform(rng, 8, 150)
    exposure = _log_uniform(rng, 1 / 400, 1 / 40)
    focal = max(height, width) * rng.uniform(0.9, 1.6)
    angle, focus, aperture = rng.normal(0, 9), _log_uniform(rng, 2, 20), _log_uniform(rng, 0.001, 0.005)
    horizon, quality = _log_uniform(rng, 10, 150), int(rng.integers(60, 96))
    noise, tint = rng.uniform(0.002, 0.015), rng.normal(0, 0.02, 3)

    scene = clean**GAMMA
    sky = _sky(scene) * (1 + tint.astype(np.float32))
    brightness = _log_uniform(rng, 2.5, 10)  # a sky that the camera overexposes is brighter than white

    tau = 0.23e-3 * 1.076 * rate**0.67 * horizon * _depth(clean)[..., None]
    through = np.exp(-tau)
    blur = rng.uniform(0.8, 2.2) * max(height, width) / 480
    blurred = gaussian_filter(scene, (blur, blur, 0), truncate=3)
    spread = 1 - through**2
    misty = (scene + (blurred - scene) * spread) * through + sky * (1 - through)

    cover = np.zeros((height, width), np.float32)
    for near in np.geomspace(0.5, 8, 5):  # five layers, each twice as far away as the one before
        cover += _streak_layer(rng, cover.shape, near, rate, exposure, focal, angle, focus, aperture)
    cover = np.clip(cover, 0, 1)[..., None]
    lit = misty + (sky * brightness - misty) * cover

    without, rainy = (np.clip(image, 0, 1) ** (1 / GAMMA) for image in (misty, lit))
    streaks = to_grey(np.maximum(rainy - without, 0))
    rainy = rainy + noise * rng.standard_normal(rainy.shape, dtype=np.float32)
    rainy = recompress(_finish(rainy), quality)
    settings = dict(rate_mm_h=rate, exposure_s=exposure, focal_px=focal, angle_deg=angle, focus_m=focus)
    settings |= dict(aperture_m=aperture, horizon_m=horizon, sky=brightness, noise=noise, jpeg=quality)
    return Rain(rainy, _finish(streaks), {k: float(v) for k, v in settings.items()})


def scatter(clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur and veil `clean` (H, W, 3) in [0, 1] as scattering by rain does, without streaks; float32.

    The point spread is a narrow core with a wide tail (multiple scattering: Narasimhan & Nayar, CVPR 2003),
    half of the time drawn out along the vertical; then I = J t + A (1 - t) and light noise.
    Raises ValueError on a bad image.
    """
    clean = _check(clean)
    core, tail, share = rng.uniform(0.4, 1.6), int(rng.integers(4, 12)), rng.uniform(0.1, 0.4)
    through, noise = rng.uniform(0.55, 1), rng.uniform(0, 0.01)
    airlight = rng.uniform(0.55, 0.95) + rng.normal(0, 0.02, 3)

    image = gaussian_filter(clean, (core, core, 0), truncate=2.5)
    if rng.random() < 0.5:
        image = uniform_filter1d(image, int(rng.integers(2, 8)), axis=0)
    wide = uniform_filter(uniform_filter(image, (tail, tail, 1)), (tail, tail, 1))  # two boxes: a tent
    image = image + np.float32(share) * (wide - image)
    image = image * np.float32(through) + (airlight * (1 - through)).astype(np.float32)
    return _finish(image + np.float32(noise) * rng.standard_normal(image.shape, dtype=np.float32))


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
    mask = _draw_lines(shape, (y, x, length, tilt, weight), step=0.8)
    sigma = max(0.4, wide / 3)  # with the gain below, the half-height width is about 3 sigma
    return _finish(gaussian_filter(mask, sigma, truncate=2.5) * (1.5 * np.sqrt(2 * np.pi) * sigma))


def dead_leaves(seed: Seed, height: int, width: int) -> np.ndarray:
    """Make a scene, float32 (height, width, 3) in [0, 1], of leaves that hide one another before a sky.

    Discs, boxes and polygons whose radius r has density ~ r^-3 (scale invariant: Lee, Mumford & Huang,
    IJCV 41, 2001), gradients and 1/f textures; such scenes train restorers (Achddou et al., SSVM 2021).
    Raises ValueError on an empty size.
    """
    if height < 1 or width < 1:
        raise ValueError(f"size must be positive, got {height} x {width}")
    rng = np.random.default_rng(seed)
    rows, columns = 2 * height, 2 * width  # drawn at twice the size and averaged: antialiased edges
    side = min(rows, columns)
    smallest, largest = min(rng.uniform(5, 10), side / 2), max(10.0, 0.4 * side)
    mean_area = 2 * np.pi * smallest**2 * np.log(largest / smallest) + 1
    count = int(np.clip(rng.uniform(2, 10) * rows * columns / mean_area, 4, 50000))
    radius = 1 / np.sqrt(rng.uniform(largest**-2, smallest**-2, count))
    late = rng.uniform(0, 1.2) * np.log(radius) + rng.normal(0, 1, count)
    radius = radius[np.argsort(late)]  # big leaves lie on top more often: some calm surfaces remain
    centre = rng.uniform(0, 1, (count, 2)) ** (rng.uniform(0.4, 1), 1) * (rows, columns)  # fewer at the top
    leaf = _draw_leaves(rng, rows, columns, radius, centre)

    count += 1  # leaf 0 is the background
    origin = np.concatenate([[[rows / 2, columns / 2]], centre]).T
    region = np.argmin(np.abs(rng.uniform(0, 1, (12, 2, 1)) - origin / [[rows], [columns]]).sum(1), 0)
    spread = [0.2], [rng.uniform(0.03, 0.2)], [rng.uniform(0.02, 0.1)]  # luma, blue-yellow, magenta-green
    tones = (rng.normal(0, spread, (3, 12))[:, region] + rng.normal(0, spread, (3, count))) * np.sqrt(0.5)
    luma = np.clip(rng.uniform(0.3, 0.55) + tones[0], 0.02, 0.98)
    colour = np.stack([luma * (1 + tones[1]), luma * (1 + tones[2]), luma * (1 - 1.4 * tones[1])], -1)
    colour[0] = np.clip(rng.uniform(0.5, 0.9) + np.array([-0.06, 0, 0.08]) * rng.uniform(-0.5, 2), 0, 1)
    slope = rng.normal(0, 0.15, (2, count)) / np.append(max(rows, columns), radius.clip(8))
    slope[:, 0] = rng.uniform(0.1, 0.5) / rows, 0
    amplitude = rng.exponential(0.1, count).clip(0, 0.35)
    amplitude[0] = 0.02
    first = rng.random(count) < 0.5

    y, x = np.arange(rows)[:, None], np.arange(columns)
    level = slope[0].astype(np.float32)[leaf] * (y - origin[0].astype(np.float32)[leaf])
    level += slope[1].astype(np.float32)[leaf] * (x - origin[1].astype(np.float32)[leaf])
    textures = _textures(rng, rows, columns)
    level += amplitude.astype(np.float32)[leaf] * np.where(first[leaf], *textures)
    picture = colour.astype(np.float32)[leaf] * (1 + level)[..., None]
    picture = picture.reshape(height, 2, width, 2, 3).mean((1, 3))
    return _finish(gaussian_filter(picture, (*(rng.uniform(0.2, 0.7),) * 2, 0), truncate=3))


def _check(image: np.ndarray) -> np.ndarray:
    shape = np.shape(image)
    if len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise ValueError(f"an image is an array (H, W, 3), got shape {shape}")
    if not np.issubdtype(image.dtype, np.floating):
        raise ValueError(f"an image is float in [0, 1], got {image.dtype}; use ttlkit.images.to_float")
    if not (image.min() >= 0 and image.max() <= 1):  # written so that NaN fails too
        raise ValueError(f"an image lies in [0, 1], got {image.min()} to {image.max()}")
    return image.astype(np.float32, copy=False)


def _finish(values: np.ndarray) -> np.ndarray:
    return np.clip(values, 0, 1).astype(np.float32, copy=False)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _draw_lines(shape, lines, step: float) -> np.ndarray:
    """Sum of soft-ended lines: middle y, x, length, tilt from the vertical [rad], weight a pixel; float32."""
    y, x, length, tilt, weight = lines
    samples = np.maximum(2, np.ceil(length / step)).astype(int)
    line = np.repeat(np.arange(len(samples)), samples)
    place = np.arange(len(line)) - np.repeat(np.cumsum(samples) - samples, samples)
    along = (place + 0.5) / samples[line] - 0.5
    value = (weight * length / samples)[line] * np.minimum(1, 6 * (0.5 - np.abs(along)))
    y = y[line] + along * (length * np.cos(tilt))[line]
    x = x[line] + along * (length * np.sin(tilt))[line]
    keep = (y > -1) & (y < shape[0]) & (x > -1) & (x < shape[1])
    y, x, value = y[keep] + 1, x[keep] + 1, value[keep]
    row, column = y.astype(int), x.astype(int)
    down, right = y - row, x - column
    stride = shape[1] + 2  # a one-pixel rim takes what falls outside
    base = row * stride + column
    index = np.concatenate([base, base + 1, base + stride, base + stride + 1])
    parts = np.concatenate([value * (1 - down) * (1 - right), value * (1 - down) * right,
                            value * down * (1 - right), value * down * right])  # fmt: skip
    grid = np.bincount(index, parts, minlength=(shape[0] + 2) * stride).reshape(-1, stride)
    return grid[1:-1, 1:-1].astype(np.float32)


def _streak_layer(rng, shape, near, rate, exposure, focal, angle, focus, aperture) -> np.ndarray:
    """Share (H, W) of the exposure for which drops `near` to twice as many metres away hide each pixel."""
    height, width = shape
    slope = 4.1 * rate**-0.21
    volume = 1.5 * height * width / focal**2 * 7 / 3 * near**3  # with the rim that streaks enter from
    most = max(1.0, 2500 * height * width / (320 * 480))  # of very many drops only the biggest are drawn
    smallest = max(0.8, np.log(8000 * volume / (slope * most)) / slope)
    count = rng.poisson(8000 * volume / slope * np.exp(-slope * smallest))
    if count == 0:
        return np.zeros(shape, np.float32)
    diameter = (smallest + rng.exponential(1 / slope, count)).clip(max=6.0)
    depth = near * np.cbrt(rng.uniform(1, 8, count))
    speed = 9.65 - 10.3 * np.exp(-0.6 * diameter)
    length = (speed * exposure * focal / depth).clip(1, 1.5 * height + 1)
    thick = diameter * 1e-3 * focal / depth
    opacity = (diameter * 1e-3 / (speed * exposure)).clip(max=1)
    y, x = rng.uniform(-0.25, 1.25, count) * height, rng.uniform(-0.1, 1.1, count) * width
    fan = 5 * (x / width - 0.5)  # perspective: parallel paths fan out
    tilt = np.deg2rad(angle + fan + rng.normal(0, 1.5, count))
    layer = _draw_lines(shape, (y, x, length, tilt, opacity * thick), step=0.8)
    blur = focal * aperture * np.abs(1 / depth - 1 / focus).mean() / 2  # circle of confusion, as a Gaussian
    return gaussian_filter(layer, np.sqrt(0.45**2 + (thick.mean() / 3) ** 2 + blur**2), truncate=3)


def _sky(scene: np.ndarray) -> np.ndarray:
    """Light of the sky (3,) in linear light: the brightest tenth of the scene, most of its colour removed."""
    total = scene.sum(-1)
    bright = scene[total >= np.quantile(total, 0.9)].mean(0)
    return (0.25 * bright + 0.75 * bright.mean()).clip(0.15, 0.8)


def _depth(clean: np.ndarray) -> np.ndarray:
    """Guess of relative depth (H, W) in [0, 1]: higher up and brighter in all channels is farther away."""
    up = np.linspace(1, 0, len(clean), dtype=np.float32)[:, None]
    hazy = gaussian_filter(clean.min(-1), max(clean.shape) / 60, truncate=2)
    return np.clip(0.15 + 0.55 * up + 0.5 * hazy, 0, 1)


def _draw_leaves(rng, rows: int, columns: int, radius: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Map (rows, columns) of which leaf, 1 and up, lies on top; 0 where there is none."""
    count = len(radius)
    corners = rng.choice([3, 4, 4, 5, 7, 20, 20], count)  # 20 corners: a disc
    bent = rng.uniform(-0.35, 0.35, (count, 20)) * ((corners != 4) & (corners != 20))[:, None]
    around = (np.arange(20) + bent) * (2 * np.pi / corners[:, None])
    turn, squeeze = rng.uniform(0, 2 * np.pi, (count, 1)), np.exp(rng.uniform(-2, 0, (count, 1)))
    a, b = radius[:, None] * np.cos(around), radius[:, None] * squeeze * np.sin(around)
    x = centre[:, 1:] + a * np.cos(turn) - b * np.sin(turn)
    y = centre[:, :1] + a * np.sin(turn) + b * np.cos(turn)
    points = np.stack([x, y], -1).reshape(count, 40).tolist()

    draw = ImageDraw.Draw(canvas := Image.new("I", (columns, rows)))
    for leaf, (outline, n) in enumerate(zip(points, corners.tolist(), strict=True), 1):
        draw.polygon(outline[: 2 * n], fill=leaf)
    return np.asarray(canvas)


def _textures(rng, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Two fields (rows, columns) of unit spread, amplitude ~ 1 / f^a; the second one has a grain."""
    fy, fx = fft.fftfreq(rows)[:, None].astype(np.float32), fft.rfftfreq(columns).astype(np.float32)
    fields = []
    for stretch in (1.0, rng.uniform(2, 6)):
        turn, power = rng.uniform(0, np.pi), rng.uniform(0.8, 1.4)
        along, across = fx * np.cos(turn) + fy * np.sin(turn), fy * np.cos(turn) - fx * np.sin(turn)
        f = np.hypot(along * stretch, across)
        f[0, 0] = np.inf  # no constant part
        noise = rng.standard_normal((2, *f.shape), dtype=np.float32)
        field = fft.irfft2((noise[0] + 1j * noise[1]) * f ** np.float32(-power), s=(rows, columns))
        fields.append((field / max(float(field.std()), 1e-6)).astype(np.float32))
    return fields[0], fields[1]
