"""What each stage trains, from its settings: network, loss and crops. For the notebooks, and without them:

    python -m ttlkit.train 02_teacher_pretraining --task deblur --profile pocket
    torchrun --nproc-per-node=2 -m ttlkit.train 02_teacher_pretraining --task deblur --profile colab

trains into the stage's folder, on one device or on several that share each batch, and goes on from the checkpoint
there. The notebook with the same parameters then finds the training finished, and does the rest.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, fields
from typing import Any

from filelock import FileLock
from torch import nn

from ttlkit import config, data, models, stages, steps
from ttlkit.stages import StageRun
from ttlkit.tasks import TASKS
from ttlkit.trainer import StepSampler, Trainer, TrainingError


@dataclass(frozen=True)
class Lesson:
    """`step(model, batch)` trains `model` on `samples`; `frozen` teachers by name help; `held_out` is never seen."""

    model: Any
    step: steps.Step
    samples: Any
    frozen: Mapping[str, Any] = field(default_factory=dict)
    held_out: Any = None


def teacher_pretraining(stage: StageRun, photographs: data.Collection) -> Lesson:
    """A teacher learns its connected task on crops of real photographs."""
    settings, task = stage.settings, TASKS[stage.settings.task]

    def crops(kept_back: bool) -> data.Photographs:
        found, seed = photographs.photographs(task.classes, kept_back), settings.seed + kept_back
        return data.Photographs(found, task.sample, settings.patch, seed, photographs.streaks)

    return Lesson(task.build(settings.width), steps.task_step(task), crops(False), held_out=crops(True))


def distillation(stage: StageRun, photographs: data.Collection) -> Lesson:
    """A student learns to see as all teachers see, on real photographs in any rain."""
    settings = stage.settings
    teachers = load_teachers(stage, config.split_names(settings.tasks))
    if settings.guide:
        config.check_name(settings.guide, [name for name in teachers if TASKS[name].removes_streaks], "guide")
    student = models.Restorer(settings.width)
    if not settings.guide:
        student.head.requires_grad_(False)  # no loss reaches it, and processes wait for every gradient

    def crops(kept_back: bool) -> data.Photographs:
        found, seed = photographs.photographs(kept_back=kept_back), settings.seed + kept_back
        return data.Photographs(found, data.in_any_rain, settings.patch, seed, photographs.streaks)

    step = steps.distillation_step(teachers, teachers.get(settings.guide))
    return Lesson(models.Distiller(student, teachers), step, crops(False), teachers, crops(True))


def fine_tuning(stage: StageRun, photographs: data.Collection) -> Lesson:
    """A restorer, started from `init`, learns from few synthetic pairs; a guide keeps it from forgetting the rest."""
    settings = stage.settings
    teachers = load_teachers(stage, [n.partition("-")[2] for n in settings.needs() if n.startswith("02")])
    if settings.init in (config.SCRATCH, config.TOTAL):
        restorer: Any = models.Restorer(settings.width)
    elif settings.init == config.ALL:
        restorer = models.gather([teachers[name] for name in config.split_names(settings.tasks)])
    else:
        student = stage.run_folder / "03_distillation" / "student.safetensors"
        from_student = settings.init in (config.STUDENT, config.UNGUIDED)
        source = models.load_weights(student) if from_student else teachers[settings.init]
        restorer = models.transfer(source, models.Restorer(source.width))
    guides = {settings.guide: teachers[settings.guide]} if settings.guided else {}

    def crops(found: Mapping[str, Any], make: data.Make) -> data.Photographs:
        return data.Photographs(found, make, settings.patch, settings.seed, photographs.streaks)

    pairs = photographs.few_pairs(settings.n_pairs, settings.seed)
    scenes = {"clean": [*photographs.photographs(["clean"])["clean"], *(pair.truth for pair in pairs)]}
    seen = crops(photographs.photographs(), data.as_it_is) if guides else None
    drawn = crops(scenes, TASKS["streaks"].sample) if settings.rendered else None
    samples = data.Guided(data.Pairs(pairs, settings.patch, settings.seed), seen, drawn, settings.rendered)
    return Lesson(restorer, steps.restoration_step(guides.get(settings.guide), settings.guidance), samples, guides)


LESSONS: dict[str, Callable[[StageRun, data.Collection], Lesson]] = {
    "02_teacher_pretraining": teacher_pretraining,
    "03_distillation": distillation,
    "04_fine_tuning": fine_tuning,
}


def load_teachers(stage: StageRun, names: list[str]) -> dict[str, Any]:
    """The run's teachers by task, frozen, on the device; SettingsError names the stage to run first."""
    found: dict[str, nn.Module] = {}
    for name in names:
        path = stage.require(f"02_teacher_pretraining-{name}", "teacher.safetensors")
        found[name] = models.freeze(models.load_weights(path)).to(config.device())
    return found


