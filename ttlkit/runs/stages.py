"""Run folders: one stage of one run, what it needs, what it made, and whether it must run again."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from ttlkit import files, machine
from ttlkit.data.collections import open_collection
from ttlkit.runs import code, released
from ttlkit.runs.profiles import PROFILES
from ttlkit.runs.records import DONE, STOOD_IN, difference, folder_hash, named_files, read_done, stand_ins_of
from ttlkit.runs.settings import STAGES, Settings, Training, how_to_make, resolve
from ttlkit.words import SettingsError

T = TypeVar("T")
HALF = ".finished.json"  # the notebook has ended, but is not written yet
VOTES = "votes.csv"  # what a person gave, not the stage: no result of it, never removed
UNDER_PIPELINE = "TTLKIT_STAGE"  # set for a kernel by the pipeline: the folder of the stage that it runs
ELSEWHERE = ("run", "collection", "workers")  # settings that say where and with how many hands, not what


def collection_folder(settings: Settings) -> Path:
    """The collection's folder: generated ones below datasets/, else the user's path."""
    if settings.collection == "pocket":
        return machine.home() / "datasets" / f"pocket-{PROFILES[settings.profile].pocket_scenes}"
    path = Path(os.path.expanduser(settings.collection))  # Path's raises an error for a user who is not known
    return path.resolve() if path.exists() else (machine.home() / path).resolve()


class StageRun:
    """One stage of one run: its settings and its folder, outputs/<run>/<stage>[-<variant>]."""

    def __init__(self, settings: Settings):
        self.settings: Any = settings
        self.name = settings.stage + (f"-{settings.variant}" if settings.variant else "")
        self.run_folder = machine.home() / "outputs" / str(settings.run)
        self.folder = self.run_folder / self.name
        self.collection = collection_folder(settings)
        self.profile = PROFILES[settings.profile]
        self.began = time.time()

    # ---- is it done? ---------------------------------------------------------------------------------------------

    def inputs_now(self) -> dict[str, Any]:
        """All that the result depends on, as it is at this moment."""
        given = asdict(self.settings)
        read = {part: folder_hash(self.collection / part) for part in self.settings.reads}
        return {
            "settings": {k: v for k, v in given.items() if k not in (*ELSEWHERE, *self.settings.names)},
            "images": {**read, "simulated": (self.collection / "SIMULATED.txt").exists()},
            "files": {name: named_files(given[name], name == "peers") for name in self.settings.names},
            "earlier stages": {
                **{name: self._handed_on(name) or self._stood_in(name) for name in self.settings.needs()},
                **{name: self._stood_in(name) for name in self.settings.takes()},
                **{name: self._handed_on(name) for name in self.settings.uses()},
            },
            "precision": machine.precision(),
            "code": code.of_notebook(self.settings.stage),
            "notebook": code.notebook_hash(self.settings.stage),
        }

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """`inputs_now()` of the moment when the stage began: what changes while it runs makes it stale."""
        return self.inputs_now()

    @property
    def key(self) -> str:
        """Hash of all inputs that decide on trained weights: a checkpoint with another key is not taken up.

        Of the code that is what the training runs, so a figure can be changed without training again.
        """
        others = {k: v for k, v in self.inputs.items() if k not in ("code", "notebook")}
        modules = {name: digest for name, digest in self.inputs["code"].items() if name.startswith(code.TRAINING)}
        return files.sha256_of(others, modules, self.training_cells)[:16]

    @cached_property
    def training_cells(self) -> list[str]:
        """The notebook's code up to the cell that trains, as `inputs` of the moment when the stage began."""
        return code.training_cells(self.settings.stage)

    def stale(self, accept_code: bool = False) -> str:
        """'' when the stage is done: its inputs are today's, and every file that it made is as it was written.

        Else the reason in words. `accept_code`: library and notebook may be others than those that made it.
        """
        done = self.done()
        if not done:
            return "it is not finished"
        reason = difference(done["inputs"], self.inputs_now(), ("code", "notebook") if accept_code else ())
        if reason:
            return reason
        for name, digest in done["files"].items():
            path = self.folder / name
            if not path.is_file() or files.sha256(path) != digest:
                return f"{name} is {'damaged or edited' if path.is_file() else 'gone'}"
        return ""

    def is_done(self) -> bool:
        """Whether nothing is to be done."""
        return not self.stale()

    def done(self) -> dict[str, Any]:
        """What DONE.json says; {} where the stage is not finished."""
        return read_done(self.folder)

    def _handed_on(self, name: str) -> dict[str, str]:
        made = read_done(self.run_folder / name).get("files", {})
        return {file: digest for file, digest in made.items() if file.endswith((".safetensors", ".csv"))}

    def _stood_in(self, name: str) -> dict[str, str]:
        return {file: STOOD_IN + files.sha256(path) for file, path in self.stand_ins(name).items()}

    # ---- what the run has not made, by hand -----------------------------------------------------------------------

    def stand_ins(self, name: str) -> dict[str, Path]:
        """Released files that stand in for those of an earlier stage that the run has not begun; {} for other stages.

        The pipeline, which makes every stage, takes none but where the settings say so.
        """
        stand_in = name in self.settings.takes() or self._lacks(name)
        return released.files_for(name, self.settings) if stand_in else {}

    def has(self, name: str) -> bool:
        """Whether there is anything to take from an earlier stage: of the run, be it damaged, or of the release."""
        return not self._lacks(name) or bool(self.stand_ins(name))

    def _lacks(self, name: str) -> bool:
        folder = (self.run_folder / name).resolve()
        return not self.under_pipeline() and not (folder.is_dir() and any(folder.iterdir()))

    def _say_what_is_missing(self) -> None:
        """One line for what comes from the release, and one for what is left out."""
        if taken := self.settings.takes():
            what = released.what(taken)
            print(f"takes the released {what}, trained on real photographs (teachers_from = 'released')")
        wanted = self.settings.needs() + (self.settings.uses() if self.settings.spares else [])
        missing = [name for name in wanted if self._lacks(name)]
        for found in (True, False):
            if names := [name for name in missing if bool(self.stand_ins(name)) == found]:
                instead = f"takes the released {released.what(names)} instead, trained on real photographs"
                lacking = f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} not finished"
                print(f"{lacking} in outputs/{self.run_folder.name}: {instead if found else 'left out'}")

    # ---- doing it ------------------------------------------------------------------------------------------------

    def require(self, name: str, file: str = "") -> Path:
        """A file of an earlier stage, or the released one that stands in for it where the run has not begun that stage.

        SettingsError names the stage to run first where there is neither, and where it is half done or damaged.
        """
        folder = (self.run_folder / name).resolve()  # "../other-run/..." before this run has a folder
        done = read_done(folder)
        path, digest = folder / file, done.get("files", {}).get(file)
        damaged = digest and (not path.is_file() or files.sha256(path) != digest)
        if (not done or name in self.settings.takes()) and (instead := self.stand_ins(name)):
            return instead[file] if file else machine.WEIGHTS
        if not done or damaged:
            problem = f"whose {file} is damaged or gone" if damaged else "which is not finished"
            raise SettingsError(
                f"{self.name} needs {name}, {problem} in {self.run_folder}: "
                f"run notebooks/{how_to_make(name)} first, or `make reproduce`"
                + (f"; or remove {folder}, and what is released stands in" if self._may_stand_in(name) else "")
            )
        return path

    def _may_stand_in(self, name: str) -> bool:
        return bool(released.files_for(name, self.settings)) and not self._lacks(name) and not self.under_pipeline()

    def begin(self, writes: bool = True) -> StageRun:
        """Check the earlier stages, freeze the inputs, seed everything, write config.json (one process `writes`)."""
        for name in self.settings.needs():
            if self.has(name) or not self.settings.spares:
                self.require(name)
        if changed := code.changed_since_loaded():
            raise SettingsError(f"{', '.join(changed)} changed after this process had loaded it; restart the kernel")
        for frozen in ("inputs", "training_cells"):
            self.__dict__.pop(frozen, None)
        self.began, _ = time.time(), (self.inputs, self.training_cells)
        machine.seed_everything(self.settings.seed)
        machine.tune_process()
        if not writes:
            return self
        self._say_what_is_missing()
        self.clear()
        (self.folder / "figures").mkdir(parents=True, exist_ok=True)
        if not isinstance(self.settings, Training):  # the trainer looks after its own rows when it resumes
            (self.folder / "metrics.jsonl").unlink(missing_ok=True)
        facts = {"stage": self.name, **asdict(self.settings), "released": stand_ins_of(self.inputs)}
        files.write_json(self.folder / "config.json", {**facts, **machine.provenance()})
        return self

    def clear(self) -> None:
        """Remove what an earlier run of this stage made, or it would be taken for this one's; not its checkpoint."""
        for name in self.done().get("files", {}):
            if not (name == "notebook.ipynb" and self.under_pipeline()):
                files.remove(self.folder / name)
        for name in (DONE, HALF, "figures"):
            files.remove(self.folder / name)

    def log(self, row: Mapping[str, Any]) -> None:
        """Append one row to metrics.jsonl."""
        files.append(self.folder / "metrics.jsonl", json.dumps(row) + "\n")

    def track(self, items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
        """Pass items on with a progress bar, and rows in metrics.jsonl that the pipeline shows."""
        from tqdm import tqdm

        items = items if total else list(items)
        total = total or len(items)  # type: ignore[arg-type]
        last = 0.0
        for step, item in enumerate(tqdm(items, what, total, file=sys.stdout, mininterval=2), 1):
            yield item
            if time.time() - last > 1 or step == total:
                last = time.time()
                self.log({"what": what, "step": step, "steps": total})

    def figure(self, name: str, figure: Any) -> Any:
        """Save a Figure as figures/<name>.png and pass that picture on for display: it is drawn once."""
        from IPython.display import Image

        from ttlkit.lesson.figures import describe

        path = self.folder / "figures" / f"{name}.png"
        with files.whole(path) as partial:
            figure.savefig(partial, format="png", dpi=110)
        return Image(path.read_bytes(), metadata={"alt": describe(figure)})

    def finish(self, **results: Any) -> dict[str, Any]:
        """Say that the stage is done: results, inputs, versions, wall time, and hashes of all that was made."""
        facts: dict[str, Any] = {"stage": self.name, "results": results, "inputs": self.inputs}
        facts |= {"seconds": round(time.time() - self.began, 1), **machine.provenance()}
        files.write_json(self.folder / HALF, facts)
        if not self.under_pipeline():  # which still has to write the notebook
            self.seal()
            release(self.run_folder)
        return results

    def seal(self, notebook: str = "") -> bool:
        """Write DONE.json, last of all; False where the notebook has not come to its end.

        `notebook`: hash of the notebook that was executed, where that is known better than by the kernel.
        """
        facts = files.read_json(self.folder / HALF)
        if not facts:
            return False
        facts["inputs"]["notebook"] = notebook or facts["inputs"]["notebook"]
        made = {path.relative_to(self.folder).as_posix(): path for path in self.folder.rglob("*") if path.is_file()}
        facts["files"] = {
            name: files.sha256(path)
            for name, path in sorted(made.items())
            if not name.startswith(".") and "/." not in name and path.stat().st_mtime > self.began - 2
            if name not in (DONE, VOTES, "checkpoint.pt") and (name != "notebook.ipynb" or self.under_pipeline())
        }
        files.write_json(self.folder / DONE, {**facts, "checksum": files.sha256_of(facts)})
        files.remove(self.folder / HALF)
        return True

    def under_pipeline(self) -> bool:
        """Whether the pipeline runs it, which then writes its notebook and seals it; else it is run by hand."""
        return os.environ.get(UNDER_PIPELINE) == str(self.folder)


def start(stage: str, scope: Mapping[str, Any]) -> StageRun:
    """Begin a stage from a notebook's `globals()`: read its parameters, refuse unknown ones, prepare the folder.

    Run by hand, it holds the run until the stage is finished or the kernel ends: SettingsError where another does.
    """
    kind = STAGES[stage]
    given = {f.name: scope[f.name] for f in fields(kind) if f.name in scope}
    # Neither papermill, which injects a cell, nor who edits ours is told of a misspelt name.
    for cell in [cell for cell in scope.get("In", []) if cell.startswith(("# Parameters\n", "profile = "))][-1:]:
        given.update({name: scope[name] for name in code.assigned_names(cell)})
    stage_run = StageRun(resolve(kind, given))
    if not stage_run.under_pipeline():
        hold(stage_run.run_folder)
    if stage_run.settings.reads and stage_run.settings.collection == "pocket" and not stage_run.collection.exists():
        open_collection(stage_run.collection, stage_run.profile.pocket_scenes)  # or it would be made after the look
    stage_run.begin()
    print(f"{stage_run.name}: profile {stage_run.settings.profile}, seed {stage_run.settings.seed}")
    print(
        *[f"images from {stage_run.collection}"] * bool(stage_run.settings.reads),
        f"results to  {stage_run.folder}",
        sep="\n",
    )
    return stage_run


# ---- one process a run --------------------------------------------------------------------------------------------

_held: dict[Path, Any] = {}  # the locks of this process


def hold(run_folder: Path) -> None:
    """Keep other processes from this run until `release`; again and again in one process is fine."""
    from filelock import FileLock, Timeout

    if run_folder in _held:
        return
    run_folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run_folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise SettingsError(
            f"{run_folder}: another process is working on this run; wait for it or choose another RUN"
        ) from None
    _held[run_folder] = lock


def release(run_folder: Path) -> None:
    """Let others work on this run."""
    if run_folder in _held:
        _held.pop(run_folder).release()


@contextmanager
def alone(run_folder: Path) -> Iterator[None]:
    """`hold` and `release` around a block; inside of another such block it does nothing."""
    mine = run_folder not in _held
    hold(run_folder)
    try:
        yield
    finally:
        if mine:
            release(run_folder)
