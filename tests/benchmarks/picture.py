"""The picture in the README: bundled photographs in rendered rain, restored by the released student.

.venv/bin/python tests/benchmarks/picture.py [notebooks/before_after.png]
"""

import argparse

import numpy as np
from sklearn.datasets import load_sample_image

from ttlkit import rain
from ttlkit.apply import restore
from ttlkit.data import pocket
from ttlkit.lesson import figures

NEAR = {"layers": 3, "width_px": 5, "cover": 0.06, "peak": 0.6, "slender": 14, "hides": 0.5, "light": 0.9, "lamps": 0.1}


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("picture", nargs="?", default="notebooks/before_after.png", help="the file to write")
    given = options.parse_args()
    student = restore.load_restorer(restore.RELEASED)
    china = load_sample_image("china.jpg")[20:404, 32:608].astype(np.float32) / 255
    coffee = pocket.bundled("coffee")[:384, :576]
    drops = [  # photographs on which nothing was trained; the renderers are those of the training
        rain.physical(china, 5, rate_mm_h=100, exposure_s=1 / 60, near_m=0.7, horizon_m=12, overcast=0.4, jpeg=95),
        rain.layered(coffee, 7, **NEAR, edge=1.2, veil=0.05, angle_deg=-10, turn_deg=4, jpeg=95),
    ]
    grid = [[d.rainy, restore.restore(student, d.rainy), d.background] for d in drops]
    figure = figures.plot_images(grid, ["rainy (rendered)", "restored by the released student", "truth"])
    figure.savefig(given.picture, dpi=90, bbox_inches="tight")


if __name__ == "__main__":
    main()
