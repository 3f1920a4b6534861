"""Connected tasks: what a teacher learns from real photographs, whose labels cost nothing.

Paper: two tasks, recognising rainy scenes (`recognition`) and reconstructing what rain scattering has blurred
(`deblur`). Ours: the task `streaks`, and how the samples of all three are made. A further task is one more entry in
TASKS, at the end of this file: how a photograph becomes a sample, the network, the loss, the score.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ttlkit import rain
from ttlkit.data import image_files
from ttlkit.evaluate import metrics
from ttlkit.method import losses
from ttlkit.method.networks import Recogniser, Restorer

# Shares of the samples of `streaks` (ours): the card of the released student says what was tried on val/.
DRY = 0.02  # without rain
LAID = 0.12  # up to here: a streak layer laid over the photograph
PHYSICAL = 0.32  # up to here: the physical renderer
LAYERED = 0.94  # up to here: layers of streaks of every strength; the rest is Photoshop's recipe
PATCHY = 0.1  # of the rainy ones: rain in some places only

Rng = np.random.Generator
Layers = Callable[[int, Rng], np.ndarray]


@dataclass(frozen=True)
class Task:
    """One connected task.

    `classes`: which real photographs it looks at. `sample(patch, label, rng, layers)`: a patch (H, W, 3) in [0, 1],
    scaled and mirrored at random, to {'image': what the teacher sees, 'target': what it should say};
    `layers(side, rng)` draws a streak layer. `build(width)`: the teacher. `loss(output, target)`: (B,).
    `score(output, target, image)`: numbers on held-out photographs. A teacher that `removes_streaks` can guide the
    student, whose output should be like its own.
    """

    name: str
    why: str
    classes: tuple[str, ...]
    sample: Callable[[np.ndarray, str, Rng, Layers], dict[str, np.ndarray]]
    build: Callable[[int], nn.Module]
    loss: Callable[[Tensor, Tensor], Tensor]
    score: Callable[[Tensor, Tensor, Tensor], dict[str, float]]
    removes_streaks: bool = False


def _recognition_sample(patch: np.ndarray, label: str, rng: Rng, layers: Layers) -> dict[str, np.ndarray]:
    """The patch recompressed at a random quality, so that a class is not known by its JPEG artefacts."""
    image = image_files.recompress(patch, int(rng.integers(40, 91)))
    return {"image": image, "target": np.array(label == "rainy", np.float32)}


def _deblur_sample(patch: np.ndarray, label: str, rng: Rng, layers: Layers) -> dict[str, np.ndarray]:
    """The patch as scattering in rain would blur and veil it, and the patch."""
    return {"image": rain.scatter(patch, rng), "target": patch}


def _streaks_sample(patch: np.ndarray, label: str, rng: Rng, layers: Layers) -> dict[str, np.ndarray]:
    """The patch in drawn rain, and the patch: a layer of streaks, physics, many layers, or Photoshop's recipe.

    A network that only ever sees rain mistakes leaves for rain: so DRY of the samples have none, and in PATCHY of the
    others it rains in some places only.
    """
    kind, seed = rng.random(), int(rng.integers(2**32))
    if kind < DRY:
        return {"image": patch, "target": patch}
    if kind < LAID:
        rainy, target = rain.lay(patch, layers(len(patch), rng), rng), patch
    elif kind < LAYERED:  # far rain is a veil, which is not for a remover of streaks to take away
        drawn = rain.physical(patch, seed) if kind < PHYSICAL else rain.layered(patch, seed, layers)
        rainy, target = drawn.rainy, drawn.background
    else:
        rainy, target = rain.photoshop(patch, seed).rainy, patch
    return {"image": rain.in_places(rainy, target, rng) if rng.random() < PATCHY else rainy, "target": target}


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
    """PSNR (RGB, rounded) of the reconstruction, and of what it was given, where that is not the target already."""
    given = metrics.psnr(image, target)
    spoilt = given < metrics.PSNR_CAP
    return {
        "psnr_rgb": float(metrics.psnr(restored, target)[spoilt].mean()),
        "psnr_rgb_input": float(given[spoilt].mean()),
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
            "streaks",
            "Removing streaks drawn on rain-free photographs needs to tell streaks from what real scenes hold.",
            ("clean",),
            _streaks_sample,
            Restorer,
            losses.restoration,
            reconstruction_score,
            removes_streaks=True,
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
