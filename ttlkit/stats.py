"""Measure how two sets of images differ, such as synthetic and real rain: features, distances, tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import fft
from scipy.ndimage import gaussian_filter, grey_opening, maximum_filter1d, minimum_filter, uniform_filter
from scipy.stats import mannwhitneyu, wasserstein_distance

from ttlkit.images import resize, to_grey

WIDTHS = (2, 3, 4, 5, 7, 9, 12)  # px; what is wider than the last is no streak
FAINT = 0.02  # luma; thin structures below five grey levels are taken for noise


@dataclass(frozen=True)
class Feature:
    """One number measured on a prepared image (H, W, 3); `source` is where its definition comes from."""

    name: str
    label: str
    unit: str
    source: str
    measure: Callable[[np.ndarray], float]


def scale_down(image: np.ndarray, long_side: int = 480) -> np.ndarray:
    """Bring an image (H, W, 3) in [0, 1] to at most `long_side` pixels; a smaller one stays as it is."""
    height, width = image.shape[:2]
    scale = long_side / max(height, width)
    return resize(image, max(1, round(height * scale)), max(1, round(width * scale))) if scale < 1 else image


def prepare(image: np.ndarray, long_side: int = 480) -> np.ndarray:
    """Bring an image (H, W, 3) in [0, 1] to at most `long_side` pixels and a common finest scale, float32.

    It is only ever scaled down; a Gaussian of 0.7 px then levels what sensors, scaling and JPEG leave at the
    pixel scale. Raises ValueError on anything that is not such an image.
    """
    shape = np.shape(image)
    if len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise ValueError(f"an image is an array (H, W, 3), got shape {shape}")
    if not np.issubdtype(image.dtype, np.floating) or not (image.min() >= 0 and image.max() <= 1):
        raise ValueError(f"an image is float in [0, 1], got {image.dtype}, {image.min()} to {image.max()}")
    return gaussian_filter(scale_down(image, long_side).astype(np.float32, copy=False), (0.7, 0.7, 0))


def gradient_orientation_spread(image: np.ndarray) -> float:
    """Circular variance 1 - |sum m exp(2i theta)| / sum m of gradient angles theta, weighted by size m.

    0: all edges run one way; 1: no direction is preferred, also where there is no edge. Mardia & Jupp,
    Directional Statistics, 2000.
    """
    dy, dx = _gradient(to_grey(image))
    size = np.hypot(dy, dx)
    scale = 1 / np.maximum(size, 1e-9)  # m exp(2i theta) without angles
    return 1 - _resultant((dx * dx - dy * dy) * scale, 2 * dx * dy * scale, size)


def streak_direction(image: np.ndarray) -> tuple[float, float]:
    """Mean direction and spread of thin bright steep structures, in degrees from the vertical.

    Positive leans right on the way down. Both come from the structure tensor (Bigun & Granlund, ICCV 1987),
    weighted by its trace and coherence: with r = |sum w exp(2i phi)| / sum w, the spread is
    sqrt(-2 ln r) / 2. Where there is nothing to see: 0, and the spread of all directions alike, 27.2.
    """
    _, upright, right, steep = _thin_structures(to_grey(image))
    upright, right = upright[steep], right[steep]
    resultant = _resultant(upright, right, np.hypot(upright, right)) or 2 / np.pi
    mean = np.arctan2(right.sum(), upright.sum()) / 2
    return float(np.rad2deg(mean)), float(np.rad2deg(np.sqrt(-2 * np.log(resultant)) / 2))


def streak_direction_spread(image: np.ndarray) -> float:
    """Circular standard deviation, degrees, of thin bright structures' directions: `streak_direction`."""
    return streak_direction(image)[1]


def streak_contrast(image: np.ndarray) -> float:
    """Mean height in luma, 0 to 1, of thin bright steep lines over their surroundings; 0 without any.

    The height is the white top-hat, grey - opening(grey), with a flat row of 12 px. Serra, Image Analysis
    and Mathematical Morphology, 1982.
    """
    height, _, _, steep = _thin_structures(to_grey(image))
    crest = _crests(height, steep)
    return float(height[crest].mean()) if crest.any() else 0.0


def streak_width(image: np.ndarray) -> float:
    """Mean width, px of the prepared image, of thin bright steep lines; 0 where there are none.

    Along the crests: sum k (o_k - o_k+) cos(tilt) / sum (o_k - o_k+), o_k the opening by a row of k px: the
    mean of the pattern spectrum. Maragos, IEEE PAMI 11, 1989.
    """
    grey = to_grey(image)
    height, upright, right, steep = _thin_structures(grey)
    crest = _crests(height, steep)
    if not crest.any():
        return 0.0
    narrower = [grey_opening(grey, (1, k))[crest] for k in WIDTHS[:-1]]
    levels = [grey[crest], *narrower, (grey - height)[crest]]
    lost = -np.diff(levels, axis=0)  # what a row of k px removed is narrower than k
    middle = (np.array((1, *WIDTHS[:-1])) + np.array(WIDTHS) - 1)[:, None] / 2
    upright, right = upright[crest], right[crest]
    cosine = np.sqrt((1 + upright / np.hypot(upright, right)) / 2)  # of the tilt: a row cuts a streak askew
    return float((middle * lost * cosine).sum() / lost.sum())


