"""Training outside of a notebook: two processes learn what one learns, and resume to the same bits."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from ttlkit import words
from ttlkit.data import collections
from ttlkit.method import networks, weights
from ttlkit.method.connected_tasks import TASKS
from ttlkit.method.trainer import load_checkpoint
from ttlkit.runs import settings, stages, training, worker

REPO = Path(__file__).resolve().parents[1]
STEPS = 6
# Last stage first: a stage that begins is no longer finished, and the later ones need it.
KINDS = {"04_fine_tuning": {}, "03_distillation": {"guide": ""}, "02_teacher_pretraining": {"task": "recognition"}}
# Trains the stages named; one of its processes is killed before step `killed_at`, by what nothing can catch.
SCRIPT = """
import os, signal, sys
from test_train import KINDS, open_stage
from ttlkit.data import collections
from ttlkit.runs import training
killed_at, collection, run, *kinds = sys.argv[1:]
for kind in kinds:
    stage = open_stage(kind, collection, run)
    stage.begin(writes=os.environ["RANK"] == "0")
    recipe = training.RECIPES[kind](stage, collections.open_collection(collection))
    fit = training.trainer_for(stage, recipe)
    assert fit.accelerator.num_processes == int(os.environ["WORLD_SIZE"])
    fit.log_every, fit.checkpoint_seconds = 1, 0
    if int(killed_at):
        step = fit.objective
        def last(model, batch):
            if fit.done == int(killed_at) and os.environ["RANK"] == "1":
                os.kill(os.getpid(), signal.SIGKILL)
            return step(model, batch)
        fit.objective = last
    fit.fit()
fit.accelerator.end_training()
"""


def open_stage(kind, collection, run):
    """A small stage of its own run folder, in which the teachers and the student stand already."""
    small = {"profile": "smoke", "steps": STEPS, "batch": 4, "patch": 16, "width": 16, "collection": str(collection)}
    given = {"tasks": "recognition,streaks", "guidance": 0.5, **small, **KINDS[kind], "run": run}
    known = settings.STAGES[kind].__dataclass_fields__
    return stages.StageRun(settings.resolve(settings.STAGES[kind], {k: v for k, v in given.items() if k in known}))


@pytest.fixture(scope="module")
def made(tmp_path_factory, small_pocket):
    """(home, collection): runs `one`, `two` and `killed`, each with untrained teachers and student to start from."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TTLKIT_HOME", str(home))
        patch.setenv("TTLKIT_PRECISION", "no")
        patch.setenv("ACCELERATE_USE_CPU", "1")
        collection = small_pocket
        for run in ("one", "two", "killed"):
            for task in ("recognition", "streaks"):
                given = {"profile": "smoke", "task": task, "run": run, "collection": str(collection)}
                stage = stages.StageRun(settings.resolve(settings.TeacherPretraining, given)).begin()
                weights.save_weights(TASKS[task].build(16), stage.folder / "teacher.safetensors")
                stage.finish()
            student = open_stage("03_distillation", collection, run).begin()
            weights.save_weights(networks.Restorer(16), student.folder / "student.safetensors")
            student.finish()
        yield home, collection


