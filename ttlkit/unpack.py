"""Take the files of a data set out of archives and folders, one by one and checked, into a staging folder."""

from __future__ import annotations

import bz2
import fnmatch
import gzip
import hashlib
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from ttlkit import images
from ttlkit.catalogue import DataSet, is_target
from ttlkit.images import ImageError

WEIGHTS = (".pth", ".pt", ".safetensors")
MOST_FILES = 300_000  # in one archive
MOST_BYTES = 1 << 30  # in one file
RATIO = 200  # unpacked to packed; pictures and weights hardly shrink at all
BROKEN = (
    OSError, EOFError, ValueError, LookupError, ArithmeticError, RuntimeError, zlib.error, lzma.LZMAError,
    struct.error, tarfile.TarError, zipfile.BadZipFile,
)  # fmt: skip


class UnpackError(RuntimeError):
    """A source does not hold the set, or is not safe to unpack; the message names the file in it."""


class DamagedError(UnpackError):
    """An archive is broken or cut short: worth another download."""


@dataclass(frozen=True)
class Staged:
    """One file in the staging folder: sha256 of the source's bytes, and of the file written (cut out, it differs)."""

    origin: str
    sha256: str


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    problem: str  # what is wrong with it, should it be wanted
    open: Callable[[], IO[bytes] | None]


def unpack(dataset: DataSet, sources: Iterable[Path], staging: Path) -> dict[str, Staged]:
    """Write what belongs to `dataset` below `staging`, under its paths in a collection: path -> hashes.

    Sources are archives (zip, tar and its .gz, .bz2, .xz), loose files, or folders of both. Nothing is extracted by
    the name it has in an archive. Raises UnpackError; OSError means that the disk does not take it.
    """
    staging.mkdir(parents=True, exist_ok=True)
    stage = _Stage(dataset, staging)
    for source in sources:
        found = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
        for path in found:
            inner = f"{source.name}/{path.relative_to(source).as_posix()}" if path != source else path.name
            for member in _walk(path, inner):
                stage.take(member, path)
    stage.finish()
    return stage.files


