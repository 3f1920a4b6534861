"""Published derainers to compare with: PReNet, whatever weights lie in a folder, and what spandrel knows."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
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


class Released(nn.Module):
    """A network of others as spandrel built it: padded as its architecture asks, in float32, as its authors ran it.

    (1, 3, H, W) in [0, 1] to the same shape, clipped. `radius`: by how much tiles overlap, pixels; None where spandrel
    advises against tiles. Many of these networks see the whole image, so their tiles are close to it, not equal.
    """

    def __init__(self, described: Any):
        super().__init__()
        self.network = described.model.float().eval()
        self.call, self.radius = described, 128 if described.tiling.name == "SUPPORTED" else None

    def forward(self, image: Tensor) -> Tensor:
        with torch.autocast(image.device.type, enabled=False):
            return self.call(image)


def load_released(path: str | Path, tensors: Mapping[str, Any]) -> Released:
    """A network of others (NAFNet, Uformer, ...) from its weights `tensors`, read from `path`; needs the extra `peers`.

    spandrel finds the architecture and its size by the names and shapes of the weights. Restormer, MPRNet and others
    whose code has a licence of its own come with the extra `peers-licensed`. WeightsError, one line, where spandrel is
    missing or does not know them, or where they do not restore RGB images in their own size.
    """
    try:
        import spandrel

        with suppress(ImportError):
            import spandrel_extra_arches

            spandrel_extra_arches.install(ignore_duplicates=True)
    except ImportError:
        words = "neither ours nor PReNet's; for networks of others: pip install 'ttlkit[peers]'"
        raise WeightsError(f"{path}: {words}") from None
    except RuntimeError as error:  # as of a torchvision for CUDA beside a torch without
        words = f"spandrel cannot be loaded ({str(error).splitlines()[0][:100]})"
        raise WeightsError(f"{path}: {words}; install the torchvision made for torch {torch.__version__}") from None
    with reading(path, "weights that fit their network"):
        try:
            found = spandrel.ModelLoader().load_from_state_dict(dict(tensors))
        except spandrel.UnsupportedModelError:
            found = None
    if found is None:
        words = "no network that spandrel knows; Restormer, MPRNet and others need pip install 'ttlkit[peers-licensed]'"
        raise WeightsError(f"{path}: {words}")
    given = found.purpose, found.scale, found.input_channels, found.output_channels
    if given != ("Restoration", 1, 3, 3):
        words = "{}, scale {}, {} to {} channels".format(*given)
        raise WeightsError(f"{path}: {found.architecture.id} ({words}); restorers of RGB images at scale 1 are needed")
    check_finite(found.model, path)
    return Released(found)


def find_peers(folders: Sequence[str]) -> list[Path]:
    """Weights to compare with in folders, *.pth and *.safetensors; WeightsError where none are."""
    found = []
    for folder in folders:
        paths = sorted(p for p in Path(folder).expanduser().glob("*") if p.suffix in (".pth", ".safetensors"))
        if not paths:
            raise WeightsError(f"{folder}: no *.pth or *.safetensors in it; give folders with released weights")
        found += paths
    return found


def load_peer(path: Path, device: str = "cpu") -> nn.Module:
    """Released weights, ours (.safetensors), PReNet's or those of a network that spandrel knows, to run on `device`.

    Of a .pth, a pickle, tensors alone are read: no code in it runs. WeightsError names a file that cannot be used.
    """
    if path.suffix == ".safetensors":
        with suppress(SafetensorError, OSError), safe_open(path, framework="pt") as file:
            if "ttlkit" not in (file.metadata() or {}):
                return load_released(path, load_file(path)).to(device)
        return load_restorer(path, device)
    with reading(path, "weights, a pickle of tensors alone"):
        tensors = torch.load(path, map_location="cpu", weights_only=True)
        names = set(tensors)
    return (load_prenet(path) if "conv_i.0.weight" in names else load_released(path, tensors)).to(device)
