"""Kill commands at random moments, start them again, and see whether they end where an undisturbed one ends.

    .venv/bin/python tests/benchmarks/kills.py [--kills 100] [--seed 0] [--only derain,fetch,training,reproduce]

In a round, a command is killed up to ROUND times in one folder (SIGKILL, in half of the cases of the whole process
group, else of the parent alone), then run to its end. A fault is: a result that differs in one bit, a command that
does not end well, a process that outlives its parent by PATIENCE, a file half written, a lock still held.
"""

import argparse
import ctypes
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
from filelock import FileLock, Timeout

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]
import test_fetch  # noqa: E402 - its server

from ttlkit import files  # noqa: E402
from ttlkit.data import image_files  # noqa: E402

REPO = Path(__file__).resolve().parents[2]
ROUND, PATIENCE = 10, 12.0  # kills before a run is let finish; seconds: torch's loaders look for their parent every 5
STAGES = ("02_teacher_pretraining-recognition", "02_teacher_pretraining-deblur")
REPRODUCE = f"""
from ttlkit.runs import pipeline
pipeline.run([stage for stage in pipeline.plan(profile="smoke") if stage.name in {STAGES}])
"""
TRAINING = """
from ttlkit.data import collections
from ttlkit.runs import settings, stages, training
given = {"profile": "smoke", "task": "deblur", "steps": 30, "width": 8, "patch": 16, "workers": 1}
stage = stages.StageRun(settings.resolve(settings.TeacherPretraining, given))
with stages.alone(stage.run_folder):
    collection = collections.open_collection(stage.collection, stage.profile.pocket_scenes)
    fit = training.trainer_for(stage.begin(), training.RECIPES["02_teacher_pretraining"](stage, collection))
    fit.checkpoint_seconds, fit.log_every = 0, 1
    fit.fit()
"""
FETCH = """
import sys
from pathlib import Path
from ttlkit import cli
from ttlkit.data.public import catalogue
catalogue.catalogue_path = lambda: Path(sys.argv[1])
sys.exit(cli.main(["data", "fetch", "rain"]))
"""
CATALOGUE = """
[rain]
title = "Some rain"
version = "1"
kind = "test"
citation = "Somebody, 2017"
licence = "CC0"
mirrors = [{{ urls = ["{url}"] }}]
rules = [
  {{ match = 'Rain100L/rainy/rain-(?P<n>\\d+)\\.png', to = "test/rain/rainy/{{n}}.png" }},
  {{ match = 'Rain100L/norain-(?P<n>\\d+)\\.png', to = "test/rain/clean/{{n}}.png" }},
]
"""


# Each: the command, what it makes, and what a round need not make again.


def derain(shared):
    rng = np.random.default_rng(0)
    for i in range(12):
        image_files.save_image(shared / f"photos/{i:02d}.png", rng.integers(0, 256, (96, 128, 3), np.uint8))
    return ["-m", "ttlkit.cli", "derain", str(shared / "photos"), "out"], "out/*", ""


def fetch(shared):
    data, server = test_fetch.zipped(test_fetch.pairs(20)), test_fetch.Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = server.url("rain.zip", test_fetch.whole(data, pause=0.001))
    (shared / "catalogue.toml").write_text(CATALOGUE.format(url=url))
    return ["-c", FETCH, str(shared / "catalogue.toml")], "datasets/fetched/test/**/*", ""


def training(shared):
    return ["-c", TRAINING], "outputs/smoke/*/checkpoint.pt", "datasets"


def reproduce(shared):
    return ["-c", REPRODUCE], "outputs/smoke/**/*", "datasets"


CASES = {case.__name__: case for case in (derain, fetch, training, reproduce)}
UNLIKE = ("notebook.ipynb", "config.json", "DONE.json", "metrics.jsonl", "table.txt", "values.csv")  # times, folders


def results(home, pattern):
    """{path: hash} of what a command made."""
    found = {}
    for path in sorted(path for path in home.glob(pattern) if path.is_file() and path.name[0] != "."):
        if path.name == "checkpoint.pt":
            from ttlkit.method.trainer import load_checkpoint

            weights = load_checkpoint(path)["model"]
            found[path.name] = files.digest(*(value.numpy().tobytes() for value in weights.values()))
        elif path.name not in UNLIKE:
            found[str(path.relative_to(home))] = files.sha256(path)
    return found


