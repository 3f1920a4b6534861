"""Ways to fine-tune few pairs into a student that has learned much: which weights may move, when, and how far.

References: all weights (the default), the encoder frozen, the head first (Kumar et al., ICLR 2022), near the start
(L2-SP: Li, Grandvalet, Davoine, ICML 2018), low-rank adapters (LoRA: Hu et al., ICLR 2022). Which of them the paper
takes is not known to us. Ours: their numbers below, and how they fit this U-Net.

An entry of WAYS takes the restorer to start from and the number of steps, and gives what the trainer trains and the
step that trains it. `plain` turns what was trained back into the restorer.
"""

import copy
from collections.abc import Callable
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ttlkit.method import losses, objectives
from ttlkit.method.networks import UNet, pad_to_multiple
from ttlkit.method.objectives import Batch, Step
from ttlkit.method.weights import freeze

HEAD_ALONE = 1 / 3  # of the steps
NEARNESS = 0.01  # weight of half the squared distance to the start; Li et al. take 0.1 beside a far larger loss
RANK = 4  # of an adapter: the 3×3 convolutions of a student of width 16 are matrices of at least 16 rows

Way = Callable[[Any, int], tuple[nn.Module, Step]]


def plain(trained: nn.Module) -> Any:
    """The restorer out of what was trained, on its own: adapters merged, helpers left behind. To call when done."""
    return trained.plain() if hasattr(trained, "plain") else trained  # type: ignore[operator]


def encoder_frozen(restorer: Any, steps: int) -> tuple[nn.Module, Step]:
    """What the encoder sees stays as the teachers taught it; decoder and head learn."""
    backbone = restorer.backbone
    for part in (backbone.stem, backbone.encoders, backbone.downs):
        part.requires_grad_(False)
    return restorer, objectives.restoration_step()


def head_first(restorer: Any, steps: int) -> tuple[nn.Module, Step]:
    """The head alone, then all weights: an untrained head would at first bend good features to its own errors.

    Kumar, Raghunathan, Jones, Ma, Liang, Fine-tuning can distort pretrained features, ICLR 2022.
    """
    return HeadFirst(restorer, round(steps * HEAD_ALONE)), objectives.restoration_step()


def near_start(restorer: Any, steps: int) -> tuple[nn.Module, Step]:
    """All weights, each pulled back to where it began, but for the head, which begins with nothing worth keeping.

    L2-SP: Li, Grandvalet, Davoine, Explicit inductive bias for transfer learning, ICML 2018.
    """

    def step(near: nn.Module, batch: Batch) -> tuple[Tensor, Batch]:
        restored, distance = near(batch["rainy"])
        pairs = losses.restoration(restored, batch["clean"])
        return pairs + NEARNESS / 2 * distance, {"pairs": pairs, "distance": distance}

    return NearStart(restorer), step


def low_rank(restorer: Any, steps: int) -> tuple[nn.Module, Step]:
    """The convolutions of the backbone change by matrices of low rank only; the head learns whole.

    Hu et al., LoRA: Low-rank adaptation of large language models, ICLR 2022.
    """
    return LowRank(restorer), objectives.restoration_step()


WAYS: dict[str, Way] = {
    "encoder frozen": encoder_frozen,
    "head first": head_first,
    "near the start": near_start,
    "low rank": low_rank,
}


class HeadFirst(nn.Module):
    """A restorer whose backbone gets a gradient of zero in its first `alone` steps; (B, 3, H, W) to the same shape.

    Zero and not none, since processes that share a batch wait for every gradient. AdamW then leaves the backbone alone
    but for its weight decay, here less than 1e-6 of a weight a step. The count of steps is a buffer, so that a
    checkpoint holds it.
    """

    done: Tensor

    def __init__(self, restorer: Any, alone: int):
        super().__init__()
        self.restorer, self.alone = restorer, alone
        self.register_buffer("done", torch.zeros((), dtype=torch.long))

    def forward(self, rainy: Tensor) -> Tensor:
        features = self.restorer.backbone(pad_to_multiple(rainy, UNet.multiple))[-1]
        if self.training:
            features = features.detach() + 0 * features if int(self.done) < self.alone else features
            self.done += 1
        return self.restorer.restore(rainy, features)

    def plain(self) -> Any:
        return self.restorer


class NearStart(nn.Module):
    """A restorer beside its frozen start; the images (B, 3, H, W) to the restored ones and the squared distance (,)."""

    def __init__(self, restorer: Any):
        super().__init__()
        self.restorer, self.start = restorer, freeze(copy.deepcopy(restorer.backbone))

    def forward(self, rainy: Tensor) -> tuple[Tensor, Tensor]:
        both = zip(self.restorer.backbone.parameters(), self.start.parameters(), strict=True)
        distance = torch.stack([(now - before).square().sum() for now, before in both]).sum()
        return self.restorer(rainy), distance

    def plain(self) -> Any:
        return self.restorer


class LowRank(nn.Module):
    """A restorer whose backbone is frozen but for an Adapter at each convolution; (B, 3, H, W) to the same shape."""

    def __init__(self, restorer: Any):
        super().__init__()
        self.restorer = restorer
        restorer.backbone.requires_grad_(False)
        for part in self._convolutions():
            parametrize.register_parametrization(part, "weight", Adapter(part.weight))

    def _convolutions(self) -> list[Any]:
        parts = self.restorer.backbone.modules()
        return [part for part in parts if isinstance(part, nn.Conv2d | nn.ConvTranspose2d)]

    def forward(self, rainy: Tensor) -> Tensor:
        return self.restorer(rainy)

    def plain(self) -> Any:
        """A restorer with the adapters merged into its weights: as fast as before. This one can be trained on."""
        merged = type(self.restorer)(**self.restorer.arguments).train(self.training)
        with torch.no_grad():
            for name, weight in merged.named_parameters():
                weight.copy_(attrgetter(name)(self.restorer))
        return merged.to(next(self.restorer.parameters()).device)


class Adapter(nn.Module):
    """weight + up @ down, of rank RANK at most, with the weight (A, B, h, w) as a matrix (A, B·h·w); starts as weight.

    An update of low rank: `up` (A, RANK) starts at zero, `down` (RANK, B·h·w) at random.
    """

    def __init__(self, weight: Tensor):
        super().__init__()
        rows, columns = len(weight), weight[0].numel()
        self.up = nn.Parameter(torch.zeros(rows, RANK))
        self.down = nn.Parameter(torch.randn(RANK, columns) * columns**-0.5)

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.up @ self.down).view_as(weight)
