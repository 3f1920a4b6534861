"""Run the chain over seeds and numbers of pairs, and put all of it into one table: the ablation."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ttlkit import pipeline
from ttlkit.config import STAGES, SettingsError, home, resolve
from ttlkit.stages import StageRun, notebook_hash


def plan(name: str, seeds: Sequence[int], n_pairs: Sequence[int], **given: Any) -> list[list[list[StageRun]]]:
    """For each seed, for each number of pairs, the stages of the run `<name>-seed<s>-pairs<n>`.

    Runs of one seed share teachers and student, which see no pairs, so they belong together and in order.
    """
    for what, values in (("seeds", seeds), ("n_pairs", n_pairs)):
        if not values or len(set(values)) != len(values):
            raise SettingsError(f"{what} = {list(values)}: give at least one, and none twice")
    return [
        [
            pipeline.plan(**given, run=f"{name}-seed{seed}-pairs{n}", seed=seed, n_pairs=n, start_here=False)
            for n in n_pairs
        ]
        for seed in seeds
    ]


def table(name: str, runs: Sequence[Sequence[Sequence[StageRun]]], **given: Any) -> StageRun:
    """The stage that reads all runs: outputs/<name>/06_ablation."""
    names = [stages[0].run_folder.name for of_seed in runs for stages in of_seed]
    takes = {k: v for k, v in given.items() if k in ("profile", "collection")}
    return StageRun(resolve(STAGES["06_ablation"], {**takes, "run": name, "runs": ",".join(names)}))


def run_seed(runs: Sequence[Sequence[StageRun]]) -> None:
    """The runs of one seed, one after the other; a stage that another of them has finished is taken from there."""
    for stages in runs:
        print(f"== {stages[0].run_folder.name}", flush=True)
        others = [other[0].run_folder for other in runs if other is not stages]
        pipeline.run(stages, before=partial(take_finished, others=others))


def take_finished(stage: StageRun, others: Sequence[Path]) -> bool:
    """Copy a stage from a run that finished it with the same inputs, whole or not at all; False where there is none."""
    for folder in others:
        source = folder / stage.name
        try:
            done = json.loads((source / "DONE.json").read_text())
        except (OSError, ValueError):  # not begun, or not finished
            continue
        if done["inputs"] != stage.inputs or done["notebook"] != notebook_hash(stage.settings.stage):
            continue
        half = stage.folder.with_name(f".{stage.name}.part")
        shutil.rmtree(half, ignore_errors=True)
        shutil.copytree(source, half)
        shutil.rmtree(stage.folder, ignore_errors=True)
        half.rename(stage.folder)
        return True
    return False


def submit(runs: Sequence[Sequence[Sequence[StageRun]]], name: str, partition: str, hours: int) -> list[Any]:
    """Hand each seed to SLURM as a job (`partition` 'local': to a process of this machine) and return the jobs."""
    try:
        import submitit
    except ImportError:
        raise SettingsError("--slurm needs submitit: pip install 'ttlkit[cluster]'") from None
    cluster = "local" if partition == "local" else None
    executor = submitit.AutoExecutor(home() / "outputs" / name / "jobs", cluster=cluster)
    executor.update_parameters(name=f"ttlkit-{name}", timeout_min=60 * hours)
    if cluster is None:
        executor.update_parameters(slurm_partition=partition)
    return executor.map_array(run_seed, runs)
