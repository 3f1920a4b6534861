"""Notebooks: stored clean, built alike; the whole chain runs, can be killed, goes on, and gives the same numbers."""

import ast
import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import nbformat
import pytest
from conftest import environment, reproduce
from jupyter_client.channels import HBChannel

from ttlkit import machine
from ttlkit.evaluate import scores
from ttlkit.runs import code, pipeline, settings

REPO = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((REPO / "notebooks").glob("*.ipynb"))


def cells(path, kind=None):
    return [c for c in nbformat.read(path, 4).cells if kind in (None, c.cell_type)]


@pytest.fixture(params=NOTEBOOKS, ids=[p.stem for p in NOTEBOOKS])
def notebook(request):
    return request.param


def test_every_stage_has_its_notebook():
    assert {p.stem for p in NOTEBOOKS} == set(settings.STAGES)


def test_stored_clean(notebook):
    nbformat.validate(nbformat.read(notebook, 4))
    for cell in cells(notebook, "code"):
        assert cell.outputs == [] and cell.execution_count is None
    assert nbformat.read(notebook, 4).metadata.kernelspec.name == "python3"


def test_cells_stand_in_the_order_of_the_house(notebook):
    found = cells(notebook)
    title, last = found[0], found[-1]
    assert title.cell_type == last.cell_type == "markdown"
    for word in ("colab.research.google.com", f"{notebook.name}", "**needs**", "**gives**", "**runtime**"):
        assert word in title.source
    tags = [c.metadata.get("tags", []) for c in found[1:6]]
    assert tags == [["bootstrap"], ["bootstrap"], ["bootstrap"], ["parameters"], []]
    assert "stages.start(" in found[5].source
    assert "**Next:**" in last.source
    assert "assert" in found[-2].source and "stage.finish(" in found[-2].source


def test_bootstrap_is_byte_identical():
    for place in (1, 2, 3):
        assert len({cells(path)[place].source for path in NOTEBOOKS}) == 1


def test_runs_are_kept_on_drive_only_where_one_says_so():
    _, _, text, keep, *_ = cells(NOTEBOOKS[0])
    assert text.cell_type == "markdown" and "TTLKIT_HOME" in text.source and "goes on from" in text.source
    before = dict(os.environ)
    exec(keep.source, {})  # noqa: S102 - our own cell
    assert dict(os.environ) == before and keep.source.startswith("keep_on_drive = False")
    mounted = []
    drive = types.SimpleNamespace(mount=mounted.append)
    with pytest.MonkeyPatch.context() as patch:
        for name, module in {
            "google": types.ModuleType("google"),
            "google.colab": types.SimpleNamespace(drive=drive),
        }.items():
            patch.setitem(sys.modules, name, module)
        patch.setenv("TTLKIT_HOME", "x")
        exec(keep.source.replace("False", "True", 1), {})  # noqa: S102
        assert mounted == ["/content/drive"] and machine.home() == Path("/content/drive/MyDrive/ttlkit")


def test_bootstrap_keeps_the_big_packages():
    source = cells(NOTEBOOKS[0])[1].source
    assert all(name in source for name in ("torch", "numpy", "pillow", "ipykernel"))


def test_parameters_are_flat_literals_with_help_and_match_the_settings(notebook):
    source = cells(notebook)[4].source
    for line in source.splitlines():
        found = re.fullmatch(r"(\w+) = (?:None|-?[\d.e-]+|\"[^\"]*\")  # type: (?:str|int|float) (.+)", line)
        assert found and found[2] == settings.HELP[found[1]], line
    names = code.assigned_names(source)
    assert names == list(dict.fromkeys(names))
    scope: dict = {}
    exec(source, scope)  # noqa: S102 - our own cell, literals only
    kind = settings.STAGES[notebook.stem]
    resolved = settings.resolve(kind, {name: scope[name] for name in names})
    assert set(names) == set(vars(resolved))
    assert resolved == settings.resolve(kind, {})  # the cell's defaults are the library's


def test_no_two_cells_share_an_id(notebook):
    ids = [cell["id"] for cell in json.loads(notebook.read_text())["cells"]]
    assert len(set(ids)) == len(ids)


def test_no_class_and_no_long_function(notebook):
    for cell in cells(notebook, "code")[1:]:
        assert "class " not in cell.source
        assert len(cell.source.splitlines()) <= 25
        for function in [node for node in ast.parse(cell.source).body if isinstance(node, ast.FunctionDef)]:
            assert function.end_lineno - function.lineno < 10, "a function of ten lines or more belongs into ttlkit"


def test_links_between_notebooks_lead_somewhere(notebook):
    for cell in cells(notebook, "markdown"):
        for target in re.findall(r"\]\(([^)#]+\.ipynb)\)", cell.source):
            assert target.startswith("https://") or (notebook.parent / target).is_file()


