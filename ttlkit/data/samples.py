"""The samples that training draws: sample n is a pure function of (seed, n), so resuming needs no state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from scipy.ndimage import affine_transform

from ttlkit import rain
from ttlkit.data import cache, image_files
from ttlkit.data.collections import Pair, load_pair

Rng = np.random.Generator
SCALED = 1  # raise it when `_scaled` gives other pixels than before: cached photographs go by it


@lru_cache(maxsize=16)
def _order(seed: int, epoch: int, length: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch, 7]).permutation(length)


def keyed_index(seed: int, n: int, length: int) -> int:
    """Index of draw `n`: every epoch is a new permutation of all `length` items."""
    epoch, place = divmod(n, length)
    return int(_order(seed, epoch, length)[place])


class Photographs:
    """Crops of real photographs, turned into a task's samples; the labels take turns, so classes are balanced.

    `make(patch, label, rng, layers)` returns the sample, a dict of arrays; `layers` draws from `streaks`. Photographs
    are scaled to `long_side`, borders left out, then each crop is rescaled by 0.5 to 1, so neither resolution nor
    frame tells where a photograph is from.
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
        patch = image_files.to_float(crop) if side == self.patch else image_files.resize(crop, self.patch, self.patch)
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
        crops = {"rainy": rainy, "clean": clean}
        return {side: _channels_first(image_files.to_float(crop)) for side, crop in crops.items()}


class Guided:
    """Pairs, or in a `share` of the samples rain rendered on photographs, and a photograph beside each.

    {'rainy', 'clean', 'photograph', 'dry'}; without `photographs` the first two. `rendered` gives {'image', 'target'}.
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
    missing = [max(0, side - length) for length in image.shape[:2]]
    return np.pad(image, [(0, n) for n in (*missing, 0)], mode="symmetric") if any(missing) else image


def _scaled(image: np.ndarray, long_side: int) -> np.ndarray:
    """A photograph, uint8, scaled down to `long_side`, without its border of 2 % (frames, captions)."""
    margin = round(0.02 * min(image.shape[:2]))
    image = image[margin : image.shape[0] - margin, margin : image.shape[1] - margin]
    scale = long_side / max(image.shape[:2])
    if scale < 1:
        height, width = (max(1, round(side * scale)) for side in image.shape[:2])
        image = image_files.to_u8(image_files.resize(image, height, width))
    return image
