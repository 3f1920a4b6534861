"""Recipes for the default run, where they are chosen: PSNR on 24 scenes like those of the pocket collection's val.

    OMP_NUM_THREADS=1 .venv/bin/python tests/benchmarks/pocket.py --seed 0 [--rate 2e-3] [--copied 30] [--tuning 1e-3]

Distils a student from the released teachers, fine-tunes it and a scratch on the profile's pairs, and prints both, the
student with each share of its distilled weights kept. Simulated rain (`traced`), float32, RGB, rounded. Never test/.
"""

import argparse
import copy
import tempfile
from pathlib import Path

import numpy as np
import torch

from ttlkit import machine, rain
from ttlkit.apply import restore
from ttlkit.data import collections, image_files, pocket, tensors
from ttlkit.evaluate import metrics
from ttlkit.method import objectives, recipes, weights
from ttlkit.method.networks import Restorer
from ttlkit.method.trainer import Trainer
from ttlkit.runs.profiles import POCKET, TASK_NAMES

TASKS, SCENES, SHARES = TASK_NAMES.split(","), 24, (0.0, 0.3, 0.5, 0.7)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=POCKET.distillation_rate, help="of distillation")
    parser.add_argument("--copied", type=float, default=objectives.COPIED, help="weight of the guide in it")
    parser.add_argument("--tuning", type=float, default=POCKET.fine_tuning_rate, help="learning rate of fine-tuning")
    parser.add_argument("--guidance", type=float, default=POCKET.guidance)
    chosen = parser.parse_args()
    objectives.COPIED, seed = chosen.copied, chosen.seed
    collection = collections.open_collection(
        machine.home() / f"datasets/pocket-{POCKET.pocket_scenes}", POCKET.pocket_scenes
    )
    scenes = [rain.traced(pocket.photograph(i, pocket.VAL_PHOTOGRAPHS), i) for i in range(40_000, 40_000 + SCENES)]
    teachers = {task: weights.load_weights(restore.RELEASED.with_name(f"teacher-{task}.safetensors")) for task in TASKS}
    teachers = {task: weights.freeze(teacher) for task, teacher in teachers.items()}

    def fit(recipe: recipes.Recipe, steps: int, rate: float) -> None:
        with tempfile.TemporaryDirectory() as folder:
            options = {"steps": steps, "batch": POCKET.batch, "learning_rate": rate, "seed": seed}
            Trainer(recipe.model, recipe.objective, recipe.samples, folder=Path(folder), key="", **options).fit()

    def tell(name: str, network: torch.nn.Module | None) -> None:
        scored = []
        for drops in scenes:
            rainy, clean = (image_files.to_u8(side) / 255 for side in (drops.rainy, drops.background))
            restored = (
                restore.restore(weights.freeze(copy.deepcopy(network)), rainy, precision="no") if network else rainy
            )
            scored.append(float(metrics.psnr(*map(tensors.to_tensor, (restored, clean)))))
        print(f"{name}: {np.mean(scored):.2f} dB", flush=True)

    def tuned(start: Restorer, guide: torch.nn.Module | None) -> Restorer:
        pairs = collection.few_pairs(POCKET.n_pairs, seed)
        options = {"guidance": chosen.guidance, "rendered": 0.0, "patch": POCKET.patch, "seed": seed}
        steps = POCKET.fine_tuning_steps
        recipe = recipes.fine_tuning(copy.deepcopy(start), guide, collection, pairs=pairs, steps=steps, **options)
        fit(recipe, steps, chosen.tuning)
        return recipe.restorer()

    tell("input", None)
    torch.manual_seed(seed)
    tell("scratch", tuned(Restorer(POCKET.student_width), None))
    torch.manual_seed(seed)
    options = {"guide": "streaks", "width": POCKET.student_width, "patch": POCKET.patch, "seed": seed}
    recipe = recipes.distillation(teachers, collection, **options)
    fit(recipe, POCKET.distillation_steps, chosen.rate)
    tell("distilled", recipe.model.student)
    student = tuned(recipe.model.student, teachers["streaks"])
    for share in SHARES:
        blended = copy.deepcopy(student)
        weights.blend(blended, recipe.model.student.state_dict(), share)
        tell(f"student, {share:g} kept", blended)


if __name__ == "__main__":
    main()
