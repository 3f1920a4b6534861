"""What each command of `ttlkit` does: calls the library and prints; imports what it needs when it is called."""

import argparse
import os
import sys
from contextlib import contextmanager
from os.path import expanduser, lexists  # unlike those of a Path, they raise no error
from pathlib import Path
from typing import Any

from ttlkit.files import shown
from ttlkit.words import SettingsError, check_name, check_run, split_names

OF_A_RUN = ("profile", "collection", "tasks", "inits", "peers", "sets", "images")  # of reproduce and of sweep
SHEET = 20  # pictures on a sheet of `derain --compare`


# ---- runs ----------------------------------------------------------------------------------------------------------


def reproduce(chosen: argparse.Namespace) -> int:
    """All stages of a run, its report, and the result table on the terminal."""
    from ttlkit.data.collections import open_collection
    from ttlkit.evaluate.scores import cases
    from ttlkit.lesson.report import ReportError
    from ttlkit.runs import pipeline

    stages = pipeline.plan(**_given(chosen, *OF_A_RUN, "run", "seed", "n_pairs"))
    folder = stages[0].run_folder
    if chosen.dry_run:
        found = pipeline.outlook(stages, chosen.accept_code)
        print("\n".join(f"{name}: {reason}" for name, reason in found.items()) or f"{folder}: everything is done")
        return 0
    collection = open_collection(stages[0].collection, stages[0].profile.pocket_scenes)
    for stage in stages:  # what would stop a late stage is said before the first one starts
        if stage.settings.stage == "04_fine_tuning":
            collection.few_pairs(stage.settings.n_pairs, stage.settings.seed)
    evaluation = next(stage for stage in stages if stage.settings.stage == "05_real_scene_evaluation")
    cases(collection, 1, evaluation.settings.sets)
    print(shown(f"{folder}: {stages[0].profile.runtime}; {collection.label} in {collection.root}"))
    pipeline.run(stages, accept_code=chosen.accept_code)
    print((evaluation.folder / "table.txt").read_text("utf-8", "replace"))
    try:
        print(shown(f"report: {_write_report(folder)}"))
    except ReportError as error:  # a core installation has no packages for it; everything else is there
        print(f"no report: {error}", file=sys.stderr)
    print(evaluation.done()["results"].get("verdict", ""))
    return 0


def sweep(chosen: argparse.Namespace) -> int:
    """All runs of a sweep, here one after the other or on a cluster, then 06_ablation; done work is not done again."""
    from ttlkit.data.collections import open_collection
    from ttlkit.runs import pipeline
    from ttlkit.runs import sweep as sweeps
    from ttlkit.runs.settings import split_numbers

    given = _given(chosen, *OF_A_RUN)
    runs = sweeps.plan(chosen.name, split_numbers(chosen.seeds), split_numbers(chosen.n_pairs), **given)
    first = runs[0][0][0]
    collection = open_collection(first.collection, first.profile.pocket_scenes)
    collection.few_pairs(max(split_numbers(chosen.n_pairs)), 0)  # too many is said before anything is trained
    if chosen.slurm:
        jobs = sweeps.submit(runs, chosen.name, chosen.slurm, chosen.hours, chosen.accept_code)
        print(f"{len(jobs)} jobs: {', '.join(str(job.job_id) for job in jobs)}; waiting (Ctrl-C leaves them running)")
        for job in jobs:
            job.result()
    else:
        for of_seed in runs:
            sweeps.run_seed(of_seed, chosen.accept_code)
    table = sweeps.table(chosen.name, runs, **given)
    pipeline.run([table], accept_code=chosen.accept_code)
    print((table.folder / "table.txt").read_text("utf-8", "replace"))
    return 0


