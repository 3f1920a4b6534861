"""What each stage trains: network, objective and samples. A recipe receives teachers, start and collection.

Paper: the three stages, and that teachers and distillation see real photographs, fine-tuning few synthetic pairs.
Ours: photographs beside the pairs for the guide, and `rendered` rain in a share of the samples.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ttlkit.data import samples
from ttlkit.data.collections import Collection
from ttlkit.method import objectives
from ttlkit.method.connected_tasks import TASKS, Task
from ttlkit.method.networks import Derainer, Distiller, Restorer
from ttlkit.words import check_name


@dataclass(frozen=True)
class Recipe:
    """`objective(model, batch)` trains `model` on `samples`; frozen `teachers` help; `held_out` is never seen."""

    model: Any
    objective: objectives.Step
    samples: Any
    teachers: Mapping[str, Any] = field(default_factory=dict)
    held_out: Any = None


def teacher_pretraining(task: Task, collection: Collection, *, width: int, patch: int, seed: int) -> Recipe:
    """A teacher of `width` learns its connected task on crops, `patch` pixels a side, of real photographs."""

    def crops(held_out: bool) -> samples.Photographs:
        found = {kind: collection.real(kind, held_out) for kind in task.classes}
        return samples.Photographs(found, task.sample, patch, seed + held_out, collection.streaks)

    return Recipe(task.build(width), objectives.task_step(task), crops(False), held_out=crops(True))


def distillation(
    teachers: Mapping[str, Any], collection: Collection, *, guide: str, width: int, patch: int, seed: int
) -> Recipe:
    """A student learns to see as all `teachers` (frozen, by task) see, on real photographs in any rain.

    What the teacher `guide` restores, it copies too; '': nothing. Raises SettingsError for a guide that is no teacher,
    or whose task does not remove streaks.
    """
    if guide:
        check_name(guide, [name for name in teachers if TASKS[name].removes_streaks], "guide")
    student = Restorer(width)
    if not guide:
        student.head.requires_grad_(False)  # no loss reaches it, and processes wait for every gradient

    def crops(held_out: bool) -> samples.Photographs:
        found = {kind: collection.real(kind, held_out) for kind in ("rainy", "clean")}
        return samples.Photographs(found, samples.in_any_rain, patch, seed + held_out, collection.streaks)

    objective = objectives.distillation_step(teachers, teachers.get(guide))
    return Recipe(Distiller(student, teachers), objective, crops(False), teachers, crops(True))


def fine_tuning(
    restorer: Derainer,
    guide: Any,
    collection: Collection,
    *,
    n_pairs: int,
    guidance: float,
    rendered: float,
    patch: int,
    seed: int,
) -> Recipe:
    """A restorer, wherever it starts from, learns to derain from `n_pairs` synthetic pairs.

    `guide`: a frozen teacher that keeps it from forgetting, with the weight `guidance`, or None. `rendered`: the share
    of samples that are rain drawn on photographs (as the task `streaks` does) instead of pairs.
    """

    def crops(found: Mapping[str, Any], make: samples.Make) -> samples.Photographs:
        return samples.Photographs(found, make, patch, seed, collection.streaks)

    pairs = collection.few_pairs(n_pairs, seed)
    scenes = [*collection.real("clean"), *(pair.truth for pair in pairs)]
    seen = crops({kind: collection.real(kind) for kind in ("rainy", "clean")}, samples.as_it_is) if guide else None
    drawn = crops({"clean": scenes}, TASKS["streaks"].sample) if rendered else None
    mixed = samples.Guided(samples.Pairs(pairs, patch, seed), seen, drawn, rendered)
    objective = objectives.restoration_step(guide, guidance)
    return Recipe(restorer, objective, mixed, {"guide": guide} if guide else {})
