"""The content cache: what takes long to find out is kept by content, on disk, for all processes.

An entry is one file, <folder>/<ab>/<name>.entry: a header with length and checksum, then the content. Its name is a
hash of what it was made from and how, so nothing ever has to be declared stale: what has changed has another name, and
`prune` removes what has not been used for a while. Every reading compares length and checksum, and nothing is mapped
into memory: a file that is cut short while it is mapped kills the process.
"""

import errno
import hashlib
import io
import json
import os
import shutil
import stat
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL

from ttlkit import files, machine
from ttlkit.data import image_files

DAY = 86400  # seconds
DAYS = 30  # entries not used for so long are removed
SPARE = 1 << 30  # bytes of the disk left free: a cache that fills it would cost a checkpoint
MEMORY = 2 << 30  # bytes that a process holds where nothing can be written
FRESH = 3  # seconds; a file changed so recently may change again without a change of its times
_HEADER = struct.Struct("<8sQI")  # magic, length of the content, crc32 of the name and the content
_SHAPE = struct.Struct("<II")  # height and width, in front of the pixels of an image

_memory: dict[str, bytes] = {}  # contents by name, what was used last at the end
_events: set[tuple[str, Path]] = set()  # what has happened in which folder: said or done once in each process


def folder() -> Path | None:
    """Where entries lie: $TTLKIT_CACHE, else datasets/.cache; None when $TTLKIT_CACHE is empty or 'off'."""
    given = os.environ.get("TTLKIT_CACHE", str(machine.home() / "datasets" / ".cache"))
    return None if given.strip().lower() in ("", "off") else Path(given).expanduser().resolve()


def recall(*key: Any) -> Any:
    """The JSON value remembered under a key; None where there is none or it is damaged.

    A key holds JSON values: first what the value is about, then a number that is raised when it would be another one
    today, then what it depends on, such as `content_hash` of a file.
    """
    content = _read(files.sha256_of(*key))
    return None if content is None else json.loads(bytes(content))


def remember(value: Any, *key: Any) -> None:
    """Keep a JSON value (tuples become lists) under a key."""
    _write(files.sha256_of(*key), json.dumps(value).encode())


def content_hash(path: str | Path) -> str:
    """SHA-256 of a whole file, 64 hex digits; read again only after its size, times or inode have changed.

    Raises OSError where it cannot be read.
    """
    place = Path(path).resolve()
    now = place.stat()
    if not stat.S_ISREG(now.st_mode):  # a pipe would wait for ever
        raise OSError(errno.EINVAL, "not a regular file", str(place))
    facts = [now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_ino]
    known = recall("content", 1, str(place))
    if known and known["facts"] == facts:
        return known["sha256"]
    found = files.sha256(place)
    if time.time_ns() - now.st_ctime_ns > FRESH * 1e9:
        remember({"facts": facts, "sha256": found}, "content", 1, str(place))
    return found


class Shelf(Sequence[np.ndarray]):
    """Images by number, uint8 (H, W, 3), read-only, each decoded and prepared once and for all processes.

    `prepare(image_u8)` must be deterministic and `key` name it, with a number that is raised when its code changes.
    Making a shelf decodes the images that have no entry, with a progress bar when that takes over a second; each is
    read when it is drawn. Where entries cannot be written, images stay in memory, up to MEMORY; beyond that they are
    decoded again when they are drawn. Can be pickled. Raises ImageError, naming the file, for an image that cannot be
    read, or has changed since the shelf was made.
    """

    def __init__(self, paths: Sequence[Path], key: str = "", prepare: Callable[[np.ndarray], np.ndarray] | None = None):
        from tqdm import tqdm

        self.paths, self.key, self.prepare = list(paths), key, prepare
        self.names: list[str] = []
        self.shapes: list[tuple[int, ...]] = []
        for index, path in enumerate(tqdm(self.paths, "reading images", delay=1, mininterval=1, file=sys.stdout)):
            with image_files.naming(path):
                self.names.append(self._name(content_hash(path)))
            self.shapes.append(self[index].shape)
        root = folder()
        if root and _first("tidied up", root):
            prune()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:  # type: ignore[override]
        content = _read(self.names[index])
        if content is None:
            content = self._make(index)
        return np.frombuffer(content, np.uint8, offset=_SHAPE.size).reshape(*_SHAPE.unpack_from(content), 3)

    def _name(self, content: str) -> str:
        return files.sha256_of("image", 1, content, self.key, image_files.DECODER, PIL.__version__)

    def _make(self, index: int) -> bytes:
        path = self.paths[index]
        with image_files.open_file(path) as file:
            encoded = file.read()  # what is hashed is what is decoded, whoever writes to the file meanwhile
        if self._name(hashlib.sha256(encoded).hexdigest()) != self.names[index]:
            remember(None, "content", 1, str(path.resolve()))
            raise image_files.ImageError(f"{files.shown(path)}: has changed while it was in use; run again")
        image = image_files.decode_u8(io.BytesIO(encoded), path)
        image = image if self.prepare is None else self.prepare(image)
        content = _SHAPE.pack(*image.shape[:2]) + image.tobytes()
        _write(self.names[index], content)
        return content