def _given(chosen: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The parameters that were given; paths absolute, since kernels work in another folder."""
    given = {name: getattr(chosen, name) for name in names if getattr(chosen, name) is not None}
    for name, several in (("collection", False), ("peers", True)):
        if name in given:
            parts = split_names(given[name]) if several else [given[name]]
            given[name] = ",".join(p if p == "pocket" else str(Path(expanduser(p)).resolve()) for p in parts)
    return given


def report(chosen: argparse.Namespace) -> int:
    """Write outputs/<run>/report.html from its executed notebooks."""
    from ttlkit.machine import home

    print(shown(f"report: {_write_report(home() / 'outputs' / chosen.run)}"))
    return 0


def _write_report(folder: Path) -> Path:
    """The report of a run; written again only where a stage is newer."""
    from ttlkit.lesson.report import write_report
    from ttlkit.runs.pipeline import OTHER_CODE, notes, sections

    shown = sections(folder)
    if not shown:
        raise SettingsError(f"{folder}: no finished stages; run `ttlkit reproduce` first")
    path, said, done = folder / "report.html", notes(folder), folder.glob("*/DONE.json")
    if (folder / "student.html").is_file():
        said.append("student.html, beside this report, restores photographs in your browser")
    if path.exists() and not said and all(d.stat().st_mtime < path.stat().st_mtime for d in done):
        page = path.read_text("utf-8", "replace")[:100_000]
        if OTHER_CODE not in page:
            return path  # nothing has happened since
    return write_report(shown, path, f"ttlkit: run {folder.name}", notes=said)


def site(chosen: argparse.Namespace) -> int:
    """Build a site from the executed notebooks of a run, or serve the one that is there."""
    from ttlkit.machine import home
    from ttlkit.runs.pipeline import notes, sections

    check_run(chosen.run)
    run, out = home() / "outputs" / chosen.run, Path(os.path.abspath(chosen.out or home() / "outputs" / "site"))
    if chosen.serve:
        from ttlkit.site import serve

        serve.run(out, chosen.port)
        return 0
    from ttlkit.site import build

    stages = sections(run)
    if not stages:
        raise SettingsError(f"{run}: no finished stages; run `ttlkit reproduce --run {chosen.run}` first")
    build.build(stages, out, chosen.run, notes(run))
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 1e6
    print(shown(f"{out}: {size:.1f} MB; open index.html, copy the folder to any host, or `ttlkit site --serve`"))
    return 0


# ---- images --------------------------------------------------------------------------------------------------------


def gap(chosen: argparse.Namespace) -> int:
    """Measure two folders, print the table, write the report."""
    from ttlkit import machine
    from ttlkit.data import collections
    from ttlkit.gap import page, study
    from ttlkit.lesson import figures

    sides = []
    for folder in (chosen.a, chosen.b):
        paths = study.list_side(folder)
        paths = collections.spread(paths, chosen.images or len(paths))
        label = shown("/".join(folder.resolve().parts[-2:]))
        sides.append(study.measure_files(paths, label, chosen.equalise))
    a, b = sides
    found = study.compare(a, b, chosen.seed)
    print(figures.markdown_table(study.as_table(found["features"]), study.COLUMNS, 3))
    print()
    print(figures.markdown_table(found["overall"], digits=3) if found["overall"] else "too few images for tests on all")
    deep = []
    if chosen.teacher:
        seen = [study.deep_features(side.paths, chosen.teacher, side.name) for side in sides]
        deep = study.compare_deep(seen[0], seen[1], chosen.seed)
        print("\nwhat the recognition teacher sees\n" + figures.markdown_table(deep, digits=3))
    for problem in (*a.skipped, *b.skipped):
        print(f"left out: {problem}", file=sys.stderr)
    print(f"\n{study.verdict(found['features'], a.name, b.name)}")
    folder = chosen.out or machine.home() / "outputs" / f"gap-{chosen.a.resolve().name}-{chosen.b.resolve().name}"
    note = f"Seed {chosen.seed}{', equalised: the middle, 256 px, JPEG quality 75' if chosen.equalise else ''}."
    print(shown(f"report: {page.write(folder, a, b, found, deep, note)}"))
    return 0


def derain(chosen: argparse.Namespace) -> int:
    """Restore files; what fails is listed at the end; exit code 1 if anything failed or nothing was written."""
    from ttlkit.apply import bulk, restore

    files, target = bulk.plan_paths(chosen.paths, chosen.out, chosen.overwrite)
    if target:
        print(f"OUT: {shown(target)}")
    there = [pair for pair in files if lexists(pair[1]) and pair[0].resolve() != pair[1].resolve()]
    if there and not chosen.overwrite:
        files = [pair for pair in files if pair not in there]
        way = "--out OUT --overwrite" if target else "--overwrite"
        print(f"left as they are: {len(there)} files, such as {shown(there[0][1])}; {way} replaces them")
    written, failed, partly = [], [], []
    if files:
        weights = _weights(chosen)
        engine = restore.load_engine(weights, chosen.engine, chosen.device)
        print(shown(f"weights: {weights}"))
        done = bulk.restore_files(engine, files, tile=chosen.tile, strength=chosen.strength)
        if len(files) > 1:
            from tqdm import tqdm

            done = tqdm(done, "derain", len(files), unit="image")
        for file in done:
            if file.problem:
                failed.append(file.problem)
            else:
                written.append((file.source, file.target))
            if file.left_out:
                partly.append(f"{shown(file.source)}: {file.left_out}")
    for line in [f"skipped: {problem}" for problem in failed] + [f"left out: {what}" for what in partly]:
        print(line, file=sys.stderr)
    places = dict.fromkeys(str(path.parent) for _, path in written)
    place = written[0][1] if len(written) == 1 else ", ".join(places)
    print(f"{len(written)} of {len(files)} images written" + (f" to {shown(place)}" if written else ""))
    if chosen.compare and written:
        _write_sheets(written)
    return 1 if failed or not written else 0


def _weights(chosen: argparse.Namespace) -> Path:
    from ttlkit import machine
    from ttlkit.apply import restore

    if chosen.run:
        return restore.student_of(machine.home() / "outputs" / chosen.run)
    return restore.find_weights(chosen.weights) if chosen.weights else restore.RELEASED


def _write_sheets(written: list[tuple[Path, Path]]) -> None:
    """Sheets beside the first result, in place of nothing that is there."""
    from ttlkit.apply import bulk
    from ttlkit.data import image_files

    folder, number, sheets = written[0][1].parent, 0, []
    for first in range(0, len(written), SHEET):
        number += 1
        while lexists(folder / f"compare-{number:02d}{bulk.ADDED}.jpg"):
            number += 1
        sheets.append(folder / f"compare-{number:02d}{bulk.ADDED}.jpg")
        image_files.save_image(sheets[-1], bulk.contact_sheet(written[first : first + SHEET]))
    more = " and on" if len(sheets) > 1 else ""
    print(f"compared: {shown(sheets[0])}{more}; each picture before (left) and after (right)")


def export(chosen: argparse.Namespace) -> int:
    """Write a restorer as OUT.onnx or OUT.xml, checked against torch, or as OUT.html, which runs in a browser."""
    from ttlkit.apply import export, restore

    if chosen.target.suffix == ".html":
        from ttlkit.site import element

        path = element.write_page(chosen.target, _weights(chosen))
        print(shown(f"{path}: {path.stat().st_size / 1e6:.1f} MB; open it in a browser, with or without a network"))
        return 0
    export.kind_of(chosen.target)  # a wrong suffix is said before torch is imported
    weights = _weights(chosen)
    path = export.export(restore.load_restorer(weights), chosen.target, export.card_of(weights))
    print(shown(f"{path}: {weights}, ONNX opset {export.OPSET}, equal to torch within {export.CLOSE:g}"))
    print(shown(f"`ttlkit derain IN --weights {path}` uses it, without torch"))
    return 0


# ---- data --------------------------------------------------------------------------------------------------------


def data_list(chosen: argparse.Namespace) -> int:
    """The catalogue as a table."""
    from ttlkit.data.public import catalogue, fetch

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
    from ttlkit.data.public import catalogue, fetch

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

    from ttlkit.data.check import check
    from ttlkit.files import write_json
    from ttlkit.runs.settings import Settings, resolve
    from ttlkit.runs.stages import collection_folder

    folder = collection_folder(resolve(Settings, {"collection": chosen.path}))
    report = check(folder, chosen.against).without(split_names(chosen.ignore))
    if chosen.json and str(chosen.json) == "-":
        print(json.dumps(report.as_json(), indent=1))
    else:
        print(report.table())
        if chosen.json:
            write_json(chosen.json, report.as_json())
    return 1 if report.findings else 0


def data_show(chosen: argparse.Namespace) -> int:
    """Print what a collection holds; `build`: generate the pocket collection first, where it is missing."""
    from ttlkit.data.collections import open_collection
    from ttlkit.runs.settings import Settings, resolve
    from ttlkit.runs.stages import StageRun

    place = StageRun(resolve(Settings, {"profile": chosen.profile, "collection": chosen.path}))
    found = open_collection(place.collection, place.profile.pocket_scenes if chosen.build else None)
    print(shown(f"{found.root}: {found.label}"))
    print(f"  real: {len(found.rainy)} rainy, {len(found.clean)} clean; synthetic: {len(found.pairs)} pairs")
    for test in found.tests:
        print(f"  test/{test.name}: {len(test.pairs)} {test.kind}")
    return 0


def data_cache(chosen: argparse.Namespace) -> int:
    """Print where decoded images and answers about files are kept and how much they take; empty it if told."""
    from ttlkit.data import cache

    if chosen.clear:
        gone = cache.prune(gigabytes=0)
        print(f"removed {gone.files} entries, {gone.size / 1e6:.0f} MB")
    held = cache.usage()
    print(f"{cache.folder() or 'TTLKIT_CACHE is off'}: {held.files} entries, {held.size / 1e6:.0f} MB")
    return 0
