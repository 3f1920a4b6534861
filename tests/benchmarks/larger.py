"""The released student, widened, trained on: the trial of a larger one. Goes on where it was stopped.

    .venv/bin/python tests/benchmarks/larger.py COLLECTION FOLDER [--width 24] [--steps 40000] [--rate 6e-4] [--blend 0]

COLLECTION: real photographs, streak layers and pairs, without those that val/ holds out (ttlkit/weights/README.md).
FOLDER receives checkpoint, metrics and student.safetensors; once trained, another --blend takes seconds. What came of
it: the card, *Tried and left*. 0.14 s a step on two quiet cores, float32.
"""

import argparse
from pathlib import Path

import torch

from ttlkit.apply import restore
from ttlkit.data import collections
from ttlkit.method import recipes, weights
from ttlkit.method.trainer import Trainer

PAIRS, SEED = 180, 7  # the seed of samples; new channels and pairs are drawn with 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("collection", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--width", type=int, default=24)
    parser.add_argument("--steps", type=int, default=40_000)
    parser.add_argument("--rate", type=float, default=6e-4, help="learning rate at its peak")
    parser.add_argument("--blend", type=float, default=0.0, help="share of the weights it started from, after training")
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    student = weights.widen(weights.load_weights(restore.RELEASED), chosen.width)
    collection = collections.open_collection(chosen.collection)
    amounts = {"guidance": 0.0, "rendered": 0.85, "patch": 96, "seed": SEED, "steps": chosen.steps}
    recipe = recipes.fine_tuning(student, None, collection, pairs=collection.few_pairs(PAIRS, 0), **amounts)
    options = {"steps": chosen.steps, "batch": 8, "learning_rate": chosen.rate, "seed": SEED, "workers": 1}
    key = f"{chosen.width}-{chosen.steps}-{chosen.rate}"
    trainer = Trainer(
        recipe.model, recipe.objective, recipe.samples, folder=chosen.folder, key=key, checkpoint_seconds=60, **options
    )
    trainer.fit()
    restorer = recipe.restorer()
    weights.blend(restorer, recipe.start, chosen.blend)
    weights.save_weights(restorer, chosen.folder / "student.safetensors")


if __name__ == "__main__":
    main()
