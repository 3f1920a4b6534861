"""How often the leak check finds a changed copy of a test scene, and how near strangers come.

    python tests/benchmarks/leaks.py COLLECTION [--every 5]

Prints the share of test scenes (every fifth) that are found again after each change, the most points that chance
matches between training and test scenes, and how alike the two images of a pair are, and those of two pairs.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]
from test_leaks import CHANGES, crop  # noqa: E402

from ttlkit.data import check, collections, image_files, leaks  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection", type=Path)
    parser.add_argument("--every", type=int, default=5, help="test scenes to change, and training scenes to compare")
    chosen = parser.parse_args()
    collection = collections.open_collection(chosen.collection)
    paths = [pair.truth for test in collection.tests if test.kind == "paired" for pair in test.pairs]
    test = [leaks.scene(p, image_files.load_image_u8(p)) for p in tqdm(paths, "test scenes")]
    changes = {**CHANGES, "cropped to 35 %": lambda x: crop(x, 0.35)}
    planted = test[:: chosen.every]
    for name, change in changes.items():
        found = sum(_found(change, scene, test) for scene in planted)
        print(f"{name:25s} {found:3d} of {len(planted)}", flush=True)

    train = [*collection.rainy, *collection.clean, *(pair.truth for pair in collection.pairs)][:: chosen.every]
    leaks.POINTS, leaks.AGREEMENT = 4, -1.0  # let chance through, to see how far it gets
    strangers = (leaks.scene(p, image_files.load_image_u8(p)) for p in tqdm(train, "training scenes"))
    points = [int(k.evidence.split()[0]) for k in leaks.find_leaks(strangers, test) if k.evidence[0].isdigit()]
    print(f"{len(train)} x {len(test)} strangers: most points matched by chance {max(points, default=0)}")

    pairs = [*collection.pairs, *(p for t in collection.tests if t.kind == "paired" for p in t.pairs)][:: chosen.every]
    looks = [[check.thumbnail(image_files.load_image_u8(path)) for path in (p.rainy, p.truth)] for p in pairs]
    own = [check.likeness(rainy, clean) for rainy, clean in looks]
    other = np.quantile([check.likeness(looks[i][0], looks[i - 7][1]) for i in range(7, len(looks))], 0.95)
    print(f"likeness of {len(own)} pairs: least {min(own):.2f}; of strangers: 95 % below {other:.2f}")


def _found(change, scene: leaks.Scene, test: list[leaks.Scene]) -> bool:
    changed = np.ascontiguousarray(change(image_files.load_image(scene.path)), np.float32)
    view = leaks.scene(Path("changed"), changed)
    return scene.path in {leak.test for leak in leaks.find_leaks([view], test)}


if __name__ == "__main__":
    main()