def _entry(root: Path, name: str) -> Path:
    return root / name[:2] / f"{name[2:]}.entry"


def _header(name: str, content: bytes | memoryview) -> bytes:
    return _HEADER.pack(b"ttlkit 2", len(content), zlib.crc32(content, zlib.crc32(name.encode())))


def _read(name: str) -> bytes | memoryview | None:
    """The content of an entry; None where there is none, or it is damaged, which one line says in each process."""
    held, root = _memory.pop(name, None), folder()
    if held is not None:
        _memory[name] = held
    if held is not None or root is None:
        return held
    path = _entry(root, name)
    with suppress(OSError):  # there is none, or it cannot be read
        found = memoryview(path.read_bytes())
        content = found[_HEADER.size :]
        if found[: _HEADER.size] == _header(name, content):
            with suppress(OSError):  # a read-only cache serves as well
                if time.time() - path.stat().st_mtime > DAY:  # access times are off on many systems
                    os.utime(path)
            return content
        if _first("damaged", root):
            print(f"{files.shown(path)}: damaged cache file; it and any others are made anew")
    return None


def _write(name: str, content: bytes) -> None:
    """Keep an entry, whole or not at all; in memory where there is no cache or, as one line says, it cannot be used."""
    root = folder()
    if root and ("closed", root) not in _events:
        try:
            root.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(root).free - len(content) < SPARE:
                raise OSError(errno.ENOSPC, f"less than {SPARE >> 20} MB left on the disk")
            with files.whole(_entry(root, name)) as partial:
                partial.write_bytes(_header(name, content) + content)
            return
        except OSError as error:
            _first("closed", root)
            problem = f"{files.shown(root)}: nothing can be kept here ({error.strerror}); going on without"
            print(f"{problem}. Free space, or set TTLKIT_CACHE to another folder ('off': none)")
    _memory[name] = content
    while sum(map(len, list(_memory.values()))) > MEMORY:
        del _memory[next(iter(_memory))]


def _first(event: str, root: Path) -> bool:
    new = (event, root) not in _events
    _events.add((event, root))
    return new


class Usage(NamedTuple):
    """A number of entries, and their size in bytes."""

    files: int
    size: int


def usage() -> Usage:
    """What the cache holds."""
    sizes = [size for _, size, _ in _entries()]
    return Usage(len(sizes), sum(sizes))


def prune(days: float = DAYS, gigabytes: float = float("inf")) -> Usage:
    """Remove entries not used for `days`, then those not used for longest until at most `gigabytes` are left.

    Returns what was removed. Other files than the cache's own are never touched; what is in use elsewhere is made
    anew when it is drawn again. `prune(gigabytes=0)` removes all.
    """
    room, gone = gigabytes * 1e9, []
    for used, size, path in sorted(_entries(), reverse=True):  # what was used last comes first
        room -= size
        if used < time.time() - days * DAY or room < 0:
            with suppress(OSError):  # another process was quicker, or the folder is read-only
                path.unlink()
                gone.append(size)
    return Usage(len(gone), sum(gone))


def _entries() -> Iterator[tuple[float, int, Path]]:
    """(last used, bytes, path) of each entry, and of what killed processes left behind a day ago or more."""
    root = folder()
    patterns = ("[0-9a-f][0-9a-f]/*.entry", "[0-9a-f][0-9a-f]/.*.part")
    for path in (path for pattern in patterns for path in root.glob(pattern)) if root else ():
        with suppress(OSError):  # removed meanwhile
            facts = path.stat()
            if path.suffix == ".entry" or time.time() - facts.st_mtime > DAY:
                yield facts.st_mtime, facts.st_size, path
