"""From the settings of a stage to its recipe and trainer: fetches what the run has made, and hands it over."""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

from ttlkit import machine
from ttlkit.data.collections import Collection, Pair
from ttlkit.method import recipes
from ttlkit.method.connected_tasks import TASKS
from ttlkit.method.recipes import Recipe
from ttlkit.method.starts import STARTS, start_of
from ttlkit.method.trainer import Trainer, replay
from ttlkit.method.weights import freeze, load_weights, save_weights
from ttlkit.runs.settings import FineTuning, resolve, teacher_stages
from ttlkit.runs.stages import StageRun, hold
from ttlkit.words import check_name, split_names

SIDE_BY_SIDE = ("smoke", "pocket")  # profiles so small that one notebook trains two starts


def teacher_pretraining(stage: StageRun, collection: Collection) -> Recipe:
    """The recipe of a teacher."""
    return recipes.teacher_pretraining(TASKS[stage.settings.task], collection, width=stage.settings.width, **_of(stage))


def distillation(stage: StageRun, collection: Collection) -> Recipe:
    """The recipe of the student, with the run's teachers."""
    settings, teachers = stage.settings, load_teachers(stage, split_names(stage.settings.tasks))
    return recipes.distillation(teachers, collection, guide=settings.guide, width=settings.width, **_of(stage))


def fine_tuning(stage: StageRun, collection: Collection) -> Recipe:
    """The recipe of a restorer, from what `init` says: teachers, the distilled student, or nothing."""
    settings = stage.settings
    guides = [settings.guide] if settings.guided else []
    teachers = load_teachers(stage, [*settings.teachers, *guides])
    start = start_of(settings.init)
    student = load_weights(stage.require(settings.student, "student.safetensors")) if settings.student else None
    restorer = start.build(settings.width, {name: teachers[name] for name in settings.teachers}, student)
    options = {name: getattr(settings, name) for name in ("guidance", "rendered", "steps")}
    options |= {"way": start.way, "unlabelled": start.unlabelled, "pairs": pairs_of(stage, collection)}
    guide = teachers[settings.guide] if guides else None
    return recipes.fine_tuning(restorer, guide, collection, **options, **_of(stage))


def pairs_of(stage: StageRun, collection: Collection) -> list[Pair]:
    """The synthetic pairs that fine-tuning sees: the few that the settings say, or all where the start wants all."""
    settings = stage.settings
    n = len(collection.pairs) if start_of(settings.init).every_pair else settings.n_pairs
    return collection.few_pairs(n, settings.seed)


def check_names(settings: Any) -> None:
    """Refuse a task or a start that there is not, before anything is made: SettingsError."""
    for name, known in (("task", TASKS), ("init", [*STARTS, *TASKS])):
        if hasattr(settings, name):
            check_name(getattr(settings, name), known, name)


RECIPES: dict[str, Callable[[StageRun, Collection], Recipe]] = {
    "02_teacher_pretraining": teacher_pretraining,
    "03_distillation": distillation,
    "04_fine_tuning": fine_tuning,
}


def load_teachers(stage: StageRun, tasks: Iterable[str]) -> dict[str, Any]:
    """The run's teachers by task, frozen, on the device; SettingsError names the stage to run first."""
    names = dict.fromkeys(tasks)
    paths = [stage.require(folder, "teacher.safetensors") for folder in teacher_stages(names)]
    return {n: freeze(load_weights(p)).to(machine.device()) for n, p in zip(names, paths, strict=True)}


def beside(
    stage: StageRun, init: str, collection: Collection, on_log: Callable[[dict[str, float]], None] | None = None
) -> tuple[list[dict[str, float]], Any]:
    """The training of another start in the same run: (its rows, its restorer), to compare with; ([], None) without.

    Where that start has been fine-tuned, it is what is in its folder. Else a profile of SIDE_BY_SIDE trains it now,
    into that folder. By hand this finishes the stage of that start, for notebook 05; in a pipeline its own notebook
    does, and finds the training finished. One line says what is lacking, and why.
    """
    given = asdict(stage.settings) | {"init": init}
    other = StageRun(resolve(FineTuning, given))
    if other.done():
        if reason := other.stale(accept_code=True):
            print(f"{init} is not comparable: {reason}; run this notebook with init = '{init}' again")
            return [], None
        lines = (other.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        if on_log:
            replay(rows, on_log)
        return rows, load_weights(other.folder / "restorer.safetensors")
    if stage.settings.profile not in SIDE_BY_SIDE:
        print(f"no {init} to compare with: run this notebook with init = '{init}' first")
        return [], None
    recipe = fine_tuning(other.begin(), collection)
    rows, restorer = trainer_for(other, recipe).fit(on_log), recipe.restorer()
    if not stage.under_pipeline():
        n_pairs = len(pairs_of(other, collection))
        save_weights(restorer, other.folder / "restorer.safetensors", init=init, n_pairs=str(n_pairs))
        other.finish(loss=rows[-1]["loss"], n_pairs=n_pairs)
        hold(stage.run_folder)  # finishing lets go of the run
    return rows, restorer


def trainer_for(stage: StageRun, recipe: Recipe) -> Trainer:
    """The Trainer of a stage: it writes into the stage's folder, under the key of its settings, images and code.

    It starts from what the recipe started from, whatever an earlier training of the same recipe has left in its model.
    """
    recipe.model.load_state_dict(recipe.untrained)
    names = ("steps", "batch", "learning_rate", "seed", "workers")
    options = {name: getattr(stage.settings, name) for name in names}
    return Trainer(recipe.model, recipe.objective, recipe.samples, folder=stage.folder, key=stage.key, **options)


def _of(stage: StageRun) -> dict[str, Any]:
    return {"patch": stage.settings.patch, "seed": stage.settings.seed}
