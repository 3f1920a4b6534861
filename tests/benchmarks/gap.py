"""Seconds that the statistics take on a whole collection, nothing of it measured before.

    .venv/bin/python tests/benchmarks/gap.py COLLECTION

Every image below real/, synthetic/ and test/ is measured, on all cores; then all tests of real/ against synthetic/.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

from ttlkit.data import image_files
from ttlkit.gap import study


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("collection", type=Path)
    collection = options.parse_args().collection
    folders = {
        name: [f for f in sorted((collection / name).rglob("*")) if f.is_dir()]
        for name in ("real", "synthetic", "test")
    }
    paths = {
        name: [path for folder in found for path in image_files.list_images(folder)] for name, found in folders.items()
    }
    with tempfile.TemporaryDirectory() as cold:
        os.environ["TTLKIT_CACHE"] = cold
        began = time.perf_counter()
        measured = {name: study.measure_files(found, name) for name, found in paths.items()}
        middle = time.perf_counter()
        study.compare(measured["real"], measured["synthetic"])
        ended = time.perf_counter()
    count = sum(len(side.paths) for side in measured.values())
    print(f"{count} images: {middle - began:.0f} s to measure, {ended - middle:.0f} s for the tests")


if __name__ == "__main__":  # the measuring processes import this file
    main()
