"""What is measured on an image of rain, one function a feature: streaks, light, scattering, noise and compression."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import find_objects, grey_closing, grey_opening, label

from ttlkit.data.image_files import recompress, to_grey
from ttlkit.gap.prepared import FAINT, WIDEST, Prepared, prepare, scale_down

VERSION = 4  # raise it when a number changes: cached features go by it
WIDTHS = (2, 3, 4, 5, 7, 9, WIDEST)  # px
BLOCK = 16  # px, side of the blocks in which depth and detail are compared


@dataclass(frozen=True)
class Feature:
    """One number measured on a `Prepared` image.

    `group`: streaks (their geometry), light (how they change the picture), scattering (what far rain does to the
    scene), or camera (of the file, whatever the weather). `shown`: the map of `Prepared` that the number is taken from;
    '' for those of the camera, whose numbers have none that can be read.
    """

    measure: Callable[[Prepared], float]
    group: str
    label: str
    unit: str
    source: str
    shown: str

    @property
    def name(self) -> str:
        return self.measure.__name__


FEATURES: list[Feature] = []


def feature(*about: str):
    """Enter a function into FEATURES; `about`: its group, label, unit, source, and the map that is shown."""

    def enter(measure: Callable[[Prepared], float]) -> Callable[[Prepared], float]:
        FEATURES.append(Feature(measure, *about))
        return measure

    return enter


@feature("streaks", "direction of streaks", "degrees", "Bigun & Granlund, ICCV 1987", "crests")
def streak_direction(seen: Prepared) -> float:
    """Mean direction of thin bright steep structures, degrees; 0: upright, or none; above 0: right on the way down."""
    right, upright = (v[seen.steep].sum() for v in (seen.right, seen.upright))
    return float(np.rad2deg(np.arctan2(right, upright) / 2))


@feature("streaks", "spread of streak directions", "degrees", "Mardia & Jupp, Directional Statistics, 2000", "crests")
def streak_direction_spread(seen: Prepared) -> float:
    """Circular standard deviation, degrees, of thin bright structures' directions, weighted as in `streak_direction`.

    sqrt(-2 ln r) / 2 with r = |sum w exp(2i phi)| / sum w; 27.2, that of all steep directions alike, without any.
    """
    upright, right = (v[seen.steep] for v in (seen.upright, seen.right))
    resultant = _resultant(upright, right, np.hypot(upright, right)) or 2 / np.pi
    return float(np.rad2deg(np.sqrt(-2 * np.log(resultant)) / 2))


@feature("streaks", "length of streaks", "px", "Rosenfeld & Pfaltz, J. ACM 13, 1966", "crests")
def streak_length(seen: Prepared) -> float:
    """Length, px of the prepared image, of thin bright steep lines: crests that touch, sum l^2 / sum l; 0 if none."""
    found, count = label(seen.crest, np.ones((3, 3)))
    if not count:
        return 0.0
    spans = np.array([[part.stop - part.start for part in place] for place in find_objects(found)])
    length = np.hypot(*spans.T)
    return float((length**2).sum() / length.sum())  # a mean over pixels, so that short chance finds count little


@feature("streaks", "width of streaks", "px", "Maragos, IEEE PAMI 11, 1989", "crests")
def streak_width(seen: Prepared) -> float:
    """Mean width, px of the prepared image, of thin bright steep lines; 0 where there are none.

    Along the crests: sum k (o_k - o_k+) cos(tilt) / sum (o_k - o_k+), o_k the opening by a row of k px: the
    mean of the pattern spectrum, a scale space of openings.
    """
    grey, crest = seen.grey, seen.crest
    if not crest.any():
        return 0.0
    narrower = [grey_opening(grey, (1, k))[crest] for k in WIDTHS[:-1]]
    levels = [grey[crest], *narrower, seen.opened[crest]]
    lost = -np.diff(levels, axis=0)  # what a row of k px removed is narrower than k
    middle = (np.array((1, *WIDTHS[:-1])) + np.array(WIDTHS) - 1)[:, None] / 2
    upright, right = (v[crest] for v in (seen.upright, seen.right))
    cosine = np.sqrt((1 + upright / np.hypot(upright, right)) / 2)  # of the tilt: a row cuts a streak askew
    return float((middle * lost * cosine).sum() / lost.sum())


@feature("streaks", "density of streaks", "1/100 px", "Serra, Mathematical Morphology, 1982", "crests")
def streak_density(seen: Prepared) -> float:
    """Thin bright steep lines that a row of 100 px crosses: crests per pixel x 100."""
    return float(100 * seen.crest.mean())


@feature("streaks", "spread of edge directions", "1", "Mardia & Jupp, Directional Statistics, 2000", "edges")
def edge_spread(seen: Prepared) -> float:
    """Circular variance 1 - |sum m exp(2i theta)| / sum m of gradients of size m; 0: all one way; 1: no way, none."""
    dy, dx, size = seen.dy, seen.dx, seen.edges
    scale = 1 / np.maximum(size, 1e-9)  # m exp(2i theta) without angles
    return 1 - _resultant((dx * dx - dy * dy) * scale, 2 * dx * dy * scale, size)


@feature("light", "height of streaks", "luma", "Serra, Mathematical Morphology, 1982", "crests")
def streak_contrast(seen: Prepared) -> float:
    """Mean height in luma, 0 to 1, of thin bright steep lines over their surroundings; 0 without any."""
    return float(seen.heights[seen.crest].mean()) if seen.crest.any() else 0.0


@feature("light", "colour of streaks", "1", "Zhang et al., ICME 2006", "crests")
def streak_colour(seen: Prepared) -> float:
    """Saturation of the light that thin bright lines add, mean of (max - min) / max of heights; 0: grey, or none."""
    if not seen.crest.any():
        return 0.0
    heights = [(c - grey_opening(c, (1, WIDEST)))[seen.crest] for c in seen.planes]
    top, bottom = np.maximum.reduce(heights), np.minimum.reduce(heights)
    return float(np.mean((top - bottom) / np.maximum(top, FAINT / 2)))


@feature("light", "fading of streaks on bright ground", "1", "Garg & Nayar, CVPR 2004", "crests")
def streak_fading(seen: Prepared) -> float:
    """By how much a streak's height falls when what is behind it gets brighter: - slope of height over background.

    0: light is added (or less than 20 crests, or one background); near the opacity where drops hide the background.
    """
    behind, height = (v[seen.crest].astype(np.float64) for v in (seen.opened, seen.heights))
    if len(behind) < 20 or behind.std() < FAINT:
        return 0.0
    return float(-np.polyfit(behind, height, 1)[0])


@feature("light", "bright over dark lines", "1", "Serra, Mathematical Morphology, 1982", "heights")
def streak_sign(seen: Prepared) -> float:
    """Whether thin lines are bright, as rain, or dark, 1 to -1: difference over sum of all heights; 0 without any."""
    darker = grey_closing(seen.grey, (1, WIDEST)) - seen.grey
    bright, dark = (float(v[v > FAINT].sum()) for v in (seen.heights, darker))
    return (bright - dark) / (bright + dark) if bright + dark > 0 else 0.0


@feature("light", "saturation", "1", "Smith, SIGGRAPH 1978", "saturation")
def saturation(seen: Prepared) -> float:
    """Mean of (max - min) / max over the channels, 0 to 1; black counts as 0."""
    return float(seen.saturation.mean())


@feature("scattering", "veil", "1", "He et al., CVPR 2009", "darkest")
def veil(seen: Prepared) -> float:
    """Mean of the darkest channel in windows of 15 x 15 px, 0 to 1; haze lifts it."""
    return float(seen.darkest.mean())


@feature("scattering", "local contrast", "luma", "Peli, JOSA A 7, 1990", "detail")
def local_contrast(seen: Prepared) -> float:
    """Mean standard deviation of luma in windows of 15 x 15 px, 0 to 0.5."""
    return float(seen.detail.mean())


@feature("scattering", "loss of detail with depth", "1", "Narasimhan & Nayar, IJCV 2002", "darkest")
def depth_fading(seen: Prepared) -> float:
    """How much detail is lost with depth, -1 to 1: - correlation of log local contrast with the dark channel.

    Both over blocks of 16 px; the dark channel (He et al., CVPR 2009) stands for depth, since farther things lie
    behind more veil. 0 with less than 9 blocks, or without contrast.
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


