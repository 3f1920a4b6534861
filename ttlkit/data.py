"""Collections: one folder layout for generated, fetched and own images, and the data sets that training draws from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from scipy.ndimage import affine_transform

from ttlkit import cache, images, pocket, rain

Rng = np.random.Generator


class CollectionError(ValueError):
    """A collection cannot be used; the message names the folder or file and the way out."""


@dataclass(frozen=True)
class Pair:
    """Two files of one scene: rainy, and its clean image or its streak mask."""

    rainy: Path
    truth: Path


@dataclass(frozen=True)
class TestSet:
    """One folder below test/: `kind` is 'paired' (clean), 'masked' (streak mask) or 'unpaired' (rainy alone)."""

    __test__ = False  # not a test class, whatever pytest thinks of the name
    name: str
    kind: str
    pairs: tuple[Pair, ...]

    def spread(self, most: int) -> tuple[Pair, ...]:
        """At most `most` of its pairs, evenly spread."""
        return tuple(spread(self.pairs, most))


@dataclass(frozen=True)
class Collection:
    """What a collection folder holds (layout in datasets/README.md)."""

    root: Path
    rainy: tuple[Path, ...]
    clean: tuple[Path, ...]
    pairs: tuple[Pair, ...]
    tests: tuple[TestSet, ...]
    simulated: bool
    streaks: tuple[Path, ...] = ()

    def photographs(
        self, classes: Sequence[str] = ("rainy", "clean"), kept_back: bool = False
    ) -> dict[str, list[Path]]:
        """Real photographs by class: the ones to train on, or the fifth that no stage ever trains on."""
        return {name: held_out(getattr(self, name))[int(kept_back)] for name in classes}

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
            raise CollectionError(f"{root}: cannot be written ({problem}); free space or set TTLKIT_HOME") from None
    if not root.is_dir():
        raise CollectionError(f"{root}: no such collection; give an existing folder, or 'pocket' to generate one")
    rainy, clean = (tuple(images.list_images(root / "real" / kind)) for kind in ("rainy", "clean"))
    for kind, found in (("rainy", rainy), ("clean", clean)):
        if len(found) < 2:
            raise CollectionError(
                f"{root}/real/{kind}: {len(found)} images, at least 2 are needed; layout in datasets/README.md"
            )
    pairs = [
        pair
        for folder in sorted((root / "synthetic").glob("*/"))
        for pair in match_pairs(folder / "rainy", folder / "clean")
    ]
    if not pairs:
        raise CollectionError(f"{root}/synthetic/<set>/{{rainy,clean}}: no pairs; layout in datasets/README.md")
    tests = tuple(_open_test(folder) for folder in sorted((root / "test").glob("*/")))
    return Collection(
        root,
        rainy,
        clean,
        tuple(pairs),
        tests,
        (root / "SIMULATED.txt").exists(),
        tuple(images.list_images(root / "streaks")),
    )


def _open_test(folder: Path) -> TestSet:
    for kind, truth in (("paired", "clean"), ("masked", "mask")):
        if (folder / truth).is_dir():
            return TestSet(folder.name, kind, tuple(match_pairs(folder / "rainy", folder / truth)))
    found = images.list_images(folder / "rainy")
    if not found:
        raise CollectionError(f"{folder}/rainy: no images; remove the folder or fill it")
    return TestSet(folder.name, "unpaired", tuple(Pair(path, path) for path in found))


def match_pairs(rainy: Path, truth: Path) -> list[Pair]:
    """Pair two folders by file name without suffix, never by order; CollectionError names what has no partner."""
    sides = []
    for folder in (rainy, truth):
        found: dict[str, Path] = {}
        for path in images.list_images(folder):
            if path.stem in found:
                raise CollectionError(f"{path}: same name as {found[path.stem].name}; keep one of them")
            found[path.stem] = path
        sides.append(found)
    lonely = sorted(set(sides[0]) ^ set(sides[1]))
    if lonely:
        first = sides[0].get(lonely[0]) or sides[1][lonely[0]]
        other = truth if lonely[0] in sides[0] else rainy
        more = f" (and {len(lonely) - 1} more)" if len(lonely) > 1 else ""
        raise CollectionError(f"{first}: no partner of that name in {other}{more}; add it or remove this one")
    if not sides[0]:
        raise CollectionError(f"{rainy}: no images; layout in datasets/README.md")
    return [Pair(sides[0][stem], sides[1][stem]) for stem in sorted(sides[0])]


def spread(items: Sequence, most: int) -> list:
    """At most `most` items, evenly spread over the sequence."""
    picks = np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int)
    return [items[i] for i in picks]


def held_out(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """(training, held-out): every fifth photograph is never trained on, by any stage."""
    return [p for i, p in enumerate(paths) if i % 5], [p for i, p in enumerate(paths) if i % 5 == 0]


def load_pair(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """Both images of a pair, uint8; CollectionError names both files when their sizes differ."""
    rainy, truth = images.load_image_u8(pair.rainy), images.load_image_u8(pair.truth)
    if rainy.shape != truth.shape:
        sizes = f"{rainy.shape[1]}x{rainy.shape[0]} and {truth.shape[1]}x{truth.shape[0]}"
        raise CollectionError(f"{pair.rainy} and {pair.truth}: sizes differ ({sizes}); a pair must be pixel by pixel")
    return rainy, truth


# ---- what training draws from: sample n is a pure function of (seed, n), so resuming needs no state -------------


@lru_cache(maxsize=16)
def _order(seed: int, epoch: int, length: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch, 7]).permutation(length)


def keyed_index(seed: int, n: int, length: int) -> int:
    """Index of draw `n`: every epoch is a new permutation of all `length` items."""
    epoch, place = divmod(n, length)
    return int(_order(seed, epoch, length)[place])


class Photographs:
    """Crops of real photographs, turned into a task's samples; all are first brought to one scale.

    Sample n alternates between the labels in order, so classes are balanced. `make(patch, label, rng, layers)` returns
    the sample, a dict of arrays; `layers` draws from `streaks`. Photographs are scaled to `long_side`, borders left
    out, then each crop is rescaled by 0.5 to 1, so neither resolution nor frame tells where a photograph is from.
    """

    def __init__(
        self,
        photographs: Mapping[str, Sequence[Path]],
        make: Make,
        patch: int,
        seed: int,
        streaks: Sequence[Path] = (),
        long_side: int = 480,
    ):
        self.labels = list(photographs)
        scaled, key = partial(_scaled, long_side=long_side), f"photograph {SCALED}, long side {long_side}"
        self.photographs = {label: cache.Shelf(paths, key, scaled) for label, paths in photographs.items()}
        self.make, self.patch, self.seed, self.layers = make, patch, seed, Layers(streaks)

    def __getitem__(self, n: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng([self.seed, n, 1])
        label = self.labels[n % len(self.labels)]
        shelf = self.photographs[label]
        photograph = _at_least(shelf[keyed_index(self.seed, n // len(self.labels), len(shelf))], self.patch)
        side = min(round(self.patch / rng.uniform(0.5, 1)), *photograph.shape[:2])
        crop = _turned(random_crop([photograph], side, rng), rng)[0]
        patch = images.to_float(crop) if side == self.patch else images.resize(crop, self.patch, self.patch)
        return {k: _channels_first(v) for k, v in self.make(patch, label, rng, self.layers).items()}


class Layers:
    """Streak layers (side, side), float32 in [0, 1]: of files, turned, mirrored and scaled; drawn where there are none.

    A layer from a file comes out at 0.6 to 1.6 times its size, turned by up to 40 degrees.
    """

    def __init__(self, paths: Sequence[Path] = ()):
        self.shelf = cache.Shelf(paths) if paths else None

    def __call__(self, side: int, rng: Rng) -> np.ndarray:
        if self.shelf is None:
            return rain.streak_holes((side, side), rng)
        layer = self.shelf[int(rng.integers(len(self.shelf)))][..., 0]
        turn, step = np.deg2rad(np.clip(rng.normal(0, 15), -40, 40)), 1 / rng.uniform(0.6, 1.6)
        axes = step * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        axes[:, 1] *= rng.choice([-1, 1])
        middle = rng.uniform(0, layer.shape)
        begin = middle - axes @ (np.full(2, side) / 2)
        found = affine_transform(layer, axes, begin, (side, side), np.float32, order=1, mode="mirror")
        return found / np.float32(255)


Make = Callable[[np.ndarray, str, Rng, Layers], dict[str, np.ndarray]]


def as_it_is(patch: np.ndarray, label: str, rng: Rng, layers: Layers) -> dict[str, np.ndarray]:
    """A sample without a task: the photograph, and 1 where it is rain-free."""
    return {"image": patch, "dry": np.array(label == "clean", np.float32)}


def in_any_rain(patch: np.ndarray, label: str, rng: Rng, layers: Layers) -> dict[str, np.ndarray]:
    """What a student is distilled on: the photograph; half of the rain-free ones with streaks laid over them."""
    drawn = label == "clean" and rng.random() < 0.5
    return {"image": rain.lay(patch, layers(len(patch), rng), rng) if drawn else patch}


class Pairs:
    """Aligned crops of synthetic pairs, {'rainy', 'clean'}: float32 (3, patch, patch), flipped at random."""

    def __init__(self, pairs: Sequence[Pair], patch: int, seed: int):
        self.images = cache.Shelf([path for pair in pairs for path in (pair.rainy, pair.truth)])
        for i, pair in enumerate(pairs):
            if self.images.shapes[2 * i] != self.images.shapes[2 * i + 1]:
                load_pair(pair)  # raises, and names both files
        self.patch, self.seed = patch, seed

    def __getitem__(self, n: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng([self.seed, n, 2])
        first = 2 * keyed_index(self.seed, n, len(self.images) // 2)
        pair = [_at_least(self.images[i], self.patch) for i in (first, first + 1)]
        rainy, clean = _turned(random_crop(pair, self.patch, rng), rng)
        return {
            "rainy": _channels_first(images.to_float(rainy)),
            "clean": _channels_first(images.to_float(clean)),
        }


class Guided:
    """Pairs, or in a `share` of the samples rain rendered on photographs, and a photograph beside each.

    {'rainy', 'clean', 'photograph', 'dry'}; `rendered` gives {'image', 'target'}, as the task `streaks` does;
    without `photographs`, the first two.
    """

    def __init__(self, pairs: Pairs, photographs: Photographs | None, rendered: Photographs | None, share: float):
        self.pairs, self.photographs, self.rendered, self.share = pairs, photographs, rendered, share

    def __getitem__(self, n: int) -> dict[str, np.ndarray]:
        if self.rendered and np.random.default_rng([self.pairs.seed, n, 3]).random() < self.share:
            drawn = self.rendered[n]
            sample = {"rainy": drawn["image"], "clean": drawn["target"]}
        else:
            sample = self.pairs[n]
        if self.photographs:
            seen = self.photographs[n]
            sample |= {"photograph": seen["image"], "dry": seen["dry"]}
        return sample


def random_crop(aligned: Sequence[np.ndarray], side: int, rng: Rng) -> list[np.ndarray]:
    """The same random square of every image."""
    height, width = aligned[0].shape[:2]
    top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
    return [image[top : top + side, left : left + side] for image in aligned]


def _turned(aligned: list[np.ndarray], rng: Rng) -> list[np.ndarray]:
    """Mirrored at random, left to right only: rain falls down."""
    return [image[:, ::-1] for image in aligned] if rng.random() < 0.5 else aligned


def _channels_first(value: np.ndarray) -> np.ndarray:
    value = np.asarray(value, np.float32)
    return np.ascontiguousarray(value.transpose(2, 0, 1)) if value.ndim == 3 else value


def _at_least(image: np.ndarray, side: int) -> np.ndarray:
    """Mirror a small image outwards until a crop of `side` fits."""
    height, width = image.shape[:2]
    if min(height, width) >= side:
        return image
    return np.pad(image, ((0, max(0, side - height)), (0, max(0, side - width)), (0, 0)), mode="symmetric")


SCALED = 1  # raise it when `_scaled` gives other pixels than before: cached photographs go by it


def _scaled(image: np.ndarray, long_side: int) -> np.ndarray:
    """A photograph, uint8, scaled down to `long_side`, without its border of 2 % (frames, captions)."""
    margin = round(0.02 * min(image.shape[:2]))
    image = image[margin : image.shape[0] - margin, margin : image.shape[1] - margin]
    scale = long_side / max(image.shape[:2])
    if scale < 1:
        height, width = (max(1, round(side * scale)) for side in image.shape[:2])
        image = images.to_u8(images.resize(image, height, width))
    return image