class _Stage:
    def __init__(self, dataset: DataSet, folder: Path):
        self.dataset, self.folder = dataset, folder
        self.files: dict[str, Staged] = {}
        self.taken: dict[str, str] = {}  # path without suffix and capitals -> the member that it came from
        self.spread: list[tuple[str, Path, str]] = []
        self.seen: list[str] = []
        self.left = int(dataset.limit_gib * 2**30)

    def take(self, member: _Member, archive: Path) -> None:
        name = inner_path(member.name, archive)
        if "__MACOSX" in name or PurePosixPath(name).name.startswith("._"):
            return  # macOS adds a shadow of every file to its archives
        if len(self.seen) < 3:
            self.seen.append(name)
        targets = self.dataset.targets(name)
        if not targets:
            return
        if member.problem:
            raise UnpackError(f"{archive.name}: {name!a} is {member.problem}; it is not unpacked")
        raw = self.folder / ".member"
        origin = self._copy(member, raw, archive)
        try:
            if any(side for _, side in targets):
                self._split(raw, origin, targets, name)
            else:
                if self.dataset.kind != "weights":
                    images.load_image_u8(raw)
                self._place(raw, origin, [to for to, _ in targets], name)
        except ImageError as error:
            raise UnpackError(f"{archive.name}: {name!a}: {str(error).partition(': ')[2]}") from None
        raw.unlink(missing_ok=True)

    def _copy(self, member: _Member, raw: Path, archive: Path) -> str:
        """Write a member's bytes to `raw` within the limits; returns their sha256."""
        digest, left = hashlib.sha256(), min(member.size, MOST_BYTES)
        if member.size > min(MOST_BYTES, self.left):
            raise UnpackError(f"{archive.name}: {member.name!a} is too large ({member.size} bytes)")
        with open(raw, "wb") as file:
            try:
                source = member.open()
            except BROKEN as error:
                raise DamagedError(f"{archive.name}: {member.name!a} is damaged ({error})") from None
            with source or open(os.devnull, "rb") as stream:
                while True:
                    try:
                        chunk = stream.read(1 << 20)
                    except BROKEN as error:
                        raise DamagedError(f"{archive.name}: {member.name!a} is damaged ({error})") from None
                    if not chunk:
                        break
                    left -= len(chunk)
                    if left < 0:
                        raise DamagedError(f"{archive.name}: {member.name!a} is longer than it says")
                    digest.update(chunk)
                    file.write(chunk)
        if left:
            raise DamagedError(f"{archive.name}: {member.name!a} is cut short")
        self.left -= member.size
        return digest.hexdigest()

    def _split(self, raw: Path, origin: str, targets: list[tuple[str, str]], name: str) -> None:
        image, sides = images.load_image_u8(raw), list(dict.fromkeys(side for _, side in targets))
        width, rest = divmod(image.shape[1], len(sides))
        if rest or not width:
            raise UnpackError(f"{name!a} is {image.shape[1]} pixels wide: not {len(sides)} pictures side by side")
        for to, side in targets:
            left = sides.index(side) * width
            part = self.folder / ".side.png"
            images.save_image(part, image[:, left : left + width])
            self._place(part, origin, [str(PurePosixPath(to).with_suffix(".png"))], name)

    def _place(self, raw: Path, origin: str, targets: list[str], name: str) -> None:
        for i, to in enumerate(targets):
            if "*" in to:
                kept = self.folder / f".spread{len(self.spread)}"
                shutil.copyfile(raw, kept)
                self.spread.append((to, kept, origin))
                continue
            suffix = PurePosixPath(to).suffix.lower()
            if not is_target(to, self.dataset.kind) or suffix not in (
                WEIGHTS if self.dataset.kind == "weights" else images.SUFFIXES
            ):
                raise UnpackError(f"{name!a} would become {to!a}, which is no file of a collection")
            stem = str(PurePosixPath(to).with_suffix("")).casefold()
            if stem in self.taken:
                raise UnpackError(f"{name!a} and {self.taken[stem]!a} would both become {to}")
            self.taken[stem] = name
            path = self.folder / to
            path.parent.mkdir(parents=True, exist_ok=True)
            if i + 1 < len(targets):
                shutil.copyfile(raw, path)
            else:
                os.replace(raw, path)
            self.files[to] = Staged(origin, sha256(path))

    def finish(self) -> None:
        """Give every rainy picture its clean one, and check that all is there; raises UnpackError."""
        title = self.dataset.title
        for template, kept, origin in self.spread:
            rainy = template.replace("/clean/", "/rainy/").replace("/mask/", "/rainy/")
            for path in [path for path in self.files if fnmatch.fnmatchcase(path, rainy)]:
                name = PurePosixPath(path).with_suffix(PurePosixPath(template).suffix).name
                to = str(PurePosixPath(template).with_name(name))
                if str(PurePosixPath(to).with_suffix("")).casefold() not in self.taken:
                    copy = self.folder / ".copy"
                    shutil.copyfile(kept, copy)
                    self._place(copy, origin, [to], kept.name)
            kept.unlink()
        if not self.files:
            example = f", for instance {', '.join(ascii(name) for name in self.seen)}" if self.seen else ""
            raise UnpackError(f"nothing in it looks like {title}{example}")
        names: dict[tuple[str, str], set[str]] = {}
        for path in self.files:
            parent = PurePosixPath(path).parent
            names.setdefault((str(parent.parent), parent.name), set()).add(PurePosixPath(path).stem)
        for (folder, side), stems in names.items():
            truth = names.get((folder, "clean")) or names.get((folder, "mask"))
            if folder.startswith(("synthetic/", "test/")) and (truth or folder.startswith("synthetic/")):
                lonely = sorted(stems ^ (names.get((folder, "rainy"), set()) if side != "rainy" else truth or set()))
                if lonely:
                    raise UnpackError(f"{len(lonely)} pictures of {folder} have no partner (first: {lonely[0]})")
        sides = ("clean", "mask") if self.dataset.kind in ("synthetic", "test") else ()
        count = sum(PurePosixPath(path).parent.name not in sides for path in self.files)
        if self.dataset.count is not None and count != self.dataset.count:
            raise UnpackError(f"{count} found, but {title} has {self.dataset.count}")


