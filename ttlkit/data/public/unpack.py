"""Take the files of a data set out of archives and folders, one by one and checked, into a staging folder."""

import fnmatch
import hashlib
import io
import re
import stat
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, Self

import numpy as np

from ttlkit import files
from ttlkit.data import image_files
from ttlkit.data.public.catalogue import DataSet, is_target
from ttlkit.data.public.download import FetchError

SUFFIXES = {"weights": (".pth", ".pt", ".safetensors")}  # of the other kinds: those of images
MOST_FILES = 300_000  # in one archive
MOST_BYTES = 1 << 30  # in one file
RATIO = 200  # unpacked to packed; pictures and weights hardly shrink at all
UNSAFE = re.compile(r"^/|^[A-Za-z]:|\\|(^|/)\.\.(/|$)|[\0-\x1f]|^.{1000}")
PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype )?html", re.IGNORECASE)


def unpack(dataset: DataSet, source: Path, staging: Path) -> dict[str, str]:
    """Write what belongs to `dataset` below `staging`: path in a collection -> sha256 of the source's file.

    The source is an archive (zip, tar and its .gz, .bz2, .xz), a loose file, or a folder of both. Nothing is extracted
    by the name it has in an archive. Raises FetchError; OSError means that the disk does not take it.
    """
    files.remove(staging)
    origins: dict[str, str] = {}
    taken: dict[str, str] = {}  # path as `_key` has it -> name in the source
    many: dict[str, tuple[str, str, bytes]] = {}  # path with a * -> the picture for all that have no partner
    left, seen = dataset.limit_gib * 2**30, list[str]()

    def place(to: str, name: str, origin: str) -> Path:
        if not is_target(to, dataset.kind) or not to.lower().endswith(SUFFIXES.get(dataset.kind, image_files.SUFFIXES)):
            raise FetchError(f"{name!a} would become {to!a}, which is no file of a collection")
        if _key(to) in taken:
            raise FetchError(f"{name!a} and {taken[_key(to)]!a} would both become {to}")
        taken[_key(to)], origins[to] = name, origin
        (staging / to).parent.mkdir(parents=True, exist_ok=True)
        return staging / to

    paths = filter(Path.is_file, sorted(source.rglob("*")) if source.is_dir() else [source])
    whole = (path for path in paths if path.suffix not in (".part", ".version"))  # not what a cut download leaves
    for name, data, image in chain.from_iterable(_wanted(dataset, path, source.parent, seen) for path in whole):
        left -= len(data)
        if left < 0:
            raise FetchError(f"too large: more than limit_gib = {dataset.limit_gib:g} unpacked")
        origin = hashlib.sha256(data).hexdigest()
        for to, side, sides in dataset.targets(name):
            if "*" in to:
                many[to] = name, origin, data
            elif sides == 1:
                place(to, name, origin).write_bytes(data)
            elif image.shape[1] % sides:
                raise FetchError(f"{name!a} is {image.shape[1]} pixels wide: not {sides} pictures side by side")
            else:
                path = place(str(PurePosixPath(to).with_suffix(".png")), name, origin)
                image_files.save_image(path, np.hsplit(image, sides)[side])
    for to, (name, origin, data) in many.items():
        clean = PurePosixPath(to)
        for rainy in fnmatch.filter(origins, str(clean.parent.with_name("rainy") / clean.name)):
            partner = str(clean.with_name(PurePosixPath(rainy).stem + clean.suffix))
            if _key(partner) not in taken:
                place(partner, name, origin).write_bytes(data)
    if not origins:
        example = f", for instance {', '.join(map(ascii, seen[:3]))}" if seen else ""
        raise FetchError(f"nothing in it looks like {dataset.title}{example}")
    _check_whole(dataset, [PurePosixPath(path) for path in origins])
    return origins


def _key(path: str) -> str:
    """Equal for two files that some disk, or some pairing by name, would take for one."""
    return unicodedata.normalize("NFC", str(PurePosixPath(path).with_suffix("")).casefold())


