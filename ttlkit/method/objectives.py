"""What one training step computes: for a teacher, for distillation, for deraining. `Trainer` runs them.

Paper: teachers learn connected tasks, the student takes over their features, few pairs teach it to derain. Ours: that
the student also copies what one teacher, the guide, restores, and that fine-tuning is held to the guide's answers.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ttlkit.method import losses
from ttlkit.method.connected_tasks import Task

COPIED = 10.0  # weight of the guide's restored image in distillation; without it the features would hide it

Batch = dict[str, Tensor]
Step = Callable[[nn.Module, Batch], tuple[Tensor, Batch]]


def task_step(task: Task) -> Step:
    """A teacher learns its connected task: loss(teacher(image), target)."""

    def step(teacher: nn.Module, batch: Batch) -> tuple[Tensor, Batch]:
        return task.loss(teacher(batch["image"]), batch["target"]), {}

    return step


def distillation_step(teachers: Mapping[str, Any], guide: Any = None) -> Step:
    """The student's adapted features match every frozen teacher's at every level; teachers count alike.

    With a `guide`, a teacher that removes streaks, what the student restores matches what the guide restores too.
    """

    def step(distiller: nn.Module, batch: Batch) -> tuple[Tensor, Batch]:
        restored, adapted = distiller(batch["image"])
        logs = {}
        for name, teacher in teachers.items():
            with torch.inference_mode():
                features = teacher.backbone(batch["image"])
                target = teacher.restore(batch["image"], features[-1]) if teacher is guide else None
            levels = [losses.feature_distance(a, f) for a, f in zip(adapted[name], features, strict=True)]
            logs[name] = torch.stack(levels).mean(dim=0)
            if target is not None:  # cloned: the backward pass needs it, and takes no tensor of inference mode
                logs["restored"] = losses.restoration(restored, target.clone())
        loss = torch.stack([logs[name] for name in teachers]).mean(dim=0)
        if guide is not None:
            loss = loss + COPIED * logs["restored"]
        return loss, logs

    return step


def restoration_step(guide: nn.Module | None = None, guidance: float = 0.0) -> Step:
    """A restorer learns to turn the rainy image of a synthetic pair into the clean one.

    With a `guide`, it must not forget real photographs meanwhile: for every second pair it also sees a crop of one.
    A rain-free photograph has to stay as it is; a rainy one has to become what the frozen guide makes of it. `guidance`
    is the weight of these photographs against the pairs; the profile sets it (`guidance` in ttlkit/runs/profiles.py).
    """

    def step(restorer: nn.Module, batch: Batch) -> tuple[Tensor, Batch]:
        if guide is None:
            return losses.restoration(restorer(batch["rainy"]), batch["clean"]), {}
        pairs = len(batch["rainy"])
        real, dry = batch["photograph"][: (pairs + 1) // 2], batch["dry"][: (pairs + 1) // 2]
        with torch.inference_mode():
            made = guide(real).clamp(0, 1)
        target = torch.where(dry[:, None, None, None] > 0.5, real, made)
        restored = restorer(torch.cat([batch["rainy"], real]))
        loss = losses.restoration(restored[:pairs], batch["clean"])
        photographs = losses.restoration(restored[pairs:], target).mean()
        return loss + guidance * photographs, {"pairs": loss, "photographs": photographs}

    return step
