"""Weights: safetensors in and out, what starts from what, blending, freezing."""

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ttlkit import files, machine
from ttlkit.method.networks import Derainer, Ensemble, Recogniser, Restorer

KINDS: dict[str, type[nn.Module]] = {"Restorer": Restorer, "Recogniser": Recogniser, "Ensemble": Ensemble}


class WeightsError(ValueError):
    """Weights cannot be used; the message names the file and the way out."""


def save_weights(model: nn.Module, path: str | Path, half: bool = False, **card: str) -> Path:
    """Write one of KINDS as safetensors, whole or not at all; `card` and a checksum go into its header.

    `half`: as float16, for half the size. The checksum is that of the rounded weights, which is what will be loaded.
    """
    if half:
        model = copy.deepcopy(model).half().float()
        check_finite(model, path)  # float16 ends at 65504
    facts = {"kind": type(model).__name__, "arguments": model.arguments, **card, "checksum": checksum(model)}
    header = {"ttlkit": json.dumps(facts)}  # one entry: safetensors writes several in random order
    kind = torch.float16 if half else None
    tensors = {name: tensor.detach().to("cpu", kind).contiguous() for name, tensor in model.state_dict().items()}
    with files.whole(path) as place:
        place.write_bytes(save(tensors, header))  # safetensors itself would raise no OSError where the disk is full
    return Path(path)


def load_weights(path: str | Path) -> Any:
    """Rebuild the network that `save_weights` wrote, float32, on the CPU, in evaluation mode.

    WeightsError names a bad file, also where a bit of a weight has changed, which older files cannot tell.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights; train them first (make reproduce)")
    with reading(path, "weights written by ttlkit"):
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["ttlkit"])
        build, tensors = partial(KINDS[header["kind"]], **header["arguments"]), load_file(path)
        with torch.device("meta"):  # takes no memory, whatever width the header claims
            build().load_state_dict(tensors, assign=True)
        model = build()
        model.load_state_dict(tensors)
    check_finite(model, path)
    if header.get("checksum") not in (None, checksum(model)):
        raise WeightsError(f"{path}: damaged (its checksum is wrong); {_other(path)}")
    return model.eval()


@contextmanager
def reading(path: str | Path, wanted: str) -> Iterator[None]:
    """WeightsError says what is wrong: the file cannot be opened, memory is short, or it is not what was `wanted`."""
    try:
        with open(path, "rb"):  # libraries call any file that they cannot open a missing one
            yield
    except OSError as error:
        words = error.strerror or str(error)
        raise WeightsError(f"{path}: cannot be read ({words}); make it readable, or take other weights") from None
    except Exception as error:  # noqa: BLE001 - of a bad header or pickle nearly every kind there is
        words = (str(error).strip() or type(error).__name__).splitlines()[0]
        if isinstance(error, MemoryError) or "allocate memory" in words:
            raise WeightsError(f"{path}: too little memory is free to load it; close other programs") from None
        raise WeightsError(f"{path}: not {wanted} ({words[:200]}); {_other(path)}") from None


def check_finite(model: nn.Module, path: str | Path) -> None:
    """WeightsError, naming the file and the weights, where some are not finite: they would restore to black."""
    for name, values in model.state_dict().items():
        if not values.isfinite().all():
            raise WeightsError(f"{path}: {name} is not finite; {_other(path)}")


def _other(path: str | Path) -> str:
    """The way out where weights are bad."""
    released = Path(path).resolve().is_relative_to(machine.PACKAGE)
    return "install ttlkit again" if released else "take other weights, or train them again"


def transfer(source: Restorer | Recogniser, target: Restorer) -> Restorer:
    """Start `target` from what `source` has learned: its backbone, and its head where it is a Restorer too."""
    if source.width != target.width:
        raise WeightsError(f"a network of width {target.width} cannot start from one of width {source.width}")
    target.backbone.load_state_dict(source.backbone.state_dict())
    if isinstance(source, Restorer):
        target.head.load_state_dict(source.head.state_dict())
    return target


def widen(source: Restorer, width: int) -> Restorer:
    """A Restorer of `width` that restores as `source` does, to the rounding of floats, and has more room to learn.

    Its further channels are untrained and read all that there is, but nothing that was there reads them yet. Growing
    without forgetting is from Chen et al., Net2Net, ICLR 2016; zeros instead of copied channels are ours. Raises
    WeightsError where `source` is wider.
    """
    if width < source.width:
        raise WeightsError(f"width = {width}: a network of width {source.width} can be widened only; raise width")
    wider = Restorer(width)
    was = source.state_dict()
    for name, weight in wider.state_dict().items():
        old = was[name]
        if old.ndim > 1:
            new, kept = (w.transpose(0, 1) if ".ups." in name else w for w in (weight, old))  # theirs have inputs first
            new[: kept.shape[0], kept.shape[1] :] = 0
        weight[tuple(map(slice, old.shape))] = old
    return wider


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
