"""Photographs in files: which are read, where the results go, and restoring one after the other."""

import glob
import math
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ttlkit.apply.restore import Engine, TooLargeError, apply
from ttlkit.data import photos
from ttlkit.data.image_files import SUFFIXES, ImageError, list_images, load_image_u8
from ttlkit.files import shown
from ttlkit.words import SettingsError

ADDED = "-derained"  # to the name of what was restored, where no other place is given
SHEET = re.compile(rf"compare-\d+{ADDED}\.jpg")  # what a sheet with before and after is called
# Formats of images that cannot be written; a folder may have any other dot in its name.
NOT_WRITTEN = {".gif", ".heic", ".heif", ".avif", ".jxl", ".jp2", ".jfif", ".ico", ".svg", ".pdf", ".psd", ".dng",
               ".raw", ".cr2", ".nef", ".arw", ".ppm"}  # fmt: skip


def plan_paths(
    paths: Sequence[str], out: Path | None = None, overwrite: bool = False
) -> tuple[list[tuple[Path, Path]], Path | None]:
    """The plan for IN... [OUT] as typed, and OUT where that is the last of several paths.

    What exists is OUT only if `out` says so, or `derain *.jpg` and `derain */` would replace photographs; but a folder
    that holds nothing else than this command writes is what a killed one left. SettingsError asks.
    """
    last = Path(paths[-1])
    if out or len(paths) == 1:
        return plan_files(paths, out), None
    if last.is_file() and len(paths) == 2 and not Path(paths[0]).is_dir():
        ways = "`IN --out OUT --overwrite` replaces it, --out FOLDER restores both"
        raise SettingsError(f"{shown(last)}: exists. Is it OUT? {ways}")
    if last.is_file() or glob.has_magic(paths[-1]):
        return plan_files(paths), None
    plan = plan_files(paths[:-1], last)
    written = {becomes.name for _, becomes in plan}
    others = [path for path in list_images(last) if path.name not in written and not SHEET.fullmatch(path.name)]
    if others or (overwrite and any(os.path.lexists(becomes) for _, becomes in plan)):
        ways = "`IN --out OUT` writes there (with --overwrite it replaces), --out FOLDER restores all of them"
        raise SettingsError(f"{shown(last)}: holds images. Is it OUT? {ways}")
    return plan, last


def plan_files(source: Path | str | Sequence[Path | str], target: Path | None = None) -> list[tuple[Path, Path]]:
    """(file to read, file to write) for an image, a folder of them, a pattern such as 'in/*.jpg', or several of these.

    Names stay the same. `target` is a folder, or a file for a single image; without it a folder IN goes to
    IN-derained, a file to NAME-derained beside it. Of patterns and of several, files so named are left out: they are
    results; of folders, sheets. Raises ImageError when there is nothing to read, OUT is of a format that cannot be
    written, two would become one, or one would replace another.
    """
    sources = [source] if isinstance(source, (Path, str)) else list(source)
    if target and target.suffix.lower() in NOT_WRITTEN and not target.is_dir():
        raise ImageError(f"{shown(target)}: cannot be written in that format; use one of {', '.join(SUFFIXES)}")
    plan: list[tuple[Path, Path]] = []
    for given in map(Path, sources):
        if given.is_dir():
            found = [path for path in list_images(given) if not SHEET.fullmatch(path.name)]
            named, missing = given.resolve() if given.name in ("", "..") else given, "no images in this folder"
            folder = target or named.parent / (named.name + ADDED)
            plan += [(path, folder / path.name) for path in found]
        else:
            names, missing = map(Path, sorted(glob.glob(str(given), recursive=True))), "no such file or folder"
            images = [path for path in names if path.suffix.lower() in SUFFIXES and path.is_file()]
            found = [given] if given.exists() else images
            alone = len(sources) == 1 and given.exists()
            plan += [(path, _becomes(path, target)) for path in found if alone or not path.stem.endswith(ADDED)]
        if not found:
            raise ImageError(f"{shown(given)}: {missing}")
    if not plan:
        raise ImageError(f"{shown(sources[0])}: nothing but results (*{ADDED}.*) to read")
    read = {path.resolve() for path, _ in plan}
    written: dict[Path, Path] = {}
    for path, becomes in plan:
        place = becomes.resolve()
        if written.setdefault(place, path) != path:
            raise ImageError(f"{path} and {written[place]} would both become {becomes}; restore them one by one")
        if place in read - {path.resolve()}:
            raise ImageError(f"{becomes}: is to be read too, and would be replaced by {path}; choose another OUT")
    return list(dict.fromkeys(plan))


