"""Done means done: every kind of change and of damage, with the stages that must run again, no more and no fewer."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ttlkit import files, machine
from ttlkit.runs import code, pipeline, stages
from ttlkit.words import SettingsError

REPO = Path(__file__).resolve().parents[1]
GAP, APPENDIX = "01_gap_statistics", "01b_gap_appendix"
SCENES, START = "05_real_scene_evaluation", "00_start_here"
TEACHERS = {f"02_teacher_pretraining-{task}" for task in ("recognition", "deblur", "streaks")}
DISTILLED, SCRATCH, STUDENT = "03_distillation", "04_fine_tuning-scratch", "04_fine_tuning-student"
TUNED = {SCRATCH, STUDENT}
AFTER_STUDENT = {SCENES, START}
TRAINED = TEACHERS | {DISTILLED, APPENDIX} | TUNED | AFTER_STUDENT  # the appendix looks at the teacher recognition
ALL = TRAINED | {GAP}


class World:
    """A finished run with its collection, a copy of the library and of the notebooks: all of it may be changed."""

    def __init__(self, home, patch):
        self.home, self.patch = home, patch
        self.run = home / "outputs/smoke"
        self.images = home / "datasets/pocket-8"
        self.package, self.notebooks = home / "library/ttlkit", home / "library/notebooks"
        self.given = {}

    def outlook(self, **options):
        return pipeline.outlook(pipeline.plan(profile="smoke", **self.given), **options)

    def library(self, name, old, new):
        path = self.package / name
        assert old in path.read_text(), f"{name} has no {old!r} any more: choose another line"
        path.write_text(path.read_text().replace(old, new, 1))

    def cell(self, stage, kind, text):
        path = self.notebooks / f"{stage}.ipynb"
        notebook = json.loads(path.read_text())
        cells = [
            c for c in notebook["cells"] if c["cell_type"] == kind and "bootstrap" not in c["metadata"].get("tags", [])
        ]
        cells[-1]["source"] = ["".join(cells[-1]["source"]) + text]
        path.write_text(json.dumps(notebook))


@pytest.fixture(scope="module")
def copied(chain, tmp_path_factory):
    """A copy of the finished run, for this file alone."""
    home = tmp_path_factory.mktemp("copy")
    shutil.copytree(chain[0], home, dirs_exist_ok=True)
    for name in ("ttlkit", "notebooks"):
        shutil.copytree(REPO / name, home / "library" / name, ignore=shutil.ignore_patterns("__pycache__"))
    return home


@pytest.fixture
def world(copied, monkeypatch):
    """The copy, put back in order afterwards."""
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    monkeypatch.setenv("TTLKIT_HOME", str(copied))
    monkeypatch.setattr(code, "PACKAGE", copied / "library/ttlkit")
    monkeypatch.setattr(code, "notebook_path", lambda stage: copied / "library/notebooks" / f"{stage}.ipynb")
    yield World(copied, monkeypatch)
    for path in [p for p in copied.rglob("*") if p.is_symlink()]:
        path.unlink()
    for path in [p for p in copied.rglob("*") if p.is_file() and p not in before]:
        path.unlink()
    for path, content in before.items():
        if not path.is_file() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def flip(path, place=None):
    """One bit of a file, without changing its size."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if place is None else place] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def first(folder):
    return sorted(path for path in folder.iterdir() if path.is_file())[0]


def swap(one, other):
    a, b = one.read_bytes(), other.read_bytes()
    one.write_bytes(b)
    other.write_bytes(a)


def link(world):
    """The rainy photographs lie elsewhere, behind a link."""
    elsewhere = Path(tempfile.mkdtemp(dir=world.home)) / "rainy"
    shutil.move(world.images / "real/rainy", elsewhere)
    (world.images / "real/rainy").symlink_to(elsewhere)


def peers(world, more=""):
    """A run with released weights to compare, finished as such."""
    folder = world.home / "peers"
    folder.mkdir(exist_ok=True)
    (folder / "one.safetensors").write_bytes(b"released")
    world.given = {"peers": f"{folder}{more}"}
    redo(world, SCENES, settings={"peers"})
    return folder


def redo(world, name, settings=()):
    """Write DONE.json of a stage as if it had run with today's inputs."""
    stage = next(s for s in pipeline.plan(profile="smoke", **world.given) if s.name == name)
    facts = {**stage.done(), "inputs": stage.inputs_now()}
    files.write_json(stage.folder / "DONE.json", {**facts, "checksum": files.sha256_of(facts)})