def trainer_for(stage: StageRun, lesson: Lesson) -> Trainer:
    """The Trainer of a stage: it writes into the stage's folder, under the key of its settings and inputs."""
    settings = stage.settings
    return Trainer(
        lesson.model,
        lesson.step,
        lesson.samples,
        folder=stage.folder,
        key=stage.key,
        steps=settings.steps,
        batch=settings.batch,
        learning_rate=settings.learning_rate,
        seed=settings.seed,
        workers=settings.workers,
    )


# ---- without a notebook: one process, or one of several that torchrun has started --------------------------------


def main(arguments: list[str] | None = None) -> int:
    """Train a stage; what the user can put right ends as one line and exit code 1."""
    rank, processes = (int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1)))
    try:
        train(_stage(arguments), rank, processes)
    except KeyboardInterrupt:
        if rank == 0:
            print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130
    except (ValueError, RuntimeError, OSError) as error:
        if not type(error).__module__.startswith("ttlkit") and not isinstance(error, OSError):
            raise
        if rank:  # the first process meets it too and says so; torchrun then ends this one
            time.sleep(30)
        print(f"ttlkit: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


def _stage(arguments: list[str] | None) -> StageRun:
    text, rule = argparse.RawDescriptionHelpFormatter, "a parameter of the stage; as in its notebook"
    parser = argparse.ArgumentParser(
        "python -m ttlkit.train", description=__doc__, formatter_class=text, allow_abbrev=False
    )
    parser.add_argument("stage", choices=LESSONS, metavar="STAGE", help=", ".join(LESSONS))
    for name in dict.fromkeys(f.name for stage in LESSONS for f in fields(config.STAGES[stage])):
        option = f"--{name.replace('_', '-')}"
        # torchrun takes --run for one of its own, even behind the module's name.
        names = ["--run", "--run-name"] if name == "run" else [option]
        parser.add_argument(*names, dest=name, help=f"{rule}; --run-name under torchrun" if name == "run" else rule)
    given = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None}
    settings = config.resolve(config.STAGES[given.pop("stage")], given)
    for name, known in (("task", TASKS), ("init", [*config.INITS, *TASKS])):
        if hasattr(settings, name):
            config.check_name(getattr(settings, name), known, name)
    return StageRun(settings)


def train(stage: StageRun, rank: int = 0, processes: int = 1) -> None:
    """Train a stage to its last step, as process `rank` of `processes`; the first alone writes and prints."""
    settings = stage.settings
    StepSampler(settings.batch, 0, 0, rank, processes)  # refuses a batch that cannot be shared, before all else
    if config.device() == "cuda":
        import torch

        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    stage.run_folder.mkdir(parents=True, exist_ok=True)
    with stages.alone(stage.run_folder) if rank == 0 else nullcontext():
        with FileLock(stage.run_folder / ".turn"):  # the first makes the collection and its cache, the others find it
            photographs = data.open_collection(stage.collection, stage.profile.pocket_scenes)
            if stage.is_done():
                if rank == 0:
                    print(f"{stage.name}: done before")
                return
            lesson = LESSONS[settings.stage](stage.begin(writes=rank == 0), photographs)
        if rank == 0:
            print(f"{stage.name}: {photographs.label}, {settings.steps} steps, {processes} processes", flush=True)
        fit = trainer_for(stage, lesson)
        if fit.accelerator.num_processes != processes:
            raise TrainingError(f"{processes} processes were started, but {fit.accelerator.num_processes} train")
        fit.fit(_Lines())
        if rank == 0:
            print(f"trained: {fit.checkpoint}\nnow run notebooks/{settings.stage}.ipynb with the same parameters")
        fit.accelerator.end_training()


class _Lines:
    """Prints a log row every 15 seconds, and the last."""

    def __init__(self) -> None:
        self.due = 0.0

    def __call__(self, row: dict[str, float]) -> None:
        if time.monotonic() >= self.due or row["step"] == row["steps"]:
            self.due = time.monotonic() + 15
            minutes, seconds = divmod(int(row["seconds_left"]), 60)
            print(
                f"step {row['step']}/{row['steps']}, loss {row['loss']:.4f}, {minutes}:{seconds:02d} left", flush=True
            )


if __name__ == "__main__":
    sys.exit(main())
