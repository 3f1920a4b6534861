"""Rain traced through the exposure: every drop is followed slice by slice of time on its curved way down.

Ours, and used by no training: the pocket collection's "real" rain, so that what is measured there is rain of another
renderer. Nothing is shared with the other renderers but the knobs: drops are points that move, not lines; each shows
the scene upside down, as a drop of water does (Garg & Nayar, Vision and Rain, IJCV 75, 2007), not the sky; what is out
of focus is a disc, not a Gaussian; noise grows with the light; the tone curve is sRGB's.
"""

import math

import numpy as np
from scipy.ndimage import convolve, gaussian_filter

from ttlkit.data.image_files import recompress, to_grey
from ttlkit.rain.knobs import Knob, Rain, Seed, checked, draw_parameters

SHELLS = 4  # of drops, each twice as far away as the one before it
DAYLIGHT = 0.3  # at least, outside of the picture
POINTS = 2  # slices of time for each pixel of the way

TRACED = {
    "density": Knob("drops in the nearest shell for a picture of 256 by 192", "1", 12, 40, "log", most=2000),
    "length": Knob("way of a drop in the nearest shell, share of the height", "1", 0.12, 0.5, "log", most=3),
    "width_px": Knob("width of a drop in the nearest shell", "px", 1.5, 4, "log", least=0.5, most=40),
    "focus": Knob("shell in focus, 0 the nearest", "1", 1, 3, most=SHELLS),
    "aperture": Knob("width of a disc for each shell out of focus, in widths of a drop", "1", 0.2, 0.8, most=10),
    "angle_deg": Knob("direction, right on the way down above 0", "degrees", -18, 18, "bell", least=-80, most=80),
    "swirl": Knob("how far the way of a drop swings, share of its length", "1", 0, 0.03, most=0.5),
    "opacity": Knob("share of what is behind that the brightest streak hides", "1", 0.4, 0.8, most=1),
    "outside": Knob("share of the light of a drop that comes from outside of the picture", "1", 0.1, 0.5, most=1),
    "bright": Knob("light of a drop over that of the scene it shows", "1", 1.0, 2.0, "log", most=20),
    "mist": Knob("share of mist, which is background", "1", 0, 0.12, most=1),
    "noise": Knob("sensor noise of white, grows with the root of the light", "1", 0.004, 0.015, most=1),
    "jpeg": Knob("JPEG quality, rounded", "1", 75, 97, least=1, most=100),
}


def traced(clean: np.ndarray, seed: Seed, **given: float) -> Rain:
    """Follow drops before `clean` (H, W, 3) in [0, 1] for one exposure; the farthest drops first.

    Of a shell with the share m (H, W) of the time for which drops hide a pixel, in light: behind (1 - m) + shown m,
    where `shown` is the scene upside down, blurred, and light from outside of the picture. `given` fixes parameters of
    the table TRACED; the others stay what they are for that seed.
    """
    clean = checked(clean)
    p, rng = draw_parameters(TRACED, seed, given)
    light = _to_light(clean)
    air = np.quantile(to_grey(light), 0.9)
    background = light + np.asarray(p["mist"], clean.dtype) * (air - light)
    reach = max(clean.shape[:2]) / 6
    upside_down = gaussian_filter(background[::-1], (reach, reach, 0), truncate=2)
    shown = p["bright"] * (upside_down + p["outside"] * (max(air, DAYLIGHT) - upside_down))
    rainy = background.copy()
    for shell in reversed(range(SHELLS)):
        hidden = hides(rng, clean.shape[:2], p, shell)[..., None].astype(clean.dtype)
        rainy += hidden * (shown - rainy)
    background, rainy = _from_light(background), _from_light(rainy)
    streaks = np.clip(to_grey(rainy) - to_grey(background), 0, 1)
    noise = p["noise"] * np.sqrt(rainy) * rng.standard_normal(clean.shape, np.float32)
    finished = recompress(np.clip(rainy + noise, 0, 1), round(p["jpeg"])).astype(clean.dtype, copy=False)
    return Rain(finished, streaks, p, background)


def hides(rng: np.random.Generator, shape: tuple[int, int], p, shell: int) -> np.ndarray:
    """Share (H, W) in [0, 1] of the exposure for which the drops of a shell hide each pixel; `p` as of TRACED."""
    height, width = shape
    near = 2.0**-shell
    way, across = p["length"] * height * near, max(0.6, p["width_px"] * near)
    count = rng.poisson(p["density"] * height * width / (192 * 256) / near)
    place, phase, own = rng.random((2, count)), 2 * math.pi * rng.random(count), rng.uniform(0.4, 1, count)
    slices = max(2, math.ceil(POINTS * way))
    time = ((np.arange(slices) + 0.5) / slices - 0.5)[:, None]
    down = place[0] * (height + way) - way / 2 + way * own * time
    swing = p["swirl"] * way * np.sin(phase + 5 * time)
    side = (1.2 * place[1] - 0.1) * width + math.tan(math.radians(p["angle_deg"])) * way * own * time + swing
    edges = [np.arange(length + 1.0) for length in shape]
    weights = np.broadcast_to(own, down.shape)  # slow drops are small ones, and hide less
    drawn = np.histogram2d(down.ravel(), side.ravel(), edges, weights=weights.ravel())[0]
    radius = across * (0.5 + p["aperture"] * abs(shell - p["focus"]) / 2)
    fainter = min(1, across / (2 * radius))  # what is out of focus is wider and hides less
    mean = POINTS * math.pi * radius / 2  # of a row of points under a disc, over the width of the disc
    return np.clip(convolve(drawn, _disc(radius), mode="constant") / mean * fainter, 0, 1) * p["opacity"]


def _disc(radius: float) -> np.ndarray:
    """A disc of that radius [px] with soft edges."""
    reach = math.ceil(radius + 0.5)
    far = np.hypot(*np.ogrid[-reach : reach + 1, -reach : reach + 1])
    return np.clip(radius + 0.5 - far, 0, 1)


def _to_light(image: np.ndarray) -> np.ndarray:
    """sRGB in [0, 1] to light (IEC 61966-2-1)."""
    return np.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4).astype(image.dtype)


def _from_light(light: np.ndarray) -> np.ndarray:
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055).astype(light.dtype)
