"""Run the stage notebooks in order with papermill: skip what is done, say why not, show progress, stop clearly."""

import json
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from ttlkit import files
from ttlkit.machine import home, leaving_out
from ttlkit.method.starts import STARTS, STUDENT, start_of
from ttlkit.runs import code, released
from ttlkit.runs.profiles import GUIDE, TASK_NAMES
from ttlkit.runs.records import DONE, other_code, read_done, stand_ins_of
from ttlkit.runs.settings import STAGES, FineTuning, resolve
from ttlkit.runs.stages import UNDER_PIPELINE, StageRun, alone
from ttlkit.words import SettingsError, check_name, split_names

PATIENCE = 10.0  # seconds for a kernel that is gone
OTHER_CODE = "was made by other code"  # in the notes of a report
STAGE = "[0-9][0-9]*_*"  # folders of stages in that of a run


class StageError(RuntimeError):
    """A stage failed; the message names its notebook, the cause and the way out."""


def plan(tasks: str = TASK_NAMES, extras: bool = True, **given: Any) -> list[StageRun]:
    """All stages of a run, in order; 00 shows the student, and is left out where none is made.

    `extras`: with 01b and 00, which hand nothing on. `given`: parameters common to the stages, or of some of them
    (`peers`).
    """
    from ttlkit.method.connected_tasks import TASKS  # torch takes a second to import

    for task in split_names(tasks):
        check_name(task, TASKS, "task")
    known = {f.name for kind in STAGES.values() for f in fields(kind)}
    for name, value in given.items():
        check_name(name, known, "parameter")
        if str(value) != str(value).encode("utf-8", "replace").decode():
            raise SettingsError(f"{name} = {files.shown(value)}: no UTF-8, so no notebook can hold it; rename it")

    given = {"tasks": tasks, "guide": GUIDE if GUIDE in split_names(tasks) else "", **given}

    def stage(kind: str, **own: Any) -> StageRun:
        takes = {f.name for f in fields(STAGES[kind])}
        return StageRun(resolve(STAGES[kind], {**{k: v for k, v in given.items() if k in takes}, **own}))

    evaluation = stage("05_real_scene_evaluation")
    inits = split_names(evaluation.settings.inits)
    for init in inits:
        check_name(init, [*STARTS, *split_names(tasks)], f"entry of {FineTuning.stage}'s inits")
    students = list(dict.fromkeys(start.tasks for start in map(start_of, inits) if start.tasks))
    own = [stage("03_distillation", tasks=names, guide="") for names in students]
    distillations = {found.name: found for found in (stage("03_distillation"), *own)}  # the run's may be one of them
    return [
        stage("01_gap_statistics", images=None),  # `images` of a run: those of its test sets
        *(
            stage("02_teacher_pretraining", task=task)
            for task in dict.fromkeys(split_names(",".join([tasks, *students])))
        ),
        *distillations.values(),
        *(stage("04_fine_tuning", init=init) for init in inits),
        evaluation,
        # The appendix comes after all that measure, since it asks a trained teacher too.
        *([stage("01b_gap_appendix", images=None)] if extras else []),
        *([stage("00_start_here")] if extras and STUDENT in inits else []),
    ]


def outlook(stages: Sequence[StageRun], accept_code: bool = False) -> dict[str, str]:
    """The stages that `run` would run, by name, each with the reason in words; nothing is run or changed.

    A stage behind another one of these is among them, though it will be spared where the other's results come out
    the same.
    """
    found: dict[str, str] = {}
    for stage in stages:
        before = [name for name in (*stage.settings.needs(), *stage.settings.uses()) if name in found]
        reason = stage.stale(accept_code) or (f"{', '.join(before)} will run again" if before else "")
        if reason:
            found[stage.name] = reason
    return found


def run(
    stages: Sequence[StageRun], before: Callable[[StageRun], bool] = lambda stage: False, accept_code: bool = False
) -> None:
    """Execute what is not done yet; one process per run at a time. Raises StageError at the first failure.

    `before(stage)` may finish a stage in another way: True when it has. `accept_code`: see `StageRun.stale`.
    """
    if not code.notebook_path(stages[0].settings.stage).is_file():
        raise StageError(f"{code.notebook_path('')}: no notebooks there; install ttlkit again")
    with alone(stages[0].run_folder):
        for number, stage in enumerate(stages, 1):
            title = f"[{number}/{len(stages)}] {stage.name}"
            reason, again = stage.stale(accept_code), bool(stage.done())
            if not reason:
                other = other_code(stage.folder) if accept_code else ""
                print(f"{title}: done before{f', and accepted although {other}' if other else ''}", flush=True)
            elif before(stage):
                print(f"{title}: taken from another run", flush=True)
            else:
                _execute(stage, title, f"again, since {reason}" if again else "started")


