"""Download a file or a Drive folder: resumed, checked for length, given up when too slow."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ttlkit import files
from ttlkit.data.public.catalogue import DRIVE_FILE, DRIVE_FOLDER

# gdown runs as a process of its own: gdown 5 has no time limit, and a process can be watched and ended.
GDOWN = """
import sys, gdown
try:
    call = getattr(gdown, sys.argv[1])
    found = call(url=sys.argv[2], output=sys.argv[3], quiet=True, resume=True, use_cookies=False)
except Exception as error:
    sys.exit(str(error) or repr(error))
sys.exit(None if found else "nothing came")
"""
PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype )?html", re.IGNORECASE)
A_PAGE = "sent a web page instead of the file (a quota or sign-in page)"
BUSY = (404, 408, 425, 429)  # another try may do, as for 500 and above; 404: load balancers get confused for a moment

Progress = Callable[[int, int | None], None]


class SourceError(RuntimeError):
    """A mirror or the drop folder does not give the set; the message says why. What came so far is kept."""


class BrokenError(SourceError):
    """A download was cut or an archive is damaged: worth another try."""


@dataclass(frozen=True)
class Patience:
    """How long a mirror is given. Seconds; `slowest` in bytes a second, on average over `window` seconds."""

    tries: int = 4  # in a row that bring not one byte
    most: int = 40  # tries in all
    wait: float = 1.0  # before the second try; doubles
    connect: float = 15.0
    read: float = 60.0  # without a byte
    window: float = 30.0
    slowest: float = 4096.0
    most_bytes: int = 256 << 30  # a stream that says no length does not fill the disk


PATIENCE = Patience()


class _Watch:
    """Is told how many bytes there are; raises SourceError when they come too slowly, or when they are too many."""

    def __init__(self, patience: Patience, progress: Progress, done: int):
        self.patience, self.progress, self.began, self.before = patience, progress, time.monotonic(), done

    def __call__(self, done: int, total: int | None) -> None:
        self.progress(done, total)
        passed, come = time.monotonic() - self.began, done - self.before
        if done > self.patience.most_bytes:
            raise SourceError(f"sends more than {self.patience.most_bytes} bytes")
        if passed >= self.patience.window:
            if come < self.patience.slowest * passed:
                raise SourceError(f"too slow: {come / passed:.0f} bytes a second")
            self.began, self.before = time.monotonic(), done


def download(
    url: str, target: Path, patience: Patience = PATIENCE, progress: Progress = lambda done, total: None
) -> None:
    """Fetch a URL, or a file or folder of Drive, to `target`, going on from `target`.part; whole or not at all.

    Raises SourceError when it is not delivered, OSError when the disk does not take it.
    """
    part, failures = target.with_name(target.name + ".part"), 0
    part.parent.mkdir(parents=True, exist_ok=True)
    attempt = _gdown if url.startswith((DRIVE_FILE, DRIVE_FOLDER)) else _http
    for number in range(1, patience.most + 1):
        before = _size(part.parent)
        try:
            attempt(url, part, patience, progress)
            break
        except BrokenError as error:
            failures = 1 if _size(part.parent) > before else failures + 1
            if failures == patience.tries or number == patience.most:
                raise SourceError(f"{error} ({number} tries)") from None
            time.sleep(min(patience.wait * 2 ** (failures - 1), 30))
    if part.is_file():
        with open(part, "rb") as file:
            is_page = PAGE.match(file.read(512))
        if is_page:
            part.unlink()
            raise SourceError(A_PAGE)
    os.replace(part, target)


def _http(url: str, part: Path, patience: Patience, progress: Progress) -> None:
    """Get what is missing of a file; BrokenError where another try may go on, or start afresh."""
    import requests
    import urllib3

    version = part.with_name(part.name + ".version")  # the validator that `part` came with: no splicing of two versions
    known = version.read_text(encoding="utf-8") if version.exists() else ""
    have = part.stat().st_size if known and part.exists() else 0
    headers = {"Accept-Encoding": "identity", "User-Agent": "ttlkit (dataset fetcher)"}
    headers |= {"Range": f"bytes={have}-", "If-Range": known} if have else {}
    try:
        response = requests.get(url, headers=headers, stream=True, timeout=(patience.connect, patience.read))
    except (requests.RequestException, ValueError) as error:
        again = isinstance(error, (requests.ConnectionError, requests.Timeout))
        raise (BrokenError if again else SourceError)(_why(error)) from None
    with response:
        status, told = response.status_code, response.headers
        if url.startswith("https:") and not response.url.startswith("https:"):
            raise SourceError(f"redirected from https to {response.url}")
        etag = told.get("ETag", "W/")
        validator = told.get("Last-Modified", "") if etag.startswith("W/") else etag
        fits = validator == known and told.get("Content-Range", "").startswith(f"bytes {have}-")
        goes_on = have > 0 and status == 206 and fits
        if status in (206, 416) and not goes_on:
            part.unlink(missing_ok=True)
            raise BrokenError(f"HTTP {status} with a range that does not fit; starting afresh")
        if status not in (200, 206):
            raise (BrokenError if status in BUSY or status >= 500 else SourceError)(f"HTTP {status} {response.reason}")
        if told.get("Content-Type", "").lower().startswith("text/html"):
            raise SourceError(A_PAGE)
        done = have if goes_on else 0  # 200: the first try, or no ranges here, or no longer the file we have a part of
        total = done + int(told["Content-Length"]) if told.get("Content-Length", "").isdigit() else None
        if total is not None and total - done > shutil.disk_usage(part.parent).free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(part))
        read = getattr(response.raw, "read1", response.raw.read)  # read1 gives what is there; urllib3 1 has none
        watch, cut = _Watch(patience, progress, done), False
        with open(part, "ab" if goes_on else "wb") as file:
            files.write_text(version, validator)
            try:
                for chunk in iter(lambda: read(1 << 16), b""):
                    file.write(chunk)
                    file.flush()  # what has come is kept, even if we are killed now
                    done += len(chunk)
                    watch(done, total)
            except urllib3.exceptions.HTTPError:
                cut = True
    if cut or total not in (None, done):
        raise BrokenError(f"connection cut: {done} of {total or 'unknown'} bytes")
    version.unlink()


def _gdown(url: str, part: Path, patience: Patience, progress: Progress) -> None:
    """Let gdown get a file or a folder of Drive, and end it when nothing comes."""
    call, output = ("download_folder", f"{part}{os.sep}") if url.startswith(DRIVE_FOLDER) else ("download", str(part))
    before = _size(part.parent)
    watch = _Watch(patience, progress, before)
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([sys.executable, "-c", GDOWN, call, url, output], stdout=log, stderr=log)
        try:
            while process.poll() is None:
                time.sleep(min(0.5, patience.window / 4))
                watch(_size(part.parent), None)
        except SourceError as error:
            raise SourceError(f"gdown: {error}") from None
        finally:
            process.kill()
            process.wait()
        log.seek(0)
        words = " ".join(log.read().decode(errors="replace").split())
    if process.returncode:
        raise (BrokenError if _size(part.parent) > before else SourceError)(f"gdown: {words[:300]}")


def _size(folder: Path) -> int:
    """Bytes in the files of a folder, as far as they can be seen: gdown renames them at the same time."""
    found = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            found += path.stat().st_size if path.is_file() else 0
    return found


def _why(error: Exception) -> str:
    """The innermost words of a chain of network errors, in one line."""
    while isinstance(error.__context__, Exception) and len(str(error.__context__)) > 3:
        error = error.__context__
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
