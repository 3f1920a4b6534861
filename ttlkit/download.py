"""Download a file over HTTP or from Google Drive: resumed, checked for length, given up when too slow."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

GITHUB_ARCHIVE = "https://codeload.github.com/{repo}/zip/{commit}"
GITHUB_RAW = "https://raw.githubusercontent.com/{repo}/{commit}/{path}"
DRIVE_FILE = "https://drive.usercontent.google.com/download?id={id}&export=download&confirm=t"
# gdown runs as a process of its own: gdown 5 has no time limit, and a process can be watched and ended.
GDOWN_FILE = "gdown.download(id=sys.argv[1], output=sys.argv[2] + 'file', quiet=True, resume=True, use_cookies=False)"
GDOWN_FOLDER = "gdown.download_folder(id=sys.argv[1], output=sys.argv[2], quiet=True, resume=True, use_cookies=False)"

Progress = Callable[[int, int | None], None]


class DownloadError(RuntimeError):
    """A mirror does not deliver; the message says why. What came so far is kept for the next try."""


class WebPage(DownloadError):
    """A web page came instead of the file: a quota, a sign-in or a captcha."""


class _Again(DownloadError):
    """Worth another try: a cut connection, a busy server."""


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


def looks_like_a_page(start: bytes) -> bool:
    """Whether a file's first bytes are HTML."""
    return start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype html", b"<html"))


def download(url: str, target: Path, patience: Patience = PATIENCE, progress: Progress | None = None) -> None:
    """Fetch `url` to `target`, going on from `target`.part where there is one; whole or not at all.

    Raises DownloadError when the server does not deliver, OSError when the disk does not take it.
    """
    part, failures = target.with_name(target.name + ".part"), 0
    for attempt in range(patience.most):
        before = _size(part)
        try:
            _attempt(url, part, patience, progress)
            os.replace(part, target)
            _notes(part).unlink(missing_ok=True)
            return
        except _Again as error:
            failures = 1 if _size(part) > before else failures + 1
            if failures >= patience.tries or attempt + 1 == patience.most:
                raise DownloadError(f"{error} ({attempt + 1} tries)") from None
            time.sleep(min(patience.wait * 2 ** (failures - 1), 30))


def _attempt(url: str, part: Path, patience: Patience, progress: Progress | None) -> None:
    import requests

    part.parent.mkdir(parents=True, exist_ok=True)
    notes = _read_notes(part)
    have = _size(part) if notes.get("url") == url else 0
    if have and have == notes.get("total"):
        return  # killed before it got its name
    headers = {"Accept-Encoding": "identity", "User-Agent": "ttlkit (dataset fetcher)"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if notes.get("etag"):
            headers["If-Range"] = notes["etag"]
    try:
        response = requests.get(url, headers=headers, stream=True, timeout=(patience.connect, patience.read))
    except requests.exceptions.TooManyRedirects:
        raise DownloadError("redirects in a circle") from None
    except (requests.exceptions.ConnectionError, requests.exceptions.Timeout) as error:
        raise _Again(_why(error)) from None
    except (requests.RequestException, ValueError) as error:
        raise DownloadError(_why(error)) from None
    with response:
        if url.startswith("https:") and not response.url.startswith("https:"):
            raise DownloadError(f"redirected from https to {response.url}")
        start, total = _range(response, have, notes, part)
        if response.headers.get("Content-Type", "").lower().startswith("text/html"):
            raise WebPage("sent a web page instead of the file (a quota or sign-in page)")
        if total is not None and total - start > shutil.disk_usage(part.parent).free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(part))
        etag = response.headers.get("ETag", "")
        kept = {"url": url, "total": total, "etag": "" if etag.startswith("W/") else etag}
        with open(part, "r+b" if start else "wb") as file:
            _notes(part).write_text(json.dumps(kept), encoding="utf-8")
            file.seek(start)
            done = start
            try:
                for chunk in _chunks(response, patience):
                    if done == 0 and looks_like_a_page(chunk):
                        raise WebPage("sent a web page instead of the file (a quota or sign-in page)")
                    file.write(chunk)
                    file.flush()  # what has come is kept, even if we are killed now
                    done += len(chunk)
                    if done > patience.most_bytes:
                        raise DownloadError(f"sends more than {patience.most_bytes} bytes")
                    if progress:
                        progress(done, total)
            except _Again:
                if total is None:
                    raise
            file.truncate()
    if total is not None and done != total:
        raise _Again(f"connection cut: {done} of {total} bytes")


