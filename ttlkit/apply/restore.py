"""Inference: one image, whole or in tiles, with torch, ONNX Runtime or OpenVINO."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ttlkit import machine
from ttlkit.apply import export
from ttlkit.apply.export import Engine
from ttlkit.data import image_files, photos
from ttlkit.words import SettingsError, check_name

if TYPE_CHECKING:  # torch takes seconds to import, and exported networks run without it
    from torch import nn

    from ttlkit.method.networks import Derainer

RELEASED = machine.WEIGHTS / "student.safetensors"  # trained on real photographs; card beside it
LARGE = RELEASED.with_name("student-large.safetensors")  # the same, wider: better and slower, see the card
WHOLE = 3_000_000  # pixels up to which an image is restored in one piece
TILE = 1024  # side of the tiles of a larger one
SMALLEST = 64  # side below which smaller tiles save no memory: what they overlap by is more
# What torch, ONNX Runtime and OpenVINO say, in errors of no kind of their own, where a processor's memory is full.
NO_MEMORY = re.compile("can't alloc|failed to allocate|bad[ _]alloc|could not create a primitive", re.IGNORECASE)
ENGINES = ("torch", *export.SUFFIXES.values())
Progress = Callable[[float], None]
STRONGEST = 1.5  # twice the streaks taken away would be dark streaks


class TooLargeError(image_files.ImageError):
    """Not even the smallest tile fits into memory."""


def derain(
    image: np.ndarray | Path | str,
    *,
    weights: Path | str = RELEASED,
    engine: str | None = None,
    device: str | None = None,
    tile: int | None = None,
    strength: float = 1.0,
    progress: Progress | None = None,
) -> np.ndarray:
    """Remove the rain from a photograph: `ttlkit.derain(image)`.

    `image`: (H, W, 3) RGB, uint8, uint16 or float in [0, 1], or the name of a file. Returns an array of the same
    shape and type; of a file, its upright pixels, uint8 or uint16. `weights` (say "student-large"), `engine` and
    `device` as in `load_engine`, `tile`, `strength` and `progress` as in `apply`. Weights are read once.
    """
    if isinstance(image, (str, Path)):
        image = photos.load_photo(image).pixels
    path = find_weights(weights).resolve()
    changed = path.stat().st_mtime_ns if path.exists() else 0
    engine_of = _cached_engine(path, changed, engine, device)
    return apply(engine_of, np.asarray(image), tile=tile, strength=strength, progress=progress)


@functools.lru_cache(maxsize=2)
def _cached_engine(path: Path, changed: int, name: str | None, device: str | None) -> Engine:
    return load_engine(path, name, device)


def restore(model: nn.Module, image: np.ndarray, *, precision: str = "no", tile: int | None = None) -> np.ndarray:
    """Remove the rain from an image (H, W, 3), float in [0, 1], uint8 or uint16; float32 of the same size, clipped.

    Runs where the model is. `precision`: 'no' (float32), 'bf16' or 'fp16' autocast; `tile` as in `apply`.
    """
    return apply(torch_engine(model, precision), image, tile=tile, dtype=np.float32)


def apply(
    engine: Engine,
    image: np.ndarray,
    *,
    tile: int | None = None,
    strength: float = 1.0,
    dtype=None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Remove the rain from an image (H, W, 3), float in [0, 1], uint8 or uint16; the same shape and type come back.

    `tile`: side of the tiles in pixels; by default an image of over 3 megapixels is cut into tiles of 1024. They
    overlap by the network's reach, so their seams show what the whole image shows; where one does not fit into the
    memory, all are halved. A network whose reach is unknown runs whole. `strength`, 0 to 1.5: the result is
    rainy + strength · (restored - rainy), clipped. `dtype`: of the result, where it is another one. `progress` hears
    after each tile which share is done, 1 at the end. Takes the memory of image, result and one tile.
    """
    if not 0 <= strength <= STRONGEST:
        raise SettingsError(f"strength = {strength} must be 0 to {STRONGEST}; 1 is what the network says")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise image_files.ImageError(f"an image (H, W, 3) is needed, got shape {image.shape}")
    if image.dtype.kind != "f" and image.dtype not in (np.uint8, np.uint16):
        raise image_files.ImageError(f"an image of uint8, uint16 or floats is needed, got {image.dtype}")
    if tile is not None and (tile < engine.multiple or tile % engine.multiple):
        raise SettingsError(f"tile = {tile} must be a positive multiple of {engine.multiple}")
    side, pixels = max(image.shape[:2]), image[..., 0].size
    whole = engine.radius is None or (tile is None and pixels <= WHOLE)
    tile = side if whole else min(tile or TILE, side)
    out = np.empty(image.shape, dtype or image.dtype)
    while True:
        try:
            _fill_tiles(engine, image, out, tile, strength, progress or (lambda share: None))
            return out
        except Exception as error:
            if not (isinstance(error, (MemoryError, *engine.too_large)) or NO_MEMORY.search(str(error))):
                raise
            smaller = tile // 2 // engine.multiple * engine.multiple
            if engine.radius is None or smaller < SMALLEST:
                problem, way = (
                    f"a piece of {tile} pixels does not fit into memory",
                    "end other programs, or scale it down",
                )
                way = "use --device cpu" if isinstance(error, engine.too_large) else way
                raise TooLargeError(f"{problem} ({' '.join(str(error).split())[:80]}); {way}") from None
        tile = smaller  # out of the handler, which keeps the tensors of the failed attempt alive