def saturation(image: np.ndarray) -> float:
    """Mean of (max - min) / max over the channels, 0 to 1; black counts as 0. Smith, SIGGRAPH 1978."""
    red, green, blue = np.moveaxis(image, -1, 0)  # pairwise: far faster than .max(-1) over three values
    top = np.maximum(np.maximum(red, green), blue)
    bottom = np.minimum(np.minimum(red, green), blue)
    return float(np.mean((top - bottom) / np.maximum(top, 1e-3)))


def local_contrast(image: np.ndarray) -> float:
    """Mean standard deviation of luma in windows of 15 x 15 px, 0 to 0.5. Peli, JOSA A 7, 1990."""
    grey = to_grey(image).astype(np.float64)  # the difference of squares below needs the digits
    variance = uniform_filter(grey**2, 15) - uniform_filter(grey, 15) ** 2
    return float(np.sqrt(np.maximum(variance, 0)).mean())


def veil(image: np.ndarray) -> float:
    """Mean of the darkest channel in windows of 15 x 15 px, 0 to 1; haze lifts it. He et al., CVPR 2009."""
    red, green, blue = np.moveaxis(image, -1, 0)
    return float(minimum_filter(np.minimum(np.minimum(red, green), blue), 15).mean())


def spectrum_slope(image: np.ndarray) -> float:
    """Slope of log power over log frequency, both averaged round rings; about -2 for photographs, 0 if flat.

    Hann window; from 4 periods a side to a quarter cycle a pixel. Field, JOSA A 4, 1987.
    """
    grey = to_grey(image).astype(np.float64)
    height, width = grey.shape
    window = np.hanning(height + 2)[1:-1, None] * np.hanning(width + 2)[1:-1]
    grey = (grey - np.average(grey, weights=window)) * window
    power = np.abs(fft.rfft2(grey)) ** 2
    frequency = np.hypot(fft.fftfreq(height)[:, None], fft.rfftfreq(width))
    low = 4 / min(height, width)
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


FEATURES: tuple[Feature, ...] = (
    Feature("gradient_orientation_spread", "spread of edge directions", "1", "Mardia & Jupp 2000",
            gradient_orientation_spread),
    Feature("streak_direction_spread", "spread of streak directions", "degrees", "Bigun & Granlund 1987",
            streak_direction_spread),
    Feature("streak_contrast", "height of streaks", "luma", "Serra 1982", streak_contrast),
    Feature("streak_width", "width of streaks", "px", "Maragos 1989", streak_width),
    Feature("saturation", "saturation", "1", "Smith 1978", saturation),
    Feature("local_contrast", "local contrast", "luma", "Peli 1990", local_contrast),
    Feature("veil", "veil", "1", "He et al. 2009", veil),
    Feature("spectrum_slope", "slope of the spectrum", "1", "Field 1987", spectrum_slope),
)  # fmt: skip


def measure(images: Iterable[np.ndarray]) -> dict[str, np.ndarray]:
    """Every feature of every image (H, W, 3) in [0, 1]: one float64 array (n,) a feature, never NaN.

    Each image goes through `prepare` here, so hand over images as they were loaded.
    Raises ValueError when there is no image, or one is not an image.
    """
    rows = [[feature.measure(ready) for feature in FEATURES] for ready in map(prepare, images)]
    if not rows:
        raise ValueError("no images to measure")
    return {f.name: np.array(v, np.float64) for f, v in zip(FEATURES, zip(*rows, strict=True), strict=True)}