@feature("scattering", "slope of the spectrum", "1", "Field, JOSA A 4, 1987", "spectrum")
def spectrum_slope(seen: Prepared) -> float:
    """Slope of log power over log frequency, averaged round rings; about -2 for photographs, 0 if flat."""
    power, frequency = seen.power, np.hypot(seen.down, seen.across)
    low = 4 / min(seen.grey.shape)  # four periods a side
    if low >= 0.125 or power.sum() < 1e-8:
        return 0.0
    ring = np.digitize(frequency, np.geomspace(low, 0.25, 17)).ravel()
    count, total, summed = (np.bincount(ring, v, 18)[1:17] for v in (None, power.ravel(), frequency.ravel()))
    used = total > 0
    if used.sum() < 3:
        return 0.0
    centre, mean = summed[used] / count[used], total[used] / count[used]
    return float(np.polyfit(np.log(centre), np.log(mean), 1)[0])


@feature("scattering", "upright over level structures", "log10", "Torralba & Oliva, Network 14, 2003", "spectrum")
def spectrum_anisotropy(seen: Prepared) -> float:
    """log10 of the power of upright structures, within 30 degrees, over that of level ones; 0 if flat."""
    power, frequency = seen.power, np.hypot(seen.down, seen.across)
    band = (frequency > 1 / 16) & (frequency < 0.4)  # cycles a pixel
    tilt = np.rad2deg(np.arctan2(np.abs(seen.down), seen.across))
    upright, level = float(power[band & (tilt < 30)].sum()), float(power[band & (tilt > 60)].sum())
    return float(np.log10(upright / level)) if min(upright, level) > 1e-8 else 0.0