# ---- alone, in an empty folder -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "variant", "taken"),
    [
        ("03_distillation", "", "teachers recognition, deblur, streaks"),
        ("04_fine_tuning", "-student", "teacher streaks and distilled student"),
        ("05_real_scene_evaluation", "", "teacher recognition and student"),
        ("06_ablation", "", "scores of a sweep"),
    ],
)
def test_each_notebook_runs_alone(stage, variant, taken, tmp_path):
    command = [sys.executable, "-m", "papermill", str(REPO / f"notebooks/{stage}.ipynb"), "out.ipynb"]
    command += ["-p", "profile", "smoke", "-k", "python3"]
    options = {"env": environment(tmp_path), "capture_output": True, "text": True}
    done = subprocess.run(command, cwd=tmp_path, timeout=300, **options)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"takes the released {taken} instead, trained on real photographs" in (tmp_path / "out.ipynb").read_text()
    folder = tmp_path / "outputs/smoke"
    beside = {".lock", "04_fine_tuning-scratch"} if variant == "-student" else {".lock"}  # 04 trains scratch too
    assert {path.name for path in folder.iterdir()} - beside == {stage + variant}
    told = json.loads((folder / (stage + variant) / "config.json").read_text())
    assert told["released"] or stage.startswith("06")
    if stage.startswith("05"):
        assert "student" in (table := (folder / stage / "table.txt").read_text()) and "scratch" not in table


# ---- the chain itself, as a user runs it ----------------------------------------------------------------------


def results(home, run="smoke"):
    found = {}
    for done in sorted((home / "outputs" / run).glob("*/DONE.json")):
        value = json.loads(done.read_text())
        handed_on = {
            name: sha for name, sha in value["files"].items() if name.endswith((".safetensors", ".csv", ".txt"))
        }
        found[value["stage"]] = (value["results"], handed_on)
    return found


def test_the_chain_makes_what_it_promises(chain):
    home, printed = chain
    run = home / "outputs/smoke"
    assert set(results(home)) >= {
        "01_gap_statistics",
        "01b_gap_appendix",
        "02_teacher_pretraining-recognition",
        "02_teacher_pretraining-deblur",
        "02_teacher_pretraining-streaks",
        "03_distillation",
        "04_fine_tuning-scratch",
        "04_fine_tuning-student",
        "05_real_scene_evaluation",
        "00_start_here",
    }
    for stage in results(home):
        for name in ("notebook.ipynb", "config.json", "DONE.json", "figures"):
            assert (run / stage / name).exists(), (stage, name)
        if not stage.startswith("00"):
            assert (run / stage / "metrics.jsonl").stat().st_size > 0
        assert list((run / stage / "figures").glob("*.png"))
    table = (run / "05_real_scene_evaluation/table.txt").read_text()
    assert table in printed and "report.html" in printed and "SIMULATED" in table
    rows = scores.load_rows(run / "05_real_scene_evaluation/scores.csv")
    for word in ("scratch", "student", *{row["set"] for row in rows}, *scores.metric_names(rows)):
        assert word in table
    assert "real rain" in table and (run / "05_real_scene_evaluation/real_scenes.csv").stat().st_size > 1000
    assert {"real_scenes.png", "vote.png"} <= {p.name for p in (run / "05_real_scene_evaluation/figures").iterdir()}
    assert not (run / "05_real_scene_evaluation/votes.csv").exists()
    page = (run / "report.html").read_text()
    assert not re.search(r"""(src|href)=["']?https?:""", page)
    assert all(f"({stage})" in page for stage in results(home))


def test_the_verdict_is_computed_from_the_scores_and_said_last(chain):
    """With other scores it would be another one: the test computes it again, sentence by sentence."""
    home, printed = chain
    folder = home / "outputs/smoke/05_real_scene_evaluation"
    verdict = json.loads((folder / "DONE.json").read_text())["results"]["verdict"]
    assert printed.rstrip().endswith(verdict)
    assert json.loads((folder / "summary.json").read_text())["verdict"] == verdict
    rows = scores.load_rows(folder / "scores.csv")
    own = {path.name for path in (home / "datasets").glob("pocket-*/synthetic/*")}
    assert own & {row["set"] for row in rows} and {row["set"] for row in rows} - own
    gains = [row for rival in ("scratch", "input") for row in scores.differences(rows, "student", rival)]
    wanted = scores.verdicts([{**row, "n_pairs": 4} for row in gains], own)
    assert verdict.splitlines()[:-1] == wanted and wanted[0].startswith("With 4 pairs, the transferred student is ")
    assert "SIMULATED" in verdict.splitlines()[-1]


