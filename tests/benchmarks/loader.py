"""Samples a second of the loader: decoded each time, with a cold and a warm cache, from memory.

    .venv/bin/python tests/benchmarks/loader.py                   # 60 generated PNGs of 1024x768
    .venv/bin/python tests/benchmarks/loader.py FOLDER            # the images directly in a folder

One process, no workers. A sample is one crop of `Photographs` that keeps the scale of its file (`--scaled`: as the
training stages draw it, scaled to 480 pixels and each crop resized). Prints medians over `--repeats` rounds, which
take turns. The cache lies in a temporary folder and is removed at the end.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from ttlkit.data import cache, image_files, samples


def generated(folder, count):
    """PNGs with the detail of photographs: views of scikit-image's pictures, with a little noise."""
    from skimage import data as pictures

    views = [pictures.astronaut(), pictures.coffee(), pictures.chelsea(), pictures.rocket()]
    for i in range(count):
        rng = np.random.default_rng(i)
        view = image_files.resize(image_files.to_float(views[i % len(views)]), 768, 1024)
        view = np.roll(view, rng.integers(768), axis=0) + rng.normal(0, 0.01, (768, 1024, 1))
        image_files.save_image(folder / f"{i:03d}.png", view)
    return image_files.list_images(folder)


class Crops:
    """Plain random crops of whole images, the least that a loader can do."""

    def __init__(self, paths, patch):
        self.shelf, self.patch = cache.Shelf(paths), patch

    def __getitem__(self, n):
        rng = np.random.default_rng([n, 1])
        image = self.shelf[samples.keyed_index(0, n, len(self.shelf))]
        side = min(self.patch, *image.shape[:2])
        return image_files.to_float(samples.random_crop([image], side, rng)[0])


def measure(where, build, draws, memory):
    """(seconds to build, ms a sample); at most `memory` bytes of images are held by a process that cannot write."""
    os.environ["TTLKIT_CACHE"], cache.MEMORY = str(where), memory
    cache._memory.clear()  # as in a new process
    began = time.perf_counter()
    samples = build()
    built = time.perf_counter()
    for n in range(draws):
        samples[n]
    return built - began, (time.perf_counter() - built) / draws * 1000


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path, nargs="?")
    options.add_argument("--patch", type=int, default=128)
    options.add_argument("--images", type=int, default=60, help="how many to generate, or to take from the folder")
    options.add_argument("--draws", type=int, default=300, help="samples a round")
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--scaled", action="store_true", help="draw as the training stages do")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if given.folder:
            paths = image_files.list_images(given.folder)[: given.images]
        else:
            paths = generated(Path(scratch) / "made", given.images)

        def build():
            if given.scaled:
                return samples.Photographs({"image": paths}, samples.as_it_is, given.patch, 0)
            return Crops(paths, given.patch)

        rounds = {"decode each time": [], "cache, cold": [], "cache, warm": [], "in memory": []}
        for i in range(given.repeats):
            folder = Path(scratch) / f"cache-{i}"
            rounds["decode each time"].append(measure("off", build, given.draws, 0))
            rounds["cache, cold"].append(measure(folder, build, given.draws, 0))
            held = cache.usage()
            rounds["cache, warm"].append(measure(folder, build, given.draws, 0))
            rounds["in memory"].append(measure("off", build, given.draws, 1 << 62))
        files = sum(path.stat().st_size for path in paths) / 1e6
    print(f"{len(paths)} images, {files:.0f} MB; in the cache {held.size / 1e6:.0f} MB; crops of {given.patch} pixels")
    print(f"{'':18}{'build, s':>10}{'draw, ms':>10}{'samples a second':>18}")
    for name, measured in rounds.items():
        built, draw = (statistics.median(column) for column in zip(*measured, strict=True))
        print(f"{name:18}{built:10.2f}{draw:10.3f}{1000 / draw:18.0f}")


if __name__ == "__main__":
    main()
