"""What each stage trains: network, objective and samples. A recipe receives teachers, start and collection.

Paper: the three stages, and that teachers and distillation see real photographs, fine-tuning few synthetic pairs.
Ours: photographs beside the pairs for the guide, and `rendered` rain in a share of the samples. WAYS: other ways to
fine-tune, each with its reference.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ttlkit.data import samples
from ttlkit.data.collections import Collection, Pair
from ttlkit.method import adaptation, objectives, semi_supervised
from ttlkit.method.connected_tasks import TASKS, Task
from ttlkit.method.networks import Derainer, Distiller, Restorer
from ttlkit.words import check_name

WAYS = {**adaptation.WAYS, **semi_supervised.WAYS}


@dataclass(frozen=True)
class Recipe:
    """`objective(model, batch)` trains `model` on `samples`; frozen `teachers` help; `held_out` is never seen.

    `start`: the weights of a restorer before its fine-tuning. What it is afterwards, says `restorer`. `untrained`: the
    state of `model` before the first step, so that a training can begin again.
    """

    model: Any
    objective: objectives.Step
    samples: Any
    teachers: Mapping[str, Any] = field(default_factory=dict)
    held_out: Any = None
    start: Mapping[str, Tensor] = field(default_factory=dict)
    untrained: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "untrained", copy.deepcopy(self.model.state_dict()))

    def restorer(self) -> Derainer:
        """After fine-tuning: the plain network to save, a copy out of what was trained; that can be trained on."""
        return adaptation.plain(copy.deepcopy(self.model))


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
    pairs: Sequence[Pair],
    guidance: float,
    rendered: float,
    patch: int,
    seed: int,
    steps: int = 0,
    way: str = "",
    unlabelled: bool = False,
) -> Recipe:
    """A restorer, wherever it starts from, learns to derain from synthetic pairs.

    `guide`: a frozen teacher that keeps it from forgetting, with the weight `guidance`, or None. `rendered`: the share
    of samples that are rain drawn on photographs (as the task `streaks` does) instead of pairs. `way`: an entry of
    WAYS, which knows the number of `steps` and no guide; `unlabelled`: real rainy photographs for it beside the pairs.
    """

    def crops(found: Mapping[str, Any], make: samples.Make) -> samples.Photographs:
        return samples.Photographs(found, make, patch, seed, collection.streaks)

    scenes = [*collection.real("clean"), *(pair.truth for pair in pairs)]
    kinds = ("rainy",) if unlabelled else ("rainy", "clean") if guide else ()
    seen = crops({kind: collection.real(kind) for kind in kinds}, samples.as_it_is) if kinds else None
    drawn = crops({"clean": scenes}, TASKS["streaks"].sample) if rendered else None
    mixed = samples.Guided(samples.Pairs(pairs, patch, seed), seen, drawn, rendered)
    start = {name: weight.clone() for name, weight in restorer.state_dict().items()}
    model, step = WAYS[way](restorer, steps) if way else (restorer, objectives.restoration_step(guide, guidance))
    return Recipe(model, step, mixed, {"guide": guide} if guide else {}, start=start)
