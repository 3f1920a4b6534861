"""Networks: the U-Net backbone that teachers and student share, and what each of them puts on top of it.

Ours: the paper's networks are not known to us. A reader needs `ResidualBlock`, `UNet` and `Restorer`; `Recogniser` is
the teacher that answers a question, `Distiller` the student while it is taught, `Ensemble` a row of the comparison.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CELL = 2  # pixels, side of the cells that the finest level sees
LEVELS = ("encoder 1", "encoder 2", "encoder 3", "encoder 4", "decoder 3", "decoder 2", "decoder 1")


class ResidualBlock(nn.Module):
    """x + s · conv(ReLU(conv(x))), with a learned s that starts at 0.2 so that deep stacks train at a high rate.

    (B, C, H, W) to the same shape. `apply.prepare` makes a trained one faster.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.scale = nn.Parameter(torch.tensor(0.2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.second(F.relu(self.first(x)))


class UNet(nn.Module):
    """Backbone: image (B, 3, H, W) to features at seven levels (Ronneberger et al. 2015, with residual blocks).

    The finest level has half the resolution: each 2×2 cell of pixels becomes 12 channels (Shi et al. 2016), which
    loses nothing and costs a third. Returns the encoder's features, fine to coarse, (B, w, H/2, W/2), (B, 2w, H/4,
    W/4), (B, 4w, H/8, W/8), (B, 8w, H/16, W/16), then the decoder's back to (B, w, H/2, W/2); LEVELS names them.
    H and W are multiples of `UNet.multiple`. No normalisation over space, so a tile gives what the whole image gives.
    """

    multiple = 16
    # How far an output pixel can see, summed along the deepest path: 1 cell, 2 stem, 4 block, 2 down, 8 block, 4 down,
    # 16 block, 8 down, 64 blocks, 8 up, 16 block, 4 up, 8 block, 2 up, 4 block, 2 head, 1 cell.
    # tests/test_models.py holds it against the gradient.
    radius = 154

    def __init__(self, width: int = 16):
        super().__init__()
        fine, middle, coarse, coarsest = channels = [width, 2 * width, 4 * width, 8 * width]
        self.stem = nn.Conv2d(3 * CELL**2, fine, 3, padding=1)
        self.encoders = nn.ModuleList(
            [
                ResidualBlock(fine),
                ResidualBlock(middle),
                ResidualBlock(coarse),
                nn.Sequential(ResidualBlock(coarsest), ResidualBlock(coarsest)),
            ]
        )
        self.downs = nn.ModuleList(nn.Conv2d(c, 2 * c, 2, stride=2) for c in channels[:-1])
        self.ups = nn.ModuleList(nn.ConvTranspose2d(2 * c, c, 2, stride=2) for c in channels[-2::-1])
        self.decoders = nn.ModuleList(ResidualBlock(c) for c in channels[-2::-1])
        self.channels = [*channels, *channels[-2::-1]]

    def forward(self, image: Tensor) -> list[Tensor]:
        features = [self.encoders[0](self.stem(F.pixel_unshuffle(image - 0.5, CELL)))]
        for down, encoder in zip(self.downs, self.encoders[1:], strict=True):
            features.append(encoder(down(features[-1])))
        for skipped, up, decoder in zip(features[-2::-1], self.ups, self.decoders, strict=True):
            features.append(decoder(up(features[-1]) + skipped))
        return features


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column until height and width are multiples of `multiple`."""
    height, width = image.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    return F.pad(image, (0, right, 0, bottom), mode="replicate") if bottom or right else image


class Restorer(nn.Module):
    """Image in, image of the same size out: image + head(backbone(image)). Teacher, student and scratch alike."""

    def __init__(self, width: int = 16):
        super().__init__()
        self.width, self.arguments = width, {"width": width}
        self.backbone = UNet(width)
        self.head = build_head(width)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] to (B, 3, H, W), not clipped; any H and W from 1 pixel."""
        return self.restore(image, self.backbone(pad_to_multiple(image, UNet.multiple))[-1])

    def restore(self, image: Tensor, features: Tensor) -> Tensor:
        """The restored image from the finest features of the decoder."""
        return add_residual(image, self.head(features))


def build_head(inputs: int) -> nn.Conv2d:
    """The finest features to what is added to each cell of pixels; starts near the identity, yet passes a gradient."""
    head = nn.Conv2d(inputs, 3 * CELL**2, 3, padding=1)
    if not head.weight.is_meta:  # where there are no numbers to draw, torch would load its compiler
        nn.init.normal_(head.weight, std=1e-2)
    nn.init.zeros_(head.bias)  # type: ignore[arg-type]
    return head


def add_residual(image: Tensor, cells: Tensor) -> Tensor:
    """image (B, 3, H, W) + the residual that `cells` (B, 12, >= H/2, >= W/2) hold; float32."""
    return image + F.pixel_shuffle(cells, CELL)[..., : image.shape[-2], : image.shape[-1]].float()


class Ensemble(nn.Module):
    """All teachers side by side, without distillation: one head reads the finest features of every backbone.

    As large as all of them together: what the student is to replace. (B, 3, H, W) in [0, 1] to the same shape.
    """

    def __init__(self, widths: list[int]):
        super().__init__()
        if len(widths) > 100:
            raise ValueError(f"{len(widths)} backbones: at most 100 stand side by side")
        self.arguments = {"widths": widths}
        self.backbones = nn.ModuleList(UNet(width) for width in widths)
        self.head = build_head(sum(widths))

    def forward(self, image: Tensor) -> Tensor:
        padded = pad_to_multiple(image, UNet.multiple)
        return add_residual(image, self.head(torch.cat([backbone(padded)[-1] for backbone in self.backbones], 1)))


class Recogniser(nn.Module):
    """Image in, one logit out: rainy (> 0) or rain-free (< 0).

    A logit at every place of the coarsest and of the finest level, averaged over the crop: streaks are thin and
    everywhere, and pooling the features first, as for objects, would wash them out. Reading both levels also
    trains every level of the backbone. Group normalisation sits in the head, so that the backbone stays free of it.
    """

    def __init__(self, width: int = 16):
        super().__init__()
        self.width, self.arguments = width, {"width": width}
        self.backbone = UNet(width)
        coarsest = max(self.backbone.channels)
        self.coarse = nn.Sequential(nn.GroupNorm(8, coarsest), nn.ReLU(), nn.Conv2d(coarsest, 1, 1))
        self.fine = nn.Sequential(nn.GroupNorm(8, width), nn.ReLU(), nn.Conv2d(width, 1, 1))

    def rain_map(self, image: Tensor) -> Tensor:
        """Logits (B, 1, H, W): how much each place speaks for rain."""
        padded = pad_to_multiple(image, UNet.multiple)
        features = self.backbone(padded)
        coarsest = features[self.backbone.channels.index(max(self.backbone.channels))]
        logits = [self.fine(features[-1]), self.coarse(coarsest)]
        maps = [F.interpolate(part.float(), size=padded.shape[-2:], mode="nearest") for part in logits]
        return (maps[0] + maps[1])[..., : image.shape[-2], : image.shape[-1]]

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] to logits (B,)."""
        return self.rain_map(image).mean(dim=(1, 2, 3))


class Distiller(nn.Module):
    """The student with one 1×1 adapter for each teacher and level, mapping its features to the teacher's width."""

    def __init__(self, student: Restorer, teachers: Mapping[str, Any]):
        super().__init__()
        self.student = student
        self.adapters = nn.ModuleDict(
            {
                name: nn.ModuleList(
                    nn.Conv2d(mine, theirs, 1)
                    for mine, theirs in zip(student.backbone.channels, teacher.backbone.channels, strict=True)
                )
                for name, teacher in teachers.items()
            }
        )

    def forward(self, image: Tensor) -> tuple[Tensor, dict[str, list[Tensor]]]:
        """(B, 3, H, W) to what the student restores and, for each teacher, its adapted features at every level."""
        features = self.student.backbone(image)
        adapted = {}
        for name in self.adapters:
            adapters: Any = self.adapters[name]
            adapted[name] = [adapter(feature) for adapter, feature in zip(adapters, features, strict=True)]
        return self.student.restore(image, features[-1]), adapted


Derainer = Restorer | Ensemble  # what turns a rainy image into a restored one


def count_parameters(model: nn.Module) -> int:
    """Number of learned values."""
    return sum(p.numel() for p in model.parameters())


def count_flops(model: nn.Module, height: int = 256, width: int = 256) -> int:
    """Floating-point operations for one image (a multiply-add counts as two), by torch's own counter."""
    from torch.utils.flop_counter import FlopCounterMode

    image = torch.zeros(1, 3, height, width, device=next(model.parameters()).device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(image)
    return int(counter.get_total_flops())
