"""Weights: safetensors in and out, what starts from what, blending, freezing."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ttlkit import files
from ttlkit.method.networks import Derainer, Ensemble, Recogniser, Restorer

KINDS: dict[str, type[nn.Module]] = {"Restorer": Restorer, "Recogniser": Recogniser, "Ensemble": Ensemble}


class WeightsError(ValueError):
    """Weights cannot be used; the message names the file and the way out."""


def save_weights(model: nn.Module, path: str | Path, **card: str) -> Path:
    """Write one of KINDS as safetensors, whole or not at all; `card` goes into its header."""
    # One entry: safetensors writes several in random order, and equal weights must give equal files.
    header = {"ttlkit": json.dumps({"kind": type(model).__name__, "arguments": model.arguments, **card})}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with files.whole(path) as partial:
        save_file(tensors, partial, metadata=header)
    return Path(path)


def load_weights(path: str | Path) -> Any:
    """Rebuild the network that `save_weights` wrote, on the CPU, in evaluation mode; WeightsError names a bad file."""
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
    check_finite(model, path)
    return model.eval()


def check_finite(model: nn.Module, path: str | Path) -> None:
    """WeightsError, naming the file and the weights, where some are not finite: they would restore to black."""
    for name, values in model.state_dict().items():
        if not values.isfinite().all():
            raise WeightsError(f"{path}: {name} is not finite; take other weights, or train them again")


def transfer(source: Restorer | Recogniser, target: Restorer) -> Restorer:
    """Start `target` from what `source` has learned: its backbone, and its head where it is a Restorer too."""
    if source.width != target.width:
        raise WeightsError(f"a network of width {target.width} cannot start from one of width {source.width}")
    target.backbone.load_state_dict(source.backbone.state_dict())
    if isinstance(source, Restorer):
        target.head.load_state_dict(source.head.state_dict())
    return target


def gather(teachers: Sequence[Restorer | Recogniser]) -> Ensemble:
    """All teachers' backbones in one network; its head starts near the identity."""
    together = Ensemble([teacher.width for teacher in teachers])
    for backbone, teacher in zip(together.backbones, teachers, strict=True):
        backbone.load_state_dict(teacher.backbone.state_dict())
    return together


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


def freeze(model: nn.Module) -> nn.Module:
    """Evaluation mode and no gradients: for teachers while the student learns."""
    return model.eval().requires_grad_(False)


def checksum(model: nn.Module) -> str:
    """Hash of every weight's bits: equal before and after distillation if a teacher stayed frozen."""
    weights = sorted(model.state_dict().items())
    return files.digest(*(b for n, w in weights for b in (n.encode(), w.detach().cpu().contiguous().numpy().tobytes())))
