"""Inference: one image, whole or in tiles, and files or folders of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ttlkit import images
from ttlkit.models import Derainer, UNet, WeightsError, load_prenet, load_weights, rounded_up

RELEASED = Path(__file__).parent / "weights" / "student.safetensors"  # trained on real photographs; card beside it
WHOLE = 3_000_000  # pixels up to which an image is restored in one piece


def restore(model: nn.Module, image: np.ndarray, *, precision: str = "no", tile: int | None = None) -> np.ndarray:
    """Remove the rain from an image (H, W, 3), float in [0, 1] or uint8; float32 of the same size, clipped.

    Runs where the model is. `precision`: 'no' (float32), 'bf16' or 'fp16' autocast. `tile`: side of the tiles in
    pixels; by default an image of over 3 megapixels is cut into tiles of 1024. Tiles overlap by the network's
    reach, so their seams show what the whole image shows; other networks than ttlkit's own run whole.
    """
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise images.ImageError(f"an image (H, W, 3) is needed, got shape {image.shape}")
    height, width = image.shape[:2]
    if tile is None and height * width > WHOLE and isinstance(model, Derainer):
        tile = 1024
    if tile is None:
        return _run(model, image, precision)
    if tile < UNet.multiple or tile % UNet.multiple:
        raise ValueError(f"tile = {tile} must be a positive multiple of {UNet.multiple}")
    restored = np.empty((height, width, 3), np.float32)
    halo = rounded_up(UNet.radius)
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            y, x = max(0, top - halo), max(0, left - halo)
            piece = _run(model, image[y : top + tile + halo, x : left + tile + halo], precision)
            restored[top : top + tile, left : left + tile] = piece[top - y : top - y + tile, left - x : left - x + tile]
    return restored


def _run(model: nn.Module, image: np.ndarray, precision: str) -> np.ndarray:
    device = next(model.parameters()).device
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    tensor = images.to_tensor(image).to(device).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        return images.to_image(model(tensor))


def load_restorer(path: Path | str, device: str = "cpu") -> Derainer:
    """A restorer's weights, ready to run on `device`."""
    model = load_weights(path)
    if not isinstance(model, Derainer):
        raise WeightsError(f"{path}: holds a {type(model).__name__}, which does not restore images")
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


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


def student_of(run_folder: Path) -> Path:
    """The fine-tuned student of a run; WeightsError says how to make one."""
    stage = run_folder / "04_fine_tuning-student"
    if not (stage / "DONE.json").is_file():
        raise WeightsError(
            f"{run_folder}: no fine-tuned student yet; run `ttlkit reproduce --run {run_folder.name}` first"
        )
    return stage / "restorer.safetensors"


def plan_files(source: Path, target: Path) -> list[tuple[Path, Path]]:
    """(file to read, file to write) for an image or a folder of them; names stay the same."""
    if source.is_dir():
        found = images.list_images(source)
        if not found:
            raise images.ImageError(f"{source}: no images in this folder")
        return [(path, target / path.name) for path in found]
    if not source.exists():
        raise images.ImageError(f"{source}: no such file or folder")
    as_file = target.suffix.lower() in images.SUFFIXES and not target.is_dir()
    return [(source, target if as_file else target / source.name)]


def restore_files(
    model: nn.Module, files: list[tuple[Path, Path]], precision: str = "no"
) -> Iterator[tuple[Path, Path, str]]:
    """Restore file after file; yields (source, target, problem), problem '' when the target was written."""
    for source, target in files:
        problem = ""
        try:
            if source.resolve() == target.resolve():
                raise images.ImageError(f"{source}: would overwrite the input; choose another OUT")
            images.save_image(target, restore(model, images.load_image_u8(source), precision=precision))
        except (images.ImageError, OSError) as error:
            problem = str(error)
        yield source, target, problem
