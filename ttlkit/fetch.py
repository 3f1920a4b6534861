"""Fetch public data sets into a collection: from the drop folder or the first mirror that works, all or nothing."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from ttlkit import download as net
from ttlkit.catalogue import DataSet, Mirror, is_target, load_hashes
from ttlkit.config import home
from ttlkit.download import PATIENCE, DownloadError, Patience, Progress
from ttlkit.unpack import DamagedError, Staged, UnpackError, sha256, unpack


class FetchError(RuntimeError):
    """A set cannot be fetched; the message names what was tried, why it failed, and the way out."""


class _OtherBytes(UnpackError):
    """The set is there, but with other bytes than those on record."""


@dataclass(frozen=True)
class Report:
    """What a fetch did: `new` is False where the set was there already; `notice` holds citation and licence."""

    name: str
    folder: Path
    files: int
    source: str
    new: bool
    notice: str


@dataclass(frozen=True)
class Row:
    """One line of the list of sets."""

    name: str
    kind: str
    count: str
    size: str
    version: str
    licence: str
    how: str
    fetched: bool


def default_folder() -> Path:
    """The collection that fetched sets are merged into."""
    return home() / "datasets" / "fetched"


def rows(catalogue: Mapping[str, DataSet], into: Path | None = None) -> list[Row]:
    """The catalogue as a table; `fetched` only looks whether the files are there (see `problems`)."""
    into, found = into or default_folder(), []
    for entry in catalogue.values():
        how = ", ".join(dict.fromkeys(mirror.place for mirror in entry.mirrors)) or "drop folder only"
        count = "" if entry.count is None else str(entry.count)
        marker = _read_marker(into, entry.name)
        there = bool(marker) and all((into / path).is_file() for path in marker["files"])
        found.append(Row(entry.name, entry.kind, count, entry.size, entry.version, entry.licence, how, there))
    return found


def problems(dataset: DataSet, into: Path | None = None) -> list[str]:
    """What is wrong with the files of a fetched set, one line each: missing, changed. Empty: all as fetched."""
    into = into or default_folder()
    marker = _read_marker(into, dataset.name)
    if not marker:
        return [f"{dataset.name}: not fetched into {into}"]
    found = []
    for path, digest in marker["files"].items():
        if not (into / path).is_file():
            found.append(f"{into / path}: missing; fetch {dataset.name} again")
        elif sha256(into / path) != digest:
            found.append(f"{into / path}: not the bytes that were fetched; remove it and fetch {dataset.name} again")
    return found


def fetch(
    dataset: DataSet,
    into: Path | None = None,
    drop: Path | None = None,
    *,
    datasets: Path | None = None,
    accept: bool = False,
    say: Callable[[str], None] = lambda line: None,
    progress: Progress | None = None,
    patience: Patience = PATIENCE,
) -> Report:
    """Bring one set into the collection `into`, or find that it is there.

    `drop` is a file or folder put there by hand (default: datasets/drop/<set>), tried first, never changed.
    `accept` takes other bytes than those on record, and records them. Downloads and records live in `datasets`.
    Raises FetchError, whose message has a line for each mirror tried; what was finished before stays untouched.
    """
    datasets = datasets or home() / "datasets"
    into, drop = into or datasets / "fetched", drop or datasets / "drop" / dataset.name
    job = _Job(dataset, into.absolute(), drop, datasets.absolute(), accept, say, progress, patience)
    with _clear_disk_errors(job.into), _locked(job.into / ".fetched" / f"{dataset.name}.lock", say):
        return job.run()


@dataclass(frozen=True)
class _Job:
    dataset: DataSet
    into: Path
    drop: Path
    datasets: Path
    accept: bool
    say: Callable[[str], None]
    progress: Progress | None
    patience: Patience

    @property
    def staging(self) -> Path:
        return self.into / ".fetched" / f"{self.dataset.name}.staging"

    @property
    def recorded(self) -> Path:
        return self.datasets / "recorded" / f"{self.dataset.name}.sha256"

    def run(self) -> Report:
        entry = self.dataset
        marker = _finish_install(entry.name, self.into) or _read_marker(self.into, entry.name)
        fits = marker and not self.accept and marker["version"] == entry.version
        if fits and not problems(entry, self.into):
            return Report(entry.name, self.into, len(marker["files"]), marker["source"], False, entry.notice)
        try:
            source, files = self.first_that_works()
            _refuse_foreign_files(self.into, files, marker)
            self.record(files)
            _install(entry, self.into, files, source)
        finally:
            if not (self.staging / "READY.json").exists():
                shutil.rmtree(self.staging, ignore_errors=True)
        for mirror in entry.mirrors:
            if mirror.keep and mirror.label == source:
                self.say(f"{self.downloads(mirror)}: kept for other sets that are in it; remove it when you like")
            elif not mirror.keep and self.downloads(mirror).exists():
                with self.locked(mirror):
                    shutil.rmtree(self.downloads(mirror), ignore_errors=True)
        self.say(entry.notice)
        return Report(entry.name, self.into, len(files), source, True, entry.notice)

    def first_that_works(self) -> tuple[str, dict[str, Staged]]:
        """(words for the source, staged files) of the drop folder or the first mirror that delivers the set."""
        name, reasons = self.dataset.name, []
        attempts: list[tuple[str, Mirror | None]] = [(mirror.label, mirror) for mirror in self.dataset.mirrors]
        if self.drop.is_file() or (self.drop.is_dir() and any(self.drop.iterdir())):
            attempts.insert(0, (f"drop folder {self.drop}", None))
        for label, mirror in attempts:
            self.say(f"{name}: {label}")
            try:
                if mirror is None:
                    return label, self.staged([self.drop])
                with self.locked(mirror):
                    return label, self.from_mirror(mirror)
            except (DownloadError, UnpackError) as error:
                reasons.append(f"{label}: {error}")
                self.say(f"{name}: {label}: {error}")
        tried = "".join(f"\n  {reason}" for reason in reasons) or " (no mirror is known)"
        way_out = f"put {self.dataset.drop} into {self.drop} and run it again"
        raise FetchError(f"{name}: could not be fetched{tried}\n  way out: {way_out}")

    def from_mirror(self, mirror: Mirror) -> dict[str, Staged]:
        """Download and stage; what an earlier fetch left is used once, then downloaded again if it is no good."""
        left = self.downloads(mirror).exists()
        sources, fresh = self.download(mirror)
        try:
            return self.staged(sources)
        except _OtherBytes:
            raise  # the download is sound: kept, should the user accept it
        except UnpackError as error:
            if mirror.keep and not isinstance(error, DamagedError):
                raise  # other sets may well be in it
            shutil.rmtree(self.downloads(mirror), ignore_errors=True)
            if fresh or not left:
                raise
        return self.staged(self.download(mirror)[0])

    def staged(self, sources: list[Path]) -> dict[str, Staged]:
        shutil.rmtree(self.staging, ignore_errors=True)
        files = unpack(self.dataset, sources, self.staging)
        self.compare(files)
        return files

    def download(self, mirror: Mirror) -> tuple[list[Path], bool]:
        """(files or folders that a mirror consists of, whether any of it was downloaded now)."""
        folder, fresh = self.downloads(mirror), False
        jobs: list[tuple[Path, Callable, str]] = []
        for path in mirror.files:
            url = net.GITHUB_RAW.format(repo=mirror.github, commit=mirror.commit, path=path.replace(" ", "%20"))
            jobs.append((folder / path, net.download, url))
        if mirror.github and not mirror.files:
            url = net.GITHUB_ARCHIVE.format(repo=mirror.github, commit=mirror.commit)
            jobs.append((folder / "archive.zip", net.download, url))
        for url in mirror.urls:
            jobs.append((folder / PurePosixPath(url.split("?")[0]).name, net.download, url))
        if mirror.drive:
            jobs.append((folder / "archive", net.download_drive, mirror.drive))
        if mirror.drive_folder:
            jobs.append((folder / "folder", net.download_drive_folder, mirror.drive_folder))
        for target, call, address in jobs:
            if not target.exists():
                call(address, target, self.patience, self.progress)
                fresh = True
        # the topmost folder, so that rules see the whole path of a file
        tops = [folder / target.relative_to(folder).parts[0] for target, _, _ in jobs]
        return list(dict.fromkeys(tops)), fresh

    def downloads(self, mirror: Mirror) -> Path:
        """A folder of the mirror's own, whatever set asks for it."""
        words = {key: value for key, value in asdict(mirror).items() if key != "keep"}
        key = hashlib.sha256(json.dumps(words, sort_keys=True).encode()).hexdigest()[:16]
        return self.datasets / ".downloads" / key

    def locked(self, mirror: Mirror) -> contextlib.AbstractContextManager:
        return _locked(self.downloads(mirror).with_suffix(".lock"), self.say)

    def compare(self, files: dict[str, Staged]) -> None:
        """Hold the staged files against the hashes on record; _OtherBytes says how they differ."""
        expected, where = load_hashes(self.recorded), str(self.recorded)
        if not expected and self.dataset.verify == "exact":
            expected, where = dict(self.dataset.known), f"hashes/{self.dataset.name}.sha256"
        if self.accept or not expected:
            return
        changed = sorted(path for path in files if path in expected and files[path].origin != expected[path])
        gone, more = sorted(expected.keys() - files.keys()), sorted(files.keys() - expected.keys())
        if changed or gone or more:
            first = (changed or gone or more)[0]
            raise _OtherBytes(
                f"not what {where} says: of {len(expected)} files {len(changed)} have other bytes, {len(gone)} are "
                f"missing, {len(more)} are new (first: {first}); if you mean this version: --accept-new-hashes"
            )

    def record(self, files: dict[str, Staged]) -> None:
        """Keep the hashes of a first download, or of bytes accepted on purpose, where the catalogue has none."""
        origins = {path: staged.origin for path, staged in sorted(files.items())}
        if self.dataset.verify == "exact" and origins == self.dataset.known:
            self.recorded.unlink(missing_ok=True)
        elif self.accept or not self.recorded.exists():
            _write(self.recorded, "".join(f"{digest}  {path}\n" for path, digest in origins.items()))