def _fill_tiles(
    engine: Engine, image: np.ndarray, out: np.ndarray, tile: int, strength: float, progress: Progress
) -> None:
    halo = -(-(engine.radius or 0) // engine.multiple) * engine.multiple
    for top in range(0, len(image), tile):
        for left in range(0, image.shape[1], tile):
            y, x = max(0, top - halo), max(0, left - halo)
            rainy = image[y : top + tile + halo, x : left + tile + halo]
            rainy = image_files.to_float(rainy) if image.dtype.kind == "u" else rainy
            planes = np.ascontiguousarray(rainy.transpose(2, 0, 1)[None], np.float32)
            inner = np.s_[top - y : top - y + tile, left - x : left - x + tile]
            rainy, restored = rainy[inner], engine.run(planes)[0].transpose(1, 2, 0)[inner]
            if strength != 1:
                restored = np.clip(rainy + strength * (restored - rainy), 0, 1)
            here = out[top : top + tile, left : left + tile]
            here[...] = np.round(restored * np.iinfo(out.dtype).max) if out.dtype.kind == "u" else restored
            width, below = out.shape[1], min(top + tile, len(out)) - top
            progress((top * width + below * min(left + tile, width)) / out[..., 0].size)


def load_engine(
    weights: Path | str = RELEASED, name: str | None = None, device: str | None = None, precision: str | None = None
) -> Engine:
    """A restorer's weights (.safetensors), or what `ttlkit export` made of them (.onnx, .xml), ready to run.

    `weights`: a file, or a name as in `find_weights`. `name`: one of ENGINES, by default what the file is for; ONNX
    Runtime and OpenVINO take .safetensors too, for a second more. `device`: 'cpu' or 'cuda', by default the best that
    torch finds; `precision` as in `torch_engine`, by default the best of the device. Raises SettingsError,
    WeightsError and ExportError.
    """
    path = find_weights(weights)
    own = export.SUFFIXES.get(path.suffix)
    name = name or own or "torch"
    check_name(name, ENGINES, "engine")
    if own and own != name:
        raise SettingsError(f"{path}: is for --engine {own}, not {name}")
    if name != "torch" and device not in (None, "cpu"):
        raise SettingsError(f"--engine {name} runs on the processor only: leave out --device {device}, or the engine")
    if name != "torch":
        return export.load(path if own else export.to_onnx(load_restorer(path)), name)
    import torch

    device = device or machine.device()
    if device == "cuda" and not torch.cuda.is_available():
        raise SettingsError("--device cuda: torch finds no CUDA device here; use --device cpu")
    return torch_engine(load_restorer(path, device), precision or machine.precision(device))


def torch_engine(model: nn.Module, precision: str = "no") -> Engine:
    """A network in torch, run where it is; `precision`: 'no' (float32), 'bf16' or 'fp16' autocast."""
    import torch

    from ttlkit.method.networks import Derainer, UNet

    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)

    def run(rainy: np.ndarray) -> np.ndarray:
        device = next(model.parameters()).device
        tensor = torch.from_numpy(rainy).to(device).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            return model(tensor).float().clamp(0, 1).cpu().numpy()

    radius = UNet.radius if isinstance(model, Derainer) else getattr(model, "radius", None)
    return Engine(run, radius, UNet.multiple, (torch.cuda.OutOfMemoryError,))


def load_restorer(path: Path | str, device: str = "cpu") -> Derainer:
    """A restorer's weights, `prepared` to run on `device`; WeightsError where they restore nothing."""
    from ttlkit.apply.prepare import prepared
    from ttlkit.method.networks import Derainer
    from ttlkit.method.weights import WeightsError, load_weights

    model = load_weights(path)
    if not isinstance(model, Derainer):
        raise WeightsError(f"{path}: holds a {type(model).__name__}, which does not restore images")
    return prepared(model).to(device)


def find_weights(name: Path | str) -> Path:
    """The file of that name; where there is none, the released weights called so: 'student' or 'student-large'."""
    path = Path(name)
    known = {file.stem: file for file in (RELEASED, LARGE)}
    return path if path.is_file() else known.get(str(name), path)


def student_of(run_folder: Path) -> Path:
    """The fine-tuned student of a run; WeightsError says how to make one."""
    from ttlkit.method.weights import WeightsError

    stage = run_folder / "04_fine_tuning-student"
    if not (stage / "DONE.json").is_file():
        way = f"make it: ttlkit reproduce --run {run_folder.name}"
        raise WeightsError(f"{run_folder}: no fine-tuned student yet; {way}")
    return stage / "restorer.safetensors"
