"""Training: stopping and resuming gives the same bits, at any step, for every kind of stage."""

import io
import json
import os

import numpy as np
import pytest
import torch

from ttlkit import files, machine
from ttlkit.data import collections, samples
from ttlkit.method import networks, objectives, weights
from ttlkit.method.connected_tasks import TASKS
from ttlkit.method.trainer import StepSampler, Trainer, TrainingError, learning_rate, load_checkpoint

STEPS = 7


@pytest.fixture(scope="module")
def collection(small_pocket):
    return collections.open_collection(small_pocket)


class Stopped(Exception):
    pass


def both(collection):
    return {kind: collection.real(kind) for kind in ("rainy", "clean")}


def build(kind, collection, folder, workers=0):
    machine.seed_everything(0)
    if kind == "distillation":
        teachers = {"a": weights.freeze(networks.Recogniser(16)), "b": weights.freeze(networks.Restorer(16))}
        model = networks.Distiller(networks.Restorer(8), teachers)
        step = objectives.distillation_step(teachers, guide=teachers["b"])
        drawn_from = samples.Photographs(both(collection), samples.in_any_rain, 16, 0)
    elif kind == "fine-tuning":
        model, step = networks.Restorer(8), objectives.restoration_step(weights.freeze(networks.Restorer(8)), 0.5)
        seen = samples.Photographs(both(collection), samples.as_it_is, 16, 0)
        drawn = samples.Photographs({"clean": collection.real("clean")}, TASKS["streaks"].sample, 16, 0)
        drawn_from = samples.Guided(samples.Pairs(collection.few_pairs(3, 0), 16, 0), seen, drawn, 0.5)
    else:
        task = TASKS[kind]
        model, step = task.build(8), objectives.task_step(task)
        drawn_from = samples.Photographs({kind: collection.real(kind) for kind in task.classes}, task.sample, 16, 0)
    options = {"key": "k", "steps": STEPS, "batch": 4, "learning_rate": 1e-3, "seed": 0, "log_every": 1}
    return Trainer(model, step, drawn_from, folder=folder, workers=workers, checkpoint_seconds=0, **options)


def stop_after(step):
    def on_log(row):
        if row["step"] == step and "seconds_left" in row:  # not a row of before
            raise Stopped

    return on_log


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*TASKS, "distillation", "fine-tuning"])
def test_resuming_is_bit_exact_for_every_stage(kind, collection, tmp_path):
    (tmp_path / "whole").mkdir()
    whole = build(kind, collection, tmp_path / "whole")
    whole.fit()
    expected = weights.checksum(whole.plain)
    folder = tmp_path / "parts"
    folder.mkdir()
    for stop, workers in ((1, 0), (4, 2)):  # interrupted twice, before the step's checkpoint was written
        with pytest.raises(Stopped):
            build(kind, collection, folder, workers).fit(stop_after(stop))
    last = build(kind, collection, folder)
    history = last.fit()
    assert weights.checksum(last.plain) == expected
    assert [row["step"] for row in history] == list(range(1, STEPS + 1))
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["loss"] for row in rows] == [row["loss"] for row in whole.history]


@pytest.mark.slow
def test_resuming_at_every_step(collection, tmp_path):
    (tmp_path / "whole").mkdir()
    whole = build("fine-tuning", collection, tmp_path / "whole")
    whole.fit()
    for stop in range(1, STEPS):
        folder = tmp_path / str(stop)
        folder.mkdir()
        with pytest.raises(Stopped):
            build("fine-tuning", collection, folder).fit(stop_after(stop))
        again = build("fine-tuning", collection, folder)
        again.fit()
        assert weights.checksum(again.plain) == weights.checksum(whole.plain), stop


def test_a_finished_training_is_not_trained_again(collection, tmp_path):
    build("streaks", collection, tmp_path).fit()
    again = build("streaks", collection, tmp_path)
    before = (tmp_path / "checkpoint.pt").stat().st_mtime_ns
    history = again.fit(stop_after(STEPS))  # would raise if a step ran
    assert history[-1]["step"] == STEPS
    assert (tmp_path / "checkpoint.pt").stat().st_mtime_ns == before


