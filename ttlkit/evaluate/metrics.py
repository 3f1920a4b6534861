"""PSNR and SSIM with their conventions spelled out: tensors (B, 3, H, W) in [0, 1] in, float32 (B,) out."""

import numpy as np
import torch
import torch.nn.functional as F

WINDOW = 11  # pixels, side of the Gaussian window of SSIM
SIGMA = 1.5  # pixels
PSNR_CAP = 100.0  # dB, for identical images: infinity would spoil means and is not valid JSON


def to_y(images: torch.Tensor) -> torch.Tensor:
    """Luma (B, 1, H, W), 16 to 235 in 8-bit levels: Y = (65.481 R + 128.553 G + 24.966 B + 16) / 255.

    ITU-R BT.601 as in MATLAB's rgb2ycbcr. A grey error is 1.32 dB smaller here than on RGB, which is why
    a PSNR means little without its channel.
    """
    red, green, blue = images.unbind(1)
    return ((65.481 * red + 128.553 * green + 24.966 * blue + 16.0) / 255.0)[:, None]


def psnr(
    restored: torch.Tensor,
    clean: torch.Tensor,
    channel: str = "rgb",
    quantise: bool = True,
    valid: torch.Tensor | None = None,
) -> torch.Tensor:
    """Peak signal-to-noise ratio in dB, (B,): 10 log10(1 / MSE), peak 1, at most 100 dB (identical images).

    `channel` is "rgb" (one MSE over all three) or "y" (see `to_y`). `quantise` first clamps and rounds both
    images to 8 bits, as saving them would; Y is computed from the rounded RGB and not rounded again. `valid`
    (B, 1, H, W), bool: only these pixels count; NaN where there are none.
    """
    restored, clean = _prepare(restored, clean, channel, quantise)
    error = _mean((restored - clean).square(), valid)
    return -10 * torch.log10(error.clamp_min(10 ** (-PSNR_CAP / 10)))


def ssim(
    restored: torch.Tensor,
    clean: torch.Tensor,
    channel: str = "rgb",
    quantise: bool = True,
    valid: torch.Tensor | None = None,
) -> torch.Tensor:
    """Structural similarity, (B,), at most 1: Wang et al., IEEE TIP 2004, eq. 13, averaged over the image.

    11x11 Gaussian window (sigma 1.5), K1 = 0.01, K2 = 0.03, only windows that lie inside the image, plain (not sample)
    covariance; "rgb" is the mean over the channels. `channel` and `quantise` as in `psnr`; differentiable with
    quantise=False. `valid` as in `psnr`: windows that hold such pixels alone. Raises ValueError for images smaller
    than the window.
    """
    restored, clean = _prepare(restored, clean, channel, quantise)
    height, width = clean.shape[2:]
    if min(height, width) < WINDOW:
        raise ValueError(f"SSIM needs images of at least {WINDOW}x{WINDOW} pixels, got {height}x{width}")
    with torch.autocast(clean.device.type, enabled=False):
        # Variances do not see a shift, but float32 does: E[x^2] - E[x]^2 loses digits far from zero.
        shift = clean.detach().mean(dim=(2, 3), keepdim=True)
        x, y = restored - shift, clean - shift
        mean_x, mean_y, xx, yy, xy = _blur(torch.cat((x, y, x * x, y * y, x * y), dim=1)).chunk(5, dim=1)
        variances = xx - mean_x.square() + yy - mean_y.square()
        covariance = xy - mean_x * mean_y
        mean_x, mean_y = mean_x + shift, mean_y + shift
        c1, c2 = 0.01**2, 0.03**2
        luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
        structure = (2 * covariance + c2) / (variances + c2)
        whole = None if valid is None else -F.max_pool2d(-valid.float(), WINDOW, stride=1) > 0.5
        return _mean(luminance * structure, whole)


