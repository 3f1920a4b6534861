"""Read, write and convert images: arrays (H, W, 3), RGB, float32 in [0, 1] unless `_u8` says uint8."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


class ImageError(ValueError):
    """An image cannot be used; the message names the file and the way out."""


def list_images(folder: str | Path) -> list[Path]:
    """Image files directly in `folder`, sorted by name; empty where the folder does not exist."""
    folder = Path(folder)
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


def load_image_u8(path: str | Path) -> np.ndarray:
    """Read any image file as uint8 (H, W, 3) RGB.

    EXIF orientation is applied, alpha laid over white, grey expanded, 16 bits scaled to 8, CMYK converted.
    Raises ImageError, which names the file, when it is missing, truncated, too large or not an image.
    """
    path = Path(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                return _to_rgb_u8(ImageOps.exif_transpose(file))
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise ImageError(f"{path}: is a folder, not an image") from None
    except UnidentifiedImageError:
        raise ImageError(f"{path}: not an image that Pillow can read; remove or convert it") from None
    except Image.DecompressionBombError as error:  # Pillow's limit, 179 million pixels, read from the header
        raise ImageError(f"{path}: too large ({error}); scale it down first") from None
    except (OSError, SyntaxError, ValueError, TypeError) as error:  # TypeError: from a broken TIFF
        raise ImageError(f"{path}: unreadable ({error}); remove it or fetch it again") from None


def _to_rgb_u8(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):  # Pillow would clip these at 255
        values = np.asarray(image).astype(np.float64)
        top = 65535.0 if image.mode != "F" else max(1.0, float(values.max()))
        grey = np.round(np.clip(values / top, 0, 1) * 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))  # a copy: Pillow's own buffer is read-only


def load_image(path: str | Path) -> np.ndarray:
    """Read any image file as float32 (H, W, 3) in [0, 1]; errors as `load_image_u8`."""
    return to_float(load_image_u8(path))


def save_image(path: str | Path, image: np.ndarray) -> None:
    """Write an image (H, W, 3), float in [0, 1] or uint8, in its suffix's format; whole or not at all."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ImageError(f"{path}: unknown image format '{path.suffix}'; use one of {', '.join(SUFFIXES)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    options: dict[str, Any] = {"quality": 95, "subsampling": 0} if path.suffix.lower() in (".jpg", ".jpeg") else {}
    try:
        Image.fromarray(to_u8(image)).save(partial, **options)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def to_u8(image: np.ndarray) -> np.ndarray:
    """Float in [0, 1] to uint8, clipped and rounded (truncation would cost 0.5 level); uint8 as it is."""
    if image.dtype == np.uint8:
        return image
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


def to_float(image_u8: np.ndarray) -> np.ndarray:
    """uint8 to float32 in [0, 1]."""
    return image_u8.astype(np.float32) / 255


def to_tensor(image: np.ndarray):
    """Image (H, W, 3), float or uint8, to a float32 tensor (1, 3, H, W) in [0, 1]."""
    import torch

    image = to_float(image) if image.dtype == np.uint8 else image.astype(np.float32, copy=False)
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]


def to_image(tensor) -> np.ndarray:
    """Tensor (1, 3, H, W) or (3, H, W) to float32 (H, W, 3), clipped to [0, 1]."""
    tensor = tensor[0] if tensor.ndim == 4 else tensor
    return np.ascontiguousarray(tensor.detach().float().clamp(0, 1).cpu().numpy().transpose(1, 2, 0))


def to_grey(image: np.ndarray) -> np.ndarray:
    """Luma (H, W), float32: 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601, full range)."""
    return image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Antialiased bicubic resize of float (H, W, 3) to (height, width, 3), float32 in [0, 1]."""
    picture = Image.fromarray(to_u8(image)).resize((width, height), Image.Resampling.BICUBIC)
    return to_float(np.asarray(picture))


def recompress(image: np.ndarray, quality: int) -> np.ndarray:
    """Pass an image through JPEG in memory; quality 1 to 95; float32 (H, W, 3)."""
    buffer = io.BytesIO()
    Image.fromarray(to_u8(image)).save(buffer, "JPEG", quality=quality)
    return to_float(np.asarray(Image.open(buffer)))
