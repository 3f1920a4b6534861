"""Files: written whole or not at all, read back, hashed, and named in messages of one line."""

import errno
import hashlib
import json
import os
import platform
import shutil
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_HERE = f"{zlib.crc32(platform.node().encode()):08x}"  # this machine: folders are shared on clusters
_tidied: set[Path] = set()  # folders that this process has looked through for what killed processes left
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """A place beside `path` for a file or a folder that becomes `path` at the end, whole or not at all.

    As `beside`, which says more.
    """
    with beside(path) as partial:
        yield partial
        os.replace(partial, path)


@contextmanager
def beside(path: str | Path) -> Iterator[Path]:
    """A place for what shall become `path`, a file or a folder, gone at the end.

    Folders above it are made. What killed processes of this machine have left half written is cleared away.
    Raises OSError, which names `path`, as the disk does.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path.parent)) from None
    except FileNotFoundError:  # as below /proc: not a file to read that is missing
        raise PermissionError(errno.EACCES, "No folder can be made there", str(path.parent)) from None
    if path.parent not in _tidied:
        _tidied.add(path.parent)
        for left in path.parent.glob(f".*.{_HERE}.part"):
            owner = left.name.split(".")[-4]
            if owner.isdigit() and _is_gone(int(owner), left):
                remove(left)
    partial = partial_of(path)
    with named(path, partial):
        try:
            yield partial
        finally:
            remove(partial)


@contextmanager
def named(path: str | Path, partial: Path | None = None) -> Iterator[None]:
    """An OSError of the disk names `path`, not nothing (as `write` does) and not the `partial` file."""
    try:
        yield
    except OSError as error:
        nameless = error.filename is None and error.errno in FULL
        if nameless or (partial and str(error.filename).startswith(str(partial))):
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


def partial_of(path: Path, process: int | None = None) -> Path:
    """Where `whole` has `path` written first, by this process and thread; disks take names of 255 bytes."""
    return path.with_name(f".{path.name[:40]}.{process or os.getpid()}.{threading.get_ident()}.{_HERE}.part")


def write_text(path: str | Path, text: str) -> Path:
    """Write a text file as UTF-8, whole or not at all; of names that are no text the bytes stand as escapes."""
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")
    return Path(path)


def append(path: Path, line: str) -> None:
    """Add a line to a text file; the last one may be half written after a kill."""
    with named(path), open(path, "a", encoding="utf-8") as file:
        file.write(line)


def write_json(path: str | Path, value: Any) -> Path:
    """Write JSON, whole or not at all; NaN is refused (ValueError), and what JSON does not know becomes text."""
    return write_text(path, json.dumps(value, indent=1, default=str, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """What `write_json` wrote; None where the file is missing, cut short or damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def sha256(path: str | Path) -> str:
    """Hash of a file's bytes, 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(*contents: bytes | memoryview) -> str:
    """Hash of bytes one after the other, 64 hex digits."""
    found = hashlib.sha256()
    for content in contents:
        found.update(content)
    return found.hexdigest()


def sha256_of(*parts: Any) -> str:
    """Hash of values that JSON can write, in their order, 64 hex digits; equal values, equal hash."""
    return digest(json.dumps(parts, sort_keys=True).encode())


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def shown(path: str | Path) -> str:
    """A path for a message of one line: line breaks and bytes that are no text stand as escapes."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(path))


def _is_gone(process: int, left: Path) -> bool:
    """Whether the process that left a file has ended; another one may have its number by now."""
    import psutil  # rarely needed

    try:
        return psutil.Process(process).create_time() > left.lstat().st_mtime + 1
    except psutil.NoSuchProcess:
        return True
    except (psutil.Error, OSError):  # another user's, or removed meanwhile
        return False
