"""The command line: `ttlkit reproduce | sweep | gap | derain | export | data | report`."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from contextlib import contextmanager
from pathlib import Path

from ttlkit import __version__
from ttlkit.config import PROFILES

SHEET = 20  # pictures on a sheet of `derain --compare`


def main(arguments: list[str] | None = None) -> int:
    """Run a command; problems that the user can solve end as one line and exit code 1."""
    parser = build_parser()
    chosen = parser.parse_args(arguments)
    try:
        code = chosen.call(chosen)
        if arguments is None:
            gc.freeze()  # or Python, leaving, searches all of torch for garbage: half a second
        return code
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130
    except BrokenPipeError:  # of `ttlkit data list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
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
    _add_run_options(command)
    command.add_argument("--run", help="name of the folder below outputs/ (default: the profile)")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--n-pairs", type=int, help="synthetic pairs to fine-tune on (default: the profile's)")
    command.set_defaults(call=reproduce)

    command = commands.add_parser("sweep", help="run the chain over seeds and numbers of pairs: one table out")
    command.add_argument("name", help="of the folder below outputs/ with the table; runs are <name>-seed0-pairs10 ...")
    _add_run_options(command)
    command.add_argument("--seeds", default="0,1,2", help="default: 0,1,2")
    command.add_argument("--n-pairs", default="10,50,200", help="default: 10,50,200")
    command.add_argument("--slurm", metavar="PARTITION", help="a SLURM job for each seed; 'local': processes here")
    command.add_argument("--hours", type=int, default=12, help="time limit of a SLURM job (default: 12)")
    command.set_defaults(call=sweep)

    command = commands.add_parser("gap", help="how far apart two folders of images are, feature by feature")
    command.add_argument("a", metavar="A", type=Path, help="a folder of images, such as your synthetic rain")
    command.add_argument("b", metavar="B", type=Path, help="the other, such as real rain")
    command.add_argument("--out", type=Path, help="folder for the report (default: outputs/gap-A-B)")
    command.add_argument("--images", type=int, help="most images of a folder, evenly spread (default: all)")
    command.add_argument(
        "--equalise", action="store_true", help="measure the middle only, at 256 px and JPEG quality 75"
    )
    command.add_argument("--teacher", type=Path, help="a recognition teacher.safetensors: compare what it sees too")
    command.add_argument("--seed", type=int, default=0)
    command.set_defaults(call=gap)

    command = commands.add_parser("derain", help="restore photographs: files, folders, patterns")
    command.add_argument(
        "paths", nargs="+", metavar="IN [OUT]", help="a file, a folder or a pattern in quotes, or several; the last of "
        "several is OUT, unless it is an image that exists (default: IN-derained beside IN)",
    )  # fmt: skip
    command.add_argument("--out", type=Path, help="file or folder to write, so that every path is an IN")
    command.add_argument("--overwrite", action="store_true", help="replace files that exist (default: leave them)")
    _add_weights_options(command)
    command.add_argument("--strength", type=float, default=1.0, help="0: as it was, 1: as restored, at most 1.5")
    command.add_argument("--device", choices=("cpu", "cuda"), help="default: the best there is")
    command.add_argument("--engine", choices=("torch", "onnx", "openvino"), help="default: as the weights need it")
    command.add_argument("--tile", type=int, help="side of the tiles in pixels, a multiple of 16 (default: by size)")
    command.add_argument(
        "--compare", action="store_true", help="write sheets with before and after too: compare-01.jpg"
    )
    command.set_defaults(call=derain)

    command = commands.add_parser("export", help="write a restorer for ONNX Runtime or OpenVINO")
    command.add_argument("target", metavar="OUT.onnx|OUT.xml", type=Path)
    _add_weights_options(command)
    command.set_defaults(call=export)

    command = commands.add_parser("data", help="list and fetch public sets, check, build or show a collection")
    _add_data_commands(command.add_subparsers(required=True, metavar="ACTION"))

    command = commands.add_parser("report", help="write report.html of a run again")
    command.add_argument("run", help="name of the folder below outputs/")
    command.set_defaults(call=report)
    return parser


def _add_weights_options(command: argparse.ArgumentParser) -> None:
    weights = command.add_mutually_exclusive_group()
    weights.add_argument("--weights", type=Path, help="*.safetensors, *.onnx or *.xml (default: the released student)")
    weights.add_argument("--run", help="take the student of a run of yours, by the name of its folder below outputs/")


def _add_run_options(command: argparse.ArgumentParser) -> None:
    starts = "scratch, scratch-total, all, student, unguided, a task"
    command.add_argument("--profile", default="pocket", help=f"{', '.join(PROFILES)} (default: pocket)")
    command.add_argument("--collection", default="pocket", help="'pocket' (generated) or a folder (default: pocket)")
    command.add_argument("--tasks", help="connected tasks (default: all)")
    command.add_argument("--inits", help=f"fine-tuned from what: {starts} (default: the profile's)")
    command.add_argument("--peers", default="", help="folders with released weights to compare: *.pth, *.safetensors")
    command.add_argument("--images", type=int, help="most images per test set (default: the profile's)")


def _add_data_commands(actions) -> None:
    command = actions.add_parser("list", help="public sets in datasets/catalogue.toml, and which are here")
    command.add_argument("--into", type=Path, help="collection to look in (default: datasets/fetched)")
    command.set_defaults(call=data_list)

    command = actions.add_parser("fetch", help="download sets, verify them, and put them into a collection")
    command.add_argument("names", nargs="+", metavar="NAME", help="as `ttlkit data list` shows them")
    command.add_argument("--into", type=Path, help="collection to put them into (default: datasets/fetched)")
    command.add_argument("--drop", type=Path, help="archive or folder that you have (default: datasets/drop/NAME)")
    command.add_argument("--accept-new-hashes", action="store_true", help="take other bytes than those on record")
    command.set_defaults(call=data_fetch)

    command = actions.add_parser("check", help="files, pairs, duplicates, and leaks from training into test")
    command.add_argument("path", nargs="?", default="pocket", help="'pocket' or a folder (default: pocket)")
    command.add_argument("--against", type=Path, help="a folder of test scenes that PATH must not show")
    command.add_argument(
        "--json", type=Path, metavar="FILE", help="write the report as JSON too ('-': only that, here)"
    )
    command.add_argument("--ignore", default="", metavar="KINDS", help="leave out findings, such as grey,tiny")
    command.set_defaults(call=data_check)

    for name, call, words in (
        ("build", data_build, "generate the pocket collection"),
        ("show", data_show, "what a collection holds"),
    ):
        command = actions.add_parser(name, help=words)
        command.add_argument("path", nargs="?", default="pocket", help="'pocket' or a folder (default: pocket)")
        command.add_argument("--profile", default="pocket", help="size of the pocket collection")
        command.set_defaults(call=call)

    command = actions.add_parser("cache", help="what the cache of decoded images holds; --clear empties it")
    command.add_argument("--clear", action="store_true")
    command.set_defaults(call=data_cache)


def reproduce(chosen: argparse.Namespace) -> int:
    """All stages of a run, its report, and the result table on the terminal."""
    from ttlkit import pipeline
    from ttlkit.data import open_collection
    from ttlkit.evaluate import cases
    from ttlkit.tasks import TASKS

    names = ("profile", "collection", "run", "seed", "tasks", "inits", "n_pairs", "peers", "images")
    given = {n: getattr(chosen, n) for n in names if getattr(chosen, n) is not None}
    given |= {n: _absolute(given[n]) for n in ("collection", "peers")}
    _check_tasks(chosen.tasks, TASKS)
    stages = pipeline.plan(**given)
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


def sweep(chosen: argparse.Namespace) -> int:
    """All runs of a sweep, here one after the other or on a cluster, then 06_ablation; done work is not done again."""
    from ttlkit import pipeline
    from ttlkit import sweep as sweeps
    from ttlkit.config import split_numbers
    from ttlkit.data import open_collection
    from ttlkit.tasks import TASKS

    given = {n: getattr(chosen, n) for n in ("profile", "collection", "tasks", "inits", "peers", "images")}
    given = {n: _absolute(v) if n in ("collection", "peers") else v for n, v in given.items() if v is not None}
    _check_tasks(chosen.tasks, TASKS)
    runs = sweeps.plan(chosen.name, split_numbers(chosen.seeds), split_numbers(chosen.n_pairs), **given)
    first = runs[0][0][0]
    collection = open_collection(first.collection, first.profile.pocket_scenes)
    collection.few_pairs(max(split_numbers(chosen.n_pairs)), 0)  # too many is said before anything is trained
    if chosen.slurm:
        jobs = sweeps.submit(runs, chosen.name, chosen.slurm, chosen.hours)
        print(f"{len(jobs)} jobs: {', '.join(str(job.job_id) for job in jobs)}; waiting (Ctrl-C leaves them running)")
        for job in jobs:
            job.result()
    else:
        for of_seed in runs:
            sweeps.run_seed(of_seed)
    table = sweeps.table(chosen.name, runs, **given)
    pipeline.run([table])
    print((table.folder / "table.txt").read_text())
    return 0


def _absolute(paths: str) -> str:
    """Every path in 'a,b' absolute, but for 'pocket': kernels work in another folder."""
    kept = [path if path == "pocket" else str(Path(path).expanduser().resolve()) for path in paths.split(",") if path]
    return ",".join(kept)


def _check_tasks(tasks: str | None, known: dict) -> None:
    from ttlkit.config import check_name, split_names

    for task in split_names(tasks or ""):
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


def gap(chosen: argparse.Namespace) -> int:
    """Measure two folders, print the table, write the report."""
    from ttlkit import config, data, images, show
    from ttlkit import gap as study

    sides = []
    for folder in (chosen.a, chosen.b):
        paths = images.list_images(folder)
        if not paths:
            raise study.GapError(f"{folder}: no images in this folder")
        paths = data.spread(paths, chosen.images or len(paths))
        label = "/".join(folder.resolve().parts[-2:])
        sides.append(study.measure_files(paths, label, chosen.equalise))
    a, b = sides
    found = study.compare(a, b, chosen.seed)
    print(show.markdown_table(study.as_table(found["features"]), study.COLUMNS, 3))
    print()
    print(show.markdown_table(found["overall"], digits=3) if found["overall"] else "too few images for tests on all")
    deep = []
    if chosen.teacher:
        seen = [study.deep_features(side.paths, chosen.teacher, side.name) for side in sides]
        deep = study.compare_deep(seen[0], seen[1], chosen.seed)
        print("\nwhat the recognition teacher sees\n" + show.markdown_table(deep, digits=3))
    for problem in (*a.skipped, *b.skipped):
        print(f"left out: {problem}", file=sys.stderr)
    print(f"\n{study.verdict(found, a.name, b.name)}")
    folder = chosen.out or config.home() / "outputs" / f"gap-{chosen.a.resolve().name}-{chosen.b.resolve().name}"
    note = f"Seed {chosen.seed}{', equalised: the middle, 256 px, JPEG quality 75' if chosen.equalise else ''}."
    print(f"report: {study.write(folder, a, b, found, deep, note)}")
    return 0


def derain(chosen: argparse.Namespace) -> int:
    """Restore files; what fails is listed at the end; exit code 1 if anything failed or nothing was written."""
    from ttlkit import restore

    sources, target = _split_target(chosen.paths, chosen.out)
    files = restore.plan_files(sources, target)
    there = [pair for pair in files if pair[1].exists() and pair[0].resolve() != pair[1].resolve()]
    if there and not chosen.overwrite:
        files = [pair for pair in files if pair not in there]
        print(f"left as they are: {len(there)} files, such as {there[0][1]}; --overwrite replaces them")
    written, failed = [], []
    if files:
        weights = _weights(chosen)
        engine = restore.load_engine(weights, chosen.engine, chosen.device)
        print(f"weights: {weights}")
        done = restore.restore_files(engine, files, tile=chosen.tile, strength=chosen.strength)
        if len(files) > 1:
            from tqdm import tqdm

            done = tqdm(done, "derain", len(files), unit="image")
        for source, path, problem in done:
            if problem:
                failed.append(problem)
            else:
                written.append((source, path))
    for problem in failed:
        print(f"skipped: {problem}", file=sys.stderr)
    places = dict.fromkeys(str(path.parent) for _, path in written)
    place = written[0][1] if len(written) == 1 else ", ".join(places)
    print(f"{len(written)} of {len(files)} images written" + (f" to {place}" if written else ""))
    if chosen.compare and written:
        _write_sheets(written, chosen.overwrite)
    return 1 if failed or not written else 0


def _split_target(paths: list[str], out: Path | None) -> tuple[list[str], Path | None]:
    """What to read and where to write; never an image that exists, or `derain *.jpg` would replace the last one."""
    from glob import has_magic

    from ttlkit.images import SUFFIXES

    last = Path(paths[-1])
    is_image = has_magic(paths[-1]) or (last.is_file() and last.suffix.lower() in SUFFIXES)
    if out or len(paths) == 1 or is_image:
        return paths, out
    return paths[:-1], last


def _weights(chosen: argparse.Namespace) -> Path:
    from ttlkit import config, restore

    if chosen.run:
        return restore.student_of(config.home() / "outputs" / chosen.run)
    return chosen.weights or restore.RELEASED


def _write_sheets(written: list[tuple[Path, Path]], overwrite: bool) -> None:
    from ttlkit import images

    folder, number, sheets = written[0][1].parent, 0, []
    for first in range(0, len(written), SHEET):
        number += 1
        while not overwrite and (folder / f"compare-{number:02d}.jpg").exists():
            number += 1
        sheets.append(folder / f"compare-{number:02d}.jpg")
        images.save_image(sheets[-1], images.contact_sheet(written[first : first + SHEET]))
    more = " and on" if len(sheets) > 1 else ""
    print(f"compared: {sheets[0]}{more}; each picture before (left) and after (right)")


def export(chosen: argparse.Namespace) -> int:
    """Write a restorer as OUT.onnx or OUT.xml, checked against torch."""
    from ttlkit import export as exports
    from ttlkit import restore

    exports.kind_of(chosen.target)  # a wrong suffix is said before torch is imported
    weights = _weights(chosen)
    path = exports.export(restore.load_restorer(weights), chosen.target, exports.card_of(weights))
    print(f"{path}: {weights}, ONNX opset {exports.OPSET}, equal to torch within {exports.CLOSE:g}")
    print(f"`ttlkit derain IN --weights {path}` uses it, without torch")
    return 0


def data_list(chosen: argparse.Namespace) -> int:
    """The catalogue as a table."""
    from ttlkit import catalogue, fetch

    rows = fetch.rows(catalogue.load_catalogue(), chosen.into)
    widths = [max(len(getattr(row, key)) for row in rows) for key in ("name", "kind", "count", "size")]
    for row in rows:
        cells = (row.name, row.kind, row.count, row.size)
        text = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        print(f"{'*' if row.fetched else ' '} {text}  {row.version}\n    {row.how}; licence: {row.licence}")
    print("*: fetched. `ttlkit data fetch NAME` gets a set; datasets/README.md says how.")
    return 0


def data_fetch(chosen: argparse.Namespace) -> int:
    """Fetch sets one after the other; one that fails does not keep the others from being tried."""
    from ttlkit import catalogue, fetch
    from ttlkit.config import check_name

    known = catalogue.load_catalogue()
    for name in chosen.names:
        check_name(name, known, "data set")
    if chosen.drop and len(chosen.names) > 1:
        raise catalogue.CatalogueError("--drop goes with one set at a time")
    failed = 0
    for name in chosen.names:
        try:
            with _download_bar(name) as progress:
                done = fetch.fetch(known[name], chosen.into, chosen.drop, accept=chosen.accept_new_hashes,
                                   say=print, progress=progress)  # fmt: skip
        except fetch.FetchError as error:
            failed += 1
            print(f"ttlkit: {error}", file=sys.stderr)
            continue
        print(f"{name}: {done.files} files in {done.folder}" + (f", from {done.source}" if done.new else " already"))
    return 1 if failed else 0


@contextmanager
def _download_bar(name: str):
    """A function (bytes so far, bytes in all or None) that draws a progress bar."""
    from tqdm import tqdm

    with tqdm(desc=name, unit="B", unit_scale=True, unit_divisor=1024, delay=1, leave=False) as bar:

        def progress(done: int, total: int | None) -> None:
            if total != bar.total or done < bar.n:  # another file, or the same one again
                bar.reset(total)
            bar.update(done - bar.n)

        yield progress


def data_check(chosen: argparse.Namespace) -> int:
    """Check a folder; exit code 0 only when nothing was found."""
    import json

    from ttlkit.check import check
    from ttlkit.config import Settings, resolve, split_names
    from ttlkit.stages import collection_folder, write_json

    folder = collection_folder(resolve(Settings, {"collection": chosen.path}))
    report = check(folder, chosen.against).without(split_names(chosen.ignore))
    if chosen.json and str(chosen.json) == "-":
        print(json.dumps(report.as_json(), indent=1))
    else:
        print(report.table())
        if chosen.json:
            write_json(chosen.json, report.as_json())
    return 1 if report.findings else 0


def data_build(chosen: argparse.Namespace) -> int:
    """Generate the pocket collection where it is missing, and print what it holds."""
    return _show_collection(chosen, build=True)


def data_show(chosen: argparse.Namespace) -> int:
    """Print what a collection holds."""
    return _show_collection(chosen, build=False)


def _show_collection(chosen: argparse.Namespace, build: bool) -> int:
    from ttlkit.config import Settings, resolve
    from ttlkit.data import open_collection
    from ttlkit.stages import StageRun

    place = StageRun(resolve(Settings, {"profile": chosen.profile, "collection": chosen.path}))
    found = open_collection(place.collection, place.profile.pocket_scenes if build else None)
    print(f"{found.root}: {found.label}")
    print(f"  real: {len(found.rainy)} rainy, {len(found.clean)} clean; synthetic: {len(found.pairs)} pairs")
    for test in found.tests:
        print(f"  test/{test.name}: {len(test.pairs)} {test.kind}")
    return 0


def data_cache(chosen: argparse.Namespace) -> int:
    """Print where decoded images are kept and how much they take; empty it if told."""
    from ttlkit import cache

    if chosen.clear:
        gone = cache.prune(gigabytes=0)
        print(f"removed {gone.files} decoded images, {gone.size / 1e6:.0f} MB")
    held = cache.usage()
    print(f"{cache.folder() or 'TTLKIT_CACHE is off'}: {held.files} decoded images, {held.size / 1e6:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
