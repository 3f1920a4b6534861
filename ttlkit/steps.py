"""What one training step computes: for a teacher, for distillation, for deraining. `Trainer` runs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ttlkit import losses
from ttlkit.tasks import Task

Batch = dict[str, Tensor]
Step = Callable[[nn.Module, Batch], tuple[Tensor, Batch]]


def task_step(task: Task) -> Step:
    """A teacher learns its connected task: loss(teacher(image), target)."""

    def step(teacher: nn.Module, batch: Batch) -> tuple[Tensor, Batch]:
        return task.loss(teacher(batch["image"]), batch["target"]), {}

    return step


def distillation_step(teachers: Mapping[str, Any]) -> Step:
    """The student's adapted features match every frozen teacher's at every level; teachers count alike."""

    def step(distiller: nn.Module, batch: Batch) -> tuple[Tensor, Batch]:
        adapted = distiller(batch["image"])
        logs = {}
        for name, teacher in teachers.items():
            with torch.no_grad():
                features = teacher.backbone(batch["image"])
            levels = [losses.feature_distance(a, f) for a, f in zip(adapted[name], features, strict=True)]
            logs[name] = torch.stack(levels).mean(dim=0)
        return torch.stack(list(logs.values())).mean(dim=0), logs

    return step


def restoration_step() -> Step:
    """A restorer learns to turn the rainy image of a synthetic pair into the clean one."""

    def step(restorer: nn.Module, batch: Batch) -> tuple[Tensor, Batch]:
        return losses.restoration(restorer(batch["rainy"]), batch["clean"]), {}

    return step