# ---- into the collection: staged, then marked as ready, then moved, then marked as done ---------------------------


def _refuse_foreign_files(into: Path, files: Mapping[str, Staged], marker: dict) -> None:
    ours = marker.get("files", {})
    for path, staged in files.items():
        if path not in ours and (into / path).exists() and sha256(into / path) != staged.sha256:
            raise FetchError(f"{into / path}: exists with other bytes and is not ours; move it away and fetch again")


def _install(dataset: DataSet, into: Path, files: Mapping[str, Staged], source: str) -> None:
    marker = {
        "name": dataset.name,
        "version": dataset.version,
        "source": source,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "files": {path: staged.sha256 for path, staged in sorted(files.items())},
    }
    _write(into / ".fetched" / f"{dataset.name}.staging" / "READY.json", json.dumps(marker, indent=1))
    _finish_install(dataset.name, into)


def _finish_install(name: str, into: Path) -> dict:
    """Move what is staged and ready, also after a kill in the middle of it; {} where nothing is ready.

    A folder of pairs that does not exist yet appears in one step, so no half set is ever seen.
    """
    staging = into / ".fetched" / f"{name}.staging"
    marker = _read_json(staging / "READY.json")
    if not marker:
        return {}
    for path in marker["files"]:
        depth = 2 if path.startswith(("synthetic/", "test/")) else 1
        unit = PurePosixPath(*PurePosixPath(path).parts[:depth])
        if not (staging / path).exists():
            continue  # moved before the kill, or with its folder
        if depth == 2 and not (into / unit).exists():
            (into / unit).parent.mkdir(parents=True, exist_ok=True)
            os.replace(staging / unit, into / unit)
        else:
            (into / path).parent.mkdir(parents=True, exist_ok=True)
            os.replace(staging / path, into / path)
    for path, digest in _read_marker(into, name).get("files", {}).items():  # of the version before
        old = into / path
        if path not in marker["files"] and old.is_file() and sha256(old) == digest:
            old.unlink()
    _write(into / ".fetched" / f"{name}.json", json.dumps(marker, indent=1))
    shutil.rmtree(staging)
    return marker


