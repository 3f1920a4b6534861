"""Restorers on real rain without ground truth: how much of the gap they close, and where they change what.

    .venv/bin/python tests/benchmarks/real_scenes.py COLLECTION WEIGHTS [WEIGHTS ...]

As in notebook 05, over all held-out rainy photographs, with the released recogniser; float32.
"""

import argparse
from functools import partial
from pathlib import Path

import torch

from ttlkit import machine
from ttlkit.apply import restore
from ttlkit.data import collections
from ttlkit.evaluate import baselines, real_scenes, scores
from ttlkit.lesson import figures
from ttlkit.method import weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("collection", type=Path)
    parser.add_argument("weights", type=Path, nargs="+")
    chosen = parser.parse_args()
    torch.set_grad_enabled(False)
    collection, device = collections.open_collection(chosen.collection), machine.device()
    restorers = {scores.UNTOUCHED: scores.untouched}
    for path in chosen.weights:
        restorers[path.stem] = partial(restore.restore, baselines.load_peer(path, device), precision="no")
    restorers[real_scenes.BLURRED] = real_scenes.blurred
    recogniser = weights.load_weights(restore.RELEASED.parent / "teacher-recognition.safetensors").to(device)
    rainy = collection.real("rainy", held_out=True)
    rows = real_scenes.measure(restorers, rainy, recogniser)
    summary = real_scenes.summarise(rows, real_scenes.measure_rain_free(collection.clean, len(rainy)))
    print(*real_scenes.in_words(summary), sep="\n")
    print(figures.markdown_table(real_scenes.as_table(summary)))


if __name__ == "__main__":
    main()