def _becomes(path: Path, target: Path | None) -> Path:
    """Where the restored image goes; a format that cannot be written becomes PNG."""
    suffix = path.suffix if path.suffix.lower() in SUFFIXES else ".png"
    if target is None:
        return path.with_name(path.stem + ADDED + suffix)
    as_file = target.suffix.lower() in SUFFIXES and not target.is_dir()
    return target if as_file else target / (path.stem + suffix)


class Done(NamedTuple):
    """What became of a file: `problem`, '' when `target` was written; `left_out`, what of the source is not in it."""

    source: Path
    target: Path
    problem: str = ""
    left_out: str = ""


def restore_files(
    engine: Engine, plan: Sequence[tuple[Path, Path]], *, tile: int | None = None, strength: float = 1.0
) -> Iterator[Done]:
    """Restore file after file of a `plan`; what goes wrong with one is said in one line and stops none of the others.

    Name, bit depth, alpha, EXIF and colour profile stay, as far as the format of the target has them. Raises
    SettingsError for `tile` and `strength`.
    """
    for source, target in plan:
        try:
            left_out = _restore_file(engine, source, target, tile, strength)
        except SettingsError:
            raise
        except Exception as error:  # noqa: BLE001 - the next file may be better
            words = " ".join(str(error).split()) or type(error).__name__
            if isinstance(error, MemoryError):
                words = "too large for this machine's memory; scale it down first"
            named = isinstance(error, ImageError) and not isinstance(error, TooLargeError)
            yield Done(source, target, words if named else f"{shown(source)}: {words}")
        else:
            yield Done(source, target, "", left_out)


def _restore_file(engine: Engine, source: Path, target: Path, tile: int | None, strength: float) -> str:
    """Restore a file; returns what of it is not in the result."""
    if os.path.exists(target) and os.path.exists(source) and source.samefile(target):
        raise ImageError(f"{shown(source)}: would overwrite the input; choose another OUT")
    photo = photos.load_photo(source)
    restored = apply(engine, photo.pixels, tile=tile, strength=strength)
    photos.save_photo(target, photo.with_pixels(restored))
    kept = 8 * restored.itemsize
    fewer = f"all but {kept} of {photo.bits} bits" if photo.bits > kept else ""
    return ", ".join(filter(None, (photo.left_out, fewer)))


def contact_sheet(files: Sequence[tuple[Path, Path]], side: int = 300, columns: int = 4) -> np.ndarray:
    """Pictures before and after, side by side in boxes of `side` pixels, `columns` pairs a row: uint8 (H, W, 3)."""
    gap, rows = 8, math.ceil(len(files) / columns)
    columns = min(columns, len(files))
    sheet = Image.new("RGB", (columns * (2 * side + gap), rows * (side + gap)), "white")
    for number, pair in enumerate(files):
        top, left = number // columns * (side + gap), number % columns * (2 * side + gap)
        for place, path in enumerate(pair):
            picture = Image.fromarray(load_image_u8(path))
            picture.thumbnail((side - 2, side), Image.Resampling.LANCZOS)
            sheet.paste(picture, (left + place * side, top))
    return np.asarray(sheet)
