"""Drawn rain: the recipe of Photoshop tutorials, behind most synthetic rain sets; its knobs and ranges are ours."""

import numpy as np
from scipy.ndimage import zoom

from ttlkit.data.image_files import to_grey
from ttlkit.rain.knobs import Knob, Rain, Seed, checked, draw_parameters
from ttlkit.rain.layers import draw_lines

PHOTOSHOP = {
    "angle_deg": Knob("direction of streaks, right on the way down above 0", "degrees", -35, 35, least=-90, most=90),
    "strength": Knob("brightness of the layer", "1", 0.35, 0.95, most=1),
    "length_px": Knob("length of the motion blur", "px", 10, 45, least=1, most=1000),
    "grain_px": Knob("size of a noise grain", "px", 1, 2.2, least=1, most=100),
    "density": Knob("share of noise that becomes streaks", "1", 0.002, 0.03, "log", most=1),
}


def photoshop(clean: np.ndarray, seed: Seed, **given: float) -> Rain:
    """Lay Photoshop rain over `clean` (H, W, 3) in [0, 1].

    Noise, threshold, motion blur along one angle, contrast, then screen: rainy = 1 - (1 - clean)(1 - layer).
    Nothing else of the picture changes, which is the gap to real rain. `given` fixes parameters of the table
    PHOTOSHOP; the others stay what they are for that seed.
    """
    clean = checked(clean)
    p, rng = draw_parameters(PHOTOSHOP, seed, given)
    length = p["length_px"]
    size = 2 * int(length / 2) + 5
    streak = np.array([[size // 2], [size // 2], [length], [np.deg2rad(p["angle_deg"])], [1 / length]])
    kernel = draw_lines((size, size), streak, 0.25).astype(clean.dtype)
    canvas = np.add(clean.shape[:2], size - 1)
    coarse = np.ceil(canvas / p["grain_px"]).astype(int)
    noise = zoom(rng.standard_normal(coarse, dtype=np.float32).astype(clean.dtype), canvas / coarse, order=1)
    dots = (noise > np.quantile(noise, 1 - p["density"])).astype(clean.dtype)
    from scipy.signal import fftconvolve  # here, since it takes a second to import and no training needs it

    contrast = length / 3  # a single dot, smeared over the length, is lifted to a third of white
    layer = np.clip(fftconvolve(dots, kernel, mode="valid") * contrast, 0, 1) * p["strength"]
    rainy = 1 - (1 - clean) * (1 - layer[..., None])
    return Rain(np.clip(rainy, 0, 1), np.clip(to_grey(rainy - clean), 0, 1), p, clean.copy())