def test_a_second_call_finds_everything_done(chain):
    home, _ = chain
    before = {p: p.stat().st_mtime_ns for p in (home / "outputs").rglob("DONE.json")}
    began = time.time()
    process = reproduce(home)
    printed, _ = process.communicate(timeout=100)
    assert process.returncode == 0 and printed.count("done before") == len(before)
    assert {p: p.stat().st_mtime_ns for p in (home / "outputs").rglob("DONE.json")} == before
    assert time.time() - began < 60


def test_killed_anywhere_it_goes_on_and_gives_the_same_numbers(chain, tmp_path):
    """Killed without warning in training and before it; the third call ends with the undisturbed chain's numbers.

    Only the killed stages run here: the others stand there, copied from that chain, and with the same weights before
    them they stay done.
    """
    whole, _ = chain
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    killed = {"02_teacher_pretraining-deblur": "metrics.jsonl", "04_fine_tuning-student": "config.json"}
    for stage in killed:
        shutil.rmtree(tmp_path / "outputs/smoke" / stage)
    for stage, sign in killed.items():
        process = reproduce(tmp_path, start_new_session=True)
        deadline = time.time() + 300
        while not (tmp_path / "outputs/smoke" / stage / sign).is_file() and time.time() < deadline:
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert not (tmp_path / "outputs/smoke" / stage / "DONE.json").exists()
        time.sleep(2)  # kernels notice that their parent is gone
    printed, _ = reproduce(tmp_path).communicate(timeout=300)
    assert printed.count("finished in") == 1, printed  # the stage killed last
    assert results(tmp_path) == results(whole)  # numbers, and hashes of all weights


def test_derain_takes_the_student_of_a_run(chain, tmp_path):
    from ttlkit.data import image_files

    home, _ = chain
    source = home / "datasets/pocket-8/test/scenes/rainy"
    command = [sys.executable, "-m", "ttlkit.cli", "derain", str(source), str(tmp_path / "out")]
    command += ["--run", "smoke"]
    done = subprocess.run(command, env=environment(home), capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert [p.name for p in image_files.list_images(tmp_path / "out")] == [
        p.name for p in image_files.list_images(source)
    ]
    assert "04_fine_tuning-student" in done.stdout


def test_plain_papermill_refuses_a_misspelt_parameter(chain, tmp_path):
    home, _ = chain
    command = [sys.executable, "-m", "papermill", str(REPO / "notebooks/02_teacher_pretraining.ipynb"), "out.ipynb"]
    command += ["-p", "profile", "smoke", "-p", "taks", "deblur", "-k", "python3"]
    done = subprocess.run(command, env=environment(home), cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode != 0
    assert "did you mean 'task'" in done.stderr


def test_plain_papermill_takes_over_a_training_outside_of_the_notebook(chain, tmp_path):
    """`python -m ttlkit.runs.worker` gives the bits that the notebook gives, and the notebook does not train again."""
    home, _ = chain
    stage, options = "02_teacher_pretraining-deblur", {"env": environment(home), "capture_output": True, "text": True}
    command = [sys.executable, "-m", "ttlkit.runs.worker", "02_teacher_pretraining", "--profile", "smoke"]
    command += ["--task", "deblur", "--run", "001"]
    done = subprocess.run(command, cwd=tmp_path, timeout=100, **options)
    assert done.returncode == 0, done.stderr
    before = (home / f"outputs/001/{stage}/checkpoint.pt").stat().st_mtime_ns
    command = [sys.executable, "-m", "papermill", str(REPO / "notebooks/02_teacher_pretraining.ipynb"), "out.ipynb"]
    command += ["-p", "profile", "smoke", "-p", "task", "deblur", "-r", "run", "001", "-k", "python3"]
    done = subprocess.run(command, cwd=tmp_path, timeout=100, **options)
    assert done.returncode == 0, done.stderr
    assert "going on from step 12 of 12" in (tmp_path / "out.ipynb").read_text()
    assert (home / f"outputs/001/{stage}/checkpoint.pt").stat().st_mtime_ns == before
    assert results(home, "001")[stage] == results(home)[stage]


@pytest.mark.slow
def test_a_kernel_that_left_in_mid_heartbeat_does_not_hold_the_run(tmp_path, monkeypatch):
    """A heartbeat thread that waits for a kernel that is gone, and which jupyter_client joins, is left behind."""
    monkeypatch.setenv("TTLKIT_HOME", str(tmp_path))
    monkeypatch.setattr(pipeline, "PATIENCE", 1.0)

    async def wait_for_ever(channel):
        channel._running = True
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(HBChannel, "_async_run", wait_for_ever)
    stage = pipeline.plan(profile="smoke", run="stuck")[2]  # a quick one
    pipeline.run([stage])
    assert stage.is_done()
    assert any(isinstance(thread, HBChannel) for thread in threading.enumerate())  # it waits still
