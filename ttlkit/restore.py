"""Inference: one image, whole or in tiles, and files or folders of them, with torch, ONNX Runtime or OpenVINO."""

from __future__ import annotations

import functools
import glob
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ttlkit import config, export, images, photos

if TYPE_CHECKING:  # torch takes seconds to import, and exported networks run without it
    from torch import nn

    from ttlkit.models import Derainer

RELEASED = Path(__file__).parent / "weights" / "student.safetensors"  # trained on real photographs; card beside it
WHOLE = 3_000_000  # pixels up to which an image is restored in one piece
TILE = 1024  # side of the tiles of a larger one
SMALLEST = 64  # side below which smaller tiles save no memory: what they overlap by is more
ENGINES = ("torch", "onnx", "openvino")
STRONGEST = 1.5  # twice the streaks taken away would be dark streaks
ADDED = "-derained"  # to the name of what was restored, where no other place is given


class RestoreError(ValueError):
    """An image cannot be restored as told; the message says why, and the way out."""


class TooLargeError(RestoreError):
    """Not even the smallest tile fits into the memory of the device."""


@dataclass(frozen=True)
class Engine:
    """What restores a piece of an image, whichever library computes it.

    `run`: rainy (H, W, 3), uint8, uint16 or float in [0, 1], to restored, float32, clipped. `radius`: how many pixels
    away an output pixel still sees, None where that is unknown, and the image must stay whole. `multiple`: tiles begin
    at multiples of it. `too_large`: what `run` raises when a piece does not fit into memory.
    """

    run: Callable[[np.ndarray], np.ndarray]
    radius: int | None = None
    multiple: int = 1
    too_large: tuple[type[Exception], ...] = ()


def torch_engine(model: nn.Module, precision: str = "no") -> Engine:
    """A network in torch, run where it is; `precision`: 'no' (float32), 'bf16' or 'fp16' autocast."""
    import torch

    from ttlkit.models import Derainer, UNet

    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)

    def run(piece: np.ndarray) -> np.ndarray:
        device = next(model.parameters()).device
        tensor = images.to_tensor(piece).to(device).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            return images.to_image(model(tensor))

    radius = UNet.radius if isinstance(model, Derainer) else None
    return Engine(run, radius, UNet.multiple, (torch.cuda.OutOfMemoryError,))


def load_engine(
    weights: Path | str = RELEASED, name: str | None = None, device: str | None = None, precision: str | None = None
) -> Engine:
    """A restorer's weights (.safetensors), or what `ttlkit export` made of them (.onnx, .xml), ready to run.

    `name`: one of ENGINES, by default what the file is for; ONNX Runtime and OpenVINO take .safetensors too, for a
    second more. `device`: 'cpu' or 'cuda', by default the best that torch finds; `precision` as in `torch_engine`, by
    default the best of the device. Raises RestoreError, WeightsError and ExportError.
    """
    path = Path(weights)
    own = export.SUFFIXES.get(path.suffix)
    name = name or own or "torch"
    config.check_name(name, ENGINES, "engine")
    if own and own != name:
        raise RestoreError(f"{path}: is for --engine {own}, not {name}")
    if name != "torch" and device not in (None, "cpu"):
        raise RestoreError(f"--engine {name} runs on the processor only: leave out --device {device}, or the engine")
    if name == "torch":
        import torch

        device = device or config.device()
        if device == "cuda" and not torch.cuda.is_available():
            raise RestoreError("--device cuda: torch finds no CUDA device here; use --device cpu")
        return torch_engine(load_restorer(path, device), precision or config.precision(device))
    session = export.load(path) if own else export.load(export.to_onnx(load_restorer(path)), name)

    def run(piece: np.ndarray) -> np.ndarray:
        values = images.to_float(piece) if piece.dtype.kind == "u" else piece.astype(np.float32, copy=False)
        return session.run(np.ascontiguousarray(values.transpose(2, 0, 1)[None]))[0].transpose(1, 2, 0)

    return Engine(run, session.facts["radius"], session.facts["multiple"])


def derain(
    image: np.ndarray | Path | str,
    *,
    weights: Path | str = RELEASED,
    engine: str | None = None,
    device: str | None = None,
    tile: int | None = None,
    strength: float = 1.0,
) -> np.ndarray:
    """Remove the rain from a photograph: `ttlkit.derain(image)`.

    `image`: (H, W, 3) RGB, uint8, uint16 or float in [0, 1], or the name of a file. Returns an array of the same
    shape and type; of a file, its upright pixels, uint8 or uint16. `weights`, `engine`, `device` as in `load_engine`,
    `tile` and `strength` as in `apply`. Weights are read once.
    """
    if isinstance(image, (str, Path)):
        image = photos.load_photo(image).pixels
    path = Path(weights).resolve()
    changed = path.stat().st_mtime_ns if path.exists() else 0
    return apply(_cached_engine(path, changed, engine, device), np.asarray(image), tile=tile, strength=strength)


