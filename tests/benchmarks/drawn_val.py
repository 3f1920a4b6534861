"""A collection for choosing: val/ with rain drawn on held-out photographs too, and held-out layers out of training.

    .venv/bin/python tests/benchmarks/drawn_val.py COLLECTION OUT

COLLECTION holds val/heavy already (ttlkit/weights/README.md says which pairs). OUT, new, links to its files, but keeps
every fifth streak layer out of streaks/, splits val/heavy by whether a training scene shows the same scene, and gets
24 held-out photographs each in val/added (a held-out layer added, input at 21 to 30 dB), val/shop (`rain.photoshop`)
and val/traced (`rain.traced`, with which nothing trains).
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from ttlkit import rain
from ttlkit.data import collections, image_files

TWINS = {9, 33, 41, 51, 153, 155, 187, 205, 221, 313, 343, 399}  # of val/heavy: Rain800 repeats its scenes
PHOTOGRAPHS = 24


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("collection", type=Path)
    parser.add_argument("out", type=Path)
    chosen = parser.parse_args()
    source, out = chosen.collection.resolve(), chosen.out
    collection = collections.open_collection(source)
    held = collection.streaks[::5]
    for place in (*source.glob("real"), *source.glob("synthetic"), *source.glob("test"), *collection.streaks):
        if place not in held:
            link(place, out / place.relative_to(source))
    for pairs in collection.val:
        for pair in pairs.pairs:
            name = pairs.name
            if name == "heavy" and int(pair.rainy.stem) in TWINS:
                name = "heavy-seen"
            for path in filter(None, (pair.rainy, pair.truth, pair.valid)):
                link(path, out / "val" / name / path.parent.name / path.name)
    for i, path in enumerate(collection.real("clean", held_out=True)[::5][:PHOTOGRAPHS]):
        clean = image_files.to_float(image_files.load_image_u8(path))
        save(out / "val" / "added", i, add(clean, held, i), clean)
        save(out / "val" / "shop", i, rain.photoshop(clean, 9000 + i).rainy, clean)
        traced = rain.traced(clean, 9100 + i)
        save(out / "val" / "traced", i, traced.rainy, traced.background)


def add(clean: np.ndarray, held, i: int) -> np.ndarray:
    """A held-out layer, mirrored outwards, added to (H, W, 3) so strongly that 21 to 30 dB are left."""
    rng = np.random.default_rng([99, i])
    layer = image_files.to_float(image_files.load_image_u8(held[int(rng.integers(len(held)))]))[..., 0]
    layer = layer[:, ::-1] if rng.random() < 0.5 else layer
    room = [(0, max(0, side - own)) for side, own in zip(clean.shape[:2], layer.shape, strict=True)]
    layer = np.pad(layer, room, mode="symmetric")[: clean.shape[0], : clean.shape[1], None]
    wanted, low, high = rng.uniform(21, 30), 0.01, 20.0
    for _ in range(40):
        gain = (low * high) ** 0.5
        left = -10 * np.log10(np.square(np.clip(clean + gain * layer, 0, 1) - clean).mean() + 1e-12)
        low, high = (gain, high) if left > wanted else (low, gain)
    return np.clip(clean + gain * layer, 0, 1)


def link(path: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(path.resolve())


def save(folder: Path, i: int, rainy: np.ndarray, clean: np.ndarray) -> None:
    for side, image in (("rainy", rainy), ("clean", clean)):
        (folder / side).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image_files.to_u8(image)).save(folder / side / f"{i:03d}.png")


if __name__ == "__main__":
    main()