def _read_marker(into: Path, name: str) -> dict:
    return _read_json(into / ".fetched" / f"{name}.json")


def _read_json(path: Path) -> dict:
    """A marker, or {} where there is none that can be trusted."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        good = all(is_target(file) and isinstance(digest, str) for file, digest in found["files"].items())
        return found if good and isinstance(found["version"], str) and isinstance(found["source"], str) else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


@contextlib.contextmanager
def _locked(path: Path, say: Callable[[str], None]) -> Iterator[None]:
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"{path}: another fetch is at work; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _clear_disk_errors(into: Path) -> Iterator[None]:
    """Turn a disk that does not take it into one line that names the folder and the space left."""
    try:
        yield
    except (FetchError, DownloadError, UnpackError):
        raise
    except OSError as error:
        folder = Path(error.filename).parent if isinstance(error.filename, str) else into
        folder = folder if folder.is_absolute() else into
        while not folder.is_dir() and folder != folder.parent:
            folder = folder.parent
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            free = shutil.disk_usage(folder).free / 2**20
            problem = f"disk full ({free:.0f} MiB free)" if error.errno == errno.ENOSPC else f"{error.strerror}"
            way_out = "free some space and run it again: what is finished is kept"
        else:
            problem, way_out = f"cannot be read or written ({error.strerror or error})", "give another folder"
        raise FetchError(f"{folder}: {problem}; {way_out} (set TTLKIT_HOME, or --into)") from None
