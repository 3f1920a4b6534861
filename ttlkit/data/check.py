"""Check a collection or any folder of images: files, pairs, duplicates, and leaks from training into test."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter

from ttlkit import machine, words
from ttlkit.data import cache, image_files, leaks, photos
from ttlkit.data.collections import Collection, CollectionError
from ttlkit.files import shown

ALIKE = 0.5  # likeness of a pair's thumbnails; what pairs and strangers have: tests/benchmarks/leaks.py
TINY, HUGE = 64, 40_000_000  # px of the shorter side; pixels
MASKS = ("mask", "valid", "streaks")  # folders of pictures that show no scene
HELD = ("test", "val")  # folders whose scenes no training may have seen
LEAKS = 2  # raise it when the check finds other leaks than before in the same files
KINDS = {
    "leak": "a training image shows a scene of the test or val sets, or one of val shows one of test",
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
    "partly": "read, but the file holds more",
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
        return shown(f"{self.kind:12s}  {self.file}  {' '.join(filter(None, (self.detail, self.other)))}")


@dataclass(frozen=True)
class Report:
    """What a check found; `counts` says what was looked at."""

    root: str
    against: str
    findings: tuple[Finding, ...]
    counts: dict[str, int]

    def without(self, kinds: Iterable[str]) -> Report:
        """The same report, some kinds of findings left out; SettingsError for a kind that does not exist."""
        kinds = list(kinds)
        for kind in kinds:
            words.check_name(kind, KINDS, "kind of finding")
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
        leaking = len({finding.file for finding in self.findings if finding.kind == "leak"})
        if not leaking:
            return f"leak check: none of {train} training scenes shows one of the {test} test scenes"
        return f"leak check: {leaking} of {train} training scenes SHOW A TEST SCENE ({test} test scenes)"

    def as_json(self) -> dict:
        """The report as plain types."""
        return {**asdict(self), "clean": not self.findings, "leak_verdict": self.leak_verdict()}


def check(root: Path | str, against: Path | str | None = None, workers: int | None = None) -> Report:
    """Look at every image file below `root`, and compare its training scenes with the test scenes.

    Test scenes are those below a folder `test` or `val` of `root`, and all below `against`; the rest of `root` is
    training. Those of `val` are compared with the others, too: who chooses on a scene has seen it. Of a pair the clean
    image stands for the scene; MASKS show none. Large folders are read by several processes. Raises CollectionError
    where there is no folder, or no image in it.
    """
    root, other = Path(os.path.abspath(root)), Path(os.path.abspath(against)) if against else None
    if other and (other / "test").is_dir():
        other = other / "test"
    found = _files(root)
    names = {path: str(path.relative_to(root)) for path in found}
    scenes = [path for path in found if _shows_a_scene(path)]
    inside = {path: path.relative_to(root).parts[:-1] for path in scenes}
    test = [p for p in scenes if {*HELD} & {*inside[p]} or (other and p.is_relative_to(other))]
    val = {path for path in test if "val" in inside[path]}
    train = sorted(set(scenes) - set(test))
    rest = sorted(set(found) - set(test))
    if other:
        more = [path for path in _files(other) if _shows_a_scene(path) and path not in names]
        names |= {path: str(path) for path in more}
        test += more
    looks, findings = _look_at(test, rest, {*train, *test} if train and test else set(), names, val, workers)
    seen = {path: looks[path] for path in found}
    findings += [Finding(kind, names[path], detail) for path, look in seen.items() for kind, detail in look.notes]
    findings += [*_pair_findings(root, seen, names), *_duplicates(seen, names)]
    findings.sort(key=lambda finding: (list(KINDS).index(finding.kind), finding.file, finding.other))
    readable = sum(look.hash != "" for look in seen.values())
    counts = {
        "files": len(found),
        "readable": readable,
        "failed": len(found) - readable,
        "training scenes": len(train),
        "test scenes": len(test),
        "distinct test scenes": len({looks[path].hash for path in test} - {""}),
    }
    return Report(str(root), str(other or ""), tuple(findings), counts)


def check_leaks(collection: Collection) -> Report:
    """The leak check alone, on what a collection trains on (photographs and pairs) and is measured with.

    It takes minutes, so the answer is remembered by the names and contents of all files that it looks at.
    """
    train = [*collection.rainy, *collection.clean, *(pair.truth for pair in collection.pairs)]
    val, tests = (
        [pair.rainy if found.kind != "paired" else pair.truth for found in sets for pair in found.pairs]
        for sets in (collection.val, collection.tests)
    )
    test = [*tests, *val]
    names = {path: str(path.relative_to(collection.root)) for path in train + test}
    sides = [[(names[path], cache.content_hash(path)) for path in side] for side in (train, test)]
    key = ("leaks", LEAKS, image_files.DECODER, *sides)
    rows = cache.recall(*key)
    if rows is None:
        rows = [asdict(finding) for finding in _look_at(test, train, {*train, *test}, names, {*val})[1]]
        cache.remember(rows, *key)
    findings = tuple(Finding(**row) for row in rows)
    return Report(str(collection.root), "", findings, {"training scenes": len(train), "test scenes": len(test)})


# ---- one file ------------------------------------------------------------------------------------------------------


class _Look(NamedTuple):
    """What was seen of one file; `hash` is of its pixels, '' where it cannot be read."""

    path: Path
    notes: list[tuple[str, str]]  # kinds of finding, details
    hash: str = ""
    size: str = ""
    thumbnail: np.ndarray = np.zeros(0)  # noqa: RUF012
    scene: leaks.Scene | None = None


def _look_at(
    test: Sequence[Path],
    rest: Sequence[Path],
    scenes: set[Path],
    names: dict[Path, str],
    val: set[Path],
    workers: int | None = None,
) -> tuple[dict[Path, _Look], list[Finding]]:
    """What was seen of every file, and the leaks into `test` from those of `val` and of the rest that are `scenes`."""
    from tqdm import tqdm

    jobs = [(path, path in scenes) for path in (*test, *rest)]
    done = machine.in_processes(_look, jobs, workers=workers)
    bar = tqdm(done, "checking", len(jobs), unit="file", mininterval=1, delay=1)
    looks: dict[Path, _Look] = {}

    def draw(number: int) -> Iterator[leaks.Scene]:
        for look in islice(bar, number):
            looks[look.path] = look._replace(scene=None)  # thousands of scenes would fill the memory
            if look.scene:
                yield look.scene

    known, candidates = list(draw(len(test))), draw(len(rest))
    told = leaks.find_leaks(chain((scene for scene in known if scene.path in val), candidates), known)
    told = (leak for leak in told if not {leak.train, leak.test} <= val)  # scenes of val may be alike
    found = [Finding("leak", names[k.train], f"({k.evidence}) shows", names[k.test]) for k in told]
    for _ in candidates:  # with nothing to compare them with, no candidate was drawn: they are looked at all the same
        pass
    return looks, found


def _look(job: tuple[Path, bool]) -> _Look:
    path, as_scene = job
    try:
        photo = photos.load_photo(path)
    except image_files.ImageError as error:
        problem = str(error).removeprefix(f"{shown(path)}: ")
        kind = "truncated" if "truncated" in problem.lower() or _ends_early(path) else "unreadable"
        return _Look(path, [(kind, problem)])
    image = photo.flat_u8()
    height, width = image.shape[:2]
    size = f"{width}x{height}"
    grey = photo.grey or not np.ptp(image, axis=2).any()
    notes = {
        "16-bit": f"{photo.mode}, {photo.bits} bits" if photo.bits > 8 else "",
        "CMYK": photo.mode if photo.mode == "CMYK" else "",
        "EXIF-rotated": f"orientation {photo.orientation}" if photo.orientation != 1 else "",
        "grey": f"mode {photo.mode}" if grey and path.parent.name not in MASKS else "",
        "partly": photo.left_out,
        "tiny": size if min(height, width) < TINY else "",
        "huge": size if height * width > HUGE else "",
    }
    digest = hashlib.sha256(size.encode() + image.tobytes()).hexdigest()
    scene = leaks.scene(path, image) if as_scene else None
    return _Look(path, [note for note in notes.items() if note[1]], digest, size, thumbnail(image), scene)


def _ends_early(path: Path) -> bool:
    """Whether a WebP file is shorter than it says; Pillow does not tell that from other damage."""
    if not path.is_file() or not os.access(path, os.R_OK):
        return False
    with open(path, "rb") as file:
        start = file.read(12)
    return start[:4] + start[8:] == b"RIFFWEBP" and path.stat().st_size < 8 + int.from_bytes(start[4:8], "little")


# ---- folders and pairs -----------------------------------------------------------------------------------------------


def _files(root: Path) -> list[Path]:
    """Image files below a folder, sorted; hidden files and folders are passed over."""
    if not root.is_dir():
        raise CollectionError(f"{root}: no such folder to check")
    folders = [root, *sorted(root.rglob("*/"))]
    visible = [path for path in folders if not any(part.startswith(".") for part in path.relative_to(root).parts)]
    found = [path for folder in visible for path in image_files.list_images(folder)]
    if not found:
        raise CollectionError(f"{root}: no images below it; layout in datasets/README.md")
    return found


def _shows_a_scene(path: Path) -> bool:
    folder = path.parent
    return folder.name not in MASKS and not (folder.name == "rainy" and _has_partner(folder, "clean"))


def _has_partner(rainy: Path, side: str) -> bool:
    """real/ holds rainy and clean photographs that are no pairs."""
    return rainy.with_name(side).is_dir() and rainy.parent.name != "real"


def _pair_findings(root: Path, looks: dict[Path, _Look], names: dict[Path, str]) -> Iterator[Finding]:
    """Sides and names without partner; pairs whose sizes or pictures differ. By name, never by order."""
    folders: dict[Path, dict[str, Path]] = {}
    for path in looks:
        folders.setdefault(path.parent, {})[path.stem] = path
    for folder, left in folders.items():
        part, other = folder.parent.parent, folder.with_name("clean" if folder.name == "rainy" else "rainy")
        held = {root / name: ("clean", "mask", "valid") for name in HELD}
        needed = {root / "synthetic": ("rainy", "clean", "mask"), **held}.get(part, ())
        if folder.name in needed and not other.is_dir():  # a test set of rainy images alone is an unpaired one
            yield Finding("unpaired", str(folder.relative_to(root)), f"no folder {other.name} beside it")
        sides = [side for side in ("clean", "mask", "valid") if folder.name == "rainy" and _has_partner(folder, side)]
        for side, truth in ((side, folder.with_name(side)) for side in sides):
            right = folders.get(truth, {})
            for stem in left.keys() ^ right.keys():
                path, lacks = (left.get(stem) or right[stem]), (truth if stem in left else folder)
                yield Finding("unpaired", names[path], f"no partner in {lacks.relative_to(root)}")
            for a, b in ((looks[left[stem]], looks[right[stem]]) for stem in left.keys() & right.keys()):
                if not (a.hash and b.hash):
                    continue
                if a.size != b.size:
                    yield Finding("pair-size", names[a.path], f"is {a.size}, but {b.size} is", names[b.path])
                elif side == "clean" and likeness(a.thumbnail, b.thumbnail) < ALIKE:
                    yield Finding("pair-content", names[a.path], "does not look like", names[b.path])


def thumbnail(image: np.ndarray) -> np.ndarray:
    """(48, 48) luma of an image."""
    return image_files.to_grey(image_files.resize(image, 48, 48))


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of two thumbnails (48, 48), with their slow part, which heavy rain changes, or without."""
    found = []
    for x, y in ((a, b), (a - gaussian_filter(a, 2), b - gaussian_filter(b, 2))):
        if min(x.std(), y.std()) < 0.01:  # flat: nothing to tell by
            return 1.0
        found.append(float(np.corrcoef(x.ravel(), y.ravel())[0, 1]))
    return max(found)


def _duplicates(looks: dict[Path, _Look], names: dict[Path, str]) -> Iterator[Finding]:
    """Files with the pixels of an earlier file; clean sides of pairs may repeat, since one scene bears many rains."""
    first: dict[str, Path] = {}
    for path, look in looks.items():
        repeats = path.parent.name in ("clean", "mask", "valid") and _has_partner(path.parent, "rainy")
        earlier = first.setdefault(look.hash, path) if look.hash and not repeats else path
        if earlier != path:
            yield Finding("duplicate", names[path], "has the pixels of", names[earlier])
