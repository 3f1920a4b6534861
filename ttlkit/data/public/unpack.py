"""Take the files of a data set out of archives and folders, one by one and checked, into a staging folder."""

from __future__ import annotations

import bz2
import fnmatch
import gzip
import hashlib
import io
import lzma
import re
import stat
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np

from ttlkit import files
from ttlkit.data import image_files
from ttlkit.data.public.catalogue import DataSet, is_target
from ttlkit.data.public.download import BrokenError, SourceError

WEIGHTS = (".pth", ".pt", ".safetensors")
MOST_FILES = 300_000  # in one archive
MOST_BYTES = 1 << 30  # in one file
RATIO = 200  # unpacked to packed; pictures and weights hardly shrink at all
UNSAFE = re.compile(r"^/|^[A-Za-z]:|\\|(^|/)\.\.(/|$)|[\0-\x1f]|^.{1000}")
COMPRESSED: dict[bytes, Callable] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}


def unpack(dataset: DataSet, sources: Iterable[Path], staging: Path) -> dict[str, str]:
    """Write what belongs to `dataset` below `staging`: path in a collection -> sha256 of the source's file.

    Sources are archives (zip, tar and its .gz, .bz2, .xz), loose files, or folders of both. Nothing is extracted by
    the name it has in an archive. Raises SourceError; OSError means that the disk does not take it.
    """
    files.remove(staging)
    stage, seen = _Stage(dataset, staging), list[str]()
    for source in sources:
        for path in sorted(source.rglob("*")) if source.is_dir() else [source]:
            inner = path.relative_to(source.parent).as_posix()
            try:
                for name, data in _wanted(dataset, path, inner, seen) if path.is_file() else ():
                    stage.take(name, data)
            except SourceError as error:
                raise type(error)(f"{path.name}: {error}") from None
    stage.spread()
    if not stage.origins:
        example = f", for instance {', '.join(map(ascii, seen[:3]))}" if seen else ""
        raise SourceError(f"nothing in it looks like {dataset.title}{example}")
    _check_whole(dataset, [PurePosixPath(path) for path in stage.origins])
    return stage.origins


def _wanted(dataset: DataSet, path: Path, inner: str, seen: list[str]) -> Iterator[tuple[str, bytes]]:
    """(path in the archive, bytes) of what the set has a place for in an archive or a loose file."""
    try:
        for number, (raw, size, problem, opened) in enumerate(_members(path, inner)):
            if UNSAFE.search(raw):
                raise SourceError(f"unsafe path {raw[:100]!a}; nothing of it is unpacked")
            if number == MOST_FILES:
                raise SourceError(f"more than {MOST_FILES} files")
            name = PurePosixPath(raw).as_posix()
            if "__MACOSX" in name or PurePosixPath(name).name.startswith("._"):
                continue  # macOS adds a shadow of every file to its archives
            seen.append(name)
            if not dataset.targets(name):
                continue
            problem = problem or ("" if 0 <= size <= MOST_BYTES else "too large")
            if problem:
                raise SourceError(f"{name!a} is {problem}; it is not unpacked")
            with opened() as stream:
                data = stream.read(size + 1)
            if len(data) != size:
                raise BrokenError(f"{name!a} is cut short, or longer than it says")
            yield name, data
    except SourceError:
        raise
    except Exception as error:  # noqa: BLE001 - for a damaged archive Python's readers raise nearly every kind there is
        raise BrokenError(f"damaged or cut short ({' '.join(str(error).split())})") from None


def _members(path: Path, inner: str) -> Iterator[tuple[str, int, str, Callable[[], Any]]]:
    """(path, bytes, problem, open) of the files in an archive, or of the file itself where it is none.

    `problem` says what is wrong with it, should it be wanted.
    """
    with open(path, "rb") as file:
        start = file.read(512)
    opener = next((opener for magic, opener in COMPRESSED.items() if start.startswith(magic)), None)
    if start.startswith((b"Rar!\x1a\x07", b"7z\xbc\xaf\x27\x1c")):
        raise SourceError("RAR and 7z are not read; unpack it by hand (7z x) into the drop folder")
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if not info.is_dir():
                    yield (info.filename, info.file_size, _problem(info), partial(archive.open, info))
    elif opener or start[257:262] == b"ustar" or path.suffix.lower() == ".tar":
        limit = (4 << 20) + RATIO * path.stat().st_size
        with (opener or open)(path, "rb") as file, tarfile.open(fileobj=_Limited(file, limit), mode="r|") as tar:  # type: ignore[call-overload]
            for member in tar:
                problem = "" if member.isreg() else "a link" if member.issym() or member.islnk() else "not a plain file"
                if not member.isdir():
                    yield (member.name, member.size, problem, partial(tar.extractfile, member))
    elif path.suffix.lower() in (".zip", ".gz", ".tgz", ".bz2", ".xz"):
        raise BrokenError("not an archive; a web page saved under its name? Download it again")
    else:
        yield (inner, path.stat().st_size, "", partial(open, path, "rb"))


