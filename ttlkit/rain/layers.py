"""How streaks of every renderer become pixels; streaks and scattering for the tasks, quick to draw for every patch.

The paper names the reconstruction of images that scattering by rain has blurred; how, and all of the streaks, is ours.
"""

import math

import numpy as np
from scipy.ndimage import gaussian_filter, uniform_filter, uniform_filter1d, zoom

from ttlkit.rain.knobs import checked

MOST_SAMPLES = 4_000_000  # points at a time; those of a large picture in heavy rain would take all the memory


def draw_lines(shape: tuple[int, int], lines: np.ndarray, step: float) -> np.ndarray:
    """Sum (H, W), float64, of n lines, each a row of points about `step` pixels apart.

    lines (5, n): middle y and x, length [px], tilt from the vertical [rad], weight a pixel; or (10, n): then also
    strength, turns (2) and phases (2) of two waves, the second half as high, that the brightness follows.
    """
    height, width = shape
    y, x, length, tilt, weight, *ripple = lines
    samples = np.maximum(2, np.ceil(length / step)).astype(int)
    if (half := len(samples) // 2) and samples.sum() > MOST_SAMPLES:
        return draw_lines(shape, lines[:, :half], step) + draw_lines(shape, lines[:, half:], step)
    line = np.repeat(np.arange(len(samples)), samples)  # of every point, which line it is on
    place = np.arange(len(line)) - np.repeat(np.cumsum(samples) - samples, samples)
    along = (place + 0.5) / samples[line] - 0.5  # from -0.5 to 0.5
    value = (weight * length / samples)[line] * np.minimum(1, 6 * (0.5 - np.abs(along)))  # a sixth at each end fades
    if ripple:
        strength, slow, fast, slow_phase, fast_phase = (values[line] for values in ripple)
        wave = 2 * np.sin(2 * np.pi * slow * along + slow_phase) + np.sin(2 * np.pi * fast * along + fast_phase)
        value *= 1 + strength * wave / 3
    y = y[line] + along * (length * np.cos(tilt))[line]
    x = x[line] + along * (length * np.sin(tilt))[line]
    keep = (y > -1) & (y < height) & (x > -1) & (x < width)
    y, x, value = y[keep] + 1, x[keep] + 1, value[keep]
    row, column = y.astype(int), x.astype(int)
    down, right = y - row, x - column  # each point is shared among the four pixels around it
    stride = width + 2  # a one-pixel rim takes what falls outside
    index = np.concatenate([row * stride + column + corner for corner in (0, 1, stride, stride + 1)])
    parts = np.concatenate([value * a * b for a in (1 - down, down) for b in (1 - right, right)])
    return np.bincount(index, parts, minlength=(height + 2) * stride).reshape(-1, stride)[1:-1, 1:-1]


def scatter(clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur and veil `clean` (H, W, 3) in [0, 1] as scattering by rain does, without streaks; float32.

    The point spread is a narrow core with a wide tail (multiple scattering: Narasimhan & Nayar, CVPR 2003),
    half of the time drawn out along the vertical; then I = J t + A (1 - t) and light noise.
    """
    clean = checked(clean).astype(np.float32, copy=False)
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

    They cover about 3 to 20 % of the area; angle and width change from call to call. Raises ValueError if empty.
    """
    if min(shape) < 1:
        raise ValueError(f"shape must be positive, got {shape}")
    angle, wide, longest = rng.normal(0, 14), rng.uniform(1, 4), rng.uniform(20, 60)
    room = (shape[0] + longest) * (shape[1] + longest)  # streaks may enter from outside
    count = max(1, round(rng.uniform(0.04, 0.23) * room / (wide * (longest + 8) / 2)))
    y, x = (rng.uniform(-0.5, 0.5, count) * (side + longest) + side / 2 for side in shape)
    tilt = np.deg2rad(angle + rng.normal(0, 2, count))
    length, weight = rng.uniform(8, longest, count), rng.uniform(0.7, 1.3, count)
    mask = draw_lines(shape, np.stack([y, x, length, tilt, weight]), step=0.8).astype(np.float32)
    sigma = max(0.4, wide / 3)  # with the gain below, the half-height width is about 3 sigma
    return np.clip(gaussian_filter(mask, sigma, truncate=2.5) * (1.5 * math.sqrt(2 * math.pi) * sigma), 0, 1)


def lay(clean: np.ndarray, layer: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lay a grey streak layer (H, W) over `clean` (H, W, 3), both in [0, 1]; float32.

    Half of the time light is added, rainy = clean + a layer; else streaks hide what is behind them,
    rainy = clean (1 - layer) + a layer. Contrast (0.2 to 1.5), brightness and colour of the streaks are drawn.
    """
    clean = checked(clean).astype(np.float32, copy=False)
    contrast = float(np.exp(rng.uniform(np.log(0.2), np.log(1.5))))
    cover = np.clip(layer * contrast, 0, 1)[..., None].astype(np.float32)
    bright = np.float32(rng.uniform(0.6, 1)) * (1 + rng.normal(0, 0.02, 3)).astype(np.float32)
    behind = clean if rng.random() < 0.5 else clean * (1 - cover)
    return np.clip(behind + bright * cover, 0, 1)


def in_places(rainy: np.ndarray, clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rain in some places of `clean` (H, W, 3), weaker or none in others: a smooth random mix of the two; float32."""
    cells = rng.random((int(rng.integers(2, 6)),) * 2, np.float32)
    places = zoom(cells, np.divide(clean.shape[:2], cells.shape), order=1, mode="nearest", grid_mode=True)
    share = np.clip(3 * (places - 0.5) + np.float32(rng.random()), 0, 1)[..., None]
    return clean + share * (rainy - clean)
