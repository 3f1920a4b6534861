"""Decoded images on disk: each is decoded and prepared once, then opened as a read-only memory map.

An entry is one file, <folder>/<ab>/<name>.u8: a header of 64 bytes and the pixels. Its name is a hash of the source
file's content, of the preparation and of the decoder, so nothing ever has to be declared stale: what has changed has
another name, and `prune` removes what has not been used for a while.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import re
import shutil
import struct
import sys
import time
import weakref
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL

from ttlkit import config, images

DAYS = 30  # entries not used for so long are removed
SPARE = 1 << 30  # bytes of the disk left free: a cache that fills it would cost a checkpoint
MEMORY = 2 << 30  # bytes of images held by a process where there is no cache
_MAGIC = b"ttlkitU8"
_HEADER = struct.Struct("<8s32sIII12x")  # magic, name, height, width, crc32 of what is before it and of the pixels

_checked: set[Path] = set()  # entries whose checksum this process has seen to be right
_closed: set[Path] = set()  # folders where this process could not write
_reported: set[Path | None] = set()  # folders where this process found a damaged entry
_pruned: set[Path] = set()  # folders that this process has tidied up
_shelves: weakref.WeakSet[Shelf] = weakref.WeakSet()


def folder() -> Path | None:
    """Where entries lie: $TTLKIT_CACHE, else datasets/.cache; None when $TTLKIT_CACHE is empty or 'off'."""
    given = os.environ.get("TTLKIT_CACHE")
    if given is None:
        return config.home() / "datasets" / ".cache"
    return None if given.strip().lower() in ("", "off") else Path(given).expanduser().resolve()


class Shelf(Sequence[np.ndarray]):
    """Images by number, uint8 (H, W, 3), read-only, each decoded and prepared once and for all processes.

    `prepare(image_u8)` must be deterministic and `key` name it, with a number that is raised when its code changes.
    Making a shelf hashes every file and decodes those that have no entry, with a progress bar when that takes over a
    second. An image is mapped when it is drawn and let go with its array, so no number of images uses up the file
    descriptors (35 µs a draw). A damaged or missing entry is made anew. Where entries cannot be written, one line
    says so and images stay in memory, up to MEMORY; beyond that they are decoded at each draw. Can be pickled.
    Raises ImageError, naming the file, for an image that cannot be read, or has changed since the shelf was made.
    """

    def __init__(self, paths: Sequence[Path], key: str = "", prepare: Callable[[np.ndarray], np.ndarray] | None = None):
        from tqdm import tqdm

        self.paths, self.key, self.prepare = list(paths), key, prepare
        self.folder = folder()
        self.names: list[str] = []
        self.shapes: list[tuple[int, int, int]] = []
        self._kept: dict[int, np.ndarray] = {}
        self.memory = 0  # bytes in _kept
        _shelves.add(self)
        made = False
        for index in tqdm(range(len(self.paths)), "reading images", delay=1, mininterval=2, file=sys.stdout):
            made = self._admit(index) or made
        if made and self.folder and self.folder not in _pruned:
            _pruned.add(self.folder)
            prune(root=self.folder)

    def _admit(self, index: int) -> bool:
        """Find the entry of an image or make it; True when it was made."""
        with images.open_file(self.paths[index]) as file:
            self.names.append(self._name(file))
        image = self._open(index, check=False)
        made = image is None
        if image is None:
            image = self._make(index)
        else:
            self._mark_used(index)
        self.shapes.append(image.shape)
        return made

    def _name(self, file) -> str:
        content = hashlib.file_digest(file, "sha256").hexdigest()
        return hashlib.sha256(f"{content} {self.key} {images.DECODER} {PIL.__version__}".encode()).hexdigest()

    def _entry(self, index: int) -> Path | None:
        name = self.names[index]
        return self.folder / name[:2] / f"{name[2:]}.u8" if self.folder else None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:  # type: ignore[override]
        if index in self._kept:
            return self._kept[index]
        image = self._open(index)
        return self._make(index) if image is None else image

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_kept": {}, "memory": 0}  # a spawned worker reads for itself

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        _shelves.add(self)

    def _open(self, index: int, check: bool = True) -> np.ndarray | None:
        entry = self._entry(index)
        if entry is None:
            return None
        try:
            return open_entry(entry, bytes.fromhex(self.names[index]), check)
        except OSError:  # there is none, or it cannot be read: the source is
            return None
        except ValueError as error:
            if self.folder not in _reported:
                _reported.add(self.folder)
                print(f"{images.shown(entry)}: damaged cache file ({error}); it and any others are made anew")
            return None

    def _make(self, index: int) -> np.ndarray:
        """Decode an image, and keep it as an entry or else in memory."""
        path, name = self.paths[index], self.names[index]
        with images.open_file(path) as file:
            before = os.fstat(file.fileno())
            same = self._name(file) == name
            file.seek(0)
            image = images.decode_u8(file, path) if same else None
            after = os.fstat(file.fileno())
        if image is None or (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
            raise images.ImageError(f"{self._shown(index)}: has changed while it was in use; run again")
        image = np.ascontiguousarray(image if self.prepare is None else self.prepare(image))
        entry = self._entry(index)
        image.flags.writeable = False
        written = entry is not None and write_entry(entry, bytes.fromhex(name), image)
        if not written and image.nbytes + sum(shelf.memory for shelf in list(_shelves)) <= MEMORY:
            self._kept[index] = image
            self.memory += image.nbytes
        return image

    def _mark_used(self, index: int) -> None:
        """Set the entry's time, once a day: access times are off on many systems."""
        entry = self._entry(index)
        try:
            if entry and time.time() - entry.stat().st_mtime > 86400:
                os.utime(entry)
        except OSError:  # a read-only cache serves as well
            pass

    def _shown(self, index: int) -> str:
        return images.shown(self.paths[index])


