"""Networks: the U-Net backbone that teachers and student share, their heads, and PReNet as a baseline."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

CELL = 2  # pixels, side of the cells that the finest level sees
PLACES = ("encoder 1", "encoder 2", "encoder 3", "encoder 4", "decoder 3", "decoder 2", "decoder 1")


class WeightsError(ValueError):
    """Weights cannot be used; the message names the file and the way out."""


class ResidualBlock(nn.Module):
    """x + s · conv(ReLU(conv(x))), with a learned s that starts at 0.2 so that deep stacks train at a high rate."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.scale = nn.Parameter(torch.tensor(0.2))

    def forward(self, x: Tensor) -> Tensor:
        # The scale goes into the small weights, not over the large features: that would be a pass over memory more.
        weight, bias = self.scale * self.second.weight, self.scale * cast(Tensor, self.second.bias)
        return F.conv2d(F.relu(self.first(x), inplace=True), weight, bias, padding=1).add_(x)


class UNet(nn.Module):
    """Backbone: image (B, 3, H, W) to features at seven places (Ronneberger et al. 2015, with residual blocks).

    The finest level has half the resolution: each 2×2 cell of pixels becomes 12 channels (Shi et al. 2016), which
    loses nothing and costs a third. Returns the encoder's features, fine to coarse, (B, w, H/2, W/2), (B, 2w, H/4,
    W/4), (B, 4w, H/8, W/8), (B, 8w, H/16, W/16), then the decoder's back to (B, w, H/2, W/2); PLACES names them.
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
            features.append(decoder(up(features[-1]).add_(skipped)))
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


class PReNet(nn.Module):
    """Progressive recurrent network, the published baseline (Ren et al., CVPR 2019): six stages sharing weights.

    Attribute names follow the released weights. (B, 3, H, W) in [0, 1] to the same shape, not clipped.
    """

    def __init__(self, stages: int = 6, channels: int = 32):
        super().__init__()

        def conv(inputs: int, outputs: int) -> nn.Conv2d:
            return nn.Conv2d(inputs, outputs, 3, padding=1)

        self.stages, self.channels = stages, channels
        self.conv0 = nn.Sequential(conv(6, channels), nn.ReLU())
        self.conv_i = nn.Sequential(conv(2 * channels, channels), nn.Sigmoid())
        self.conv_f = nn.Sequential(conv(2 * channels, channels), nn.Sigmoid())
        self.conv_g = nn.Sequential(conv(2 * channels, channels), nn.Tanh())
        self.conv_o = nn.Sequential(conv(2 * channels, channels), nn.Sigmoid())
        for i in range(1, 6):
            block = nn.Sequential(conv(channels, channels), nn.ReLU(), conv(channels, channels), nn.ReLU())
            setattr(self, f"res_conv{i}", block)
        self.conv = nn.Sequential(conv(channels, 3))

    def forward(self, image: Tensor) -> Tensor:
        restored = image
        hidden = state = image.new_zeros(image.shape[0], self.channels, *image.shape[-2:])
        for _ in range(self.stages):
            x = torch.cat([self.conv0(torch.cat([image, restored], 1)), hidden], 1)
            state = self.conv_f(x) * state + self.conv_i(x) * self.conv_g(x)
            hidden = self.conv_o(x) * torch.tanh(state)
            x = hidden
            for i in range(1, 6):
                x = F.relu(getattr(self, f"res_conv{i}")(x) + x)
            restored = self.conv(x) + image
        return restored


Derainer = Restorer | Ensemble  # what turns a rainy image into a restored one
KINDS: dict[str, type[nn.Module]] = {"Restorer": Restorer, "Recogniser": Recogniser, "Ensemble": Ensemble}


def save_weights(model: nn.Module, path: str | Path, **card: str) -> Path:
    """Write one of KINDS as safetensors, whole or not at all; `card` goes into its header."""
    path = Path(path)
    # One entry: safetensors writes several in random order, and equal weights must give equal files.
    header = {"ttlkit": json.dumps({"kind": type(model).__name__, "arguments": model.arguments, **card})}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(tensors, partial, metadata=header)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def load_weights(path: str | Path) -> Any:
    """Rebuild the network that `save_weights` wrote, on the CPU, in evaluation mode."""
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights; train them first (make reproduce)")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["ttlkit"])
        model = KINDS[header["kind"]](**header["arguments"])
        model.load_state_dict(load_file(path))
    except (SafetensorError, KeyError, RuntimeError, OSError) as error:
        raise WeightsError(
            f"{path}: not weights written by ttlkit ({error}); delete the file and train again"
        ) from None
    return model.eval()


def load_prenet(path: str | Path) -> PReNet:
    """PReNet with its released weights (.pth, a pickle of tensors; nothing else in it is executed)."""
    model = PReNet()
    try:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # torch raises many kinds for a bad pickle
        raise WeightsError(
            f"{path}: not the released six-stage PReNet weights ({str(error).splitlines()[0]})"
        ) from None
    return model.eval()


def transfer(source: Restorer | Recogniser, target: Restorer) -> Restorer:
    """Start `target` from what `source` has learned: its backbone, and its head where it is a Restorer too."""
    if source.width != target.width:
        raise WeightsError(f"a network of width {target.width} cannot start from one of width {source.width}")
    target.backbone.load_state_dict(source.backbone.state_dict())
    if isinstance(source, Restorer):
        target.head.load_state_dict(source.head.state_dict())
    return target


def blend(model: Derainer, start: Mapping[str, Tensor], share: float) -> None:
    """Weights, in place, to (1 - share) of their own and `share` of those it started from, `start`.

    What was learned before fine-tuning comes back, and with it part of what fine-tuning on narrow data has forgotten:
    Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022. Both must be of one training, as here.
    """
    if not 0 <= share <= 1:
        raise WeightsError(f"share = {share} must be 0 to 1")
    with torch.no_grad():
        for name, weight in model.state_dict().items():
            weight.lerp_(start[name].to(weight), share)


def gather(teachers: Sequence[Restorer | Recogniser]) -> Ensemble:
    """All teachers' backbones in one network; its head starts near the identity."""
    together = Ensemble([teacher.width for teacher in teachers])
    for backbone, teacher in zip(together.backbones, teachers, strict=True):
        backbone.load_state_dict(teacher.backbone.state_dict())
    return together


def freeze(model: nn.Module) -> nn.Module:
    """Evaluation mode and no gradients: for teachers while the student learns."""
    return model.eval().requires_grad_(False)


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


def checksum(model: nn.Module) -> str:
    """Hash of every weight's bits: equal before and after distillation if a teacher stayed frozen."""
    import hashlib

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def rounded_up(value: float, multiple: int = UNet.multiple) -> int:
    """The next multiple at or above `value`: where tiles may begin."""
    return multiple * math.ceil(value / multiple)
