"""Connected tasks: what a teacher learns from real photographs, whose labels cost nothing (paper, Section 3).

A further task is one more entry in TASKS: how a photograph becomes a sample, the network, the loss, the score.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ttlkit import images, losses, metrics, rain
from ttlkit.models import Recogniser, Restorer

Rng = np.random.Generator


@dataclass(frozen=True)
class Task:
    """One connected task.

    `classes`: which real photographs it looks at. `sample(patch, label, rng)`: a patch (H, W, 3) in [0, 1] to
    {'image': what the teacher sees, 'target': what it should say}. `build(width)`: the teacher.
    `loss(output, target)`: (B,). `score(output, target, image)`: numbers on held-out photographs.
    """

    name: str
    why: str
    classes: tuple[str, ...]
    sample: Callable[[np.ndarray, str, Rng], dict[str, np.ndarray]]
    build: Callable[[int], nn.Module]
    loss: Callable[[Tensor, Tensor], Tensor]
    score: Callable[[Tensor, Tensor, Tensor], dict[str, float]]


def _recognition_sample(patch: np.ndarray, label: str, rng: Rng) -> dict[str, np.ndarray]:
    """The patch recompressed at a random quality, so that a class is not known by its JPEG artefacts."""
    image = images.recompress(patch, int(rng.integers(40, 91)))
    return {"image": image, "target": np.array(label == "rainy", np.float32)}


def _deblur_sample(patch: np.ndarray, label: str, rng: Rng) -> dict[str, np.ndarray]:
    """The patch as scattering in rain would blur and veil it, and the patch."""
    return {"image": rain.scatter(patch, rng), "target": patch}


def _inpaint_sample(patch: np.ndarray, label: str, rng: Rng) -> dict[str, np.ndarray]:
    """The patch with streak-shaped holes of one random grey, and the patch."""
    holes = rain.streak_holes(patch.shape[:2], rng)[..., None]
    return {"image": (patch * (1 - holes) + rng.uniform(0, 1) * holes).astype(np.float32), "target": patch}


def recognition_loss(logit: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy (B,)."""
    return F.binary_cross_entropy_with_logits(logit.float(), target.float(), reduction="none")


def recognition_score(logit: Tensor, target: Tensor, image: Tensor) -> dict[str, float]:
    """Accuracy at logit 0, and AUC: the chance that a rainy crop scores above a rain-free one."""
    from scipy.stats import mannwhitneyu

    rainy, free = logit[target > 0.5].numpy(), logit[target < 0.5].numpy()
    auc = float(mannwhitneyu(rainy, free).statistic) / (len(rainy) * len(free))
    return {"accuracy": float(((logit > 0) == (target > 0.5)).float().mean()), "auc": auc}


def reconstruction_score(restored: Tensor, target: Tensor, image: Tensor) -> dict[str, float]:
    """PSNR (RGB, rounded) of the reconstruction, and of what it was given."""
    return {
        "psnr_rgb": float(metrics.psnr(restored, target).mean()),
        "psnr_rgb_input": float(metrics.psnr(image, target).mean()),
    }


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            "recognition",
            "Telling rainy from rain-free photographs needs to know what real rain looks like.",
            ("rainy", "clean"),
            _recognition_sample,
            Recogniser,
            recognition_loss,
            recognition_score,
        ),
        Task(
            "deblur",
            "Undoing the blur and veil of rain scattering needs to know what real scenes look like behind rain.",
            ("rainy", "clean"),
            _deblur_sample,
            Restorer,
            losses.restoration,
            reconstruction_score,
        ),
        Task(
            "inpaint",
            "Filling streak-shaped holes needs to know what a scene looks like where a streak hides it.",
            ("clean",),
            _inpaint_sample,
            Restorer,
            losses.restoration,
            reconstruction_score,
        ),
    )
}


def predict(task: Task, teacher: nn.Module, samples: list[dict[str, np.ndarray]]) -> dict[str, Tensor]:
    """Run a teacher over samples in evaluation mode: {'image', 'target', 'output'}, float32 on the CPU."""
    device = next(teacher.parameters()).device
    image = torch.from_numpy(np.stack([s["image"] for s in samples]))
    target = torch.from_numpy(np.stack([s["target"] for s in samples]))
    with torch.inference_mode():
        output = torch.cat([teacher(part.to(device)).float().cpu() for part in image.split(16)])
    return {"image": image, "target": target, "output": output}
