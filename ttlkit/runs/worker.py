"""Train a stage without its notebook, on one device or on several that share each batch:

    python -m ttlkit.runs.worker 02_teacher_pretraining --task deblur --profile pocket
    torchrun --nproc-per-node=2 -m ttlkit.runs.worker 02_teacher_pretraining --task deblur --profile colab

It trains into the stage's folder, and goes on from the checkpoint there. The notebook with the same parameters then
finds the training finished, and does the rest.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import fields
from datetime import timedelta

from filelock import FileLock

from ttlkit import machine
from ttlkit.data.collections import open_collection
from ttlkit.method.trainer import StepSampler, TrainingError
from ttlkit.runs import training
from ttlkit.runs.settings import HELP, STAGES, resolve
from ttlkit.runs.stages import StageRun, alone
from ttlkit.words import SettingsError, as_command

EVERY = 15  # seconds between two lines


def main(arguments: list[str] | None = None) -> int:
    """Train a stage; what the user can put right ends as one line and exit code 1."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        machine.end_with(os.getppid())  # torchrun

    def call() -> int:
        processes = _number("WORLD_SIZE", 1, 1)
        train(_stage(arguments), _number("RANK", 0, 0, processes - 1), processes)
        return 0

    return as_command(call, leads=os.environ.get("RANK", "0") == "0")


def _number(name: str, default: int, least: int, most: int | None = None) -> int:
    """A variable that torchrun sets; SettingsError where something else has set it."""
    text = os.environ.get(name, str(default))
    if not text.isdecimal() or int(text) < least or (most is not None and int(text) > most):
        raise SettingsError(f"{name} = {text}: only torchrun sets it; unset it, with WORLD_SIZE and LOCAL_RANK")
    return int(text)


def _stage(arguments: list[str] | None) -> StageRun:
    text = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "python -m ttlkit.runs.worker", description=__doc__, formatter_class=text, allow_abbrev=False
    )
    parser.add_argument("stage", choices=training.RECIPES, metavar="STAGE", help=", ".join(training.RECIPES))
    for name in dict.fromkeys(f.name for stage in training.RECIPES for f in fields(STAGES[stage])):
        # torchrun takes --run for one of its own, even behind the module's name.
        names = ["--run", "--run-name"] if name == "run" else [f"--{name.replace('_', '-')}"]
        parser.add_argument(*names, dest=name, help=HELP[name])
    given = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None}
    settings = resolve(STAGES[given.pop("stage")], given)
    training.check_names(settings)
    return StageRun(settings)


def train(stage: StageRun, rank: int = 0, processes: int = 1) -> None:
    """Train a stage to its last step, as process `rank` of `processes`; the first alone writes and prints."""
    settings = stage.settings
    StepSampler(settings.batch, 0, 0, rank, processes)  # refuses a batch that cannot be shared, before all else
    if machine.device() == "cuda":
        import torch

        torch.cuda.set_device(_number("LOCAL_RANK", 0, 0))
    stage.run_folder.mkdir(parents=True, exist_ok=True)
    with alone(stage.run_folder) if rank == 0 else nullcontext():
        with FileLock(stage.run_folder / ".turn"):  # the first makes the collection and its cache, the others find it
            collection = open_collection(stage.collection, stage.profile.pocket_scenes)
            if stage.is_done():
                if rank == 0:
                    print(f"{stage.name}: done before")
                return
            recipe = training.RECIPES[settings.stage](stage.begin(writes=rank == 0), collection)
        if rank == 0:
            print(f"{stage.name}: {collection.label}, {settings.steps} steps, {processes} processes", flush=True)
        fit = training.trainer_for(stage, recipe)
        if fit.accelerator.num_processes != processes:
            raise TrainingError(f"{processes} processes were started, but {fit.accelerator.num_processes} train")
        fit.fit(_lines())
        if rank == 0:
            print(f"trained: {fit.checkpoint}\nnow run notebooks/{settings.stage}.ipynb with the same parameters")
        fit.accelerator.end_training()


def _lines() -> Callable[[dict[str, float]], None]:
    """Prints a log row every 15 seconds, and the last."""
    due = 0.0

    def on_log(row: dict[str, float]) -> None:
        nonlocal due
        if "seconds_left" in row and (time.monotonic() >= due or row["step"] == row["steps"]):
            due = time.monotonic() + EVERY
            left = timedelta(seconds=round(row["seconds_left"]))
            print(f"step {row['step']}/{row['steps']}, loss {row['loss']:.4f}, {left} left", flush=True)

    return on_log


if __name__ == "__main__":
    sys.exit(main())
