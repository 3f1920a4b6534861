"""Check a collection or any folder of images: files, pairs, duplicates, and leaks from training into test."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np

from ttlkit import cache, images, leaks
from ttlkit.data import Collection, CollectionError

ALIKE = 0.5  # likeness of a pair's thumbnails; what pairs and strangers have: tests/benchmarks/leaks.py
TINY, HUGE = 64, 40_000_000  # px of the shorter side; pixels
MANY = 100  # files; fewer are read by one process
KINDS = {
    "leak": "a training image shows a scene of the test set",
    "unreadable": "cannot be opened as an image",
    "truncated": "the file ends too early",
    "unpaired": "no file of the same name on the other side",
    "pair-size": "the two images of a pair differ in size",
    "pair-content": "the two images of a pair do not show the same scene",
    "duplicate": "the same pixels as another file of its folder",
    "16-bit": "read, scaled to 8 bits",
    "CMYK": "read, converted to RGB",
    "EXIF-rotated": "read, turned upright",
    "grey": "read, but has no colour",
    "tiny": f"a side shorter than {TINY} px",
    "huge": f"more than {HUGE // 1_000_000} megapixels",
}


@dataclass(frozen=True)
class Finding:
    """One thing to know about a file; `other` is the second file that it concerns."""

    kind: str
    file: str
    detail: str
    other: str = ""

    def __str__(self) -> str:
        return f"{self.kind:12s}  {self.file}  {self.detail}{' ' if self.detail and self.other else ''}{self.other}"


@dataclass(frozen=True)
class Report:
    """What a check found; `counts` says what was looked at."""

    root: str
    against: str
    findings: tuple[Finding, ...]
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def leaks(self) -> tuple[Finding, ...]:
        """The findings that make test scores worthless."""
        return tuple(f for f in self.findings if f.kind == "leak")

    def without(self, kinds: Iterable[str]) -> Report:
        """The same report, some kinds of findings left out; ValueError for a kind that does not exist."""
        kinds = set(kinds)
        if kinds - KINDS.keys():
            raise CollectionError(f"no such kind of finding: {', '.join(sorted(kinds - KINDS.keys()))}; "
                                  f"there are {', '.join(KINDS)}")  # fmt: skip
        return replace(self, findings=tuple(f for f in self.findings if f.kind not in kinds))

    def table(self) -> str:
        """One line a finding, the gravest first, then what was looked at and the verdict."""
        lines = [str(finding) for finding in self.findings]
        found = Counter(finding.kind for finding in self.findings)
        lines += [""] * bool(lines) + [f"{n:4d} {kind}: {KINDS[kind]}" for kind, n in found.items()]
        lines.append(", ".join(f"{n} {what}" for what, n in self.counts.items()))
        return "\n".join([*lines, self.leak_verdict(), "clean" if not found else "not clean"])

    def leak_verdict(self) -> str:
        """One line on leaks, for the results that depend on it."""
        train, test = self.counts["training scenes"], self.counts["test scenes"]
        if not train or not test:
            return "leak check: nothing to compare"
        if not self.leaks:
            return f"leak check: none of {train} training scenes shows one of the {test} test scenes"
        shown = len({finding.file for finding in self.leaks})
        return f"leak check: {shown} of {train} training scenes SHOW A TEST SCENE ({test} test scenes)"

    def as_json(self) -> dict:
        """The report as plain types."""
        return {**asdict(self), "findings": [asdict(f) for f in self.findings], "clean": not self.findings,
                "leak_verdict": self.leak_verdict()}  # fmt: skip


def check(root: Path | str, against: Path | str | None = None, workers: int | None = None) -> Report:
    """Look at every image file below `root`, and compare its training scenes with the test scenes.

    Test scenes are those below a folder `test` of `root`, and all below `against`; the rest of `root` is training.
    Of a pair the clean image stands for the scene; `streaks` and `mask` folders show none. Large folders are
    read by several processes. Raises CollectionError where there is no folder, or no image in it.
    """
    root, other = Path(os.path.abspath(root)), Path(os.path.abspath(against)) if against else None
    if other and (other / "test").is_dir():
        other = other / "test"
    files = _files(root)
    names = {path: str(path.relative_to(root)) for path in files}
    shown = [p for p in files if _shows_a_scene(p)]
    test = [p for p in shown if "test" in p.relative_to(root).parts[:-1] or (other and p.is_relative_to(other))]
    tested = set(test)
    train = [p for p in shown if p not in tested]
    if other:
        more = [p for p in _files(other) if _shows_a_scene(p) and p not in names]
        names |= {path: str(path) for path in more}
        test += more
    findings: list[Finding] = []
    hashes: dict[Path, str] = {}
    thumbnails: dict[Path, np.ndarray] = {}
    sizes: dict[Path, tuple[int, int]] = {}

    def noted(looks: Iterable[_Look]) -> Iterator[leaks.Scene]:
        for look in looks:
            if look.path.is_relative_to(root):
                findings.extend(Finding(kind, names[look.path], detail) for kind, detail in look.notes)
            if look.hash:
                hashes[look.path], sizes[look.path], thumbnails[look.path] = look.hash, look.size, look.thumbnail
            if look.scene:
                yield look.scene

    compared = set(train) | set(test) if train and test else set()
    tested.update(test)
    rest = [p for p in files if p not in tested]
    with _readers(len(tested.union(files)), workers) as look_at:
        scenes = list(noted(look_at(test, compared)))
        gravest = _leaks(noted(look_at(rest, compared)), scenes, names)
    findings += _pair_findings(root, files, sizes, thumbnails) + _duplicates(root, files, hashes)
    findings.sort(key=lambda finding: (list(KINDS).index(finding.kind), finding.file))
    counts = {"files": len(files), "readable": sum(p in hashes for p in files),
              "training scenes": len(train), "test scenes": len(test),
              "distinct test scenes": len({hashes.get(p) for p in test} - {None})}  # fmt: skip
    return Report(str(root), str(other or ""), tuple(gravest + findings), counts)


def check_leaks(collection: Collection, workers: int | None = None) -> Report:
    """The leak check alone, on what a collection trains on (photographs and pairs) and is measured with.

    It takes minutes, so the answer is kept beside the decoded images, by the content of all files that it looks at.
    """
    train = [*collection.rainy, *collection.clean, *(pair.truth for pair in collection.pairs)]
    test = [pair.rainy if t.kind != "paired" else pair.truth for t in collection.tests for pair in t.pairs]
    names = {path: str(path.relative_to(collection.root)) for path in train + test}
    kept = _answer_file([(names[path], path) for path in train], [(names[path], path) for path in test])
    found = _kept_answer(kept)
    if found is None:
        with _readers(len(train) + len(test), workers) as look_at:
            scenes = [look.scene for look in look_at(test, set(test)) if look.scene]
            found = _leaks((look.scene for look in look_at(train, set(train)) if look.scene), scenes, names)
        _keep_answer(kept, found)
    return Report(str(collection.root), "", tuple(found), {"training scenes": len(train), "test scenes": len(test)})


ANSWERS = 1  # raise it when the check finds other leaks than before in the same files


def _answer_file(*sides: list[tuple[str, Path]]) -> Path | None:
    """Where the answer about these files is kept; None where there is no cache."""
    folder = cache.folder()
    if folder is None:
        return None
    digest = hashlib.sha256(f"{ANSWERS} {images.DECODER}".encode())
    for side in sides:
        digest.update(b"side")
        for name, path in side:
            with images.open_file(path) as file:
                digest.update(f"{name} {hashlib.sha256(file.read()).hexdigest()}\n".encode())
    return folder / "leaks" / f"{digest.hexdigest()[:32]}.json"


def _kept_answer(path: Path | None) -> list[Finding] | None:
    try:
        return [Finding(**row) for row in json.loads(path.read_text())] if path else None
    except (OSError, ValueError, TypeError):  # none yet, or damaged: ask again
        return None


def _keep_answer(path: Path | None, found: list[Finding]) -> None:
    if path is None:
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps([asdict(finding) for finding in found]))
        os.replace(partial, path)
    except OSError:  # a full or read-only disk: the answer is found again next time
        partial.unlink(missing_ok=True)


def _leaks(train: Iterable[leaks.Scene], test: list[leaks.Scene], names: dict[Path, str]) -> list[Finding]:
    found = leaks.find_leaks(train, test)
    return [Finding("leak", names[leak.train], f"({leak.evidence}) shows", names[leak.test]) for leak in found]


# ---- one file ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Look:
    """What was seen of one file; `hash` is of its pixels, '' where it cannot be read."""

    path: Path
    notes: tuple[tuple[str, str], ...]
    hash: str = ""
    size: tuple[int, int] = (0, 0)
    thumbnail: np.ndarray = field(default_factory=lambda: np.zeros(0))
    scene: leaks.Scene | None = None


def _look(path: Path, as_scene: bool) -> _Look:
    facts = images.describe(path)
    try:
        if facts.problem:
            raise images.ImageError(facts.problem)
        image = images.load_image_u8(path)
    except images.ImageError as error:
        problem = str(error).removeprefix(f"{images.shown(path)}: ")
        kind = "truncated" if "truncated" in problem.lower() or _ends_early(path) else "unreadable"
        return _Look(path, ((kind, problem),))
    height, width = image.shape[:2]
    grey = facts.grey or not np.ptp(image, axis=2).any()
    notes = {
        "16-bit": f"{facts.mode}, {facts.bits} bits" if facts.bits > 8 else "",
        "CMYK": facts.mode if facts.mode == "CMYK" else "",
        "EXIF-rotated": f"orientation {facts.orientation}" if facts.orientation != 1 else "",
        "grey": f"mode {facts.mode}" if grey and _may_not_be_grey(path) else "",
        "tiny": f"{width}x{height}" if min(height, width) < TINY else "",
        "huge": f"{width}x{height}" if height * width > HUGE else "",
    }
    digest = hashlib.sha256(str(image.shape).encode() + image.tobytes()).hexdigest()
    scene = leaks.scene(path, image) if as_scene else None
    found = tuple((kind, detail) for kind, detail in notes.items() if detail)
    return _Look(path, found, digest, (width, height), thumbnail(image), scene)


def _ends_early(path: Path) -> bool:
    """Whether a WebP file is shorter than it says; Pillow does not tell that from other damage."""
    try:
        with open(path, "rb") as file:
            start = file.read(12)
    except OSError:
        return False
    if start[:4] != b"RIFF" or start[8:] != b"WEBP":
        return False
    return path.stat().st_size < 8 + int.from_bytes(start[4:8], "little")


@contextmanager
def _readers(files: int, workers: int | None):
    """A function (paths, those to describe as scenes) -> looks in the order of paths; in processes for many files."""
    from tqdm import tqdm

    workers = workers or min(8, os.cpu_count() or 1)
    bar = tqdm(total=files, desc="checking", unit="file", mininterval=1, delay=1)
    pool = None
    if workers > 1 and files >= MANY:  # a process takes a second to start
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))

    def look_at(paths: Sequence[Path], scenes: set[Path]) -> Iterator[_Look]:
        flags = [path in scenes for path in paths]
        results = pool.map(_look, paths, flags, chunksize=4) if pool else map(_look, paths, flags)
        for result in results:
            bar.update()
            yield result

    try:
        yield look_at
    finally:
        bar.close()
        if pool:
            pool.shutdown(cancel_futures=True)


# ---- folders and pairs -----------------------------------------------------------------------------------------------


def _files(root: Path) -> list[Path]:
    """Image files below a folder, sorted; hidden files and folders are passed over."""
    if not root.is_dir():
        raise CollectionError(f"{root}: no such folder to check")
    folders = [root, *(p for p in sorted(root.rglob("*")) if p.is_dir())]
    visible = [p for p in folders if not any(part.startswith(".") for part in p.relative_to(root).parts)]
    found = list(chain.from_iterable(images.list_images(folder) for folder in visible))
    if not found:
        raise CollectionError(f"{root}: no images below it; layout in datasets/README.md")
    return found


def _shows_a_scene(path: Path) -> bool:
    folder = path.parent
    return folder.name not in ("mask", "streaks") and not (folder.name == "rainy" and _partner_folder(folder, "clean"))


def _may_not_be_grey(path: Path) -> bool:
    return path.parent.name not in ("mask", "streaks")


def _partner_folder(rainy: Path, side: str) -> Path | None:
    """real/ holds rainy and clean photographs that are no pairs."""
    folder = rainy.with_name(side)
    return folder if folder.is_dir() and rainy.parent.name != "real" else None


def _pair_findings(root: Path, files: list[Path], sizes: dict, thumbnails: dict) -> list[Finding]:
    findings = []
    for rainy in sorted(folder for folder in {p.parent for p in files} if folder.name == "rainy"):
        for side in ("clean", "mask"):
            if truth := _partner_folder(rainy, side):
                findings += _compare_sides(root, rainy, truth, files, sizes, thumbnails)
    for one in sorted({p.parent for p in files if p.parent.name in ("rainy", "clean", "mask")}):
        needed = ("clean",) if one.name == "rainy" else ("rainy",)
        if one.parent.parent == root / "synthetic" or (one.parent.parent == root / "test" and one.name != "rainy"):
            missing = [side for side in needed if not one.with_name(side).is_dir()]
            findings += [Finding("unpaired", str(one.relative_to(root)), f"no folder {s} beside it") for s in missing]
    return findings


def _compare_sides(root, rainy: Path, truth: Path, files, sizes: dict, thumbnails: dict) -> list[Finding]:
    """Names that are on one side only; pairs whose sizes or pictures differ. By name, never by order."""
    findings = []
    left, right = ({p.stem: p for p in files if p.parent == folder} for folder in (rainy, truth))
    for stem in sorted(left.keys() ^ right.keys()):
        path, missing = (left.get(stem) or right[stem]), (truth if stem in left else rainy)
        findings.append(Finding("unpaired", str(path.relative_to(root)), f"no partner in {missing.relative_to(root)}"))
    for stem in sorted(left.keys() & right.keys()):
        a, b = left[stem], right[stem]
        first, second = str(a.relative_to(root)), str(b.relative_to(root))
        if a not in sizes or b not in sizes:
            continue
        if sizes[a] != sizes[b]:
            detail = "is {}x{}, but {}x{} is".format(*sizes[a], *sizes[b])
            findings.append(Finding("pair-size", first, detail, second))
        elif truth.name == "clean" and likeness(thumbnails[a], thumbnails[b]) < ALIKE:
            findings.append(Finding("pair-content", first, "does not look like", second))
    return findings


def thumbnail(image: np.ndarray) -> np.ndarray:
    """(48, 48) luma of an image."""
    return images.to_grey(images.resize(image, 48, 48))


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of two thumbnails (48, 48), with their slow part, which heavy rain changes, or without."""
    from scipy.ndimage import gaussian_filter

    found = []
    for x, y in ((a, b), (a - gaussian_filter(a, 2), b - gaussian_filter(b, 2))):
        if min(x.std(), y.std()) < 0.01:  # flat: nothing to tell by
            return 1.0
        found.append(float(np.corrcoef(x.ravel(), y.ravel())[0, 1]))
    return max(found)


def _duplicates(root: Path, files: list[Path], hashes: dict[Path, str]) -> list[Finding]:
    """Files with the pixels of an earlier file; clean sides of pairs may repeat, since one scene bears many rains."""
    first: dict[str, Path] = {}
    findings = []
    for path in files:
        repeats = path.parent.name in ("clean", "mask") and path.parent.with_name("rainy").is_dir()
        if path not in hashes or (repeats and path.parent.parent.name != "real"):
            continue
        earlier = first.setdefault(hashes[path], path)
        if earlier != path:
            names = [str(p.relative_to(root)) for p in (path, earlier)]
            findings.append(Finding("duplicate", names[0], "has the pixels of", names[1]))
    return findings
