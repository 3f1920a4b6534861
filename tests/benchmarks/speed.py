"""Seconds a megapixel and peak memory of the released student, by engine, and of PReNet, in one run.

    .venv/bin/python tests/benchmarks/speed.py [--side 512] [--rounds 5]

All restore the same random square, one after the other in each round, on all threads that each takes by itself; printed
are the medians, the ratio to PReNet as released (median and range over the rounds), and the peak memory: of a process
that restores the square once and does nothing else, on a GPU what torch took of it. PReNet's time does not depend on
its weights, so it needs none. Rows:

    prenet             as its authors run it: float32, contiguous
    prenet treated     in the machine's best precision, channels_last: the same treatment as the student
    student torch      as `ttlkit derain` runs it: the machine's best precision, channels_last
    student onnx       ONNX Runtime, float32; where the `export` extra is installed
    student openvino   OpenVINO, bfloat16 where the processor has it; where the `export` extra is installed
"""

import argparse
import importlib.util
import resource
import statistics
import subprocess
import sys
import time

import numpy as np
import torch

from ttlkit import machine
from ttlkit.apply import restore
from ttlkit.evaluate import baselines

ROWS = ("prenet", "prenet treated", "student torch", "student onnx", "student openvino")
PACKAGES = {"student onnx": ("onnx", "onnxruntime"), "student openvino": ("onnx", "openvino")}


def build(row, image, device):
    """A function without arguments that restores the image once."""
    if row == "prenet":
        prenet = baselines.PReNet().eval().to(device)
        nchw = torch.from_numpy(image.transpose(2, 0, 1)[None].copy()).to(device)

        def published():
            with torch.inference_mode():
                return prenet(nchw).cpu()

        return published
    if row == "prenet treated":
        prenet = baselines.PReNet().eval().to(device, memory_format=torch.channels_last)
        engine = restore.torch_engine(prenet, machine.precision(device))
    else:
        engine = restore.load_engine(name=row.split()[1])
    return lambda: restore.apply(engine, image)


def peak(row, side):
    """Peak memory in MB of a fresh process that restores once."""
    command = [sys.executable, __file__, "--side", str(side), "--memory-of", row]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1])


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--side", type=int, default=512, help="pixels")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--memory-of", choices=ROWS, help=argparse.SUPPRESS)
    given = options.parse_args()
    device = machine.device()
    image = np.random.default_rng(0).random((given.side, given.side, 3)).astype(np.float32)
    if given.memory_of:
        build(given.memory_of, image, device)()
        on_gpu = device == "cuda" and given.memory_of not in PACKAGES
        used = torch.cuda.max_memory_reserved() / 1024 if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(used / 1024)
        return
    rows = [row for row in ROWS if all(importlib.util.find_spec(name) for name in PACKAGES.get(row, ()))]
    for row in sorted(set(ROWS) - set(rows)):
        print(f"{row}: left out, its packages are not installed (pip install 'ttlkit[export]')")
    memory = {row: peak(row, given.side) for row in rows}
    machine.tune_process()  # after the measured processes, which must give memory back as `ttlkit derain` does
    runs = {row: build(row, image, device) for row in rows}
    times = {row: [] for row in rows}
    for number in range(given.rounds + 1):  # the first round warms up
        for row, run in runs.items():
            began = time.perf_counter()
            run()
            if number:
                times[row].append((time.perf_counter() - began) / given.side**2 * 1e6)
    print(f"{device}, {torch.get_num_threads()} threads, best precision {machine.precision(device)}, "
          f"{given.side} x {given.side} pixels, {given.rounds} rounds")  # fmt: skip
    print(f"{'':18}{'s a megapixel':>14}{'range':>20}{'times prenet':>14}{'range':>18}{'peak MB':>9}")
    for row, measured in times.items():
        ratios = [a / b for a, b in zip(times["prenet"], measured, strict=True)]
        span = f"{min(measured):.3f} to {max(measured):.3f}"
        reach = f"{min(ratios):.1f} to {max(ratios):.1f}"
        print(f"{row:18}{statistics.median(measured):14.3f}{span:>20}{statistics.median(ratios):14.1f}{reach:>18}"
              f"{memory[row]:9.0f}")  # fmt: skip


if __name__ == "__main__":
    main()