def start(home, arguments):
    home.mkdir(exist_ok=True)
    environment = {**os.environ, "TTLKIT_HOME": str(home), "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    with open(home.parent / "log", "w") as log:
        return subprocess.Popen(command, cwd=home, env=environment, stdout=log, stderr=log, start_new_session=True)


def outliving():
    """Processes that have outlived their parent: this one adopts them. They are ended here."""
    until = time.monotonic() + PATIENCE
    while True:
        alive = []
        for process in psutil.Process().children(recursive=True):
            if process.status() == psutil.STATUS_ZOMBIE:
                process.wait()
            else:
                alive.append(process)
        if not alive or time.monotonic() > until:
            break
        time.sleep(0.05)
    found = [" ".join(process.cmdline())[:100] for process in alive]
    for process in alive:
        process.kill()
    return [f"outlived its parent: {line}" for line in found]


def left(home):
    """Partial files (but those of the cache, which it clears after a day), and locks that are held."""
    found = [f"half written: {path}" for path in home.rglob("*") if path.suffix == ".part"]
    for path in [*home.rglob(".lock"), *home.rglob("*.lock")]:
        try:
            FileLock(path, timeout=0).acquire().lock.release()
        except Timeout:
            found.append(f"locked: {path}")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="of each command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(CASES))
    chosen = parser.parse_args()
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: orphans become ours, as under systemd --user
    faults = 0
    for name in chosen.only.split(","):
        with tempfile.TemporaryDirectory() as folder:
            faults += case(name, Path(folder), chosen.kills, random.Random(f"{chosen.seed} {name}"))
    return 1 if faults else 0


def case(name, folder, kills, rng):
    """Kill the command `name` so many times; prints a line a round, and how many faults there were."""
    os.environ["TTLKIT_CACHE"] = str(folder / "cache")
    arguments, pattern, ready = CASES[name](folder)
    for home in (folder / "first", folder / "whole"):  # the second one finds the cache filled, as the others will
        if ready and home.name == "whole":
            shutil.copytree(folder / "first" / ready, home / ready)
        began = time.monotonic()
        assert start(home, arguments).wait() == 0, (folder / "log").read_text()[-2000:]
    took, expected = time.monotonic() - began, results(folder / "whole", pattern)
    assert expected
    print(f"{name}: {took:.1f} s undisturbed, {len(expected)} files", flush=True)
    done, faults, rounds, alone = 0, [], 0, 0
    while done < kills:
        rounds, before = rounds + 1, len(faults)
        home, ended = folder / f"round-{rounds}", False
        if ready and rounds % 5:
            shutil.copytree(folder / "first" / ready, home / ready)
        for _ in range(rng.randint(1, ROUND)):
            process, whole_group = start(home, arguments), rng.random() < 0.5
            try:
                ended = process.wait(rng.uniform(0, took)) is not None
                took *= 0.9  # the machine has become less busy
                break
            except subprocess.TimeoutExpired:
                took *= 1.02
                os.killpg(process.pid, signal.SIGKILL) if whole_group else process.kill()
                process.wait()
            done, alone = done + 1, alone + (not whole_group)
            faults += outliving()
        found = results(home, pattern) if home.is_dir() else {}
        code = 0 if ended or found == expected else start(home, arguments).wait(600)
        if code:
            faults.append(f"exit code {code}: {(folder / 'log').read_text()[-1000:]}")
        found = results(home, pattern)
        faults += [
            f"differs: {path}" for path in found.keys() | expected.keys() if found.get(path) != expected.get(path)
        ]
        faults += left(home) + outliving()
        print(f"{name}: {done} kills ({alone} of the parent alone), {rounds} rounds, {len(faults)} faults", flush=True)
        print("".join(f"  {fault}\n" for fault in faults[before:]), end="", flush=True)
        files.remove(home)
    return len(faults)


if __name__ == "__main__":
    sys.exit(main())