def masked_change(restored: torch.Tensor, rainy: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
    """Mean absolute change in 8-bit levels inside and outside a streak mask: change_inside, change_outside, each (B,).

    Mask (B, 1, H, W) in {0, 1}. For real rain without a clean image: a good restorer changes the streaks and
    leaves the rest. Both images are rounded to 8 bits first. A region without pixels gives NaN: nothing was
    measured there. Raises ValueError when the shapes do not fit.
    """
    restored, rainy = _prepare(restored, rainy, "rgb", quantise=True)
    if mask.shape != (len(rainy), 1, *rainy.shape[2:]):
        raise ValueError(f"mask {tuple(mask.shape)} does not fit images {tuple(rainy.shape)}")
    change = 255 * (restored - rainy).abs().mean(dim=1)
    streak = mask[:, 0] > 0.5
    regions = {"change_inside": streak, "change_outside": ~streak}
    return {name: (change * region).sum(dim=(1, 2)) / region.sum(dim=(1, 2)) for name, region in regions.items()}


def scores(restored: torch.Tensor, clean: torch.Tensor, valid: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
    """The four standard scores of a paired set, each (B,): psnr_rgb and psnr_y in dB, ssim_rgb, ssim_y."""
    measures = {"psnr": psnr, "ssim": ssim}
    return {f"{name}_{c}": measures[name](restored, clean, c, True, valid) for c in ("rgb", "y") for name in measures}


def bootstrap(values, rounds: int = 2000, seed: int = 0, level: float = 0.95) -> tuple[float, float, float]:
    """Mean of images (N,), or of runs and images (R, N), and its percentile bootstrap interval: (mean, low, high).

    Of runs, each round draws runs, and one set of images for all of them. One value gives low = high = mean, which
    scipy.stats.bootstrap refuses. Raises ValueError for no value.
    """
    values = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if values.size == 0:
        raise ValueError("bootstrap needs at least one value, got none")
    rng = np.random.default_rng(seed)
    by_run, by_image = (rng.integers(count, size=(rounds, count)) for count in values.shape)
    means = values[by_run[:, :, None], by_image[:, None, :]].mean(axis=(1, 2))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(values.mean()), float(low), float(high)


def _prepare(restored: torch.Tensor, clean: torch.Tensor, channel: str, quantise: bool) -> list[torch.Tensor]:
    """Check a pair and bring it to float32 in the asked channel."""
    if restored.shape != clean.shape:
        raise ValueError(f"images differ in shape: {tuple(restored.shape)} and {tuple(clean.shape)}")
    if clean.ndim != 4 or clean.shape[1] != 3:
        raise ValueError(f"images must be (B, 3, H, W), got {tuple(clean.shape)}")
    if channel not in ("rgb", "y"):
        raise ValueError(f"channel must be 'rgb' or 'y', got {channel!r}")
    pair = [restored.float(), clean.float()]
    if quantise:
        pair = [torch.round(images.clamp(0, 1) * 255) / 255 for images in pair]
    return [to_y(images) for images in pair] if channel == "y" else pair


def _mean(values: torch.Tensor, where: torch.Tensor | None) -> torch.Tensor:
    """Mean (B,) of values (B, C, H, W), of those alone `where` (B, 1, H, W) is true; NaN where it is nowhere."""
    if where is None:
        return values.mean(dim=(1, 2, 3))
    return (values * where).sum(dim=(1, 2, 3)) / (where.sum(dim=(1, 2, 3)) * values.shape[1])


def _blur(maps: torch.Tensor) -> torch.Tensor:
    """Gaussian window over every map of (B, C, H, W), valid part only: (B, C, H - 10, W - 10)."""
    steps = torch.arange(WINDOW, device=maps.device, dtype=torch.float32) - WINDOW // 2
    weights = torch.softmax(-steps.square() / (2 * SIGMA**2), dim=0)  # softmax: exp, then sum to one
    count = maps.shape[1]
    maps = maps.contiguous()  # depthwise and contiguous: CUDA then stays in float32, where it could use TF32
    maps = F.conv2d(maps, weights.view(1, 1, -1, 1).expand(count, 1, -1, 1), groups=count)
    return F.conv2d(maps, weights.view(1, 1, 1, -1).expand(count, 1, 1, -1), groups=count)