def compare(
    a: dict[str, np.ndarray], b: dict[str, np.ndarray], seed: int = 0, rounds: int = 500
) -> list[dict[str, float | str]]:
    """Difference of two measured sets, one row a feature: effect sizes, p-value and what chance would give.

    wasserstein: distance over the standard deviation within the sets. null: 95th percentile of that figure
    over `rounds` random splits of all images into sets of the same sizes. cliffs_delta: P(a > b) - P(a < b),
    -1 to 1 (Cliff 1993). p_value: Mann-Whitney, two-sided, not corrected for the number of features.
    Raises ValueError when a set is empty, the features differ or a value is not finite.
    """
    if a.keys() != b.keys() or not a:
        raise ValueError(f"the sets have different features: {sorted(a)} and {sorted(b)}")
    rows: list[dict[str, float | str]] = []
    for name in a:
        x, y = np.asarray(a[name], np.float64), np.asarray(b[name], np.float64)
        if len(x) == 0 or len(y) == 0:
            raise ValueError(f"{name}: a set is empty ({len(x)} and {len(y)} images)")
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise ValueError(f"{name}: a value is not finite")
        rank = mannwhitneyu(x, y)
        spread = float(_spread(np.concatenate([x, y])[None], np.arange(len(x) + len(y))[None] < len(x))[0])
        rows.append({
            "feature": name,
            "median_a": float(np.median(x)),
            "median_b": float(np.median(y)),
            "wasserstein": float(wasserstein_distance(x, y) / spread),
            "null": _null_distance(x, y, seed, rounds),
            "cliffs_delta": float(2 * rank.statistic / (len(x) * len(y)) - 1),
            "p_value": float(rank.pvalue) if np.isfinite(rank.pvalue) else 1.0,
        })  # fmt: skip
    return rows


def closeness(
    sets: Mapping[str, dict[str, np.ndarray]], reference: dict[str, np.ndarray]
) -> list[dict[str, float | str]]:
    """How far each measured set is from `reference`: the Wasserstein distance of `compare`, smaller is closer.

    One row a feature, {"feature", <name of a set>: distance, ...}, and last the mean over the features, called 'mean'.
    Raises ValueError as `compare` does, and when there is no set.
    """
    if not sets:
        raise ValueError("no sets to compare with the reference")
    found = {
        name: {row["feature"]: float(row["wasserstein"]) for row in compare(measured, reference, rounds=1)}
        for name, measured in sets.items()
    }
    table: list[dict[str, float | str]] = [{"feature": f, **{n: found[n][f] for n in found}} for f in reference]
    return [*table, {"feature": "mean", **{n: float(np.mean(list(found[n].values()))) for n in found}}]


def _null_distance(x: np.ndarray, y: np.ndarray, seed: int, rounds: int) -> float:
    """95th percentile of the scaled Wasserstein distance between random splits; all rounds at once."""
    values = np.sort(np.concatenate([x, y]))
    first = np.tile(np.arange(len(values)) < len(x), (rounds, 1))
    first = np.random.default_rng(seed).permuted(first, axis=1)
    ahead = np.cumsum(first, 1) / len(x) - np.cumsum(~first, 1) / len(y)  # difference of the two CDFs
    distance = np.abs(ahead[:, :-1]) @ np.diff(values)
    return float(np.quantile(distance / _spread(np.broadcast_to(values, first.shape), first), 0.95))


def _spread(values: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Standard deviation (rounds,) within the two parts of `values` (rounds, n); overall where that is 0."""
    inside = np.zeros(len(values))
    for part in (first, ~first):
        count = part.sum(1)
        mean = (values * part).sum(1) / count
        inside += ((values - mean[:, None]) ** 2 * part).sum(1)
    inside = np.sqrt(inside / max(1, values.shape[1] - 2))
    overall = values.std(1)
    return np.where(inside > 1e-9 * np.abs(values).max(), inside, np.where(overall > 0, overall, 1.0))


def _gradient(grey: np.ndarray, sigma: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    return gaussian_filter(grey, sigma, order=(1, 0)), gaussian_filter(grey, sigma, order=(0, 1))


def _resultant(cosine: np.ndarray, sine: np.ndarray, weight: np.ndarray) -> float:
    """Length of the mean direction, 0 to 1: |sum (cosine, sine)| / sum weight; 0 without weight."""
    total = float(weight.sum())
    return min(1.0, float(np.hypot(cosine.sum(), sine.sum())) / total) if total > 1e-6 else 0.0


def _thin_structures(grey: np.ndarray):
    """Bright structures less than 12 px wide: height (H, W), w cos 2 tilt, w sin 2 tilt, and which are steep.

    The weight w is the difference of the eigenvalues of the structure tensor, which is trace x coherence.
    """
    height = grey - grey_opening(grey, (1, WIDTHS[-1]))
    dy, dx = _gradient(height)
    yy, xx, xy = (gaussian_filter(v, 2.0, truncate=3) for v in (dy * dy, dx * dx, dx * dy))
    upright, right = xx - yy, -2 * xy  # gradients lie across a streak
    coherent = np.hypot(upright, right) > 0.5 * (xx + yy)
    return height, upright, right, coherent & (upright > 0)  # within 45 degrees of the vertical


def _crests(height: np.ndarray, steep: np.ndarray) -> np.ndarray:
    """Mask of the middle lines of clear streaks: peaks along a row, steep, above the noise."""
    return steep & (height > FAINT) & (height >= maximum_filter1d(height, 3, axis=1))
