"""An image as features see it: brought to a common scale, and what several of them need computed once."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from scipy import fft
from scipy.ndimage import convolve, gaussian_filter, grey_opening, maximum_filter1d, minimum_filter, uniform_filter

from ttlkit.data.image_files import resize, to_grey

WIDEST = 12  # px; a bright structure that is not narrower is no streak
FAINT = 0.02  # luma; thin structures below five grey levels are taken for noise


class Prepared:
    """An image (H, W, 3) in [0, 1] as features see it, `image`, and `raw`, as it was loaded.

    Its properties are maps (H, W) unless they say otherwise. Raises ValueError on anything that is not such an image.
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
    def planes(self) -> np.ndarray:
        """The channels (3, H, W): their maximum takes a fraction of the time that it takes over the last axis."""
        return np.ascontiguousarray(np.moveaxis(self.image, -1, 0))

    @cached_property
    def grey(self) -> np.ndarray:
        """Luma."""
        return to_grey(self.image)

    @cached_property
    def opened(self) -> np.ndarray:
        """Luma without bright structures less than 12 px wide: what is behind the streaks."""
        return grey_opening(self.grey, (1, WIDEST))

    @cached_property
    def heights(self) -> np.ndarray:
        """Thin bright structures over their surroundings, luma: the white top-hat, grey - opening, of a row of 12 px.

        Serra, Image Analysis and Mathematical Morphology, 1982.
        """
        return self.grey - self.opened

    @cached_property
    def tilts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """w cos 2 tilt and w sin 2 tilt of thin bright structures, and where these are steep.

        The weight w is the difference of the eigenvalues of the structure tensor: trace x coherence. Steep: coherent,
        and within 45 degrees of the vertical.
        """
        dy, dx = gradient(self.heights)
        yy, xx, xy = (gaussian_filter(v, 2.0, truncate=3) for v in (dy * dy, dx * dx, dx * dy))
        upright, right = xx - yy, -2 * xy  # gradients lie across a streak
        return upright, right, (np.hypot(upright, right) > 0.5 * (xx + yy)) & (upright > 0)

    @cached_property
    def crest(self) -> np.ndarray:
        """Whether a pixel is on the middle line of a thin bright steep structure."""
        return self.tilts[2] & (self.heights > FAINT) & (self.heights >= maximum_filter1d(self.heights, 3, axis=1))

    @cached_property
    def crests(self) -> np.ndarray:
        """Heights along those middle lines, 0 elsewhere."""
        return np.where(self.crest, self.heights, 0)

    @cached_property
    def edges(self) -> np.ndarray:
        """Size of the gradient of the luma."""
        return np.hypot(*gradient(self.grey))

    @cached_property
    def saturation(self) -> np.ndarray:
        """(max - min) / max over the channels; black counts as 0."""
        top = self.planes.max(0)
        return (top - self.planes.min(0)) / np.maximum(top, 1e-3)

    @cached_property
    def darkest(self) -> np.ndarray:
        """The darkest channel in windows of 15 x 15 px."""
        return minimum_filter(self.planes.min(0), 15)

    @cached_property
    def detail(self) -> np.ndarray:
        """Standard deviation of luma in windows of 15 x 15 px."""
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
    def spectrum(self) -> np.ndarray:
        """The power spectrum to look at: log(1 + power / mean), frequency 0 in the middle."""
        power = self.power[0]
        both = np.concatenate([power[:, :0:-1], power], axis=1)
        return np.log1p(fft.fftshift(both, axes=0) / max(float(both.mean()), 1e-12))

    @cached_property
    def noise(self) -> np.ndarray:
        """|luma * the difference of two Laplacians| of the middle of the raw image, at most 512 px a side."""
        height, width = self.raw.shape[:2]
        top, left = (max(0, (n - 512) // 2) for n in (height, width))
        grey = to_grey(self.raw[top : top + 512, left : left + 512])
        return np.abs(convolve(grey, np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], grey.dtype)))

    @cached_property
    def steps(self) -> np.ndarray:
        """Steps of luma from pixel to pixel in the top left corner of the raw image, at most 256 px a side."""
        grey = to_grey(self.raw[:256, :256])
        return np.hypot(*np.gradient(grey)) if min(grey.shape) > 1 else grey * 0


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


def gradient(grey: np.ndarray, sigma: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Derivatives of a Gaussian, down and across, of a map (H, W)."""
    return gaussian_filter(grey, sigma, order=(1, 0)), gaussian_filter(grey, sigma, order=(0, 1))
