"""Make scenes without a camera: pictures of drawn things with the statistics of photographs."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from scipy import fft
from scipy.ndimage import gaussian_filter


def dead_leaves(seed: int | Sequence[int], height: int, width: int) -> np.ndarray:
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
    level = slope[0][leaf] * (y - origin[0][leaf])
    level += slope[1][leaf] * (x - origin[1][leaf])
    stretches = 1.0, rng.uniform(2, 6)  # the second texture has a grain
    level += amplitude[leaf] * np.where(first[leaf], *[_texture(rng, rows, columns, s) for s in stretches])
    picture = colour[leaf] * (1 + level)[..., None]
    picture = picture.reshape(height, 2, width, 2, 3).mean((1, 3))
    picture = gaussian_filter(picture, (*(rng.uniform(0.2, 0.7),) * 2, 0), truncate=3)
    return np.clip(picture, 0, 1).astype(np.float32)  # float64 until here: the same on every processor


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


def _texture(rng, rows: int, columns: int, stretch: float) -> np.ndarray:
    """Field (rows, columns) of unit spread, amplitude ~ 1 / f^a, `stretch` times longer than wide."""
    turn, power = rng.uniform(0, np.pi), rng.uniform(0.8, 1.4)
    fy, fx = fft.fftfreq(rows)[:, None], fft.rfftfreq(columns)
    along, across = fx * np.cos(turn) + fy * np.sin(turn), fy * np.cos(turn) - fx * np.sin(turn)
    f = np.hypot(along * stretch, across)
    f[0, 0] = np.inf  # no constant part
    noise = rng.standard_normal((2, *f.shape))
    field = fft.irfft2((noise[0] + 1j * noise[1]) * f**-power, s=(rows, columns))
    return field / max(float(field.std()), 1e-6)