def edit_done(world, change):
    path = world.run / DISTILLED / "DONE.json"
    path.write_text(change(path.read_text()))


# what is changed -> (how, the stages that must run again)
CASES = {
    "nothing": (lambda w: None, set()),
    # settings
    "seed": (lambda w: w.given.update(seed=1), ALL),
    "n_pairs": (lambda w: w.given.update(n_pairs=3), TUNED | AFTER_STUDENT),
    "test images": (lambda w: w.given.update(images=3), {SCENES}),
    "guide": (lambda w: w.given.update(guide=""), {DISTILLED} | TUNED | AFTER_STUDENT),
    "workers": (lambda w: w.given.update(workers=1), set()),
    "precision": (lambda w: w.patch.setenv("TTLKIT_PRECISION", "bf16"), ALL),
    # images
    "a byte in the middle of a rainy photograph": (lambda w: flip(first(w.images / "real/rainy")), ALL),
    "a byte in the middle of a pair": (lambda w: flip(first(w.images / "synthetic/photoshop/clean")),
                                       {GAP, APPENDIX, SCENES, START} | TUNED),
    "a byte in the middle of a test image": (lambda w: flip(first(w.images / "test/traced/rainy")), {SCENES}),
    "a new streak layer": (lambda w: ((w.images / "streaks").mkdir(exist_ok=True),
                                      (w.images / "streaks/a.png").write_bytes(b"x")), TRAINED),
    "a photograph is gone": (lambda w: first(w.images / "real/clean").unlink(), ALL),
    "a test image has another name": (lambda w: first(w.images / "test/scenes/rainy").rename(
        w.images / "test/scenes/rainy/zz.jpg"), {SCENES}),
    "two photographs have swapped names": (lambda w: swap(*sorted((w.images / "real/rainy").iterdir())[:2]), ALL),
    "the simulated marker": (lambda w: (w.images / "SIMULATED.txt").unlink(), ALL),
    "only the time of a photograph": (lambda w: os.utime(first(w.images / "real/rainy"), (1, 1)), set()),
    "a folder of photographs is a link": (link, set()),
    "a byte behind a link": (lambda w: (link(w), flip(first(w.images / "real/rainy"))), ALL),
    "a file that is no image": (lambda w: (w.images / "real/rainy/Thumbs.db").write_bytes(b"x"), set()),
    "a hidden file": (lambda w: (w.images / "real/rainy/.DS_Store").write_bytes(b"x"), set()),
    # files behind parameters
    "peers": (lambda w: (peers(w), (w.home / "peers/two.pth").write_bytes(b"x")), {SCENES}),
    "the weights of a peer": (lambda w: flip(peers(w) / "one.safetensors"), {SCENES}),
    "weights of the second of two folders": (lambda w: (
        (w.home / "more").mkdir(), (w.home / "more/a.pth").write_bytes(b"x"), peers(w, ", " + str(w.home / "more")),
        flip(w.home / "more/a.pth", 0)), {SCENES}),
    "a file beside the peers": (lambda w: (peers(w) / "notes.txt").write_text("x"), set()),
    "a photograph to restore": (lambda w: w.given.update(image=str(first(w.images / "test/scenes/rainy"))), {START}),
    # library code
    "the loss": (lambda w: w.library("method/losses.py", "SSIM_WEIGHT = 0.2", "SSIM_WEIGHT = 2.0"), TRAINED),
    "an objective": (lambda w: w.library("method/objectives.py", "COPIED = 10.0", "COPIED = 9.0"), TRAINED),
    "a task": (lambda w: w.library("method/connected_tasks.py", "DRY = 0.02", "DRY = 0.1"), TRAINED),
    "a metric": (lambda w: w.library("evaluate/metrics.py", "SIGMA = 1.5", "SIGMA = 1.6"), TRAINED),
    "a renderer": (lambda w: w.library("rain/simulated.py", "LARGEST = 6.0", "LARGEST = 5.0"), ALL),
    "the network": (lambda w: w.library("method/networks.py", "torch.tensor(0.2)", "torch.tensor(0.3)"), ALL),
    "a statistic": (lambda w: w.library("gap/stats.py", "LEAST = 10", "LEAST = 12"), {GAP, APPENDIX, SCENES}),
    "scores": (lambda w: w.library("evaluate/scores.py", 'UNTOUCHED = "input"', 'UNTOUCHED = "as it is"'), {SCENES}),
    "the report": (lambda w: w.library("lesson/report.py", "import re\n", "import re\nX = 1\n"), {APPENDIX}),
    "tiles": (lambda w: w.library("apply/restore.py", "TILE = 1024", "TILE = 512"),
              {DISTILLED} | TUNED | AFTER_STUDENT),
    "a new file that a module imports": (lambda w: (
        (w.package / "method/extra.py").write_text("X = 1\n"),
        w.library("method/losses.py", "import torch\n", "import torch\nfrom ttlkit.method import extra\n")), TRAINED),
    "a relative import": (lambda w: (
        (w.package / "method/extra.py").write_text("X = 1\n"),
        w.library("method/losses.py", "import torch\n", "import torch\nfrom . import extra\n")), TRAINED),
    "the page of the report": (lambda w: w.library("lesson/report.html", "<body>", "<body class=x>"), {APPENDIX}),
    "a comment": (lambda w: w.library("method/losses.py", "SSIM_WEIGHT = 0.2", "# why\nSSIM_WEIGHT = 0.2"), set()),
    "a docstring": (lambda w: w.library("method/losses.py", '"""Losses', '"""All losses'), set()),
    "layout": (lambda w: w.library("method/losses.py", "SSIM_WEIGHT = 0.2", "SSIM_WEIGHT  =  0.2\n\n\n"), set()),
    "the command line": (lambda w: w.library("commands.py", "SHEET = 20", "SHEET = 21"), set()),
    "the pipeline": (lambda w: w.library("runs/pipeline.py", "PATIENCE = 10.0", "PATIENCE = 11.0"), set()),
    "a number of another profile": (lambda w: w.library("runs/profiles.py", "batch=32", "batch=31"), set()),
    "help of a parameter": (lambda w: w.library("runs/settings.py", "of all that is drawn", "of what is drawn"), set()),
    "what to start from": (lambda w: w.library("method/starts.py", "long: bool = False", "long: bool = 0"),
                           TRAINED),
    "fetching": (lambda w: w.library("data/public/fetch.py", "import ", "X = 1\nimport "), set()),
    "training without a notebook": (lambda w: w.library("runs/worker.py", "EVERY = 15", "EVERY = 16"), set()),
    # notebooks
    "code of a notebook": (lambda w: w.cell(DISTILLED, "code", "\nprint(1)"), {DISTILLED, STUDENT} | AFTER_STUDENT),
    "Jupyter's own lines": (lambda w: w.cell(DISTILLED, "code", "\n%matplotlib inline\n!ls"),
                           {DISTILLED, STUDENT} | AFTER_STUDENT),
    "text of a notebook": (lambda w: w.cell(SCENES, "markdown", " More."), {SCENES}),
    # what was made
    "a teacher's weights, one bit": (lambda w: flip(w.run / "02_teacher_pretraining-deblur/teacher.safetensors"),
                                     {"02_teacher_pretraining-deblur", DISTILLED, STUDENT} | AFTER_STUDENT),
    "weights of two teachers swapped": (lambda w: swap(*(w.run / f"02_teacher_pretraining-{t}/teacher.safetensors"
                                                         for t in ("deblur", "streaks"))),
                                        (TEACHERS | {DISTILLED, STUDENT} | AFTER_STUDENT)
                                        - {"02_teacher_pretraining-recognition"}),
    "the student is gone": (lambda w: (w.run / DISTILLED / "student.safetensors").unlink(),
                            {DISTILLED, STUDENT} | AFTER_STUDENT),
    "scores cut": (lambda w: cut(w.run / SCENES / "scores.csv"), {SCENES}),
    "the table edited": (lambda w: (w.run / SCENES / "table.txt").write_text("better"), {SCENES}),
    "an executed notebook cut": (lambda w: cut(w.run / STUDENT / "notebook.ipynb"), {STUDENT} | AFTER_STUDENT),
    "the gap's page is gone": (lambda w: (w.run / APPENDIX / "gap.html").unlink(), {APPENDIX}),
    "a figure, one bit": (lambda w: flip(first(w.run / GAP / "figures")), {GAP}),
    "the record of settings": (lambda w: flip(w.run / START / "config.json"), {START}),
    "the log": (lambda w: cut(w.run / SCRATCH / "metrics.jsonl"), {SCRATCH, SCENES}),
    "a checkpoint is gone": (lambda w: (w.run / SCRATCH / "checkpoint.pt").unlink(), set()),
    "a file of somebody else": (lambda w: (w.run / SCRATCH / "notes.txt").write_text("mine"), set()),
    # DONE.json
    "DONE.json empty": (lambda w: edit_done(w, lambda text: ""), {DISTILLED, STUDENT} | AFTER_STUDENT),
    "DONE.json cut": (lambda w: edit_done(w, lambda text: text[:-40]), {DISTILLED, STUDENT} | AFTER_STUDENT),
    "DONE.json, a digit": (lambda w: edit_done(w, lambda text: text.replace('"seconds": ', '"seconds": 1', 1)),
                           {DISTILLED, STUDENT} | AFTER_STUDENT),
    "DONE.json a list": (lambda w: edit_done(w, lambda text: "[1]"), {DISTILLED, STUDENT} | AFTER_STUDENT),
    "DONE.json of another stage": (lambda w: edit_done(w, lambda text: (w.run / SCRATCH / "DONE.json").read_text()),
                                   {DISTILLED, STUDENT} | AFTER_STUDENT),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_exactly_the_stages_run_again_that_must(case, world):
    change, expected = CASES[case]
    change(world)
    found = world.outlook()
    assert set(found) == expected, found
    assert all(reason and "\n" not in reason for reason in found.values())


def test_there_are_enough_cases():
    assert len(CASES) >= 40 and len(ALL) == 10


@pytest.mark.parametrize(
    ("case", "stage", "words"),
    [
        ("the loss", DISTILLED, "method/losses.py has changed"),
        ("seed", GAP, "its settings have changed (seed 0 -> 1)"),
        ("a byte in the middle of a pair", SCRATCH, "images in synthetic have changed"),
        ("the weights of a peer", SCENES, "files of peers have changed"),
        ("text of a notebook", SCENES, "its notebook has changed"),
        ("precision", GAP, "its precision has changed"),
        ("scores cut", SCENES, "scores.csv is damaged or edited"),
        ("the gap's page is gone", APPENDIX, "gap.html is gone"),
        ("the student is gone", STUDENT, "03_distillation will run again"),
        ("DONE.json cut", DISTILLED, "it is not finished"),
    ],
)
def test_the_reason_is_given_in_words(case, stage, words, world):
    CASES[case][0](world)
    assert words in world.outlook()[stage]


def test_other_code_is_accepted_on_purpose_and_noted(world):
    world.library("method/losses.py", "SSIM_WEIGHT = 0.2", "SSIM_WEIGHT = 2.0")
    world.cell(SCENES, "markdown", " More.")
    assert world.outlook(accept_code=True) == {}
    notes = pipeline.notes(world.run)
    assert len(notes) == len(TEACHERS | {DISTILLED, SCENES} | TUNED)
    assert any("03_distillation was made by other code: method/losses.py has changed" in note for note in notes)
    flip(first(world.images / "real/rainy"))
    assert set(world.outlook(accept_code=True)) == ALL  # images are another matter


def test_the_key_of_a_training_knows_its_cells_and_no_others(world):
    """An edit before the training is one of the training; a figure behind it is not."""

    def key():
        return next(s for s in pipeline.plan(profile="smoke") if s.name.endswith("-deblur")).key

    running = next(s for s in pipeline.plan(profile="smoke") if s.name.endswith("-deblur")).begin(writes=False)
    before = key()
    world.cell("02_teacher_pretraining", "code", "\nprint(1)")
    assert key() == before
    path = world.notebooks / "02_teacher_pretraining.ipynb"
    path.write_text(path.read_text().replace("recipe = training.", "recipe = 1 and training.", 1))
    assert key() != before and running.key == before  # what has begun keeps the key of what it began with


def test_what_a_process_has_loaded_is_what_its_stage_is_recorded_with(world, monkeypatch):
    """After an edit the kernel must be restarted: it would train with the old code, and be recorded with the new."""
    from ttlkit.method import losses

    copy = world.package / "method/losses.py"
    monkeypatch.setattr(losses, "__file__", str(copy))
    stage = next(s for s in pipeline.plan(profile="smoke") if s.name == GAP)
    stage.begin()
    world.library("method/losses.py", "SSIM_WEIGHT = 0.2", "SSIM_WEIGHT = 2.0")
    with pytest.raises(SettingsError, match=r"losses.py changed after.*restart the kernel"):
        stage.begin()
    code._loaded.pop(copy)


@pytest.mark.parametrize("broken", ["def f(:\n", b"\xff\xfe"])
def test_code_that_cannot_be_read_is_one_line(broken, world):
    path = world.package / "method/losses.py"
    path.write_bytes(broken.encode() if isinstance(broken, str) else broken)
    with pytest.raises(SettingsError, match=r"losses.py"):
        world.outlook()


def test_somebody_elses_file_is_neither_sealed_nor_removed(world):
    stage = next(s for s in pipeline.plan(profile="smoke") if s.name == START)
    mine = stage.folder / "notes.txt"
    mine.write_text("mine")
    os.utime(mine, (1, 1))
    for _ in range(2):
        stage.begin().finish()
        assert "notes.txt" not in stage.done()["files"] and mine.read_text() == "mine"


def test_what_changes_while_a_stage_runs_makes_it_stale(world):
    stage = next(s for s in pipeline.plan(profile="smoke") if s.name == SCENES)
    stage.begin()
    flip(first(world.images / "test/traced/rainy"))
    stage.finish()
    assert stage.stale() == "images in test have changed"


def test_a_stage_run_by_hand_waits_for_nobody_and_leaves_nobody_waiting(world):
    """A notebook run by hand holds the run until it ends; a second one, and the pipeline, say so in one line."""
    scope = {"profile": "smoke", "In": []}
    stage = stages.start(GAP, scope)
    stages.start(GAP, scope)  # the cell run twice in one kernel
    second = "from ttlkit.runs import stages; stages.start('01_gap_statistics', {'profile': 'smoke'})"
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    refused = subprocess.run(
        [sys.executable, "-c", second], env=environment, capture_output=True, text=True, timeout=60
    )
    assert "another process is working on this run" in refused.stderr.splitlines()[-1]
    stage.finish()
    freed = subprocess.run([sys.executable, "-c", second], env=environment, capture_output=True, text=True, timeout=60)
    assert freed.returncode == 0, freed.stderr


def test_a_stage_run_by_hand_stands_in_the_report(world):
    stage = stages.start(START, {"profile": "smoke", "In": []})
    assert not (stage.folder / "notebook.ipynb").exists()  # of the run before: it is not this one's
    stage.finish(mean_change_levels=1.0)
    shown = pipeline.sections(world.run)
    assert stage.folder in shown and len(shown) == len(ALL)


def test_an_earlier_stage_with_damaged_weights_is_named(world):
    flip(world.run / "02_teacher_pretraining-deblur/teacher.safetensors")
    stage = next(s for s in pipeline.plan(profile="smoke") if s.name == DISTILLED)
    with pytest.raises(SettingsError, match=r"whose teacher.safetensors is damaged or gone"):
        stage.require("02_teacher_pretraining-deblur", "teacher.safetensors")


def reproduce(world, **environment):
    command = [sys.executable, "-c", "from ttlkit.runs import pipeline; "
               "pipeline.run([s for s in pipeline.plan(profile='smoke') if s.name.endswith('-deblur')])"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(world.home / "library"), **environment}
    done = subprocess.run(command, cwd=world.home, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout, (world.run / "02_teacher_pretraining-deblur/notebook.ipynb").read_text()


@pytest.mark.slow
def test_an_edited_loss_trains_again_and_an_edited_figure_does_not(world):
    """The kernel itself runs the copy of the library; a figure's code is no reason to train again."""
    (world.home / "library/pyproject.toml").write_text("")  # so that the copy's own notebooks are taken
    weights = (world.run / "02_teacher_pretraining-deblur/teacher.safetensors").read_bytes()
    world.library("lesson/figures.py", "import math\n", "import math\nX = 1\n")
    said, notebook = reproduce(world)
    assert "again, since lesson/figures.py has changed" in said and "going on from step 12 of 12" in notebook
    assert (world.run / "02_teacher_pretraining-deblur/teacher.safetensors").read_bytes() == weights
    world.library("method/losses.py", "SSIM_WEIGHT = 0.2", "SSIM_WEIGHT = 2.0")
    said, notebook = reproduce(world)
    assert "again, since method/losses.py has changed" in said and "training starts afresh" in notebook
    assert (world.run / "02_teacher_pretraining-deblur/teacher.safetensors").read_bytes() != weights
    assert "done before" in reproduce(world)[0]


def test_the_home_of_notebooks_is_the_checkout():
    assert machine.shipped("notebooks") == REPO / "notebooks"
