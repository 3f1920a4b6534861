"""Train a stage without its notebook, on one device or on several that share each batch:

    python -m ttlkit.runs.worker 02_teacher_pretraining --task deblur --profile pocket
    torchrun --nproc-per-node=2 -m ttlkit.runs.worker 02_teacher_pretraining --task deblur --profile colab

It trains into the stage's folder, and goes on from the checkpoint there. The notebook with the same parameters then
finds the training finished, and does the rest.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from contextlib import nullcontext
from dataclasses import fields

from filelock import FileLock

from ttlkit import machine
from ttlkit.data.collections import open_collection
from ttlkit.method.trainer import StepSampler, TrainingError
from ttlkit.runs import training
from ttlkit.runs.settings import HELP, STAGES, resolve
from ttlkit.runs.stages import StageRun, alone

EVERY = 15  # seconds between two lines


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
    return StageRun(resolve(STAGES[given.pop("stage")], given))


def train(stage: StageRun, rank: int = 0, processes: int = 1) -> None:
    """Train a stage to its last step, as process `rank` of `processes`; the first alone writes and prints."""
    settings = stage.settings
    StepSampler(settings.batch, 0, 0, rank, processes)  # refuses a batch that cannot be shared, before all else
    if machine.device() == "cuda":
        import torch

        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
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
            self.due = time.monotonic() + EVERY
            minutes, seconds = divmod(int(row["seconds_left"]), 60)
            print(
                f"step {row['step']}/{row['steps']}, loss {row['loss']:.4f}, {minutes}:{seconds:02d} left", flush=True
            )


if __name__ == "__main__":
    sys.exit(main())
