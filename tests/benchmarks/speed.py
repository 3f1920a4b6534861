"""Seconds a megapixel of the released student and of PReNet as released, in one run.

    .venv/bin/python tests/benchmarks/speed.py [--side 512] [--rounds 5]

Both restore the same random square, one after the other in each round, on all threads that torch takes; printed are
the medians and their ratio. PReNet's time does not depend on its weights, so it needs none: float32, contiguous, as its
authors run it. The student runs as `ttlkit derain` does: channels_last, in the machine's best precision.
"""

import argparse
import statistics
import time

import numpy as np
import torch

from ttlkit import config, models, restore


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--side", type=int, default=512, help="pixels")
    options.add_argument("--rounds", type=int, default=5)
    given = options.parse_args()
    config.tune_process()
    device, precision = config.device(), config.precision()
    image = np.random.default_rng(0).random((given.side, given.side, 3)).astype(np.float32)
    nchw = torch.from_numpy(image.transpose(2, 0, 1)[None].copy()).to(device)
    prenet, student = models.PReNet().eval().to(device), restore.load_restorer(restore.RELEASED, device)

    def published():
        with torch.inference_mode():
            return prenet(nchw).cpu()

    runs = {"prenet": published, "student": lambda: restore.restore(student, image, precision=precision)}
    times = {name: [] for name in runs}
    for number in range(given.rounds + 1):  # the first round warms up
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            if number:
                times[name].append((time.perf_counter() - began) / given.side**2 * 1e6)
    print(f"{device}, {torch.get_num_threads()} threads, student in {precision}, {given.side} x {given.side} pixels")
    for name, measured in times.items():
        print(f"{name:8} {statistics.median(measured):8.3f} s a megapixel ({min(measured):.3f} to {max(measured):.3f})")
    ratios = [a / b for a, b in zip(times["prenet"], times["student"], strict=True)]
    print(f"ratio    {statistics.median(ratios):8.1f} ({min(ratios):.1f} to {max(ratios):.1f})")


if __name__ == "__main__":
    main()