@functools.lru_cache(maxsize=2)
def _cached_engine(path: Path, changed: int, name: str | None, device: str | None) -> Engine:
    return load_engine(path, name, device)


def restore(model: nn.Module, image: np.ndarray, *, precision: str = "no", tile: int | None = None) -> np.ndarray:
    """Remove the rain from an image (H, W, 3), float in [0, 1], uint8 or uint16; float32 of the same size, clipped.

    Runs where the model is. `precision`: 'no' (float32), 'bf16' or 'fp16' autocast; `tile` as in `apply`.
    """
    return _fill(torch_engine(model, precision), image, np.float32, tile, 1.0)


def apply(engine: Engine, image: np.ndarray, *, tile: int | None = None, strength: float = 1.0) -> np.ndarray:
    """Remove the rain from an image (H, W, 3), float in [0, 1], uint8 or uint16; the same shape and type come back.

    `tile`: side of the tiles in pixels; by default an image of over 3 megapixels is cut into tiles of 1024. They
    overlap by the network's reach, so their seams show what the whole image shows; where one does not fit into the
    memory of a GPU, all are halved. A network whose reach is unknown runs whole. `strength`, 0 to 1.5: the result is
    rainy + strength · (restored - rainy), clipped. Takes the memory of image, result and one tile.
    """
    if not 0 <= strength <= STRONGEST:
        raise RestoreError(f"strength = {strength} must be 0 to {STRONGEST}; 1 is what the network says")
    return _fill(engine, image, np.asarray(image).dtype, tile, strength)


def _fill(engine: Engine, image: np.ndarray, dtype, tile: int | None, strength: float) -> np.ndarray:
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise images.ImageError(f"an image (H, W, 3) is needed, got shape {image.shape}")
    if image.dtype.kind != "f" and image.dtype not in (np.uint8, np.uint16):
        raise images.ImageError(f"an image of uint8, uint16 or floats is needed, got {image.dtype}")
    if tile is not None and (tile < engine.multiple or tile % engine.multiple):
        raise RestoreError(f"tile = {tile} must be a positive multiple of {engine.multiple}")
    height, width = image.shape[:2]
    side = max(height, width)  # of the whole image
    if tile is None and height * width > WHOLE:
        tile = TILE
    if tile is None or engine.radius is None:
        tile = side
    out = np.empty(image.shape, dtype)
    while True:
        try:
            _fill_tiles(engine, image, out, tile, strength)
            return out
        except engine.too_large as error:
            smaller = min(tile, side) // 2 // engine.multiple * engine.multiple
            if engine.radius is None or smaller < SMALLEST:
                raise TooLargeError(
                    f"a piece of {min(tile, side)} pixels does not fit into the memory of the device "
                    f"({str(error).splitlines()[0]:.80}); use --device cpu"
                ) from None
        tile = smaller  # out of the handler, which keeps the tensors of the failed attempt alive