def _check_whole(dataset: DataSet, places: list[PurePosixPath]) -> None:
    """Raise FetchError unless every picture of a pair has its partner, and all that sources count are there."""
    count = len(places)
    if dataset.kind in ("synthetic", "test", "val"):
        rainy = {place.parent.with_name(place.stem) for place in places if place.parent.name == "rainy"}
        truth = {place.parent.with_name(place.stem) for place in places if place.parent.name in ("clean", "mask")}
        paired = {scene.parent for scene in truth}  # a test set may have rainy pictures alone
        lonely = sorted(scene for scene in rainy ^ truth if dataset.kind == "synthetic" or scene.parent in paired)
        if lonely:
            raise FetchError(f"{len(lonely)} pictures have no partner (first: {lonely[0]})")
        count = len(rainy)
    if dataset.count not in (None, count):
        raise FetchError(f"{count} found, but {dataset.title} has {dataset.count}")


def _wanted(dataset: DataSet, path: Path, folder: Path, seen: list[str]) -> Iterator[tuple[str, bytes, Any]]:
    """(path in the source, bytes, decoded image) of what the set has a place for; what there is goes to `seen`."""
    left = (4 << 20) + RATIO * path.stat().st_size
    try:
        for raw, size, problem, opened in _members(path, folder):
            left -= abs(size)
            if left < 0:
                raise FetchError("a compression bomb")
            if UNSAFE.search(raw):
                raise FetchError(f"unsafe path {raw[:100]!a}; nothing of it is unpacked")
            if len(seen) == MOST_FILES:
                raise FetchError(f"more than {MOST_FILES} files")
            name = PurePosixPath(raw).as_posix()
            if "__MACOSX" in name or PurePosixPath(name).name.startswith("._"):
                continue  # macOS adds a shadow of every file to its archives
            seen.append(name)
            if not dataset.targets(name):
                continue
            problem = problem or ("" if 0 <= size <= MOST_BYTES else "too large")
            if problem:
                raise FetchError(f"{name!a} is {problem}; it is not unpacked")
            with opened() as stream:
                data = stream.read(size + 1)
            if len(data) != size:
                raise FetchError(f"{name!a} is cut short, or longer than it says", again=True)
            image = None if dataset.kind == "weights" else image_files.decode_u8(io.BytesIO(data), name)
            yield name, data, image
    except (FetchError, image_files.ImageError) as error:
        raise FetchError(f"{files.shown(path.name)}: {error}", getattr(error, "again", False)) from None
    except Exception as error:  # noqa: BLE001 - for a damaged archive Python's readers raise nearly every kind there is
        words = " ".join(str(error).split())[:200]
        raise FetchError(f"{files.shown(path.name)}: damaged or cut short ({words})", again=True) from None


def _members(path: Path, folder: Path) -> Iterator[tuple[str, int, str, Callable[[], Any]]]:
    """(path, bytes, problem, open) of the files in an archive, or of the file itself where it is none.

    `problem` says what is wrong with it, should it be wanted.
    """
    with open(path, "rb") as file:
        start, suffix = file.read(512), path.suffix.lower()
    if start.startswith((b"Rar!\x1a\x07", b"7z\xbc\xaf\x27\x1c")):
        raise FetchError("RAR and 7z are not read; unpack it by hand (7z x) into the drop folder")
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if not info.is_dir():
                    plain = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
                    problem = "encrypted" if info.flag_bits & 1 else "" if plain else "a link or no plain file"
                    yield info.filename, info.file_size, problem, partial(archive.open, info)
    elif start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00")) or start[257:262] == b"ustar" or suffix == ".tar":
        with tarfile.open(path, tarinfo=_Header) as tar:
            for member in tar:
                if not member.isdir():
                    problem = "" if member.isreg() else "a link or no plain file"
                    if member.issparse():
                        problem = "a sparse file: few bytes that become many"
                    yield member.name, member.size, problem, partial(tar.extractfile, member)
    elif suffix in (".zip", ".gz", ".tgz", ".bz2", ".xz"):
        words = "not an archive; a web page (quota, sign-in) saved under its name? Download it again"
        raise FetchError(words, again=True)
    else:
        problem = "a web page (quota, sign-in) under its name" if PAGE.match(start) else ""
        yield path.relative_to(folder).as_posix(), path.stat().st_size, problem, partial(open, path, "rb")


class _Header(tarfile.TarInfo):
    """Refuses a header of a tar that is a bomb itself: tarfile reads those that extend others into memory."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.type not in tarfile.REGULAR_TYPES and abs(header.size) > 1 << 20:
            raise FetchError("a compression bomb")
        return header
