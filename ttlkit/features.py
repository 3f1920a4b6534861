"""What is measured on an image of rain, one function a feature: streaks, light, scattering, noise and compression."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import fft
from scipy.ndimage import (
    convolve,
    find_objects,
    gaussian_filter,
    grey_closing,
    grey_opening,
    label,
    maximum_filter1d,
    minimum_filter,
    uniform_filter,
)

from ttlkit.images import recompress, resize, to_grey

VERSION = 4  # raise it when a number changes: cached features go by it
WIDTHS = (2, 3, 4, 5, 7, 9, 12)  # px; what is wider than the last is no streak
FAINT = 0.02  # luma; thin structures below five grey levels are taken for noise
BLOCK = 16  # px, side of the blocks in which depth and detail are compared


@dataclass(frozen=True)
class Feature:
    """One number measured on a `Prepared` image.

    `group`: streaks, light, scattering, or camera (noise and compression, which tell image sets apart without any
    rain). `see(prepared)`: the map (H, W), at least 0, that the number is taken from. `source`: where it is defined.
    """

    name: str
    label: str
    unit: str
    source: str
    measure: Callable[[Prepared], float]
    see: Callable[[Prepared], np.ndarray]
    group: str


@dataclass(frozen=True)
class Lines:
    """Thin bright structures, all (H, W).

    `height` over their surroundings in luma; `upright` and `right`: w cos 2 tilt and w sin 2 tilt; `steep`: within 45
    degrees of the vertical, and coherent; `crest`: their middle lines.
    """

    height: np.ndarray
    upright: np.ndarray
    right: np.ndarray
    steep: np.ndarray
    crest: np.ndarray


class Prepared:
    """An image (H, W, 3) in [0, 1] as features see it, `image`, and `raw`, as it was loaded.

    What several features need is computed once. Raises ValueError on anything that is not such an image.
    """

    def __init__(self, image: np.ndarray, raw: np.ndarray | None = None):
        raw = image if raw is None else raw
        shape = np.shape(raw)
        if len(shape) != 3 or shape[2] != 3 or 0 in shape:
            raise ValueError(f"an image is an array (H, W, 3), got shape {shape}")
        if not np.issubdtype(raw.dtype, np.floating) or not (raw.min() >= 0 and raw.max() <= 1):
            raise ValueError(f"an image is float in [0, 1], got {raw.dtype}, {raw.min()} to {raw.max()}")
        self.image, self.raw = image, raw

    @cached_property
    def grey(self) -> np.ndarray:
        """Luma (H, W)."""
        return to_grey(self.image)

    @cached_property
    def opened(self) -> np.ndarray:
        """Luma without bright structures less than 12 px wide: what is behind the streaks."""
        return grey_opening(self.grey, (1, WIDTHS[-1]))

    @cached_property
    def lines(self) -> Lines:
        """The tilt's weight w is the difference of the eigenvalues of the structure tensor: trace x coherence."""
        height = self.grey - self.opened
        dy, dx = _gradient(height)
        yy, xx, xy = (gaussian_filter(v, 2.0, truncate=3) for v in (dy * dy, dx * dx, dx * dy))
        upright, right = xx - yy, -2 * xy  # gradients lie across a streak
        steep = (np.hypot(upright, right) > 0.5 * (xx + yy)) & (upright > 0)
        crest = steep & (height > FAINT) & (height >= maximum_filter1d(height, 3, axis=1))
        return Lines(height, upright, right, steep, crest)

    @cached_property
    def darkest(self) -> np.ndarray:
        """The darkest channel in windows of 15 x 15 px (H, W)."""
        red, green, blue = np.moveaxis(self.image, -1, 0)
        return minimum_filter(np.minimum(np.minimum(red, green), blue), 15)

    @cached_property
    def detail(self) -> np.ndarray:
        """Standard deviation of luma in windows of 15 x 15 px (H, W)."""
        grey = self.grey.astype(np.float64)  # the difference of squares below needs the digits
        variance = uniform_filter(grey**2, 15) - uniform_filter(grey, 15) ** 2
        return np.sqrt(np.maximum(variance, 0))

    @cached_property
    def power(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Power spectrum of the luma under a Hann window, and the frequencies down and across, cycles a pixel."""
        grey = self.grey.astype(np.float64)
        height, width = grey.shape
        window = np.hanning(height + 2)[1:-1, None] * np.hanning(width + 2)[1:-1]
        grey = (grey - np.average(grey, weights=window)) * window
        return np.abs(fft.rfft2(grey)) ** 2, fft.fftfreq(height)[:, None], fft.rfftfreq(width)

    @cached_property
    def noise_map(self) -> np.ndarray:
        """|luma * the difference of two Laplacians| of the middle of the raw image, at most 512 px a side."""
        height, width = self.raw.shape[:2]
        top, left = (max(0, (n - 512) // 2) for n in (height, width))
        grey = to_grey(self.raw[top : top + 512, left : left + 512])
        return np.abs(convolve(grey, np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], grey.dtype)))


def scale_down(image: np.ndarray, long_side: int = 480) -> np.ndarray:
    """Bring an image (H, W, 3) in [0, 1] to at most `long_side` pixels; a smaller one stays as it is."""
    height, width = image.shape[:2]
    scale = long_side / max(height, width)
    return resize(image, max(1, round(height * scale)), max(1, round(width * scale))) if scale < 1 else image


def prepare(image: np.ndarray, long_side: int = 480) -> Prepared:
    """Bring an image (H, W, 3) in [0, 1] to at most `long_side` pixels and a common finest scale, float32.

    It is only ever scaled down; a Gaussian of 0.7 px then levels what sensors, scaling and JPEG leave at the
    pixel scale. Raises ValueError on anything that is not such an image.
    """
    raw = Prepared(image).raw
    return Prepared(gaussian_filter(scale_down(raw, long_side).astype(np.float32, copy=False), (0.7, 0.7, 0)), raw)


# ---- streaks: their geometry ------------------------------------------------------------------------------------


def streak_direction(seen: Prepared) -> float:
    """Mean direction of thin bright steep structures, degrees from the vertical; positive: right on the way down.

    From the structure tensor, weighted by its trace and coherence (Bigun & Granlund, ICCV 1987); 0 without any.
    """
    lines = seen.lines
    return float(np.rad2deg(np.arctan2(lines.right[lines.steep].sum(), lines.upright[lines.steep].sum()) / 2))


def streak_direction_spread(seen: Prepared) -> float:
    """Circular standard deviation, degrees, of thin bright structures' directions.

    With r = |sum w exp(2i phi)| / sum w, sqrt(-2 ln r) / 2; 27.2, that of all steep directions alike, where there is
    nothing to see. Weights as in `streak_direction`; Mardia & Jupp, Directional Statistics, 2000.
    """
    lines = seen.lines
    upright, right = lines.upright[lines.steep], lines.right[lines.steep]
    resultant = _resultant(upright, right, np.hypot(upright, right)) or 2 / np.pi
    return float(np.rad2deg(np.sqrt(-2 * np.log(resultant)) / 2))


def streak_length(seen: Prepared) -> float:
    """Length, px of the prepared image, of thin bright steep lines: crests that touch, sum l^2 / sum l; 0 without any.

    The mean over what lies on lines, not over lines: many short chance finds then count little. Streaks that touch
    are one. Rosenfeld & Pfaltz, J. ACM 13, 1966 (connected components).
    """
    found, count = label(seen.lines.crest, np.ones((3, 3)))
    if not count:
        return 0.0
    spans = np.array([[part.stop - part.start for part in place] for place in find_objects(found)])
    length = np.hypot(*spans.T)
    return float((length**2).sum() / length.sum())


def streak_width(seen: Prepared) -> float:
    """Mean width, px of the prepared image, of thin bright steep lines; 0 where there are none.

    Along the crests: sum k (o_k - o_k+) cos(tilt) / sum (o_k - o_k+), o_k the opening by a row of k px: the
    mean of the pattern spectrum, a scale space of openings. Maragos, IEEE PAMI 11, 1989.
    """
    grey, crest = seen.grey, seen.lines.crest
    if not crest.any():
        return 0.0
    narrower = [grey_opening(grey, (1, k))[crest] for k in WIDTHS[:-1]]
    levels = [grey[crest], *narrower, seen.opened[crest]]
    lost = -np.diff(levels, axis=0)  # what a row of k px removed is narrower than k
    middle = (np.array((1, *WIDTHS[:-1])) + np.array(WIDTHS) - 1)[:, None] / 2
    upright, right = seen.lines.upright[crest], seen.lines.right[crest]
    cosine = np.sqrt((1 + upright / np.hypot(upright, right)) / 2)  # of the tilt: a row cuts a streak askew
    return float((middle * lost * cosine).sum() / lost.sum())


def streak_density(seen: Prepared) -> float:
    """Thin bright steep lines that a row of 100 px crosses: crests per pixel x 100. Serra 1982 (intercepts)."""
    return float(100 * seen.lines.crest.mean())


def edge_spread(seen: Prepared) -> float:
    """Circular variance 1 - |sum m exp(2i theta)| / sum m of gradient angles theta, weighted by size m.

    0: all edges run one way; 1: no direction is preferred, also where there is no edge. Mardia & Jupp,
    Directional Statistics, 2000.
    """
    dy, dx = _gradient(seen.grey)
    size = np.hypot(dy, dx)
    scale = 1 / np.maximum(size, 1e-9)  # m exp(2i theta) without angles
    return 1 - _resultant((dx * dx - dy * dy) * scale, 2 * dx * dy * scale, size)


# ---- light: how streaks change the picture ----------------------------------------------------------------------


def streak_contrast(seen: Prepared) -> float:
    """Mean height in luma, 0 to 1, of thin bright steep lines over their surroundings; 0 without any.

    The height is the white top-hat, grey - opening(grey), with a flat row of 12 px. Serra, Image Analysis
    and Mathematical Morphology, 1982.
    """
    lines = seen.lines
    return float(lines.height[lines.crest].mean()) if lines.crest.any() else 0.0


def streak_colour(seen: Prepared) -> float:
    """Saturation of the light that thin bright lines add: mean of (max - min) / max over the channels' heights.

    0: grey, as rain that shows the sky should be (Zhang et al., ICME 2006); 0 without any line too.
    """
    crest = seen.lines.crest
    if not crest.any():
        return 0.0
    heights = [(c - grey_opening(c, (1, WIDTHS[-1])))[crest] for c in np.moveaxis(seen.image, -1, 0)]
    top, bottom = np.maximum.reduce(heights), np.minimum.reduce(heights)
    return float(np.mean((top - bottom) / np.maximum(top, FAINT / 2)))


def streak_fading(seen: Prepared) -> float:
    """By how much a streak's height falls when what is behind it gets brighter: - slope of height over background.

    0: light is added to it (a screen in Photoshop: below 1); near the opacity where drops hide the background.
    Garg & Nayar, CVPR 2004. 0 where there are less than 20 crests, or one background.
    """
    crest = seen.lines.crest
    behind, height = seen.opened[crest].astype(np.float64), seen.lines.height[crest].astype(np.float64)
    if len(behind) < 20 or behind.std() < FAINT:
        return 0.0
    return float(-np.polyfit(behind, height, 1)[0])


def streak_sign(seen: Prepared) -> float:
    """Whether thin lines are bright or dark, 1 to -1: (bright - dark) / (bright + dark), summed heights; 0 without any.

    Heights are those of the white and of the black top-hat with a row of 12 px (Serra 1982). Rain brightens.
    """
    bright, dark = seen.grey - seen.opened, grey_closing(seen.grey, (1, WIDTHS[-1])) - seen.grey
    sums = [float(v[v > FAINT].sum()) for v in (bright, dark)]
    return (sums[0] - sums[1]) / sum(sums) if sum(sums) > 0 else 0.0


def saturation(seen: Prepared) -> float:
    """Mean of (max - min) / max over the channels, 0 to 1; black counts as 0. Smith, SIGGRAPH 1978."""
    return float(saturation_map(seen).mean())


def saturation_map(seen: Prepared) -> np.ndarray:
    """(max - min) / max over the channels (H, W)."""
    red, green, blue = np.moveaxis(seen.image, -1, 0)  # pairwise: far faster than .max(-1) over three values
    top = np.maximum(np.maximum(red, green), blue)
    return (top - np.minimum(np.minimum(red, green), blue)) / np.maximum(top, 1e-3)


# ---- scattering: what far rain does to the scene ----------------------------------------------------------------


def veil(seen: Prepared) -> float:
    """Mean of the darkest channel in windows of 15 x 15 px, 0 to 1; haze lifts it. He et al., CVPR 2009."""
    return float(seen.darkest.mean())


def local_contrast(seen: Prepared) -> float:
    """Mean standard deviation of luma in windows of 15 x 15 px, 0 to 0.5. Peli, JOSA A 7, 1990."""
    return float(seen.detail.mean())


def depth_fading(seen: Prepared) -> float:
    """How much detail is lost with depth, -1 to 1: - correlation of log local contrast with the dark channel.

    Both over blocks of 16 px; the dark channel stands for depth (He et al., CVPR 2009), since farther things lie
    behind more veil (Narasimhan & Nayar, IJCV 2002). 0 with less than 9 blocks, or without contrast.
    """
    height, width = (n // BLOCK * BLOCK for n in seen.grey.shape)
    if height * width < 9 * BLOCK**2:
        return 0.0
    shape = (height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    depth, detail = (v[:height, :width].reshape(shape).mean((1, 3)).ravel() for v in (seen.darkest, seen.detail))
    detail = np.log(detail + 1e-3)
    if min(depth.std(), detail.std()) < 1e-4:
        return 0.0
    return float(-np.corrcoef(depth, detail)[0, 1])


def spectrum_slope(seen: Prepared) -> float:
    """Slope of log power over log frequency, both averaged round rings; about -2 for photographs, 0 if flat.

    Hann window; from 4 periods a side to a quarter cycle a pixel. Field, JOSA A 4, 1987.
    """
    power, down, across = seen.power
    frequency = np.hypot(down, across)
    low = 4 / min(seen.grey.shape)
    if low >= 0.125 or power.sum() < 1e-8:
        return 0.0
    edges = np.geomspace(low, 0.25, 17)
    ring = np.digitize(frequency, edges).ravel()
    count = np.bincount(ring, minlength=18)[1:17]
    mean = np.bincount(ring, power.ravel(), 18)[1:17] / np.maximum(count, 1)
    centre = np.bincount(ring, frequency.ravel(), 18)[1:17] / np.maximum(count, 1)
    used = (count > 0) & (mean > 0)
    if used.sum() < 3:
        return 0.0
    return float(np.polyfit(np.log(centre[used]), np.log(mean[used]), 1)[0])


def spectrum_anisotropy(seen: Prepared) -> float:
    """log10 of the power of upright structures over that of level ones, above 1/16 cycle a pixel; 0 if flat.

    Upright: frequencies within 30 degrees of the horizontal axis. Torralba & Oliva, Network 14, 2003.
    """
    power, down, across = seen.power
    band = np.hypot(down, across)
    band = (band > 1 / 16) & (band < 0.4)
    tilt = np.rad2deg(np.arctan2(np.abs(down), across + 0 * down))
    upright, level = float(power[band & (tilt < 30)].sum()), float(power[band & (tilt > 60)].sum())
    return float(np.log10(upright / level)) if min(upright, level) > 1e-8 else 0.0


# ---- camera: noise and compression, on the image as it was loaded -----------------------------------------------


def megapixels(seen: Prepared) -> float:
    """Size of the raw image, millions of pixels."""
    return seen.raw.shape[0] * seen.raw.shape[1] / 1e6


def noise(seen: Prepared) -> float:
    """Standard deviation of the noise, luma: sqrt(pi / 2) / 6 of the mean of `noise_map`. Immerkaer, CVIU 64, 1996.

    In the raw image; fine texture counts too.
    """
    return float(np.sqrt(np.pi / 2) / 6 * seen.noise_map.mean())


def blockiness(seen: Prepared) -> float:
    """Steps of luma across the borders of 8 x 8 blocks over the others, minus 1; 0: no blocks of JPEG seen.

    In the middle of the raw image, borders counted from its corner. Wang, Sheikh & Bovik, ICIP 2002.
    """
    height, width = seen.raw.shape[:2]
    top, left = (max(0, (n - 1024) // 16 * 8) for n in (height, width))
    grey = to_grey(seen.raw[top : top + 1024, left : left + 1024])
    found = []
    for axis in (0, 1):
        steps = np.abs(np.diff(grey, axis=axis)).mean(axis=1 - axis)
        border = np.arange(len(steps)) % 8 == 7
        if border.any() and steps[~border].mean() > 1e-6:
            found.append(steps[border].mean() / steps[~border].mean() - 1)
    return float(np.mean(found)) if found else 0.0


def _crests_only(seen: Prepared) -> np.ndarray:
    return np.where(seen.lines.crest, seen.lines.height, 0)


def _gradient_size(seen: Prepared) -> np.ndarray:
    return np.hypot(*_gradient(seen.grey))


def _spectrum_map(seen: Prepared) -> np.ndarray:
    power, _, _ = seen.power
    whole = np.concatenate([power[:, :0:-1], power], axis=1)
    return np.log1p(fft.fftshift(whole, axes=0) / max(float(whole.mean()), 1e-12))


def _steps_map(seen: Prepared) -> np.ndarray:
    return np.hypot(*np.gradient(to_grey(seen.raw[:256, :256]))) if min(seen.raw.shape[:2]) > 1 else seen.grey * 0


_Definition = tuple[Callable[[Prepared], float], str, str, str, Callable[[Prepared], np.ndarray]]
_STREAKS: list[_Definition] = [
    (streak_direction, "direction of streaks", "degrees", "Bigun & Granlund 1987", _crests_only),
    (streak_direction_spread, "spread of streak directions", "degrees", "Mardia & Jupp 2000", _crests_only),
    (streak_length, "length of streaks", "px", "Rosenfeld & Pfaltz 1966", _crests_only),
    (streak_width, "width of streaks", "px", "Maragos 1989", _crests_only),
    (streak_density, "density of streaks", "1/100 px", "Serra 1982", _crests_only),
    (edge_spread, "spread of edge directions", "1", "Mardia & Jupp 2000", _gradient_size),
]
_LIGHT: list[_Definition] = [
    (streak_contrast, "height of streaks", "luma", "Serra 1982", _crests_only),
    (streak_colour, "colour of streaks", "1", "Zhang et al. 2006", _crests_only),
    (streak_fading, "fading of streaks on bright ground", "1", "Garg & Nayar 2004", _crests_only),
    (streak_sign, "bright over dark lines", "1", "Serra 1982", lambda seen: seen.grey - seen.opened),
    (saturation, "saturation", "1", "Smith 1978", saturation_map),
]
_SCATTERING: list[_Definition] = [
    (veil, "veil", "1", "He et al. 2009", lambda seen: seen.darkest),
    (local_contrast, "local contrast", "luma", "Peli 1990", lambda seen: seen.detail),
    (depth_fading, "loss of detail with depth", "1", "Narasimhan & Nayar 2002", lambda seen: seen.darkest),
    (spectrum_slope, "slope of the spectrum", "1", "Field 1987", _spectrum_map),
    (spectrum_anisotropy, "upright over level structures", "log10", "Torralba & Oliva 2003", _spectrum_map),
]
_CAMERA: list[_Definition] = [
    (megapixels, "size", "megapixels", "raw image", lambda seen: seen.grey),
    (noise, "noise", "luma", "Immerkaer 1996", lambda seen: seen.noise_map),
    (blockiness, "blocks of JPEG", "1", "Wang et al. 2002", _steps_map),
]
FEATURES: tuple[Feature, ...] = tuple(
    Feature(measure.__name__, text, unit, source, measure, see, group)
    for group, members in (
        ("streaks", _STREAKS),
        ("light", _LIGHT),
        ("scattering", _SCATTERING),
        ("camera", _CAMERA),
    )
    for measure, text, unit, source, see in members
)
NAMES = tuple(feature.name for feature in FEATURES)
CAMERA = tuple(feature.name for feature in FEATURES if feature.group == "camera")


def equalise(image: np.ndarray) -> np.ndarray:
    """Take away what belongs to files, (H, W, 3) in [0, 1]: their margins, shape, size and compression.

    The middle square with four fifths of the shorter side, for watermarks, dates and frames are on margins; at most
    256 px, which every picture of 320 has left; JPEG quality 75. A watermark over the middle of a picture stays.
    """
    side = max(1, round(0.8 * min(image.shape[:2])))
    top, left = ((n - side) // 2 for n in image.shape[:2])
    return recompress(scale_down(image[top : top + side, left : left + side], 256), 75)


def measure_one(image: np.ndarray) -> list[float]:
    """Every feature of an image (H, W, 3) in [0, 1] as it was loaded, in the order of FEATURES; never NaN."""
    seen = prepare(image)
    return [float(feature.measure(seen)) for feature in FEATURES]


def measure(images: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
    """Every feature of every image (H, W, 3) in [0, 1]: one float64 array (n,) a feature, never NaN.

    Each image goes through `prepare` here, so hand over images as they were loaded.
    Raises ValueError when there is no image, or one is not an image.
    """
    rows = [measure_one(image) for image in images]
    if not rows:
        raise ValueError("no images to measure")
    return {name: np.array(v, np.float64) for name, v in zip(NAMES, zip(*rows, strict=True), strict=True)}


def _gradient(grey: np.ndarray, sigma: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    return gaussian_filter(grey, sigma, order=(1, 0)), gaussian_filter(grey, sigma, order=(0, 1))


def _resultant(cosine: np.ndarray, sine: np.ndarray, weight: np.ndarray) -> float:
    """Length of the mean direction, 0 to 1: |sum (cosine, sine)| / sum weight; 0 without weight."""
    total = float(weight.sum())
    return min(1.0, float(np.hypot(cosine.sum(), sine.sum())) / total) if total > 1e-6 else 0.0
