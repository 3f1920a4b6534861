"""Fetch public data sets into a collection: from the drop folder or the first mirror that works, all or nothing."""

import errno
import os
import shutil
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ttlkit import files
from ttlkit.data.public.catalogue import DataSet, Mirror, is_target, load_hashes
from ttlkit.data.public.download import FetchError, Progress, download
from ttlkit.data.public.unpack import unpack
from ttlkit.machine import home

# What a fetch did: the collection, how many files, from where, and whether they were not there already.
Report = namedtuple("Report", "folder files source new")
# One line of the list of sets: all of it words, but `fetched`.
Row = namedtuple("Row", "name kind count size version licence how fetched")
Say = Callable[[str], None]


def rows(catalogue: Mapping[str, DataSet], into: Path | None = None) -> list[Row]:
    """The catalogue as a table; `fetched` only looks whether the files are there (see `problems`)."""
    into, found = into or home() / "datasets" / "fetched", []
    for entry in catalogue.values():
        how = ", ".join(dict.fromkeys(mirror.place for mirror in entry.mirrors)) or "drop folder only"
        paths = _marker(into, entry.name).get("files", ())
        fetched = bool(paths) and all((into / path).is_file() for path in paths)
        count = str(entry.count or "")
        found.append(Row(entry.name, entry.kind, count, entry.size, entry.version, entry.licence, how, fetched))
    return found


def problems(dataset: DataSet, into: Path | None = None) -> list[str]:
    """What is wrong with the files of a fetched set, one line each: missing, changed. Empty: all as fetched."""
    into = into or home() / "datasets" / "fetched"
    marker, found = _marker(into, dataset.name), []
    if not marker:
        return [f"{dataset.name}: not fetched into {into}"]
    for path, digest in marker["files"].items():
        if not (into / path).is_file():
            found.append(f"{into / path}: missing; fetch {dataset.name} again")
        elif files.sha256(into / path) != digest:
            found.append(f"{into / path}: not the bytes that were fetched; remove it and fetch {dataset.name} again")
    return found


def fetch(
    dataset: DataSet,
    into: Path | None = None,
    drop: Path | None = None,
    *,
    datasets: Path | None = None,
    accept: bool = False,
    say: Say = lambda line: None,
    progress: Progress = lambda done, total: None,
) -> Report:
    """Bring one set into the collection `into`, or find that it is there.

    `drop` is a file or folder put there by hand (default: datasets/drop/<set>), tried first, never changed.
    `accept` takes other bytes than those on record, and records them. Downloads and records live in `datasets`.
    Raises FetchError, whose message has a line for each mirror tried; what was finished before stays untouched.
    """
    if drop and not _holds_something(drop):
        raise FetchError(
            f"{dataset.name}: {files.shown(drop)}: no file, and no folder with files; name the one you have"
        )
    datasets = (datasets or home() / "datasets").absolute()
    into, drop = (into or datasets / "fetched").absolute(), (drop or datasets / "drop" / dataset.name).absolute()
    notes, staging = into / ".fetched", into / ".fetched" / f"{dataset.name}.staging"
    with _disk_errors(into), _locked(notes / f"{dataset.name}.lock", say):
        had = _marker(into, dataset.name)
        if had and not accept and had["version"] == dataset.version and not problems(dataset, into):
            return Report(into, len(had["files"]), had["source"], False)
        places = [(mirror, datasets / ".downloads" / files.sha256_of(mirror.downloads)) for mirror in dataset.mirrors]
        dropped = [(None, drop)] if _holds_something(drop) else []
        reasons = ""
        try:
            for mirror, place in [*dropped, *places]:
                source = mirror.label if mirror else f"drop folder {files.shown(drop)}"
                say(f"{dataset.name}: {source}")
                try:
                    origins = _stage(dataset, mirror, place, staging, say, progress)
                    _hold_to_record(dataset, datasets / "recorded" / f"{dataset.name}.sha256", accept, origins)
                    break
                except FetchError as error:
                    say(f"{dataset.name}: {source}: {error}")
                    reasons += f"\n  {source}: {error}"
            else:
                tried = f"{reasons or ' (no mirror is known)'}\n  way out: put {dataset.drop} into {files.shown(drop)}"
                raise FetchError(f"{dataset.name}: could not be fetched{tried} and run it again")
            placed = _install(staging, into, sorted(origins), had.get("files", {}))
            date = datetime.now(UTC).isoformat(timespec="seconds")
            marker = {"version": dataset.version, "source": source, "date": date, "files": placed}
            files.write_json(notes / f"{dataset.name}.json", marker)
        finally:
            files.remove(staging)
        for mirror, place in places:
            if mirror.keep and mirror.label == source:
                say(f"{place}: kept for other sets that are in it; remove it when you like")
            elif not mirror.keep and place.exists():
                with _locked(place.with_suffix(".lock"), say):
                    files.remove(place)
        say(dataset.notice)
        return Report(into, len(placed), source, True)


