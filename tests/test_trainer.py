"""Training: stopping and resuming gives the same bits, at any step, for every kind of stage."""

import json

import numpy as np
import pytest
import torch

from ttlkit import config, data, models, steps
from ttlkit import pocket as pocket_module
from ttlkit.tasks import TASKS
from ttlkit.trainer import StepSampler, Trainer, TrainingError, learning_rate

STEPS = 7


@pytest.fixture(scope="module")
def pocket(tmp_path_factory):
    return data.open_collection(pocket_module.build(tmp_path_factory.mktemp("made") / "pocket-6", 6))


class Stopped(Exception):
    pass


def build(kind, pocket, folder, workers=0):
    config.seed_everything(0)
    if kind == "distillation":
        teachers = {"a": models.freeze(models.Recogniser(16)), "b": models.freeze(models.Restorer(16))}
        model = models.Distiller(models.Restorer(8), teachers)
        step = steps.distillation_step(teachers, guide=teachers["b"])
        samples = data.Photographs(pocket.photographs(), data.in_any_rain, 16, 0)
    elif kind == "fine-tuning":
        model, step = models.Restorer(8), steps.restoration_step(models.freeze(models.Restorer(8)))
        seen = data.Photographs(pocket.photographs(), data.as_it_is, 16, 0)
        drawn = data.Photographs(pocket.photographs(["clean"]), TASKS["streaks"].sample, 16, 0)
        samples = data.Guided(data.Pairs(pocket.few_pairs(3, 0), 16, 0), seen, drawn, 0.5)
    else:
        task = TASKS[kind]
        model, step = task.build(8), steps.task_step(task)
        samples = data.Photographs(pocket.photographs(task.classes), task.sample, 16, 0)
    options = {"key": "k", "steps": STEPS, "batch": 4, "learning_rate": 1e-3, "seed": 0, "log_every": 1}
    return Trainer(model, step, samples, folder=folder, workers=workers, checkpoint_seconds=0, **options)


def stop_after(step):
    def on_log(row):
        if row["step"] == step:
            raise Stopped

    return on_log


@pytest.mark.parametrize("kind", [*TASKS, "distillation", "fine-tuning"])
def test_resuming_is_bit_exact_for_every_stage(kind, pocket, tmp_path):
    (tmp_path / "whole").mkdir()
    whole = build(kind, pocket, tmp_path / "whole")
    whole.fit()
    expected = models.checksum(whole.plain)
    folder = tmp_path / "parts"
    folder.mkdir()
    for stop, workers in ((1, 0), (4, 2)):  # interrupted twice, before the step's checkpoint was written
        with pytest.raises(Stopped):
            build(kind, pocket, folder, workers).fit(stop_after(stop))
    last = build(kind, pocket, folder)
    history = last.fit()
    assert models.checksum(last.plain) == expected
    assert [row["step"] for row in history] == list(range(1, STEPS + 1))
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["loss"] for row in rows] == [row["loss"] for row in whole.history]


def test_resuming_at_every_step(pocket, tmp_path):
    (tmp_path / "whole").mkdir()
    whole = build("fine-tuning", pocket, tmp_path / "whole")
    whole.fit()
    for stop in range(1, STEPS):
        folder = tmp_path / str(stop)
        folder.mkdir()
        with pytest.raises(Stopped):
            build("fine-tuning", pocket, folder).fit(stop_after(stop))
        again = build("fine-tuning", pocket, folder)
        again.fit()
        assert models.checksum(again.plain) == models.checksum(whole.plain), stop


def test_a_finished_training_is_not_trained_again(pocket, tmp_path):
    build("streaks", pocket, tmp_path).fit()
    again = build("streaks", pocket, tmp_path)
    before = (tmp_path / "checkpoint.pt").stat().st_mtime_ns
    history = again.fit(stop_after(STEPS))  # would raise if a step ran
    assert history[-1]["step"] == STEPS
    assert (tmp_path / "checkpoint.pt").stat().st_mtime_ns == before


def test_teachers_stay_frozen_and_bit_identical(pocket, tmp_path):
    config.seed_everything(0)
    teacher = models.freeze(models.Restorer(16))
    before = models.checksum(teacher)
    student = models.Restorer(8)
    start = models.checksum(student)
    distiller = models.Distiller(student, {"a": teacher})
    samples = data.Photographs(pocket.photographs(), data.as_it_is, 16, 0)
    options = {"key": "k", "steps": 3, "batch": 2, "learning_rate": 1e-3, "seed": 0}
    Trainer(distiller, steps.distillation_step({"a": teacher}), samples, folder=tmp_path, **options).fit()
    assert models.checksum(teacher) == before
    assert models.checksum(student) != start
    assert all(p.grad is None for p in teacher.parameters())


def test_another_key_starts_afresh(pocket, tmp_path, capsys):
    build("streaks", pocket, tmp_path).fit()
    other = build("streaks", pocket, tmp_path)
    other.key = "other"
    other.fit()
    assert "starts afresh" in capsys.readouterr().out
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == STEPS


def test_a_damaged_checkpoint_starts_afresh(pocket, tmp_path, capsys):
    build("streaks", pocket, tmp_path).fit()
    whole = (tmp_path / "checkpoint.pt").read_bytes()
    (tmp_path / "checkpoint.pt").write_bytes(whole[: len(whole) // 2])
    assert build("streaks", pocket, tmp_path).fit()[-1]["step"] == STEPS
    assert "damaged" in capsys.readouterr().out


def test_a_full_disk_keeps_the_last_checkpoint(pocket, tmp_path, monkeypatch):
    with pytest.raises(Stopped):
        build("streaks", pocket, tmp_path).fit(stop_after(4))
    kept = (tmp_path / "checkpoint.pt").read_bytes()

    def full(state, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TrainingError, match=r"checkpoint.pt.*No space left.*run again"):
        build("streaks", pocket, tmp_path).fit()
    assert (tmp_path / "checkpoint.pt").read_bytes() == kept
    assert not list(tmp_path.glob(".checkpoint*"))


def test_a_loss_that_is_not_a_number_stops_with_advice(pocket, tmp_path):
    def step(model, batch):
        return model(batch["rainy"]).mean(dim=(1, 2, 3)) * float("nan"), {}

    samples = data.Pairs(pocket.few_pairs(2, 0), 16, 0)
    options = {"key": "k", "steps": 3, "batch": 2, "learning_rate": 1e-3, "seed": 0, "log_every": 1}
    with pytest.raises(TrainingError, match="lower learning_rate"):
        Trainer(models.Restorer(8), step, samples, folder=tmp_path, **options).fit()


def test_processes_share_a_batch():
    whole = list(StepSampler(8, 2, 5))
    shares = [list(StepSampler(8, 2, 5, rank, 2)) for rank in range(2)]
    assert [sorted(a + b) for a, b in zip(*shares, strict=True)] == whole
    halves = [sorted(a[:2] + b[:2]) for a, b in zip(*shares, strict=True)]
    assert halves == [numbers[:4] for numbers in whole]
    with pytest.raises(TrainingError, match="batch = 3"):
        StepSampler(3, 0, 1, 0, 2)


def test_learning_rate_rises_then_falls():
    rates = np.array([learning_rate(step, 100, 1.0) for step in range(100)])
    assert rates.argmax() == 4 or rates.argmax() == 5
    assert rates.max() == pytest.approx(1)
    assert (np.diff(rates[6:]) < 0).all()
    assert 0.005 < rates[-1] < 0.02
