"""Collections: one folder layout for generated, fetched and own images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ttlkit import files
from ttlkit.data import image_files, pocket


class CollectionError(ValueError):
    """A collection cannot be used; the message names the folder or file and the way out."""


@dataclass(frozen=True)
class Pair:
    """Two files of one scene: rainy, and its clean image or streak mask. `valid`: a mask, white: it can be trusted."""

    rainy: Path
    truth: Path
    valid: Path | None = None


@dataclass(frozen=True)
class TestSet:
    """One folder below test/ or val/: `kind` is 'paired' (clean), 'masked' (streaks) or 'unpaired' (rainy alone)."""

    __test__ = False  # not a test class, whatever pytest thinks of the name
    name: str
    kind: str
    pairs: tuple[Pair, ...]

    def spread(self, most: int) -> tuple[Pair, ...]:
        """At most `most` of its pairs, evenly spread."""
        return tuple(spread(self.pairs, most))


@dataclass(frozen=True)
class Collection:
    """What a collection folder holds (layout in datasets/README.md); `val` is to choose with, `tests` to report."""

    root: Path
    rainy: tuple[Path, ...]
    clean: tuple[Path, ...]
    pairs: tuple[Pair, ...]
    tests: tuple[TestSet, ...]
    simulated: bool
    streaks: tuple[Path, ...] = ()
    val: tuple[TestSet, ...] = ()

    def real(self, kind: str, held_out: bool = False) -> list[Path]:
        """Photographs, "rainy" or "clean": the ones to train on, or every fifth, which no stage ever trains on."""
        return [path for i, path in enumerate(getattr(self, kind)) if (i % 5 == 0) == held_out]

    def few_pairs(self, n: int, seed: int) -> list[Pair]:
        """The minority: n synthetic pairs drawn by `seed`, the same for every initialisation."""
        if n > len(self.pairs):
            found = f"{self.root} holds {len(self.pairs)} synthetic pairs"
            raise CollectionError(f"n_pairs = {n}, but {found}; give fewer (N_PAIRS=, --n-pairs) or add pairs")
        order = np.random.default_rng([seed, 13]).permutation(len(self.pairs))
        return [self.pairs[i] for i in order[:n]]

    @property
    def label(self) -> str:
        """Words for figures and tables: says so when the 'real' rain is simulated."""
        return "SIMULATED rain standing in for real photographs" if self.simulated else "real photographs"


def open_collection(root: Path | str, pocket_scenes: int | None = None) -> Collection:
    """List a collection; builds the `pocket` one of that many scenes first where `root` does not exist.

    Raises CollectionError, one line, when it is missing, empty, or has pairs without partner.
    """
    root = Path(root)
    if root.name.startswith("pocket-") and pocket_scenes and not root.exists():
        try:
            pocket.build(root, pocket_scenes)
        except OSError as error:
            problem = error.strerror or error
            if not root.exists():  # it may be there by now, made by another process
                raise CollectionError(f"{root}: cannot be written ({problem}); free space or set TTLKIT_HOME") from None
    elif root.name == f"pocket-{pocket_scenes}" and not pocket.is_of_today(root):
        told = f"{root}/SIMULATED.txt is not that of this version"
        raise CollectionError(f"{told}; remove the folder, and it is generated again, or rename it if it is your own")
    if not root.is_dir():
        raise CollectionError(f"{root}: no such collection; give an existing folder, or 'pocket' to generate one")
    rainy, clean, streaks = (tuple(image_files.list_images(root / k)) for k in ("real/rainy", "real/clean", "streaks"))
    for kind, found in (("rainy", rainy), ("clean", clean)):
        if len(found) < 2:
            problem = f"{len(found)} images, at least 2 are needed"
            raise CollectionError(f"{root}/real/{kind}: {problem}; layout in datasets/README.md")
    sets = sorted((root / "synthetic").glob("*/"))
    pairs = tuple(pair for folder in sets for pair in match_pairs(folder / "rainy", folder / "clean"))
    if not pairs:
        raise CollectionError(f"{root}/synthetic/<set>/{{rainy,clean}}: no pairs; layout in datasets/README.md")
    tests, val = (tuple(_open_test(folder) for folder in sorted((root / k).glob("*/"))) for k in ("test", "val"))
    return Collection(root, rainy, clean, pairs, tests, (root / "SIMULATED.txt").exists(), streaks, val)


def _open_test(folder: Path) -> TestSet:
    name = files.shown(folder.name)  # figures draw no other, and tables are written as UTF-8
    for kind, truth in (("paired", "clean"), ("masked", "mask")):
        if (folder / truth).is_dir():
            valid = folder / "valid" if (folder / "valid").is_dir() else None
            return TestSet(name, kind, tuple(match_pairs(folder / "rainy", folder / truth, valid)))
    found = image_files.list_images(folder / "rainy")
    if not found:
        raise CollectionError(f"{folder}/rainy: no images; remove the folder or fill it")
    return TestSet(name, "unpaired", tuple(Pair(path, path) for path in found))


def match_pairs(rainy: Path, truth: Path, valid: Path | None = None) -> list[Pair]:
    """Pair two folders by file name without suffix, never by order; CollectionError names what has no partner.

    `valid`: a folder of masks, one for each pair.
    """
    if valid:
        masks = [pair.truth for pair in match_pairs(rainy, valid)]
        return [Pair(p.rainy, p.truth, mask) for p, mask in zip(match_pairs(rainy, truth), masks, strict=True)]
    left, right = _by_stem(rainy), _by_stem(truth)
    lonely = sorted(left.keys() ^ right.keys())
    if lonely:
        first, other = (left[lonely[0]], truth) if lonely[0] in left else (right[lonely[0]], rainy)
        more = f" (and {len(lonely) - 1} more)" if len(lonely) > 1 else ""
        raise CollectionError(f"{first}: no partner of that name in {other}{more}; add it or remove this one")
    if not left:
        raise CollectionError(f"{rainy}: no images; layout in datasets/README.md")
    return [Pair(left[stem], right[stem]) for stem in sorted(left)]


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in image_files.list_images(folder):
        if found.setdefault(path.stem, path) != path:
            raise CollectionError(f"{path}: same name as {found[path.stem].name}; keep one of them")
    return found


def spread(items: Sequence, most: int) -> list:
    """At most `most` items, evenly spread over the sequence."""
    picks = np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int)
    return [items[i] for i in picks]


def load_pair(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """Both images of a pair, uint8; CollectionError names both files when their sizes differ."""
    rainy, truth = image_files.load_image_u8(pair.rainy), image_files.load_image_u8(pair.truth)
    if rainy.shape != truth.shape:
        sizes = f"{rainy.shape[1]}x{rainy.shape[0]} and {truth.shape[1]}x{truth.shape[0]}"
        raise CollectionError(f"{pair.rainy} and {pair.truth}: sizes differ ({sizes}); a pair must be pixel by pixel")
    return rainy, truth


def load_valid(pair: Pair) -> np.ndarray | None:
    """Where its truth can be trusted, bool (H, W), or None: everywhere. CollectionError when sizes differ."""
    if pair.valid is None:
        return None
    valid, rainy = image_files.load_image_u8(pair.valid)[..., 0] > 127, image_files.load_image_u8(pair.rainy)
    if valid.shape != rainy.shape[:2]:
        raise CollectionError(f"{pair.valid}: a mask must have the size of {pair.rainy}")
    return valid