def _execute(stage: StageRun, title: str, why: str) -> None:
    with leaving_out("rfc3987_syntax"):  # nbformat's checker of addresses, which builds 39 grammars in 1.4 s
        import papermill
        from jupyter_client.channels import HBChannel
        from papermill.exceptions import PapermillExecutionError

    HBChannel.join = _join_in_time  # type: ignore[assignment]
    source = code.notebook_path(stage.settings.stage)
    values = {f.name: getattr(stage.settings, f.name) for f in fields(stage.settings)}
    if values["collection"] != "pocket":
        values["collection"] = str(stage.collection)  # the kernel works in another folder
    stage.folder.mkdir(parents=True, exist_ok=True)
    stage.clear()
    output = stage.folder / "notebook.ipynb"
    began, executed = time.time(), code.notebook_hash(stage.settings.stage)
    print(f"{title}: {why}", flush=True)
    with _progress(stage, title), _kernel_of(stage), files.named(output), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            papermill.execute_notebook(
                source,
                output,
                values,
                kernel_name="python3",
                cwd=home(),
                progress_bar=False,
                extra_arguments=kernel_options(),
            )
        except PapermillExecutionError as error:
            if error.ename in ("KeyboardInterrupt", "Stopped"):  # Ctrl-C reaches the kernel too
                raise KeyboardInterrupt from None
            problem = f"{error.ename}: {' '.join(str(error.evalue).split())}"
            raise StageError(f"{title}: {problem}; see {output}, fix it and run again") from None
        except RuntimeError as error:  # a killed kernel
            raise StageError(
                f"{title}: the kernel stopped ({error}); run again: it goes on from the checkpoint"
            ) from None
    with _kernel_of(stage):
        sealed = stage.seal(executed)
    if not sealed:  # a dead kernel can look completed
        raise StageError(f"{title}: ended without a result, see {output}; run again: it goes on from the checkpoint")
    print(f"{title}: finished in {time.time() - began:.0f} s", flush=True)


def kernel_options() -> list[str]:
    """Kernels end with this process, and say on the terminal neither that TCP is used nor that they are being ended."""
    ends = f"from ttlkit.machine import end_with; end_with({os.getpid()}); del end_with"
    return ["--log-level=CRITICAL", f"--IPKernelApp.exec_lines={ends}"]


@contextmanager
def _kernel_of(stage: StageRun) -> Iterator[None]:
    """Kernels started here know that this process holds the run, and will seal the stage."""
    before = os.environ.get("TTLKIT_HOME")
    os.environ |= {UNDER_PIPELINE: str(stage.folder), "TTLKIT_HOME": str(home())}  # kernels work in another folder
    try:
        yield
    finally:
        del os.environ[UNDER_PIPELINE]
        os.environ.pop("TTLKIT_HOME") if before is None else os.environ.update(TTLKIT_HOME=before)


def _join_in_time(channel: threading.Thread, timeout: float | None = None) -> None:
    """Wait for a kernel's heartbeat thread, but not for ever.

    A kernel that leaves while the thread sends to it is never answered for: jupyter_client 8.10 then hung after a
    notebook that was finished, and a night of runs with it. The thread is a daemon and may stay.
    """
    threading.Thread.join(channel, PATIENCE if timeout is None else timeout)


@contextmanager
def _progress(stage: StageRun, title: str) -> Iterator[None]:
    """While a stage runs, show the last row of its metrics.jsonl: step, loss, time left."""
    live, stop, began = sys.stdout.isatty(), threading.Event(), time.time()

    def watch() -> None:
        shown = ""
        while not stop.wait(1 if live else 15):
            text = _describe(stage.folder / "metrics.jsonl", began)
            line = text and f"{title}: {text}"
            if line and line != shown:
                print(f"\r{line:<{len(shown)}}" if live else line, end="" if live else "\n", flush=True)
                shown = line
        if live and shown:
            print("\r" + " " * len(shown), end="\r", flush=True)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _describe(path: Path, since: float) -> str:
    """'step 120/500, loss 0.0312, 0:41 left' from the last row written after `since`; '' when there is none."""
    try:
        if path.stat().st_mtime < since:
            return ""
        row = json.loads(path.read_text(errors="replace").strip().splitlines()[-1])
    except (OSError, ValueError, IndexError):  # not there yet, or a row half written
        return ""
    text = f"{row.get('what', 'step')} {row['step']}/{row['steps']}"
    if "loss" in row:
        text += f", loss {row['loss']:.4f}"
    if "seconds_left" in row:
        text += f", {int(row['seconds_left']) // 60}:{int(row['seconds_left']) % 60:02d} left"
    return text


def sections(run_folder: Path) -> list[Path]:
    """What the report of a run shows: executed notebooks, and folders of stages that were run by hand.

    In the order of the run: 00, which shows its result, comes last; of one notebook, what was finished first.
    """

    def order(folder: Path) -> tuple[bool, str, float, str]:
        done = folder / DONE
        number = folder.name.partition("_")[0]
        return number < "01", number, done.stat().st_mtime if done.is_file() else time.time(), folder.name

    found = []
    for folder in sorted((path for path in run_folder.glob(STAGE) if path.is_dir()), key=order):
        if (folder / "notebook.ipynb").is_file():
            found.append(folder / "notebook.ipynb")
        elif read_done(folder):
            found.append(folder)
    return found


def notes(run_folder: Path) -> list[str]:
    """One line for each finished stage that took released weights for those of this run, or whose code is not today's.

    Results of two codes may stand side by side.
    """
    folders = sorted(path.parent for path in run_folder.glob(f"{STAGE}/DONE.json"))
    found = {folder.name: stand_ins_of(inputs) for folder in folders if (inputs := read_done(folder).get("inputs"))}
    taken = [f"{n} took the released {released.what(g)}, trained on real photographs" for n, g in found.items() if g]
    return taken + [f"{folder.name} {OTHER_CODE}: {other}" for folder in folders if (other := other_code(folder))]