def _holds_something(drop: Path) -> bool:
    return drop.is_file() or (drop.is_dir() and any(drop.iterdir()))


def _stage(
    dataset: DataSet, mirror: Mirror | None, place: Path, staging: Path, say: Say, progress: Progress
) -> dict[str, str]:
    """Unpack what lies in `place`; from a mirror, download first what is missing there. Returns as `unpack` does.

    What an earlier fetch left is used once, then downloaded again if it is no good.
    """
    if not mirror:
        return unpack(dataset, place, staging)
    with _locked(place.with_suffix(".lock"), say):
        while True:
            missing = {path: url for path, url in mirror.downloads.items() if not (place / path).exists()}
            for path, url in missing.items():
                download(url, place / path, progress)
            try:
                return unpack(dataset, place, staging)
            except FetchError as error:
                if missing or (mirror.keep and not error.again):  # other sets may well be in it
                    raise
                files.remove(place)


def _hold_to_record(dataset: DataSet, recorded: Path, accept: bool, origins: dict[str, str]) -> None:
    """Raise FetchError where the source's files are not those on record; record them where there are none yet."""
    expected, where = load_hashes(recorded), str(recorded)
    if not expected and dataset.verify == "exact":
        expected, where = dataset.known, f"hashes/{dataset.name}.sha256"
    differ = {path for path, _ in origins.items() ^ expected.items()}
    if expected and differ and not accept:
        problem = f"{len(differ)} files are missing, new or have other bytes than {where} says (first: {min(differ)})"
        raise FetchError(f"{problem}; if you mean this version: --accept-new-hashes")
    if dataset.verify == "exact" and origins == dataset.known:
        recorded.unlink(missing_ok=True)
    elif differ:
        files.write_text(recorded, "".join(f"{origins[path]}  {path}\n" for path in sorted(origins)))


def _install(staging: Path, into: Path, paths: list[str], old: Mapping[str, str]) -> dict[str, str]:
    """Move what is staged into the collection, and remove what was of the version before; path -> sha256.

    A folder of pairs that does not exist yet appears in one step, so no half set is ever seen. After a kill in the
    middle the next fetch stages the same files again, and completes it.
    """
    placed = {path: files.sha256(staging / path) for path in paths}
    for path in paths:
        if path not in old and (into / path).exists() and files.sha256(into / path) != placed[path]:
            raise FetchError(f"{into / path}: exists with other bytes and is not ours; move it away and fetch again")
    for path in paths:
        folder = "/".join(path.split("/")[:2])
        unit = folder if path.startswith(("synthetic/", "test/", "val/")) and not (into / folder).exists() else path
        if (staging / path).exists():  # not moved with its folder
            (into / unit).parent.mkdir(parents=True, exist_ok=True)
            os.replace(staging / unit, into / unit)
    for path in old.keys() - placed.keys():
        if (into / path).is_file() and files.sha256(into / path) == old[path]:
            (into / path).unlink()
    return placed


def _marker(into: Path, name: str) -> dict[str, Any]:
    """What is noted of a set in the collection: version, source, date, files; {} where no note can be trusted."""
    found = files.read_json(into / ".fetched" / f"{name}.json")
    try:
        good = all(is_target(path) and isinstance(digest, str) for path, digest in found["files"].items())
        return found if good and isinstance(found["version"], str) and isinstance(found["source"], str) else {}
    except (KeyError, TypeError, AttributeError):
        return {}


def _locked(path: Path, say: Say) -> Any:
    """Hold a lock between processes; says so where it has to wait."""
    lock = FileLock(path)
    with suppress(Timeout):
        return lock.acquire(timeout=0)
    say(f"{path}: another fetch is at work; waiting for it")
    return lock.acquire()


@contextmanager
def _disk_errors(into: Path) -> Iterator[None]:
    """Turn a disk that does not take it into one line that names the place and the space left."""
    try:
        yield
    except OSError as error:
        place, problem = Path(str(error.filename or into)).absolute(), error.strerror or error
        if error.errno == errno.ENOSPC:
            folder = next(folder for folder in (place, *place.parents) if folder.is_dir())
            problem = f"disk full: {shutil.disk_usage(folder).free / 2**20:.0f} MiB free"
        way_out = "what is finished is kept: free space or give another folder (TTLKIT_HOME, --into), and run it again"
        raise FetchError(f"{files.shown(place)}: cannot be read or written ({problem}); {way_out}") from None