def torchrun(*arguments, processes=2):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{REPO}:{REPO / 'tests'}"}
    return subprocess.run(
        [*launcher, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def two(made):
    """The folders of all stages, trained by two processes without a stop."""
    home, collection = made
    script = home / "script.py"
    script.write_text(SCRIPT)
    done = torchrun(script, 0, collection, "two", *KINDS)
    assert done.returncode == 0, done.stderr
    return {kind: open_stage(kind, collection, "two").folder for kind in KINDS}


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def learned(folder):
    return load_checkpoint(folder / "checkpoint.pt")["model"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_learn_what_one_learns(made, two, kind):
    """Same losses and weights as one process with the whole batch, but for the order of summation."""
    one = open_stage(kind, made[1], "one").begin()
    recipe = training.RECIPES[kind](one, collections.open_collection(made[1]))
    fit = training.trainer_for(one, recipe)
    fit.log_every = 1
    history = fit.fit()
    assert losses(two[kind]) == pytest.approx([row["loss"] for row in history], abs=2e-5)
    for name, value in learned(two[kind]).items():
        torch.testing.assert_close(value, fit.plain.state_dict()[name], atol=2e-4, rtol=0)


@pytest.mark.slow
def test_two_processes_resume_to_the_same_bits(made, two):
    """One of the two is killed in the middle; both start again, and end where undisturbed ones end."""
    home, collection = made
    kind = "04_fine_tuning"
    folder = open_stage(kind, collection, "killed").folder
    assert torchrun(home / "script.py", 3, collection, "killed", kind).returncode != 0
    stopped = load_checkpoint(folder / "checkpoint.pt")["done"]
    assert 0 < stopped <= 3
    again = torchrun(home / "script.py", 0, collection, "killed", kind)
    assert again.returncode == 0 and f"going on from step {stopped}" in again.stdout, again.stderr
    assert losses(folder) == losses(two[kind])
    found, expected = learned(folder), learned(two[kind])
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.slow
def test_the_command_trains_a_stage_once_and_one_process_writes(made, capsys):
    home, collection = made
    command = ["02_teacher_pretraining", "--profile", "smoke", "--task", "deblur", "--collection", str(collection)]
    command += ["--run-name", "command", "--steps", "3"]
    done = torchrun("-m", "ttlkit.runs.worker", *command)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("step 3/3") == 1 and "2 processes" in done.stdout
    folder = home / "outputs/command/02_teacher_pretraining-deblur"
    assert len(losses(folder)) == 1
    assert not list(folder.glob(".checkpoint*")) and not list(folder.glob("*.safetensors"))
    assert worker.main(command) == 0  # alone: what two have trained, one need not
    assert capsys.readouterr().out.count("going on from step 3 of 3") == 1
    assert len(losses(folder)) == 1


def test_a_batch_that_cannot_be_shared_is_one_line(made, monkeypatch, capsys):
    """The first process says it; the other one waits for torchrun, which ends it."""
    command = ["02_teacher_pretraining", "--profile", "smoke", "--batch", "3", "--run-name", "odd"]
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert worker.main(command) == 1
    said = capsys.readouterr().err.splitlines()
    assert said == ["ttlkit: batch = 3 cannot be shared by 2 processes; make it a multiple"]
    assert not (made[0] / "outputs/odd").exists()

    def ended(seconds):
        raise SystemExit

    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(words.time, "sleep", ended)
    with pytest.raises(SystemExit):
        worker.main(command)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--task", "deblurr"], "did you mean 'deblur'"),
        (["--steps", "many"], "steps = 'many'"),
        (["--guide", "streaks"], "unknown parameter of 02_teacher_pretraining: 'guide'"),
        (["--collection", "nowhere"], "nowhere: no such collection"),
    ],
)
def test_what_is_wrong_is_one_line(home, capsys, arguments, words):
    assert worker.main(["02_teacher_pretraining", "--profile", "smoke", *arguments]) == 1
    said = capsys.readouterr().err
    assert said.startswith("ttlkit: ") and words in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("RANK", "x", "RANK = x: only torchrun sets it; unset it"),
        ("RANK", "3", "RANK = 3: only torchrun sets it"),  # of how many, WORLD_SIZE does not say
        ("RANK", "-1", "RANK = -1: only torchrun sets it"),
        ("WORLD_SIZE", "0", "WORLD_SIZE = 0: only torchrun sets it"),
        ("TTLKIT_PRECISION", "foo", "TTLKIT_PRECISION = foo: set it to no, bf16 or fp16"),
    ],
)
def test_what_is_wrong_in_the_environment_is_one_line(name, value, words, made, capsys, monkeypatch):
    monkeypatch.setenv(name, value)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # those that do not lead wait to be ended
    assert worker.main(["02_teacher_pretraining", "--profile", "smoke", "--collection", str(made[1])]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"ttlkit: {words}") and said.count("\n") == 1


def test_an_earlier_stage_that_is_missing_is_named(made, capsys):
    arguments = [
        "04_fine_tuning",
        "--init",
        "paper",
        "--profile",
        "smoke",
        "--run",
        "new",
        "--collection",
        str(made[1]),
    ]
    assert worker.main(arguments) == 1  # of the paper's student nothing is released
    assert "03_distillation.ipynb with tasks = 'recognition,deblur'" in capsys.readouterr().err


def test_a_run_that_another_process_works_on_is_left_alone(made, capsys):
    folder = made[0] / "outputs/busy"
    folder.mkdir()
    with FileLock(folder / ".lock"):
        command = ["02_teacher_pretraining", "--profile", "smoke", "--run", "busy", "--collection", str(made[1])]
        assert worker.main(command) == 1
    assert "another process is working on this run" in capsys.readouterr().err
