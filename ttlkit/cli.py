"""The command line: `ttlkit reproduce | derain | data | report`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ttlkit import __version__


def main(arguments: list[str] | None = None) -> int:
    """Run a command; problems that the user can solve end as one line and exit code 1."""
    parser = build_parser()
    chosen = parser.parse_args(arguments)
    try:
        return chosen.call(chosen)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130
    except (ValueError, RuntimeError, OSError) as error:
        if not type(error).__module__.startswith("ttlkit") and not isinstance(error, OSError):
            raise  # ours are clear lines; anything else is a bug and wants its traceback
        print(f"ttlkit: {error}", file=sys.stderr)
        return 1


def build_parser() -> argparse.ArgumentParser:
    """All commands and options; imports nothing heavy, so --help is quick."""
    parser = argparse.ArgumentParser("ttlkit", description="Single-image deraining by task transfer learning.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("reproduce", help="run all stage notebooks and write the report")
    command.add_argument("--profile", default="pocket", help="smoke, pocket, laptop, colab or paper (default: pocket)")
    command.add_argument("--collection", default="pocket", help="'pocket' (generated) or a folder (default: pocket)")
    command.add_argument("--run", help="name of the folder below outputs/ (default: the profile)")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--tasks", default="recognition,deblur,inpaint", help="connected tasks (default: all)")
    command.add_argument("--inits", help="fine-tuned from what: scratch, student, a task (default: the profile's)")
    command.add_argument("--n-pairs", type=int, help="synthetic pairs to fine-tune on (default: the profile's)")
    command.add_argument("--peers", default="", help="folder with released PReNet weights (*.pth) to compare with")
    command.set_defaults(call=reproduce)

    command = commands.add_parser("derain", help="restore an image or a folder of images")
    command.add_argument("source", metavar="IN", type=Path)
    command.add_argument("target", metavar="OUT", type=Path)
    command.add_argument("--weights", type=Path, help="a restorer.safetensors (default: the newest student)")
    command.set_defaults(call=derain)

    command = commands.add_parser("data", help="build the pocket collection, or say what a collection holds")
    command.add_argument("action", choices=("build", "show"))
    command.add_argument("path", nargs="?", default="pocket", help="'pocket' or a folder (default: pocket)")
    command.add_argument("--profile", default="pocket", help="size of the pocket collection")
    command.set_defaults(call=data)

    command = commands.add_parser("report", help="write report.html of a run again")
    command.add_argument("run", help="name of the folder below outputs/")
    command.set_defaults(call=report)
    return parser


def reproduce(chosen: argparse.Namespace) -> int:
    """All stages of a run, its report, and the result table on the terminal."""
    from ttlkit import pipeline
    from ttlkit.data import open_collection
    from ttlkit.evaluate import cases
    from ttlkit.tasks import TASKS

    names = ("profile", "collection", "run", "seed", "inits", "n_pairs", "peers")
    given = {n: getattr(chosen, n) for n in names if getattr(chosen, n) is not None}
    if given["collection"] != "pocket":
        given["collection"] = str(Path(given["collection"]).expanduser().resolve())
    if given["peers"]:
        given["peers"] = str(Path(given["peers"]).expanduser().resolve())
    _check_tasks(chosen.tasks, TASKS)
    stages = pipeline.plan(tasks=chosen.tasks, **given)
    collection = open_collection(stages[0].collection, stages[0].profile.pocket_scenes)
    for stage in stages:  # what would stop a late stage is said before the first one starts
        if stage.settings.stage == "04_fine_tuning":
            collection.few_pairs(stage.settings.n_pairs, stage.settings.seed)
    cases(collection, 1)
    print(f"{stages[0].run_folder}: {stages[0].profile.runtime}; {collection.label} in {collection.root}")
    pipeline.run(stages)
    path = stages[0].run_folder / "report.html"
    if not path.exists() or any(n.stat().st_mtime > path.stat().st_mtime for n in pipeline.executed(stages)):
        _write_report(stages[0].run_folder)
    print((stages[0].run_folder / "05_real_scene_evaluation" / "table.txt").read_text())
    print(f"report: {path}")
    return 0


def _check_tasks(tasks: str, known: dict) -> None:
    from ttlkit.config import check_name, split_names

    for task in split_names(tasks):
        check_name(task, known, "task")


def report(chosen: argparse.Namespace) -> int:
    """Write outputs/<run>/report.html from its executed notebooks."""
    from ttlkit.config import home

    print(f"report: {_write_report(home() / 'outputs' / chosen.run)}")
    return 0


def _write_report(folder: Path) -> Path:
    from ttlkit.config import SettingsError
    from ttlkit.report import write_report

    notebooks = sorted(folder.glob("*/notebook.ipynb"))
    if not notebooks:
        raise SettingsError(f"{folder}: no executed notebooks; run `ttlkit reproduce` first")
    table = folder / "05_real_scene_evaluation" / "table.txt"
    intro = table.read_text() if table.is_file() else ""
    return write_report(notebooks, folder / "report.html", f"ttlkit: run {folder.name}", intro)


def derain(chosen: argparse.Namespace) -> int:
    """Restore files; what cannot be read is listed at the end and makes the exit code 1."""
    from tqdm import tqdm

    from ttlkit import config, restore

    files = restore.plan_files(chosen.source, chosen.target)
    weights = chosen.weights or restore.newest_student(config.home() / "outputs")
    model = restore.load_restorer(weights, config.device())
    print(f"weights: {weights}")
    done = restore.restore_files(model, files, config.precision())
    failed = [problem for _, _, problem in tqdm(done, "derain", len(files), disable=len(files) == 1) if problem]
    for problem in failed:
        print(f"skipped: {problem}", file=sys.stderr)
    print(f"{len(files) - len(failed)} of {len(files)} images written to {chosen.target}")
    return 1 if failed else 0


def data(chosen: argparse.Namespace) -> int:
    """Build the pocket collection or open a folder, and print what it holds."""
    from ttlkit.config import Settings, resolve
    from ttlkit.data import open_collection
    from ttlkit.stages import StageRun

    place = StageRun(resolve(Settings, {"profile": chosen.profile, "collection": chosen.path}))
    scenes = place.profile.pocket_scenes if chosen.action == "build" else None
    found = open_collection(place.collection, scenes)
    print(f"{found.root}: {found.label}")
    print(f"  real: {len(found.rainy)} rainy, {len(found.clean)} clean; synthetic: {len(found.pairs)} pairs")
    for test in found.tests:
        print(f"  test/{test.name}: {len(test.pairs)} {test.kind}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