def open_entry(entry: Path, name: bytes, check: bool = True) -> np.ndarray:
    """Map an entry: uint8 (height, width, 3), read-only; its checksum is compared once in each process.

    Raises FileNotFoundError where there is none, ValueError where it is damaged or another image's.
    """
    with open(entry, "rb", buffering=0) as file:
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size:
            raise ValueError("it ends in its header")
        magic, found, height, width, checksum = _HEADER.unpack(header)
        if magic != _MAGIC or found != name:
            raise ValueError("it is another file")
        if os.fstat(file.fileno()).st_size != _HEADER.size + height * width * 3:
            raise ValueError("its size is wrong")
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if check and entry not in _checked:
        if zlib.crc32(memoryview(pages)[_HEADER.size :], _header_checksum(name, height, width)) != checksum:
            raise ValueError("its checksum is wrong")
        _checked.add(entry)
    return np.frombuffer(pages, np.uint8, offset=_HEADER.size).reshape(height, width, 3)


def write_entry(entry: Path, name: bytes, image: np.ndarray) -> bool:
    """Write an entry, whole or not at all, whoever else writes it; after a failure this process does not try again."""
    root = entry.parents[1]
    if root in _closed:
        return False
    height, width = image.shape[:2]
    checksum = zlib.crc32(image.data, _header_checksum(name, height, width))
    partial = entry.with_name(f".{os.urandom(8).hex()}.part")
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(root).free - image.nbytes < SPARE:
            raise OSError(errno.ENOSPC, f"less than {SPARE >> 20} MB left on the disk")
        try:
            with open(partial, "wb") as file:
                file.write(_HEADER.pack(_MAGIC, name, height, width, checksum))
                file.write(image.data)
            os.replace(partial, entry)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        _closed.add(root)
        print(
            f"{images.shown(root)}: decoded images cannot be kept here ({error.strerror}); going on without. "
            f"Free space, or set TTLKIT_CACHE to another folder ('off': none)"
        )
        return False
    return True


def _header_checksum(name: bytes, height: int, width: int) -> int:
    return zlib.crc32(_HEADER.pack(_MAGIC, name, height, width, 0))


class Usage(NamedTuple):
    """A number of entries, and their size in bytes."""

    files: int
    size: int


def usage(root: Path | None = None) -> Usage:
    """What the cache (or the one below `root`) holds."""
    sizes = [size for _, size, _ in _entries(root or folder())]
    return Usage(len(sizes), sum(sizes))


def prune(days: float = DAYS, gigabytes: float | None = None, root: Path | None = None) -> Usage:
    """Remove entries not used for `days`, then those not used for longest until at most `gigabytes` are left.

    Returns what was removed. Other files than the cache's own are never touched; what is in use elsewhere is made
    anew when it is drawn again. `prune(gigabytes=0)` removes all.
    """
    oldest, room = time.time() - days * 86400, float("inf") if gigabytes is None else gigabytes * 1e9
    gone = []
    for used, size, path in sorted(_entries(root or folder()), reverse=True):  # what was used last comes first
        room -= size
        if (used < oldest or room < 0) and _remove(path):
            gone.append(size)
    return Usage(len(gone), sum(gone))


def _remove(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:  # another process was quicker, or the folder is read-only
        return False
    return True


def _entries(root: Path | None) -> Iterator[tuple[float, int, Path]]:
    """(last used, bytes, path) of each entry, and of what killed processes left behind a day ago or more."""
    for path in root.glob("[0-9a-f][0-9a-f]/*") if root else ():
        try:
            facts = path.stat()
        except OSError:
            continue
        own = re.fullmatch(r"[0-9a-f]{62}\.u8", path.name)
        left = re.fullmatch(r"\.[0-9a-f]{16}\.part", path.name) and time.time() - facts.st_mtime > 86400
        if own or left:
            yield facts.st_mtime, facts.st_size, path