def _fill_tiles(engine: Engine, image: np.ndarray, out: np.ndarray, tile: int, strength: float) -> None:
    halo = -(-(engine.radius or 0) // engine.multiple) * engine.multiple
    for top in range(0, len(image), tile):
        for left in range(0, image.shape[1], tile):
            y, x = max(0, top - halo), max(0, left - halo)
            piece = engine.run(image[y : top + tile + halo, x : left + tile + halo])
            restored = piece[top - y : top - y + tile, left - x : left - x + tile]
            here = np.s_[top : top + tile, left : left + tile]
            if strength != 1:
                rainy = images.to_float(image[here]) if image.dtype.kind == "u" else image[here]
                restored = np.clip(rainy + strength * (restored - rainy), 0, 1)
            out[here] = np.round(restored * np.iinfo(out.dtype).max) if out.dtype.kind == "u" else restored


def load_restorer(path: Path | str, device: str = "cpu") -> Derainer:
    """A restorer's weights, ready to run on `device`."""
    import torch

    from ttlkit.models import Derainer, WeightsError, load_weights

    model = load_weights(path)
    if not isinstance(model, Derainer):
        raise WeightsError(f"{path}: holds a {type(model).__name__}, which does not restore images")
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def find_peers(folders: Sequence[str]) -> list[Path]:
    """Weights to compare with in folders: PReNet's (*.pth) and ours (*.safetensors); WeightsError where none are."""
    from ttlkit.models import WeightsError

    found = []
    for folder in folders:
        paths = sorted(p for p in Path(folder).expanduser().glob("*") if p.suffix in (".pth", ".safetensors"))
        if not paths:
            raise WeightsError(f"{folder}: no *.pth or *.safetensors in it; give folders with released weights")
        found += paths
    return found


def load_peer(path: Path, device: str = "cpu") -> nn.Module:
    """Released weights, PReNet's (.pth) or ours (.safetensors), ready to run on `device`."""
    from ttlkit.models import load_prenet

    return load_prenet(path).to(device) if path.suffix == ".pth" else load_restorer(path, device)


def student_of(run_folder: Path) -> Path:
    """The fine-tuned student of a run; WeightsError says how to make one."""
    from ttlkit.models import WeightsError

    stage = run_folder / "04_fine_tuning-student"
    if not (stage / "DONE.json").is_file():
        raise WeightsError(
            f"{run_folder}: no fine-tuned student yet; run `ttlkit reproduce --run {run_folder.name}` first"
        )
    return stage / "restorer.safetensors"


def plan_files(source: Path | str | Sequence[Path | str], target: Path | None = None) -> list[tuple[Path, Path]]:
    """(file to read, file to write) for an image, a folder of them, a pattern such as 'in/*.jpg', or several of these.

    Names stay the same. `target` is a folder, or a file for a single image; without it a folder IN goes to
    IN-derained, a file to NAME-derained beside it. Of patterns and of several, files so named are left out: they are
    results. Raises ImageError when there is nothing to read, or two would become one.
    """
    sources = [source] if isinstance(source, (Path, str)) else list(source)
    plan: list[tuple[Path, Path]] = []
    for given in map(Path, sources):
        if given.is_dir():
            found = images.list_images(given)
            if not found:
                raise images.ImageError(f"{images.shown(given)}: no images in this folder")
            named = given if given.name not in ("", "..") else given.resolve()
            folder = target or named.with_name(named.name + ADDED)
            plan += [(path, folder / path.name) for path in found]
            continue
        found = [given] if given.exists() else [Path(name) for name in sorted(glob.glob(str(given), recursive=True))]
        if not given.exists():
            found = [path for path in found if path.suffix.lower() in images.SUFFIXES and path.is_file()]
        if len(sources) > 1 or not given.exists():
            found = [path for path in found if not path.stem.endswith(ADDED)]
        if not found and not given.exists():
            raise images.ImageError(f"{images.shown(given)}: no such file or folder")
        as_file = target is not None and target.suffix.lower() in images.SUFFIXES and not target.is_dir()
        for path in found:
            suffix = path.suffix if path.suffix.lower() in images.SUFFIXES else ".png"
            if target is None:
                plan.append((path, path.with_name(path.stem + ADDED + suffix)))
            else:
                plan.append((path, target if as_file else target / (path.stem + suffix)))
    if not plan:
        raise images.ImageError(f"{images.shown(sources[0])}: nothing but results (*{ADDED}.*) to read")
    written: dict[Path, Path] = {}
    for path, becomes in plan:
        other = written.setdefault(becomes, path)
        if other != path:
            raise images.ImageError(f"{path} and {other} would both become {becomes}; restore them one by one")
    return list(dict.fromkeys(plan))


def restore_files(
    engine: Engine, files: list[tuple[Path, Path]], *, tile: int | None = None, strength: float = 1.0
) -> Iterator[tuple[Path, Path, str]]:
    """Restore file after file; yields (source, target, problem), problem '' when the target was written.

    Name, bit depth, alpha, EXIF and colour profile stay, as far as the format of the target has them.
    """
    for source, target in files:
        problem = ""
        try:
            if source.resolve() == target.resolve():
                raise images.ImageError(f"{source}: would overwrite the input; choose another OUT")
            photo = photos.load_photo(source)
            photos.save_photo(target, photo.with_pixels(apply(engine, photo.pixels, tile=tile, strength=strength)))
        except (images.ImageError, OSError) as error:
            problem = str(error)
        except TooLargeError as error:
            problem = f"{images.shown(source)}: {error}"
        except MemoryError:
            problem = f"{images.shown(source)}: too large for this machine's memory; scale it down first"
        yield source, target, problem