def test_teachers_stay_frozen_and_bit_identical(collection, tmp_path):
    machine.seed_everything(0)
    teacher = weights.freeze(networks.Restorer(16))
    before = weights.checksum(teacher)
    student = networks.Restorer(8)
    start = weights.checksum(student)
    distiller = networks.Distiller(student, {"a": teacher})
    drawn_from = samples.Photographs(both(collection), samples.as_it_is, 16, 0)
    options = {"key": "k", "steps": 3, "batch": 2, "learning_rate": 1e-3, "seed": 0}
    Trainer(distiller, objectives.distillation_step({"a": teacher}), drawn_from, folder=tmp_path, **options).fit()
    assert weights.checksum(teacher) == before
    assert weights.checksum(student) != start
    assert all(p.grad is None for p in teacher.parameters())


def test_another_key_starts_afresh(collection, tmp_path, capsys):
    build("streaks", collection, tmp_path).fit()
    other = build("streaks", collection, tmp_path)
    other.key = "other"
    other.fit()
    assert "starts afresh" in capsys.readouterr().out
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == STEPS


def sealed(state):
    """A checkpoint file of any content, with the right checksum."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return files.digest(buffer.getvalue()).encode() + buffer.getvalue()


ODD = {
    "cut": lambda whole, state: whole[: len(whole) // 2],
    "empty": lambda whole, state: b"",
    "one bit": lambda whole, state: whole[:5000] + bytes([whole[5000] ^ 4]) + whole[5001:],
    "a list": lambda whole, state: sealed([1, 2]),
    "another network": lambda whole, state: sealed({**state, "model": networks.Restorer(16).state_dict()}),
    "part of a network": lambda whole, state: sealed({**state, "model": dict(list(state["model"].items())[:3])}),
    "past the end": lambda whole, state: sealed({**state, "done": STEPS + 1}),
    "no rows": lambda whole, state: sealed({k: v for k, v in state.items() if k != "rows"}),
    "no optimizer": lambda whole, state: sealed({**state, "optimizer": {}}),
}


@pytest.fixture(scope="module")
def finished(collection, tmp_path_factory):
    """A finished training: its checkpoint, and the checksum of its weights."""
    folder = tmp_path_factory.mktemp("finished")
    first = build("streaks", collection, folder)
    first.fit()
    return folder / "checkpoint.pt", weights.checksum(first.plain)


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_checkpoint_starts_afresh_with_one_line(odd, finished, collection, tmp_path, capsys):
    checkpoint, expected = finished
    (tmp_path / "checkpoint.pt").write_bytes(ODD[odd](checkpoint.read_bytes(), load_checkpoint(checkpoint)))
    again = build("streaks", collection, tmp_path)
    history = again.fit()
    said = [line for line in capsys.readouterr().out.splitlines() if "starts afresh" in line]
    assert len(said) == 1 and "checkpoint.pt" in said[0]
    assert [row["step"] for row in history] == list(range(1, STEPS + 1))
    assert weights.checksum(again.plain) == expected  # nothing of the odd state is left


def test_rows_travel_with_the_checkpoint(collection, tmp_path):
    build("streaks", collection, tmp_path).fit()
    log = tmp_path / "metrics.jsonl"
    before = log.read_text()
    log.write_text("another run's rows\n")
    build("streaks", collection, tmp_path).fit()
    assert log.read_text() == before


def test_a_full_disk_keeps_the_last_checkpoint(collection, tmp_path, monkeypatch):
    with pytest.raises(Stopped):
        build("streaks", collection, tmp_path).fit(stop_after(4))
    kept = (tmp_path / "checkpoint.pt").read_bytes()

    move = os.replace

    def full(source, target):
        if target.name == "checkpoint.pt":
            raise OSError(28, "No space left on device")
        move(source, target)

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(TrainingError, match=r"checkpoint.pt.*No space left.*run again"):
        build("streaks", collection, tmp_path).fit()
    assert (tmp_path / "checkpoint.pt").read_bytes() == kept
    assert not list(tmp_path.glob(".checkpoint*"))


def test_a_loss_that_is_not_a_number_stops_with_advice(collection, tmp_path):
    def step(model, batch):
        return model(batch["rainy"]).mean(dim=(1, 2, 3)) * float("nan"), {}

    drawn_from = samples.Pairs(collection.few_pairs(2, 0), 16, 0)
    options = {"key": "k", "steps": 3, "batch": 2, "learning_rate": 1e-3, "seed": 0, "log_every": 1}
    with pytest.raises(TrainingError, match="lower learning_rate"):
        Trainer(networks.Restorer(8), step, drawn_from, folder=tmp_path, **options).fit()


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
