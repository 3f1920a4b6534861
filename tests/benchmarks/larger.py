"""The released student, widened, trained on in two legs: how student-large is made. Goes on where it was stopped.

    .venv/bin/python tests/benchmarks/larger.py COLLECTION A
    .venv/bin/python tests/benchmarks/larger.py DRAWN B --start A/student.safetensors --wider-rain --steps 26000 \\
        --rate 5e-4 --blend 0.12 --blend-with ttlkit/weights/student.safetensors

COLLECTION: real photographs, streak layers and pairs, without those that val/ holds out (ttlkit/weights/README.md);
DRAWN: what drawn_val.py makes of it. A and B receive checkpoint, metrics and student.safetensors; once trained, another
--blend takes seconds. 0.14 s a step on two quiet cores, float32.
"""

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import torch

from ttlkit import rain
from ttlkit.apply import restore
from ttlkit.data import collections
from ttlkit.method import recipes, weights
from ttlkit.method.connected_tasks import PATCHY, TASKS
from ttlkit.method.trainer import Trainer

PAIRS, SEED = 180, 7  # the seed of samples; new channels and pairs are drawn with 0
# Shares of the rendered samples with `--wider-rain`: more of what synthetic sets hold, and fine, faint rain.
WIDER = {"dry": 0.02, "added": 0.20, "laid": 0.05, "physical": 0.12, "layered": 0.34, "fine": 0.12, "photoshop": 0.15}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("collection", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--start", type=Path, default=restore.RELEASED, help="weights to go on from")
    parser.add_argument("--width", type=int, default=24)
    parser.add_argument("--steps", type=int, default=40_000)
    parser.add_argument("--rate", type=float, default=6e-4, help="learning rate at its peak")
    parser.add_argument("--blend", type=float, default=0.0, help="share of the weights it started from, after training")
    parser.add_argument("--blend-with", type=Path, help="weights to blend in, widened, instead of its start")
    parser.add_argument("--wider-rain", action="store_true", help="the shares WIDER instead of those of the task")
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    if chosen.wider_rain:
        TASKS["streaks"] = dataclasses.replace(TASKS["streaks"], sample=wider_sample)
    torch.manual_seed(0)
    student = weights.widen(weights.load_weights(chosen.start), chosen.width)
    collection = collections.open_collection(chosen.collection)
    amounts = {"guidance": 0.0, "rendered": 0.85, "patch": 96, "seed": SEED, "steps": chosen.steps}
    recipe = recipes.fine_tuning(student, None, collection, pairs=collection.few_pairs(PAIRS, 0), **amounts)
    options = {"steps": chosen.steps, "batch": 8, "learning_rate": chosen.rate, "seed": SEED, "workers": 1}
    key = f"{chosen.width}-{chosen.steps}-{chosen.rate}" + ("-wider" if chosen.wider_rain else "")
    trainer = Trainer(
        recipe.model, recipe.objective, recipe.samples, folder=chosen.folder, key=key, checkpoint_seconds=60, **options
    )
    trainer.fit()
    restorer, start = recipe.restorer(), recipe.start
    if chosen.blend_with:
        torch.manual_seed(0)  # the channels that the first leg began with
        start = weights.widen(weights.load_weights(chosen.blend_with), chosen.width).state_dict()
    weights.blend(restorer, start, chosen.blend)
    weights.save_weights(restorer, chosen.folder / "student.safetensors", init="student")


def wider_sample(patch: np.ndarray, label: str, rng: np.random.Generator, layers) -> dict[str, np.ndarray]:
    """As the task `streaks` makes them, with the shares WIDER."""
    kind, seed = rng.choice(list(WIDER), p=list(WIDER.values())), int(rng.integers(2**32))
    target = patch
    if kind == "dry":
        return {"image": patch, "target": patch}
    if kind == "added":  # as most synthetic sets are made: light is added, nothing hidden
        layer = layers(len(patch), rng)
        if rng.random() < 0.3:
            layer = np.maximum(layer, layers(len(patch), rng))
        rainy = np.clip(patch + np.float32(_log_uniform(rng, 0.4, 3)) * layer[..., None], 0, 1)
    elif kind == "laid":
        rainy = rain.lay(patch, layers(len(patch), rng), rng)
    elif kind == "photoshop":
        rainy = rain.photoshop(patch, seed).rainy
    else:
        if kind == "physical":
            drawn = rain.physical(patch, seed)
        else:
            given = {"width_px": _log_uniform(rng, 0.6, 2), "peak": _log_uniform(rng, 0.08, 0.45)}
            drawn = rain.layered(patch, seed, layers, **(given if kind == "fine" else {}))
        rainy, target = drawn.rainy, drawn.background
    return {"image": rain.in_places(rainy, target, rng) if rng.random() < PATCHY else rainy, "target": target}


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


if __name__ == "__main__":
    main()
