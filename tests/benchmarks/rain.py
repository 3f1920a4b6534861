"""Images a second of the rain renderers, and of albumentations' RandomRain where that is installed.

    .venv/bin/python tests/benchmarks/rain.py [--repeats 5]
    .venv/bin/python tests/benchmarks/rain.py --closeness COLLECTION      # several minutes

The second call prints, instead, how near clean photographs in the rain of each renderer come to the collection's real
photographs of rain: to every second one, 0, 2, 4 ... by name, on which the ranges of `physical` were tuned in one
collection, and to the others, for five seeds. `layered` draws all of its streaks: it is given no measured layers.

One thread (the renderers never use more), one image after the other, each with its own seed. The work differs:
RandomRain draws opaque lines of one length, width and grey into a uint8 picture with OpenCV and returns that alone; the
renderers return picture, streak layer, background and parameters, as float32. albumentations is no dependency of
ttlkit: install it, with Pillow and SciPy, in an environment of its own and call this with PYTHONPATH=<checkout>.
The first call prints the median over `--repeats` rounds, which take turns, and the slowest and fastest round.
"""

import argparse
import os
import statistics
import time
from pathlib import Path

import numpy as np

from ttlkit import machine, rain
from ttlkit.data import collections, image_files
from ttlkit.gap import features, stats
from ttlkit.rain import scenes

DRAWN = (rain.photoshop, rain.physical, rain.layered)


def renderers():
    """Name -> function of (float image, uint8 image, seed)."""
    found = {
        "photoshop": lambda clean, clean_u8, seed: rain.photoshop(clean, seed),
        "physical": lambda clean, clean_u8, seed: rain.physical(clean, seed),
        "layered": lambda clean, clean_u8, seed: rain.layered(clean, seed),
    }
    try:
        import albumentations
        import cv2
    except ImportError:
        print("albumentations is not installed here: without it")
        return found
    cv2.setNumThreads(1)
    for kind in ("default", "heavy"):
        transform = albumentations.RandomRain(rain_type=kind, p=1.0)
        name = f"albumentations {albumentations.__version__} RandomRain, {kind}"
        found[name] = lambda clean, clean_u8, seed, transform=transform: transform(image=clean_u8)
    return found


def about_rain(pictures):
    """Features of images, without those of the camera and its files."""
    return {name: v for name, v in features.measure(pictures).items() if name not in features.CAMERA}


def print_closeness(collection, most):
    folder = Path(collection) / "real"
    rainy, clean = (image_files.list_images(folder / kind) for kind in ("rainy", "clean"))
    clean = collections.spread(clean, most)
    scaled = [features.scale_down(image_files.load_image(path)) for path in clean]
    parts = enumerate(("tuned on", "held out"))
    halves = {part: about_rain(map(image_files.load_image, rainy[i::2])) for i, part in parts}
    drawn = {"clean": about_rain(map(image_files.load_image, clean)), "other half": halves["tuned on"]}
    for seed in range(5):
        for renderer in DRAWN:
            measured = about_rain(renderer(image, [seed, i]).rainy for i, image in enumerate(scaled))
            drawn[f"{renderer.__name__} {seed}"] = measured
    for part, reference in halves.items():
        rows = stats.closeness(drawn, reference)
        print(f"{part}: {len(rainy[0::2])} and {len(rainy[1::2])} rainy, {len(clean)} clean photographs")
        print(f"{'':14s}" + " ".join(f"{row['feature'][:12]:>12s}" for row in rows))
        for name in drawn:
            print(f"{name:14s}" + " ".join(f"{row[name]:12.3f}" for row in rows))
        for name in (renderer.__name__ for renderer in DRAWN):
            values = np.array([[row[f"{name} {seed}"] for seed in range(5)] for row in rows])
            print(f"{name:9s} mean" + " ".join(f"{v:12.3f}" for v in values.mean(1)))
            print(f"{name:9s} +-  " + " ".join(f"{v:12.3f}" for v in values.std(1, ddof=1)))


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--images", type=int, default=12, help="images a round")
    arguments.add_argument("--closeness", metavar="COLLECTION", help="a folder with real/rainy and real/clean")
    arguments.add_argument("--clean", type=int, default=80, help="most clean photographs, spread over their names")
    given = arguments.parse_args()
    if given.closeness:
        print_closeness(given.closeness, given.clean)
        return
    machine.tune_process()  # as the training stages do
    for height, width in ((320, 480), (768, 1024)):
        clean = scenes.dead_leaves(0, height, width)
        clean_u8 = image_files.to_u8(clean)
        calls = renderers()
        rates = {name: [] for name in calls}
        for call in calls.values():
            call(clean, clean_u8, 0)  # imports and first allocations
        for repeat in range(given.repeats):
            for name, call in calls.items():
                began = time.perf_counter()
                for i in range(given.images):
                    call(clean, clean_u8, repeat * given.images + i)
                rates[name].append(given.images / (time.perf_counter() - began))
        for name, values in rates.items():
            spread = f"{min(values):.1f} to {max(values):.1f}"
            print(f"{width} x {height}  {name:45s} {statistics.median(values):7.1f} images/s  ({spread})", flush=True)
    print(f"NumPy {np.__version__}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