def inner_path(name: str, archive: Path) -> str:
    """A member's path with '/' between plain names; UnpackError when it tries to lead out of the archive."""
    parts = name.split("/")
    unsafe = "\\" in name or name.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", name)
    if unsafe or len(name) > 1000 or any(ord(letter) < 32 for letter in name):
        raise UnpackError(f"{archive.name}: unsafe path {name[:100]!a}; nothing of it is unpacked")
    return "/".join(part for part in parts if part not in ("", "."))


def sha256(path: Path) -> str:
    """Hash of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _walk(path: Path, inner: str) -> Iterator[_Member]:
    """The members of an archive, or the file itself where it is none."""
    with open(path, "rb") as file:
        start = file.read(512)
    compressed: dict[bytes, Callable] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
    opener = next((opener for magic, opener in compressed.items() if start.startswith(magic)), None)
    if start.startswith((b"Rar!\x1a\x07", b"7z\xbc\xaf\x27\x1c")):
        raise UnpackError(f"{path.name}: RAR and 7z are not read; unpack it by hand (7z x) into the drop folder")
    try:
        if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            yield from _zip_members(path)
        elif opener or start[257:262] == b"ustar" or path.suffix.lower() == ".tar":
            with (opener or open)(path, "rb") as stream:
                yield from _tar_members(_Budget(stream))
        elif path.suffix.lower() in (".zip", ".gz", ".tgz", ".bz2", ".xz"):
            raise DamagedError(f"{path.name}: not an archive; a web page saved under its name? Download it again")
        else:
            yield _Member(inner, path.stat().st_size, "", lambda: path.open("rb"))
    except UnpackError:
        raise
    except BROKEN as error:
        raise DamagedError(f"{path.name}: damaged or cut short ({error})") from None


def _zip_members(path: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        if len(infos) > MOST_FILES:
            raise UnpackError(f"{path.name}: {len(infos)} files are too many")
        for info in infos:
            kind = stat.S_IFMT(info.external_attr >> 16)
            bomb = info.file_size > max(1 << 20, RATIO * info.compress_size)
            problem = (
                "encrypted" if info.flag_bits & 1
                else "a link" if kind == stat.S_IFLNK
                else "not a plain file" if kind not in (0, stat.S_IFREG)
                else "a compression bomb" if bomb
                else ""
            )  # fmt: skip
            if not info.is_dir():
                yield _Member(info.filename, info.file_size, problem, partial(archive.open, info))


def _tar_members(stream: _Budget) -> Iterator[_Member]:
    with tarfile.open(fileobj=stream, mode="r|") as archive:  # type: ignore[call-overload]
        for number, info in enumerate(archive):
            if number >= MOST_FILES or not 0 <= info.size <= MOST_BYTES:
                raise UnpackError(f"{info.name[:100]!a}: too large, or too many files")
            stream.allow(info.size)
            problem = "" if info.isreg() else "a link" if info.issym() or info.islnk() else "not a plain file"
            if not info.isdir():
                yield _Member(info.name, info.size, problem, partial(archive.extractfile, info))


class _Budget:
    """A stream that gives no more than its members' sizes allow: a bomb hidden in a header stops here."""

    def __init__(self, stream: IO[bytes]):
        self.stream, self.left = stream, 4 << 20

    def allow(self, size: int) -> None:
        self.left += size + (1 << 16)

    def read(self, size: int = -1) -> bytes:
        data = self.stream.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise UnpackError("a compression bomb")
        return data
