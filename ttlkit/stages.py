"""Run folders: one stage of one run, what it needs, what it made, and whether it must run again."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from ttlkit.config import (
    PROFILES,
    STAGES,
    Settings,
    SettingsError,
    Training,
    device,
    home,
    precision,
    resolve,
    seed_everything,
    tune_process,
)

T = TypeVar("T")


def collection_folder(settings: Settings) -> Path:
    """The collection's folder: generated ones below datasets/, else the user's path."""
    if settings.collection == "pocket":
        return home() / "datasets" / f"pocket-{PROFILES[settings.profile].pocket_scenes}"
    path = Path(settings.collection).expanduser()
    return path.resolve() if path.exists() else (home() / path).resolve()


class StageRun:
    """One stage of one run: its settings and its folder, outputs/<run>/<stage>[-<variant>]."""

    def __init__(self, settings: Settings):
        self.settings: Any = settings
        self.name = settings.stage + (f"-{settings.variant}" if settings.variant else "")
        self.run_folder = home() / "outputs" / str(settings.run)
        self.folder = self.run_folder / self.name
        self.collection = collection_folder(settings)
        self.profile = PROFILES[settings.profile]
        self.began = time.time()

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """What the result depends on: settings, collection, earlier stages; compared to decide what to run again."""
        values = {k: v for k, v in asdict(self.settings).items() if k not in ("run", "collection", "workers")}
        return {
            "settings": values,
            "collection": {part: fingerprint(self.collection / part) for part in self.settings.reads},
            "needs": {name: self._earlier(name).get("files", {}) for name in self.settings.needs()},
        }

    @property
    def key(self) -> str:
        """Hash of `inputs`: a checkpoint with another key belongs to other settings."""
        return hashlib.sha256(json.dumps(self.inputs, sort_keys=True).encode()).hexdigest()[:16]

    def _earlier(self, name: str) -> dict[str, Any]:
        done = (self.run_folder / name).resolve() / "DONE.json"  # "../other-run/..." before this run has a folder
        return json.loads(done.read_text()) if done.is_file() else {}

    def require(self, name: str, file: str = "") -> Path:
        """A file of an earlier stage; SettingsError names the stage to run first when it is not finished."""
        if not self._earlier(name):
            notebook, _, variant = name.partition("-")
            option = {"02_teacher_pretraining": "task", "04_fine_tuning": "init"}.get(notebook)
            option = f" with {option} = '{variant}'" if option else ""
            raise SettingsError(
                f"{self.name} needs {name}, which is not finished in {self.run_folder}: "
                f"run notebooks/{notebook}.ipynb{option} first, or `make reproduce`"
            )
        return (self.run_folder / name).resolve() / file

    def begin(self, writes: bool = True) -> StageRun:
        """Check the earlier stages, seed everything, write config.json (of several processes one `writes`)."""
        for name in self.settings.needs():
            self.require(name)
        seed_everything(self.settings.seed)
        tune_process()
        if not writes:
            return self
        shutil.rmtree(self.folder / "figures", ignore_errors=True)  # an earlier notebook's would be taken for its own
        (self.folder / "figures").mkdir(parents=True, exist_ok=True)
        (self.folder / "DONE.json").unlink(missing_ok=True)
        if not isinstance(self.settings, Training):  # the trainer looks after its own rows when it resumes
            (self.folder / "metrics.jsonl").unlink(missing_ok=True)
        write_json(self.folder / "config.json", {"stage": self.name, **asdict(self.settings), **provenance()})
        return self

    def is_done(self) -> bool:
        """True when DONE.json stands, its inputs and notebook are today's, and its files are still there."""
        done = self._earlier(self.name)
        return (
            bool(done)
            and done["inputs"] == self.inputs
            and done["notebook"] == notebook_hash(self.settings.stage)
            and all((self.folder / name).is_file() for name in done["files"])
        )

    def log(self, row: Mapping[str, Any]) -> None:
        """Append one row to metrics.jsonl."""
        with open(self.folder / "metrics.jsonl", "a") as file:
            file.write(json.dumps(row) + "\n")

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
        """Save a Figure as figures/<name>.png and pass it on for display."""
        figure.savefig(self.folder / "figures" / f"{name}.png", dpi=110, bbox_inches="tight")
        return figure

    def finish(self, **results: Any) -> dict[str, Any]:
        """Write DONE.json last of all: results, inputs, hashes of what was made, versions, wall time."""
        made = sorted(self.folder.glob("*.safetensors")) + sorted(self.folder.glob("*.json"))
        files = {p.name: file_hash(p) for p in made if p.name not in ("DONE.json", "config.json")}
        done = {
            "stage": self.name,
            "results": results,
            "inputs": self.inputs,
            "notebook": notebook_hash(self.settings.stage),
            "files": files,
            "seconds": round(time.time() - self.began, 1),
            **provenance(),
        }
        write_json(self.folder / "DONE.json", done)
        return results


@contextmanager
def alone(run_folder: Path) -> Iterator[None]:
    """One process per run at a time; SettingsError when another is working on it."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(run_folder / ".lock", timeout=0):
            yield
    except Timeout:
        raise SettingsError(
            f"{run_folder}: another process is working on this run; wait for it or choose another RUN"
        ) from None


def start(stage: str, scope: Mapping[str, Any]) -> StageRun:
    """Begin a stage from a notebook's `globals()`: read its parameters, refuse unknown ones, prepare the folder."""
    kind = STAGES[stage]
    given = {f.name: scope[f.name] for f in fields(kind) if f.name in scope}
    for cell in scope.get("In", []):  # papermill injects a misspelt name without complaint
        if cell.startswith("# Parameters\n"):
            given.update({n: scope[n] for n in assigned_names(cell)})
    stage_run = StageRun(resolve(kind, given)).begin()
    print(f"{stage_run.name}: profile {stage_run.settings.profile}, seed {stage_run.settings.seed}")
    print(f"images from {stage_run.collection}\nresults to  {stage_run.folder}")
    return stage_run


def assigned_names(source: str) -> list[str]:
    """Names that a cell assigns at top level."""
    return [
        target.id
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]


def fingerprint(folder: Path) -> str:
    """Hash over names, sizes and the first and last 4 KiB of every file below a folder: quick, and survives a copy."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder)} {size}\n".encode())
        with open(path, "rb") as file:
            digest.update(file.read(4096))
            file.seek(max(0, size - 4096))
            digest.update(file.read(4096))
    return digest.hexdigest()[:16]


def file_hash(path: Path) -> str:
    """sha256 of a file, shortened to 16 hex digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def notebook_hash(stage: str) -> str:
    """Hash of a stage notebook's code cells; '' where the notebook is not beside the package (Colab)."""
    path = Path(__file__).resolve().parents[1] / "notebooks" / f"{stage}.ipynb"
    if not path.is_file():
        return ""
    cells = [c["source"] for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()[:16]


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all; NaN is refused."""
    text = json.dumps(value, indent=1, default=str, allow_nan=False)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text + "\n")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def provenance() -> dict[str, Any]:
    """Versions, commit, device and time, for config.json and DONE.json."""
    from importlib.metadata import PackageNotFoundError, version

    def installed(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:
            return "absent"

    packages = ("ttlkit", "torch", "numpy", "scipy", "scikit-image", "pillow", "accelerate")
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        commit = subprocess.run(command, check=False, capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        commit = ""
    return {
        "versions": {"python": platform.python_version(), **{p: installed(p) for p in packages}},
        "commit": commit,
        "device": device(),
        "precision": precision(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }
