"""Photographs in files: which are read, where the results go, and restoring one after the other."""

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

from ttlkit.apply.restore import Engine, TooLargeError, apply
from ttlkit.data import photos
from ttlkit.data.image_files import SUFFIXES, ImageError, list_images
from ttlkit.files import shown

ADDED = "-derained"  # to the name of what was restored, where no other place is given


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
            found, missing = list_images(given), "no images in this folder"
            named = given.resolve() if given.name in ("", "..") else given
            folder = target or named.with_name(named.name + ADDED)
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
    written: dict[Path, Path] = {}
    for path, becomes in plan:
        if written.setdefault(becomes, path) != path:
            raise ImageError(f"{path} and {written[becomes]} would both become {becomes}; restore them one by one")
    return list(dict.fromkeys(plan))


def _becomes(path: Path, target: Path | None) -> Path:
    """Where the restored image goes; a format that cannot be written becomes PNG."""
    suffix = path.suffix if path.suffix.lower() in SUFFIXES else ".png"
    if target is None:
        return path.with_name(path.stem + ADDED + suffix)
    as_file = target.suffix.lower() in SUFFIXES and not target.is_dir()
    return target if as_file else target / (path.stem + suffix)


def restore_files(
    engine: Engine, plan: Sequence[tuple[Path, Path]], *, tile: int | None = None, strength: float = 1.0
) -> Iterator[tuple[Path, Path, str]]:
    """Restore file after file of a `plan`; yields (source, target, problem), problem '' when the target was written.

    Name, bit depth, alpha, EXIF and colour profile stay, as far as the format of the target has them.
    """
    for source, target in plan:
        problem = ""
        try:
            if source.resolve() == target.resolve():
                raise ImageError(f"{shown(source)}: would overwrite the input; choose another OUT")
            photo = photos.load_photo(source)
            photos.save_photo(target, photo.with_pixels(apply(engine, photo.pixels, tile=tile, strength=strength)))
        except (ImageError, OSError) as error:
            problem = f"{shown(source)}: {error}" if isinstance(error, TooLargeError) else str(error)
        except MemoryError:
            problem = f"{shown(source)}: too large for this machine's memory; scale it down first"
        yield source, target, problem
