"""Semi-supervised deraining, to compare with: the same few pairs, and real rainy photographs without their truth.

References, each at its function: a mixture model of real rain, pseudo labels from a Gaussian process, a mean teacher.
Ours: the same network for all, from scratch, and the numbers below where no source is named.

An entry of WAYS takes the untrained restorer and the number of steps, and gives what the trainer trains and its step.
All that a method remembers is a buffer or a frozen weight of that module: a checkpoint holds it. `forward` takes
rainy, clean and real, each (B, 3, H, W), updates what is remembered in training, and returns the terms of the loss.
"""

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ttlkit.method import losses
from ttlkit.method.adaptation import Way
from ttlkit.method.networks import UNet, pad_to_multiple
from ttlkit.method.objectives import Batch, Step
from ttlkit.method.weights import freeze

# Mixture: Wei et al. weigh against a squared error in sums over pixels; here against `restoration`, in means.
DEVIATIONS = (0.01, 0.03, 0.1)  # of the components at first, in the unit of images; Wei et al.: three, at random
LEAST_VARIANCE = 1e-6  # as in their code
LIKELIHOOD, SMOOTHNESS, LIKENESS = 0.01, 0.05, 0.001  # weights: real rain's likelihood, variation, synthetic rain

# Gaussian process: as in the code of Yasarla et al., but for the memory, where they keep every labelled image.
REMEMBERED, NEAREST, NOISE = 1024, 16, 0.01  # labelled features; of them used for a label; variance of their noise
PROCESS, UNCERTAINTY = 0.015, 0.33  # weight of the whole term; in it, of the logarithm of the variance

# Mean teacher
DECAY = 0.999  # of the averaged weights, once 1000 steps are done; before it is their plain mean
RAMP = 1 / 3  # of the steps, until the weight is whole
CONSISTENCY = 1.0  # weight of photographs against pairs
JITTER = 0.02  # standard deviation of the noise on what teacher and student see, in the unit of images


def mixture_step(learner: nn.Module, batch: Batch) -> tuple[Tensor, Batch]:
    """Real rain follows a mixture of Gaussians, near the synthetic rain, and leaves a smooth image.

    Wei, Meng, Zhao, Xu, Wu, Semi-supervised transfer learning for image rain removal, CVPR 2019.
    """
    pairs, unlikely, variation, apart = learner(batch["rainy"], batch["clean"], batch["photograph"])
    loss = pairs + LIKELIHOOD * unlikely + SMOOTHNESS * variation + LIKENESS * apart
    return loss, {"pairs": pairs, "unlikely": unlikely, "variation": variation, "apart": apart}


def gaussian_process_step(learner: nn.Module, batch: Batch) -> tuple[Tensor, Batch]:
    """Features of real rain follow what a Gaussian process over features of the pairs says about them.

    Yasarla, Sindagi, Patel, Syn2Real transfer learning for image deraining using Gaussian processes, CVPR 2020.
    """
    pairs, distance, variance = learner(batch["rainy"], batch["clean"], batch["photograph"])
    term = (distance / variance + UNCERTAINTY * variance.log()).mean(dim=1)
    return pairs + PROCESS * term, {"pairs": pairs, "distance": distance, "variance": variance}


def mean_teacher_step(learner: nn.Module, batch: Batch) -> tuple[Tensor, Batch]:
    """What the student restores on real photographs follows an average of its own past.

    Tarvainen, Valpola, Mean teachers are better role models, NeurIPS 2017.
    """
    pairs, photographs, ramp = learner(batch["rainy"], batch["clean"], batch["photograph"])
    return pairs + CONSISTENCY * ramp * photographs, {"pairs": pairs, "photographs": photographs}


# ---- the mixture -------------------------------------------------------------------------------------------------


def log_density(residual: Tensor, shares: Tensor, variances: Tensor) -> Tensor:
    """log of `shares` times the density of each zero-mean Gaussian, (N, K): residual (N,), the others (K,)."""
    squares = residual[:, None].square()
    return shares.log() - 0.5 * (squares / variances + variances.log() + math.log(2 * math.pi))


