"""The picture in the README: bundled photographs in rendered rain, restored by the released student.

.venv/bin/python tests/benchmarks/picture.py [notebooks/before_after.png]
"""

import argparse

from ttlkit import rain
from ttlkit.apply import restore
from ttlkit.data import pocket
from ttlkit.lesson import figures


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("picture", nargs="?", default="notebooks/before_after.png", help="the file to write")
    given = options.parse_args()
    student = restore.load_restorer(restore.RELEASED)
    grid = []
    for seed, name in ((3, "coffee"), (8, "rocket")):  # pocket's test scenes: nothing was trained on them
        clean = pocket.bundled(name)[:384, :576]
        drops = rain.physical(clean, seed, rate_mm_h=120, exposure_s=1 / 60, near_m=0.8, jpeg=95)
        grid.append([drops.rainy, restore.restore(student, drops.rainy), drops.background])
    figure = figures.plot_images(grid, ["rainy (rendered)", "restored by the released student", "truth"])
    figure.savefig(given.picture, dpi=90, bbox_inches="tight")


if __name__ == "__main__":
    main()
