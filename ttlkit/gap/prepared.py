"""An image as features see it: brought to a common scale, and what several of them need computed once."""

from functools import cached_property

import numpy as np
from scipy import fft
from scipy.ndimage import convolve, gaussian_filter, grey_opening, maximum_filter1d, minimum_filter, uniform_filter

from ttlkit.data.image_files import resize, to_grey
from ttlkit.rain.knobs import checked

WIDEST = 12  # px; a bright structure that is not narrower is no streak
FAINT = 0.02  # luma; thin structures below five grey levels are taken for noise


class Prepared:
    """An image (H, W, 3) in [0, 1] as features see it, `image`; as it was loaded, `raw`; and maps (H, W) of it.

    planes: the channels (3, H, W). grey: luma. opened: luma without bright structures less than 12 px wide, so what is
    behind the streaks; heights: of such structures over it, the white top-hat (Serra 1982). upright, right: w cos and
    w sin of twice their tilt, w the difference of the structure tensor's eigenvalues (trace x coherence); steep: where
    they are coherent and within 45 degrees of the vertical. crest: whether a pixel is on the middle line of a steep
    one; crests: heights there, 0 elsewhere. edges: size of the gradient of luma, whose parts are dy and dx.
    saturation: (max - min) / max over the channels. darkest: the darkest channel in windows of 15 x 15 px; detail: the
    standard deviation of luma in them. power: its power spectrum under a Hann window, at the frequencies down and
    across, cycles a pixel; spectrum: log(1 + power / mean), frequency 0 in the middle. noise: |luma * the difference of
    two Laplacians| in the middle of the raw image, 512 px a side.
    Raises ValueError on anything that is not such an image.
    """

    def __init__(self, image: np.ndarray, raw: np.ndarray | None = None):
        self.image, self.raw = image, checked(image) if raw is None else raw
        self.planes = np.ascontiguousarray(np.moveaxis(image, -1, 0))  # a maximum over the last axis takes longer
        self.grey = grey = to_grey(image)
        self.opened = grey_opening(grey, (1, WIDEST))
        self.heights = grey - self.opened
        dy, dx = gradient(self.heights)
        yy, xx, xy = (gaussian_filter(v, 2.0, truncate=3) for v in (dy * dy, dx * dx, dx * dy))
        self.upright, self.right = xx - yy, -2 * xy  # gradients lie across a streak
        self.steep = (np.hypot(self.upright, self.right) > 0.5 * (xx + yy)) & (self.upright > 0)
        middle = self.heights >= maximum_filter1d(self.heights, 3, axis=1)
        self.crest = self.steep & (self.heights > FAINT) & middle
        self.crests = np.where(self.crest, self.heights, 0)

        self.dy, self.dx = gradient(grey)
        self.edges = np.hypot(self.dy, self.dx)
        top, bottom = self.planes.max(0), self.planes.min(0)
        self.saturation = (top - bottom) / np.maximum(top, 1e-3)
        self.darkest = minimum_filter(bottom, 15)
        exact = grey.astype(np.float64)  # the difference of squares needs the digits
        self.detail = np.sqrt(np.maximum(uniform_filter(exact**2, 15) - uniform_filter(exact, 15) ** 2, 0))

        height, width = grey.shape
        window = np.hanning(height + 2)[1:-1, None] * np.hanning(width + 2)[1:-1]
        self.power = np.abs(fft.rfft2((exact - np.average(exact, weights=window)) * window)) ** 2
        self.down, self.across = fft.fftfreq(height)[:, None], fft.rfftfreq(width)

        y, x = (max(0, (n - 512) // 2) for n in self.raw.shape[:2])
        middle = to_grey(self.raw[y : y + 512, x : x + 512])
        laplacians = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], middle.dtype)
        self.noise = np.abs(convolve(middle, laplacians))

    @cached_property
    def spectrum(self) -> np.ndarray:
        both = np.concatenate([self.power[:, :0:-1], self.power], axis=1)
        return np.log1p(fft.fftshift(both, axes=0) / max(float(both.mean()), 1e-12))


def scale_down(image: np.ndarray, long_side: int = 480) -> np.ndarray:
    """Bring an image (H, W, 3) in [0, 1] to at most `long_side` pixels; a smaller one stays as it is."""
    height, width = image.shape[:2]
    scale = long_side / max(height, width)
    return resize(image, max(1, round(height * scale)), max(1, round(width * scale))) if scale < 1 else image


def prepare(image: np.ndarray, long_side: int = 480) -> Prepared:
    """Bring an image (H, W, 3) in [0, 1] to at most `long_side` pixels, float32, and a common finest scale.

    A Gaussian of 0.7 px levels what sensors, scaling and JPEG leave there. Raises ValueError as `Prepared` does.
    """
    raw = checked(image)
    return Prepared(gaussian_filter(scale_down(raw, long_side).astype(np.float32, copy=False), (0.7, 0.7, 0)), raw)


def gradient(grey: np.ndarray, sigma: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Derivatives of a Gaussian, down and across, of a map (H, W)."""
    return gaussian_filter(grey, sigma, order=(1, 0)), gaussian_filter(grey, sigma, order=(0, 1))
