"""Rain of every strength: layers of streaks, near and thick to far and fine, one before the other. Ours, to train with.

Not physics, and no guess at one photograph: it covers what falls before a camera, so that a network has met rain that
is thick, dense, crossed, opaque, lit by lamps or hardly there before it meets the real one.
"""

import math
from collections.abc import Callable

import numpy as np
from scipy.ndimage import gaussian_filter, zoom

from ttlkit.data.image_files import recompress, to_grey
from ttlkit.rain.knobs import Knob, Rain, Seed, checked, draw_parameters
from ttlkit.rain.layers import draw_lines

MEASURED = 2 / 3  # share of the pictures with measured layers, where there are some
MEASURED_PX = 2.0  # width of a typical streak in the layers of Garg and Nayar (SIGGRAPH 2006)

LAYERED = {
    "layers": Knob("layers of streaks, rounded", "1", 0.51, 4.49, most=8),
    "width_px": Knob("width of the streaks of the nearest layer", "px", 1, 10, "log", least=0.5, most=60),
    "finer": Knob("width of each layer behind, over the one before it", "1", 0.35, 1, least=0.1, most=1),
    "slender": Knob("length of a streak over its width", "1", 5, 40, "log", least=1, most=400),
    "cover": Knob("share of the picture under the streaks of a layer", "1", 0.02, 0.35, "log", most=0.9),
    "angle_deg": Knob("direction, right on the way down above 0", "degrees", -30, 30, "bell", least=-90, most=90),
    "turn_deg": Knob("by how much the directions of layers differ", "degrees", 0, 25, most=90),
    "jitter_deg": Knob("scatter of single streaks (gusts)", "degrees", 0.5, 5, most=45),
    "edge": Knob("steepness of the edges, 1 soft to 4 hard", "1", 1, 4, "log", least=1, most=20),
    "peak": Knob("opacity of the brightest streak", "1", 0.15, 1, "log", most=1),
    "hides": Knob("share of what is behind that a streak hides; 0: it only adds light", "1", 0, 1, most=1),
    "light": Knob("brightness of the streaks", "1", 0.55, 1, most=1),
    "lamps": Knob("share of their light that comes from the bright places of the picture", "1", 0, 1, most=1),
    "veil": Knob("share of the veil, which is background", "1", 0, 0.25, most=1),
    "noise": Knob("sensor noise", "1", 0, 0.012, most=1),
    "jpeg": Knob("JPEG quality, rounded", "1", 65, 100, least=1, most=100),
}


def layered(
    clean: np.ndarray, seed: Seed, measured: Callable[[int, np.random.Generator], np.ndarray] | None = None, **given
) -> Rain:
    """Put one to four layers of streaks before `clean` (H, W, 3) in [0, 1], the farthest first.

    Of a layer with the mask m (H, W): rainy = behind (1 - hides peak m) + light peak m. The veil lies under all of
    them and belongs to the background. `measured(side, rng)` gives layers of streaks (side, side) from elsewhere: then
    two pictures of three have those, enlarged to `width_px`, instead of drawn ones. `given` fixes parameters of the
    table LAYERED; the others stay what they are for that seed.
    """
    clean = checked(clean)
    p, rng = draw_parameters(LAYERED, seed, given)
    grey = 0.5 + 0.45 * rng.random()
    background = clean + p["veil"] * (np.asarray(grey, clean.dtype) - clean)
    colour = (p["light"] * (1 + rng.normal(0, 0.02, 3))).astype(clean.dtype)
    light = colour * _shine(clean, p["lamps"])[..., None]
    takes_measured = rng.random() < MEASURED
    rainy = background.copy()
    for i in reversed(range(round(p["layers"]))):
        width = max(p["width_px"] * p["finer"] ** i, LAYERED["width_px"].least)
        if measured and takes_measured:
            mask = enlarge(measured, clean.shape[:2], rng, width, p["edge"])
        else:
            angle = p["angle_deg"] + p["turn_deg"] * rng.uniform(-1, 1)
            mask = draw_streaks(clean.shape[:2], rng, width, angle, p)
        opacity = (p["peak"] * mask[..., None]).astype(clean.dtype)
        rainy *= 1 - p["hides"] * opacity
        rainy += light * opacity
    rainy = np.clip(rainy, 0, 1)
    streaks = np.clip(to_grey(rainy) - to_grey(background), 0, 1)
    noisy = np.clip(rainy + p["noise"] * rng.standard_normal(clean.shape, np.float32), 0, 1)
    return Rain(recompress(noisy, round(p["jpeg"])).astype(clean.dtype, copy=False), streaks, p, background)


def draw_streaks(shape: tuple[int, int], rng: np.random.Generator, width: float, angle: float, p) -> np.ndarray:
    """A layer (H, W) in [0, 1] of streaks about `width` px wide at `angle` degrees; `p` as of the table LAYERED."""
    longest = min(width * p["slender"], 2.0 * max(shape))
    room = [side + longest for side in shape]  # streaks may enter from outside
    count = max(1, rng.poisson(p["cover"] * room[0] * room[1] / (0.65 * longest * width)))
    y, x = (rng.uniform(-0.5, 0.5, count) * r + side / 2 for r, side in zip(room, shape, strict=True))
    length, weight = longest * rng.uniform(0.3, 1, count), rng.uniform(0.35, 1, count)  # some are fainter than others
    tilt = np.deg2rad(angle + p["jitter_deg"] * rng.standard_normal(count))
    sigma = max(0.45, width / 2.4)  # a Gaussian of that sigma is half as high `width` apart
    drawn = draw_lines(shape, np.stack([y, x, length, tilt, weight]), step=max(1.0, sigma))
    return np.clip(gaussian_filter(drawn, sigma, truncate=2.5) * (p["edge"] * math.sqrt(2 * math.pi) * sigma), 0, 1)


def enlarge(
    measured: Callable[[int, np.random.Generator], np.ndarray],
    shape: tuple[int, int],
    rng: np.random.Generator,
    width: float,
    edge: float,
) -> np.ndarray:
    """A measured layer (H, W), at least as large as it is, its brightest point 1; steeper where `edge` is above 1."""
    scale, side = max(1.0, width / MEASURED_PX), max(shape)
    layer = measured(max(8, math.ceil(side / scale)), rng)
    layer = layer / max(float(layer.max()), 0.05)  # an empty layer stays empty
    if scale > 1:
        layer = zoom(layer, side / len(layer), order=1, mode="nearest", grid_mode=True)
    least = 0.2 * (edge - 1) / 3  # steeper edges, and the faintest of them gone
    return np.clip((layer[: shape[0], : shape[1]] - least) / (1 - least) * edge**0.5, 0, 1)


def _shine(clean: np.ndarray, lamps: float) -> np.ndarray:
    """Light (H, W) that falls on the streaks, at most 1: even, and around the bright places of the picture."""
    grey = to_grey(clean)
    size = max(1, max(grey.shape) // 32)
    glow = gaussian_filter(grey[::size, ::size] ** 3, 4)
    glow = zoom(glow / max(float(glow.max()), 1e-6), np.divide(grey.shape, glow.shape), order=1, mode="nearest")
    return (1 - lamps) + lamps * np.clip(glow, 0, 1)