def _range(response, have: int, notes: dict, part: Path) -> tuple[int, int | None]:
    """(where the body starts, bytes in all or None) of an answer; raises for anything but 200 and a fitting 206."""
    status = response.status_code
    length = response.headers.get("Content-Length", "")
    if status == 200:  # also: the server ignores Range, or the file is no longer the one we have a part of
        return 0, int(length) if length.isdigit() else None
    if status == 206 and have:
        parts = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", response.headers.get("Content-Range", ""))
        if parts and int(parts[1]) == have and notes.get("total") in (None, int(parts[3])):
            return have, int(parts[3])
    if status in (206, 416):
        part.unlink(missing_ok=True)
        raise _Again(f"HTTP {status} with a range that does not fit; starting afresh")
    if status in (404, 408, 425, 429) or status >= 500:  # 404: a moment's confusion is common behind load balancers
        raise _Again(f"HTTP {status} {response.reason}")
    raise DownloadError(f"HTTP {status} {response.reason}")


def _chunks(response, patience: Patience) -> Iterator[bytes]:
    """The body as it arrives; raises _Again when it breaks off, DownloadError when it drips."""
    import urllib3

    read = getattr(response.raw, "read1", None)  # urllib3 1 has none; small reads keep the clock ticking there
    began, since = time.monotonic(), 0
    while True:
        try:
            chunk = read(1 << 18, decode_content=False) if read else response.raw.read(1024, decode_content=False)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise _Again(f"connection cut: {_why(error)}") from None
        if not chunk:
            return
        yield chunk
        since += len(chunk)
        passed = time.monotonic() - began
        if passed >= patience.window:
            if since < patience.slowest * passed:
                raise DownloadError(f"too slow: {since / passed:.0f} bytes a second")
            began, since = time.monotonic(), 0


def download_drive(id: str, target: Path, patience: Patience = PATIENCE, progress: Progress | None = None) -> None:
    """Fetch one file of Google Drive: by its direct address (which resumes), by gdown where that shows a page."""
    try:
        download(DRIVE_FILE.format(id=id), target, patience, progress)
    except WebPage as page:
        scratch = target.with_name(target.name + ".gdown")
        try:
            _gdown(GDOWN_FILE, id, scratch, patience)
        except DownloadError as error:
            raise DownloadError(f"{page}; {error}") from None
        with open(scratch / "file", "rb") as file:
            if looks_like_a_page(file.read(512)):
                shutil.rmtree(scratch)
                raise page
        os.replace(scratch / "file", target)
        shutil.rmtree(scratch)


def download_drive_folder(
    id: str, target: Path, patience: Patience = PATIENCE, progress: Progress | None = None
) -> None:
    """Fetch a folder of Google Drive by gdown to the folder `target`; whole or not at all, without progress."""
    part = target.with_name(target.name + ".part")
    _gdown(GDOWN_FOLDER, id, part, patience)
    os.replace(part, target)


def _gdown(call: str, id: str, folder: Path, patience: Patience) -> None:
    """Run gdown beside us and watch `folder` grow; DownloadError when it fails or stands still."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder.with_name(folder.name + ".log")
    code = f"import sys, gdown; sys.exit(None if {call} else 'gdown got nothing')"
    with open(log, "w+", encoding="utf-8", errors="replace") as errors:
        command = [sys.executable, "-c", code, id, f"{folder}{os.sep}"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        try:
            began, size = time.monotonic(), 0
            while process.poll() is None:
                time.sleep(min(0.2, patience.window / 4))
                passed = time.monotonic() - began
                if passed >= patience.window:
                    now = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
                    if now - size < patience.slowest * passed:
                        raise DownloadError(f"gdown: too slow: {(now - size) / passed:.0f} bytes a second")
                    began, size = time.monotonic(), now
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
        errors.seek(0)
        lines = [line.strip() for line in errors.read().splitlines() if line.strip()]
    log.unlink(missing_ok=True)
    if process.returncode:
        raise DownloadError(f"gdown: {lines[-1] if lines else f'exit code {process.returncode}'}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _notes(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _read_notes(part: Path) -> dict:
    try:
        notes = json.loads(_notes(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return notes if isinstance(notes, dict) else {}


def _why(error: Exception) -> str:
    """The innermost words of a chain of network errors, in one line."""
    while isinstance(error.__context__, Exception) and len(str(error.__context__)) > 3:
        error = error.__context__
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