def em_round(residual: Tensor, shares: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
    """One round of EM on `residual` (N,): new shares and variances (K,), which pass a gradient to the residual.

    The expectation, which component made what, passes none.
    """
    with torch.no_grad():
        made = log_density(residual, shares, variances).softmax(1)
    counts = made.sum(0)
    found = (made * residual[:, None].square()).sum(0) / counts.clamp(min=1e-6) + LEAST_VARIANCE
    return (counts / len(residual)).clamp(min=1e-6), found


class Mixture(nn.Module):
    """The student and a mixture of zero-mean Gaussians for real rain, rainy - restored, one value a pixel and colour.

    Each training step is a round of EM, from the parameters that the last one left: buffers `shares`, `variances` (K,).
    """

    shares: Tensor
    variances: Tensor

    def __init__(self, student: Any):
        super().__init__()
        self.student = student
        self.register_buffer("shares", torch.full((len(DEVIATIONS),), 1 / len(DEVIATIONS)))
        self.register_buffer("variances", torch.tensor(DEVIATIONS).square())

    def forward(self, rainy: Tensor, clean: Tensor, real: Tensor) -> tuple[Tensor, ...]:
        """Loss of pairs, negative log-likelihood of real rain, its restored images' variation, (B,) each; then (,).

        The last one: the divergence of a Gaussian of the synthetic rain from the nearest component (Wei et al.).
        """
        restored, made = self.student(torch.cat([rainy, real])).float().split(len(rainy))
        rain = (real.float() - made).flatten()
        shares, variances = em_round(rain, self.shares, self.variances)
        if self.training:
            self.shares.copy_(shares)
            self.variances.copy_(variances.detach())
        likely = log_density(rain, shares, variances.detach()).logsumexp(1).view(len(real), -1)
        changes = [made.diff(dim=axis).abs().flatten(1).mean(1) for axis in (-1, -2)]
        synthetic, mean = torch.var_mean((rainy - clean).float())
        divergence = 0.5 * (variances.log() - synthetic.log() + (synthetic + mean.square()) / variances - 1)
        return losses.restoration(restored, clean), -likely.mean(1), changes[0] + changes[1], divergence.min()

    def plain(self) -> Any:
        return self.student


# ---- the Gaussian process ----------------------------------------------------------------------------------------


def process(feature: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """What a Gaussian process over `memory` (N, C) expects of `feature` (B, C), and its variance: (B, C), (B,).

    The kernel is the cosine, the neighbours are the NEAREST that it finds (the linear kernel of Yasarla et al.).
    Rows of zeros say nothing. float32 also under autocast, which would solve in half the digits. The expectation
    passes no gradient, since it is a label.
    """
    with torch.autocast(feature.device.type, enabled=False):
        feature, memory = feature.float(), memory.float()
        like = F.normalize(feature) @ F.normalize(memory).T
        nearest = like.topk(min(NEAREST, len(memory))).indices
        near, like = memory[nearest], like.gather(1, nearest)  # (B, K, C), (B, K)
        direction = F.normalize(near, dim=-1)
        kernel = direction @ direction.mT + NOISE * torch.eye(near.shape[1], device=near.device)
        weights = torch.cholesky_solve(like[:, :, None], torch.linalg.cholesky(kernel))  # (B, K, 1)
        expected = (weights.mT @ near)[:, 0].detach()
        variance = 1 + NOISE - (like * weights[..., 0]).sum(1)
    return expected, variance.clamp(min=NOISE / 10)


def directions(features: Tensor, memory: Tensor) -> Tensor:
    """Features (N, C) as unit vectors from the mean of the memory, whose rows of zeros are not filled yet; float32.

    Ours: from zero nearly all point the same way, and a network could make all distances small by small features.
    """
    mean = memory.sum(0) / memory.any(dim=1).sum().clamp(min=1)
    return F.normalize(features.float() - mean) * features.any(dim=1, keepdim=True)


class GaussianProcess(nn.Module):
    """The student and a memory of what its encoder made of the last labelled crops, `memory` (REMEMBERED, 8·width).

    A feature is one place of the coarsest level of the backbone (ours; Yasarla et al. take all places at once, which
    ties the memory to the size of a crop).
    """

    memory: Tensor

    def __init__(self, student: Any):
        super().__init__()
        self.student = student
        self.register_buffer("memory", torch.zeros(REMEMBERED, max(student.backbone.channels)))

    def forward(self, rainy: Tensor, clean: Tensor, real: Tensor) -> tuple[Tensor, ...]:
        """Loss of pairs (B,); at P places of a photograph, feature to label squared and the label's variance (B, P)."""
        levels = self.student.backbone(pad_to_multiple(torch.cat([rainy, real]), UNet.multiple))
        coarsest = levels[self.student.backbone.channels.index(max(self.student.backbone.channels))]
        known, unknown = (part.flatten(2).mT.flatten(0, 1) for part in coarsest.float().split(len(rainy)))
        if self.training:
            self.memory.copy_(torch.cat([known.detach(), self.memory])[:REMEMBERED])
        found = directions(unknown, self.memory)
        expected, variance = process(found, directions(self.memory, self.memory))
        distance = (found - expected).square().sum(1)
        restored = self.student.restore(rainy, levels[-1][: len(rainy)])
        return losses.restoration(restored, clean), distance.view(len(real), -1), variance.view(len(real), -1)

    def plain(self) -> Any:
        return self.student


# ---- the mean teacher --------------------------------------------------------------------------------------------


class MeanTeacher(nn.Module):
    """The student and an exponential moving average of its weights, which is what is kept in the end.

    The buffer `done` counts training steps. Teacher and student see a photograph in noise of its own, and one of them
    mirrored.
    """

    done: Tensor

    def __init__(self, student: Any, steps: int):
        super().__init__()
        self.student, self.teacher, self.steps = student, freeze(copy.deepcopy(student)), steps
        self.register_buffer("done", torch.zeros((), dtype=torch.long))

    def follow(self) -> None:
        """The teacher's weights go a step towards the student's; in the first one all the way."""
        share = torch.reciprocal(self.done + 1).clamp(min=1 - DECAY)
        with torch.no_grad():
            for mean, weight in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                mean.lerp_(weight, share)
        self.done += 1

    def forward(self, rainy: Tensor, clean: Tensor, real: Tensor) -> tuple[Tensor, ...]:
        """Loss of pairs (B,), distance of student and teacher on photographs (B,), and how much it counts by now (,).

        The ramp is exp(-5 (1 - t)²), as in the paper's experiments; t: the share of the ramp that has passed.
        """
        passed = (self.done / max(1.0, RAMP * self.steps)).clamp(max=1)
        if self.training:
            self.follow()
        seen, mirrored = real + JITTER * torch.randn_like(real), (real + JITTER * torch.randn_like(real)).flip(-1)
        with torch.no_grad():
            target = self.teacher(mirrored).flip(-1).clamp(0, 1)
        restored, made = self.student(torch.cat([rainy, seen])).split(len(rainy))
        ramp = torch.exp(-5 * (1 - passed).square())
        return losses.restoration(restored, clean), losses.restoration(made, target), ramp

    def plain(self) -> Any:
        return self.teacher


def mixture(restorer: Any, steps: int) -> tuple[nn.Module, Step]:
    """`mixture_step` and what it trains."""
    return Mixture(restorer), mixture_step


def gaussian_process(restorer: Any, steps: int) -> tuple[nn.Module, Step]:
    """`gaussian_process_step` and what it trains."""
    return GaussianProcess(restorer), gaussian_process_step


def mean_teacher(restorer: Any, steps: int) -> tuple[nn.Module, Step]:
    """`mean_teacher_step` and what it trains."""
    return MeanTeacher(restorer, steps), mean_teacher_step


WAYS: dict[str, Way] = {"mixture": mixture, "Gaussian process": gaussian_process, "mean teacher": mean_teacher}
