"""Run the chain over seeds and numbers of pairs, and put all of it into one table: the ablation."""

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ttlkit import files
from ttlkit.machine import home
from ttlkit.runs import pipeline
from ttlkit.runs.records import read_done
from ttlkit.runs.settings import STAGES, resolve
from ttlkit.runs.stages import VOTES, StageRun
from ttlkit.words import SettingsError


def plan(name: str, seeds: Sequence[int], n_pairs: Sequence[int], **given: Any) -> list[list[list[StageRun]]]:
    """For each seed, for each number of pairs, the stages of the run `<name>-seed<s>-pairs<n>`.

    Runs of one seed share teachers and student, which see no pairs, so they belong together and in order.
    """
    for what, values in (("seeds", seeds), ("n_pairs", n_pairs)):
        if not values or len(set(values)) != len(values):
            raise SettingsError(f"{what} = {list(values)}: give at least one, and none twice")
    return [
        [pipeline.plan(**given, run=f"{name}-seed{seed}-pairs{n}", seed=seed, n_pairs=n, extras=False) for n in n_pairs]
        for seed in seeds
    ]


def table(name: str, runs: Sequence[Sequence[Sequence[StageRun]]], **given: Any) -> StageRun:
    """The stage that reads all runs: outputs/<name>/06_ablation, or -val."""
    names = [stages[0].run_folder.name for of_seed in runs for stages in of_seed]
    takes = {k: v for k, v in given.items() if k in ("profile", "collection", "sets")}
    return StageRun(resolve(STAGES["06_ablation"], {**takes, "run": name, "run_names": ",".join(names)}))


def run_seed(runs: Sequence[Sequence[StageRun]], accept_code: bool = False) -> None:
    """The runs of one seed, one after the other; a stage that another of them has finished is taken from there."""
    for stages in runs:
        print(f"== {stages[0].run_folder.name}", flush=True)
        others = [other[0].run_folder for other in runs if other is not stages]
        pipeline.run(stages, partial(take_finished, others=others), accept_code)


def take_finished(stage: StageRun, others: Sequence[Path]) -> bool:
    """Copy a stage from a run that finished it with the same inputs, whole or not at all; False where there is none."""
    for folder in others:
        if read_done(folder / stage.name).get("inputs") != stage.inputs_now():
            continue
        with files.whole(stage.folder) as partial:
            try:
                shutil.copytree(folder / stage.name, partial, ignore=shutil.ignore_patterns(VOTES))
                if (stage.folder / VOTES).exists():
                    shutil.copy2(stage.folder / VOTES, partial)
            except shutil.Error as error:  # holds a list of what failed
                raise SettingsError(
                    f"{stage.folder}: cannot be copied here ({error.args[0][0][2]}); free space"
                ) from None
            files.remove(stage.folder)  # a folder cannot be replaced in one step
        return stage.is_done()  # it may have been damaged there
    return False


def mixed_code(run_folders: Sequence[Path]) -> str:
    """A line that says so where not all runs were made by the same code; '' where they were."""
    made: dict[str, dict[str, dict[str, str]]] = {}  # notebook -> hash of its code -> path of a module -> hash
    for folder in run_folders:
        for stage in sorted(folder.glob("0[2-5]_*")):
            inputs = read_done(stage).get("inputs")
            if inputs:
                code = {**inputs["code"], "its notebook": inputs["notebook"]}
                made.setdefault(stage.name.partition("-")[0], {})[files.sha256_of(code)] = code
    mixed = []
    for notebook, codes in made.items():
        if len(codes) > 1:
            names = {name for one in codes.values() for name in one}
            differ = sorted(name for name in names if len({one.get(name) for one in codes.values()}) > 1)
            mixed.append(f"{notebook} ({', '.join(differ)})")
    return f"MADE BY DIFFERENT CODE, so rows may not compare: {'; '.join(mixed)}" if mixed else ""


def submit(
    runs: Sequence[Sequence[Sequence[StageRun]]], name: str, partition: str, hours: int, accept_code: bool = False
) -> list[Any]:
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
    return executor.map_array(partial(run_seed, accept_code=accept_code), runs)
