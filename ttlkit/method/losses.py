"""Losses, float32 (B,) each, also under autocast; the trainer reduces them in one place.

Paper: the student takes over the teachers' features. Ours: how features are compared, and the loss of restoration.
"""

import torch
import torch.distributed as processes

from ttlkit.evaluate import metrics

SSIM_WEIGHT = 0.2  # of 1 - SSIM beside the Charbonnier loss: the two are then about as large


def charbonnier(restored: torch.Tensor, clean: torch.Tensor, epsilon: float = 1e-3) -> torch.Tensor:
    """Smooth L1, (B,): mean of sqrt((restored - clean)^2 + epsilon^2) over pixels (Charbonnier et al. 1994).

    Images (B, 3, H, W); `epsilon` in the unit of the images is also its smallest value. Raises ValueError
    when the shapes differ.
    """
    _check_shapes(restored, clean)
    return (restored.float() - clean.float()).square().add(epsilon**2).sqrt().flatten(1).mean(dim=1)


def negative_ssim(restored: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """1 - SSIM on RGB without rounding, (B,): 0 for identical images; errors as `metrics.ssim`."""
    return 1 - metrics.ssim(restored, clean, quantise=False)


def restoration(restored: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """Charbonnier plus a fifth of 1 - SSIM, (B,): for reconstructing teachers and for deraining alike. Ours.

    A squared error was tried: it removed more rain of the kinds it had seen, and more detail that only looks like
    rain; on real rain it did worse.
    """
    return charbonnier(restored, clean) + SSIM_WEIGHT * negative_ssim(restored, clean)


def feature_distance(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean of (student - standardise(teacher))^2 over channels and space, (B,); features (B, C, H, W).

    The teacher's features are detached and standardised per channel over space and batch, all of it where
    several processes share one. Teachers of different tasks have features of very different scale: raw
    distances would let the loudest teacher, and in it the loudest channel, decide. Standardised, every
    channel of every teacher counts alike, and a student that outputs zeros scores about 1, whatever the
    teacher. Raises ValueError when the shapes differ.
    """
    _check_shapes(student, teacher)
    teacher = teacher.detach().float()
    variance, mean = _of_the_whole_batch(*torch.var_mean(teacher, dim=(0, 2, 3), correction=0, keepdim=True))
    standardised = (teacher - mean) * torch.rsqrt(variance + 1e-8)  # a dead channel becomes zero, not noise
    return (student.float() - standardised).square().flatten(1).mean(dim=1)


def _of_the_whole_batch(variance: torch.Tensor, mean: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Variance and mean over the equal shares of all processes, from those over this one's; alone, as they are."""
    if not (processes.is_available() and processes.is_initialized()):
        return variance, mean
    mine = torch.stack([variance, mean])
    shares = [torch.empty_like(mine) for _ in range(processes.get_world_size())]
    processes.all_gather(shares, mine)
    variances, means = torch.stack(shares, dim=1)
    return variances.mean(dim=0) + means.var(dim=0, correction=0), means.mean(dim=0)


def _check_shapes(first: torch.Tensor, second: torch.Tensor) -> None:
    """Refuse what torch would silently broadcast."""
    if first.shape != second.shape:
        raise ValueError(f"shapes differ: {tuple(first.shape)} and {tuple(second.shape)}")
