"""Download a file or a Drive folder: resumed, checked for length, given up when too slow."""

import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from pathlib import Path

import requests
from urllib3.exceptions import HTTPError

from ttlkit import files
from ttlkit.data.public.catalogue import DRIVE_FILE, DRIVE_FOLDER

TRIES, MOST_TRIES = 4, 40  # in a row that bring not one byte; in all
WAIT = 1.0  # seconds before the second try; doubles
TIMEOUT = (15.0, 60.0)  # seconds to connect, and without a byte
WINDOW, SLOWEST = 30.0, 4096.0  # seconds, and the bytes a second that must come on average
MOST_BYTES = 256 << 30  # a stream that says no length does not fill the disk
BUSY = (404, 408, 425, 429)  # another try may do, as for 500 and above; 404: load balancers get confused for a moment
# gdown runs as a process of its own: gdown 5 has no time limit, and a process can be watched and ended.
GDOWN = """
import sys, gdown
from ttlkit import machine
machine.end_with(int(sys.argv[4]))
try:
    call = getattr(gdown, sys.argv[1])
    found = call(url=sys.argv[2], output=sys.argv[3], quiet=True, resume=True, use_cookies=False)
except Exception as error:
    sys.exit(str(error) or repr(error))
sys.exit(None if found else "nothing came")
"""

Progress = Callable[[int, int | None], None]
Steps = Generator[
    tuple[int, int | None], None, None
]  # (bytes so far, bytes in all), first as it stands before any came


class FetchError(RuntimeError):
    """A set cannot be fetched; the message says why, and the way out. `again`: it was cut or damaged, try once more."""

    def __init__(self, message: str, again: bool = False):
        super().__init__(message)
        self.again = again


def download(url: str, target: Path, progress: Progress = lambda done, total: None) -> None:
    """Fetch a URL, or a file or folder of Drive, to `target`, going on from `target`.part; whole or not at all.

    Raises FetchError when it is not delivered, OSError when the disk does not take it.
    """
    part, failures = target.with_name(target.name + ".part"), 0
    part.parent.mkdir(parents=True, exist_ok=True)
    attempt = _gdown if url.startswith((DRIVE_FILE, DRIVE_FOLDER)) else _http
    for number in range(1, MOST_TRIES + 1):
        before = _size(part.parent)
        try:
            with closing(attempt(url, part)) as steps:
                _follow(steps, progress)
            break
        except FetchError as error:
            failures = 1 if _size(part.parent) > before else failures + 1
            if not error.again or failures == TRIES or number == MOST_TRIES:
                raise FetchError(f"{error} (try {number})") from None
            time.sleep(min(WAIT * 2 ** (failures - 1), 30))
    os.replace(part, target)


def _follow(steps: Steps, progress: Progress) -> None:
    """Let the bytes come to the end; raise FetchError when they stop, come too slowly or are too many."""
    done, total = 0, None
    try:
        done, total = next(steps)
        before, began = done, time.monotonic()
        for done, total in steps:
            progress(done, total)
            passed = time.monotonic() - began
            if done > MOST_BYTES:
                raise FetchError(f"sends more than {MOST_BYTES} bytes")
            if passed >= WINDOW:
                if done - before < SLOWEST * passed:
                    raise FetchError(f"too slow: {(done - before) / passed:.0f} bytes a second")
                before, began = done, time.monotonic()
    except (requests.RequestException, HTTPError, ValueError) as error:
        reason: BaseException = error
        while isinstance(reason.__context__, Exception) and len(str(reason.__context__)) > 3:
            reason = reason.__context__  # the innermost words say most
        cut = f"connection cut: {done} of {total or 'unknown'} bytes; " if done or total else ""
        words = " ".join(f"{cut}{type(reason).__name__}: {reason}".split())[:250]
        raise FetchError(words, again=not isinstance(error, ValueError)) from None


def _http(url: str, part: Path) -> Steps:
    """Get what is missing of a file."""
    version = part.with_name(part.name + ".version")  # the validator that `part` came with: no splicing of two versions
    known = version.read_text(encoding="utf-8") if version.exists() else ""
    have = part.stat().st_size if known and part.exists() else 0
    headers = {"Accept-Encoding": "identity", "User-Agent": "ttlkit (dataset fetcher)"}
    headers |= {"Range": f"bytes={have}-", "If-Range": known} if have else {}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        status, told = response.status_code, response.headers
        etag, length = told.get("ETag", "W/"), told.get("Content-Length", "")
        validator = told.get("Last-Modified", "") if etag.startswith("W/") else etag  # a weak one says nothing of bytes
        fits = have and validator == known and told.get("Content-Range", "").startswith(f"bytes {have}-")
        if url.startswith("https:") and not response.url.startswith("https:"):
            raise FetchError(f"redirected from https to {response.url}")
        if status == 416 or (status == 206 and not fits):
            part.unlink(missing_ok=True)
            raise FetchError(f"HTTP {status} with a range that does not fit; starting afresh", again=True)
        if status not in (200, 206):
            raise FetchError(f"HTTP {status} {response.reason}", again=status in BUSY or status >= 500)
        done = have if status == 206 else 0  # 200: the first try, or no ranges here, or not the file we have a part of
        total = done + int(length) if length.isdigit() else None
        if total is not None and total - done > shutil.disk_usage(part.parent).free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(part))
        yield done, total
        read = getattr(response.raw, "read1", response.raw.read)  # read1 gives what is there; urllib3 1 has none
        with open(part, "ab" if done else "wb") as file:
            files.write_text(version, validator)
            while chunk := read(1 << 16):
                file.write(chunk)
                file.flush()  # what has come is kept, even if we are killed now
                done += len(chunk)
                yield done, total
    if total not in (None, done):
        raise FetchError(f"connection cut: {done} of {total} bytes", again=True)
    version.unlink()


def _gdown(url: str, part: Path) -> Steps:
    """Let gdown get a file or a folder of Drive; it ends when the generator is closed."""
    call, output = ("download_folder", f"{part}{os.sep}") if url.startswith(DRIVE_FOLDER) else ("download", str(part))
    before = _size(part.parent)
    yield before, None
    command, words = [sys.executable, "-c", GDOWN, call, url, output, str(os.getpid())], None
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, errors="replace") as process:
        try:
            while words is None:
                with suppress(subprocess.TimeoutExpired):
                    words = process.communicate(timeout=min(0.5, WINDOW / 4))[1]
                yield _size(part.parent), None
        finally:
            process.kill()
    if process.returncode:
        raise FetchError(f"gdown: {' '.join(words.split())[:300]}", again=_size(part.parent) > before)


def _size(folder: Path) -> int:
    """Bytes in a folder, as far as they can be seen: gdown renames its files at the same time."""
    found = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            found += path.stat().st_size if path.is_file() else 0
    return found
