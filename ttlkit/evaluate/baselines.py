"""Published derainers to compare with: PReNet, and whatever weights lie in a folder."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ttlkit.apply.restore import load_restorer
from ttlkit.method.weights import WeightsError, check_finite, reading


class PReNet(nn.Module):
    """Progressive recurrent network, the published baseline (Ren et al., CVPR 2019): six stages sharing weights.

    Attribute names follow the released weights. (B, 3, H, W) in [0, 1] to the same shape, not clipped.
    """

    def __init__(self):
        super().__init__()
        conv = partial(nn.Conv2d, kernel_size=3, padding=1)
        self.conv0 = nn.Sequential(conv(6, 32), nn.ReLU())
        self.conv_i, self.conv_f, self.conv_o = (nn.Sequential(conv(64, 32), nn.Sigmoid()) for _ in range(3))
        self.conv_g = nn.Sequential(conv(64, 32), nn.Tanh())
        for i in range(1, 6):
            setattr(self, f"res_conv{i}", nn.Sequential(conv(32, 32), nn.ReLU(), conv(32, 32), nn.ReLU()))
        self.conv = nn.Sequential(conv(32, 3))

    def forward(self, image: Tensor) -> Tensor:
        restored = image
        hidden = state = image.new_zeros(image.shape[0], 32, *image.shape[-2:])
        for _ in range(6):
            x = torch.cat([self.conv0(torch.cat([image, restored], 1)), hidden], 1)
            state = self.conv_f(x) * state + self.conv_i(x) * self.conv_g(x)
            x = hidden = self.conv_o(x) * torch.tanh(state)
            for i in range(1, 6):
                x = F.relu(getattr(self, f"res_conv{i}")(x) + x)
            restored = self.conv(x) + image
        return restored


def load_prenet(path: str | Path) -> PReNet:
    """PReNet with its released weights (.pth, a pickle of tensors; no code in it runs); WeightsError names bad ones."""
    model = PReNet()
    with reading(path, "the released six-stage PReNet weights"):
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    check_finite(model, path)
    return model.eval()


def find_peers(folders: Sequence[str]) -> list[Path]:
    """Weights to compare with in folders: PReNet's (*.pth) and ours (*.safetensors); WeightsError where none are."""
    found = []
    for folder in folders:
        paths = sorted(p for p in Path(folder).expanduser().glob("*") if p.suffix in (".pth", ".safetensors"))
        if not paths:
            raise WeightsError(f"{folder}: no *.pth or *.safetensors in it; give folders with released weights")
        found += paths
    return found


def load_peer(path: Path, device: str = "cpu") -> nn.Module:
    """Released weights, PReNet's (.pth) or ours (.safetensors), ready to run on `device`."""
    return load_prenet(path).to(device) if path.suffix == ".pth" else load_restorer(path, device)