def _problem(info: zipfile.ZipInfo) -> str:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if info.flag_bits & 1:
        return "encrypted"
    if kind not in (0, stat.S_IFREG):
        return "a link" if kind == stat.S_IFLNK else "not a plain file"
    return "a compression bomb" if info.file_size > max(1 << 20, RATIO * info.compress_size) else ""


class _Limited:
    """A stream that gives no more than `left` bytes: a bomb hidden in a header of a tar stops here."""

    def __init__(self, stream: IO[bytes], left: int):
        self.stream, self.left = stream, left

    def read(self, size: int = -1) -> bytes:
        data = self.stream.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise SourceError("a compression bomb")
        return data


class _Stage:
    """The staging folder as it fills; `origins`: path in a collection -> sha256 of the source's file."""

    def __init__(self, dataset: DataSet, folder: Path):
        self.dataset, self.folder, self.left = dataset, folder, dataset.limit_gib * 2**30
        self.origins: dict[str, str] = {}
        self.taken: dict[str, str] = {}  # path without suffix, capitals and Unicode form -> name in the source
        self.many: dict[str, Path] = {}  # path with a * -> where its picture waits, named by its sha256
        folder.mkdir(parents=True)

    def take(self, name: str, data: bytes) -> None:
        """Check a file of the source and put it, or the pictures side by side in it, where they belong."""
        self.left -= len(data)
        if self.left < 0:
            raise SourceError(f"too large: more than limit_gib = {self.dataset.limit_gib:g} unpacked")
        try:
            weights = self.dataset.kind == "weights"
            image = np.empty((0, 0, 3)) if weights else image_files.decode_u8(io.BytesIO(data), name)
        except image_files.ImageError as error:
            raise SourceError(str(error)) from None
        origin = hashlib.sha256(data).hexdigest()
        for to, side, sides in self.dataset.targets(name):
            width, rest = divmod(image.shape[1], sides)
            if "*" in to:
                self.many[to] = self.folder / origin
                self.many[to].write_bytes(data)
            elif sides == 1:
                self.place(to, origin, name).write_bytes(data)
            elif rest or not width:
                raise SourceError(f"{name!a} is {image.shape[1]} pixels wide: not {sides} pictures side by side")
            else:
                path = self.place(str(PurePosixPath(to).with_suffix(".png")), origin, name)
                image_files.save_image(path, image[:, side * width : (side + 1) * width])

    def place(self, to: str, origin: str, name: str) -> Path:
        """Where to write the file `to`; raises SourceError where that is no place for it, or taken."""
        suffixes = WEIGHTS if self.dataset.kind == "weights" else image_files.SUFFIXES
        if not is_target(to, self.dataset.kind) or not to.lower().endswith(suffixes):
            raise SourceError(f"{name!a} would become {to!a}, which is no file of a collection")
        if _key(to) in self.taken:
            raise SourceError(f"{name!a} and {self.taken[_key(to)]!a} would both become {to}")
        self.taken[_key(to)], self.origins[to] = name, origin
        (self.folder / to).parent.mkdir(parents=True, exist_ok=True)
        return self.folder / to

    def spread(self) -> None:
        """Copy each picture that is meant for many rainy ones to those that have no partner yet."""
        for to, kept in self.many.items():
            clean = PurePosixPath(to)
            for rainy in fnmatch.filter(self.origins, str(clean.parent.with_name("rainy") / clean.name)):
                partner = str(clean.with_name(PurePosixPath(rainy).stem + clean.suffix))
                if _key(partner) not in self.taken:
                    self.place(partner, kept.name, rainy).write_bytes(kept.read_bytes())
        for kept in self.many.values():
            kept.unlink(missing_ok=True)


def _key(path: str) -> str:
    """Equal for two files that some disk, or some pairing by name, would take for one."""
    return unicodedata.normalize("NFC", str(PurePosixPath(path).with_suffix("")).casefold())


def _check_whole(dataset: DataSet, places: list[PurePosixPath]) -> None:
    """Raise SourceError unless every picture of a pair has its partner, and all that sources count are there."""
    count = len(places)
    if dataset.kind in ("synthetic", "test"):
        rainy = {place.parent.with_name(place.stem) for place in places if place.parent.name == "rainy"}
        truth = {place.parent.with_name(place.stem) for place in places if place.parent.name != "rainy"}
        paired = {scene.parent for scene in truth}  # a test set may have rainy pictures alone
        lonely = sorted(scene for scene in rainy ^ truth if dataset.kind == "synthetic" or scene.parent in paired)
        if lonely:
            raise SourceError(f"{len(lonely)} pictures have no partner (first: {lonely[0]})")
        count = len(rainy)
    if dataset.count not in (None, count):
        raise SourceError(f"{count} found, but {dataset.title} has {dataset.count}")