@feature("camera", "size", "megapixels", "raw image", "")
def megapixels(seen: Prepared) -> float:
    """Size of the raw image, millions of pixels."""
    return seen.raw.shape[0] * seen.raw.shape[1] / 1e6


@feature("camera", "noise", "luma", "Immerkaer, CVIU 64, 1996", "")
def noise(seen: Prepared) -> float:
    """Standard deviation, luma, of the raw image's noise and of its fine texture."""
    return float(np.sqrt(np.pi / 2) / 6 * seen.noise.mean())


@feature("camera", "blocks of JPEG", "1", "Wang, Sheikh & Bovik, ICIP 2002", "")
def blockiness(seen: Prepared) -> float:
    """Steps of luma across the borders of 8 x 8 blocks over the others, minus 1, in the raw image; 0: no blocks."""
    top, left = (max(0, (n - 1024) // 16 * 8) for n in seen.raw.shape[:2])  # the middle, but with whole blocks
    grey = to_grey(seen.raw[top : top + 1024, left : left + 1024])
    found = []
    for axis in (0, 1):
        steps = np.abs(np.diff(grey, axis=axis)).mean(axis=1 - axis)
        border = np.arange(len(steps)) % 8 == 7
        if border.any() and steps[~border].mean() > 1e-6:
            found.append(steps[border].mean() / steps[~border].mean() - 1)
    return float(np.mean(found)) if found else 0.0


BY_NAME = {one.name: one for one in FEATURES}
NAMES = tuple(BY_NAME)
CAMERA = tuple(one.name for one in FEATURES if one.group == "camera")


def equalise(image: np.ndarray) -> np.ndarray:
    """Take away what belongs to files, (H, W, 3) in [0, 1]: their margins, shape, size and compression.

    What stays is the middle square, four fifths of the shorter side (watermarks, dates and frames are on margins), at
    most 256 px (pictures of 320 have them left), in JPEG quality 75.
    """
    side = max(1, round(0.8 * min(image.shape[:2])))
    top, left = ((n - side) // 2 for n in image.shape[:2])
    return recompress(scale_down(image[top : top + side, left : left + side], 256), 75)


def measure_one(image: np.ndarray) -> list[float]:
    """Every feature of an image (H, W, 3) in [0, 1] as it was loaded, in the order of FEATURES; never NaN."""
    seen = prepare(image)
    return [float(one.measure(seen)) for one in FEATURES]


def measure(images: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
    """Every feature of every image (H, W, 3) in [0, 1]: one float64 array (n,) a feature, never NaN.

    Hand them over as they were loaded. Raises ValueError when there is no image, or one is not an image.
    """
    rows = np.array([measure_one(image) for image in images], np.float64)
    if not len(rows):
        raise ValueError("no images to measure")
    return dict(zip(NAMES, rows.T, strict=True))


def _resultant(cosine: np.ndarray, sine: np.ndarray, weight: np.ndarray) -> float:
    """Length of the mean direction, 0 to 1: |sum (cosine, sine)| / sum weight; 0 without weight."""
    total = float(weight.sum())
    return min(1.0, float(np.hypot(cosine.sum(), sine.sum())) / total) if total > 1e-6 else 0.0
