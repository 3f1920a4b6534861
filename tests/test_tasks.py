"""Connected tasks: labels are free and right, a task can be learned, samples come from real photographs alone."""

import numpy as np
import pytest
import torch

from ttlkit import machine
from ttlkit.data import collections, pocket, samples
from ttlkit.method import networks, objectives, recipes, weights
from ttlkit.method.connected_tasks import TASKS, predict, recognition_score, reconstruction_score
from ttlkit.method.trainer import Trainer
from ttlkit.runs import settings

PATCH = np.random.default_rng(0).random((32, 32, 3)).astype(np.float32)
LAYERS = samples.Layers()


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS.keys())
def test_a_sample_fits_its_teacher_and_loss(task):
    sample = task.sample(PATCH, task.classes[0], np.random.default_rng(0), LAYERS)
    image = torch.from_numpy(np.asarray(sample["image"], np.float32).transpose(2, 0, 1))[None]
    target = np.asarray(sample["target"], np.float32)
    target = torch.from_numpy(target.transpose(2, 0, 1) if target.ndim == 3 else target)[None]
    loss = task.loss(task.build(8)(image), target)
    assert loss.shape == (1,)
    assert torch.isfinite(loss).all()
    assert 0 <= sample["image"].min() <= sample["image"].max() <= 1


def test_deblurring_takes_something_away_and_keeps_the_target():
    photograph = pocket.bundled("astronaut")[:64, :64]
    sample = TASKS["deblur"].sample(photograph, "clean", np.random.default_rng(0), LAYERS)
    assert np.array_equal(sample["target"], photograph)
    assert np.abs(sample["image"] - photograph).mean() > 0.003


def test_streaks_come_in_several_kinds_and_not_everywhere():
    photograph = pocket.bundled("astronaut")[:64, :64]
    samples = [TASKS["streaks"].sample(photograph, "clean", np.random.default_rng(i), LAYERS) for i in range(200)]
    dry = [np.mean(s["image"] == s["target"]) for s in samples]  # the share of a patch that it does not rain on
    veiled = [not np.array_equal(s["target"], photograph) for s in samples]  # the veil stays in the target
    assert 0.1 < np.mean(dry) < 0.9 and 130 < sum(veiled) < 190
    assert any(np.array_equal(s["image"], s["target"]) for s in samples)  # no rain at all
    assert np.mean([(s["image"] - s["target"]).mean() for s in samples]) > 0.01  # streaks add light


def test_the_score_of_a_reconstruction_leaves_out_what_was_not_spoilt():
    target = torch.zeros(2, 3, 16, 16)
    image, restored = target.clone(), target.clone()
    image[0], restored[0] = 0.1, 0.01
    found = reconstruction_score(restored, target, image)
    assert found["psnr_rgb_input"] == pytest.approx(20, abs=0.2) and found["psnr_rgb"] > 35


def test_recognition_labels():
    rng = np.random.default_rng(0)
    assert float(TASKS["recognition"].sample(PATCH, "rainy", rng, LAYERS)["target"]) == 1
    assert float(TASKS["recognition"].sample(PATCH, "clean", rng, LAYERS)["target"]) == 0


def test_recognition_score_by_hand():
    logit, target = torch.tensor([2.0, -1.0, 1.0, -2.0]), torch.tensor([1.0, 1.0, 0.0, 0.0])
    found = recognition_score(logit, target, logit)
    assert found == {"accuracy": 0.5, "auc": 0.75}  # 3 of the 4 (rainy, free) pairs are in order


def test_recognition_cannot_use_resolution_or_compression(tmp_path):
    """The same scene, stored large at quality 95 and smaller at quality 60, must look alike to the task."""
    from PIL import Image

    photograph = (pocket.bundled("astronaut") * 255).astype(np.uint8)
    for kind, side, quality in (("rainy", 1100, 95), ("clean", 560, 60)):
        (tmp_path / kind).mkdir()
        for i in range(2):
            Image.fromarray(photograph).resize((side, side)).save(tmp_path / kind / f"{i}.jpg", quality=quality)
    crops = samples.Photographs(
        {k: sorted((tmp_path / k).iterdir()) for k in ("rainy", "clean")}, TASKS["recognition"].sample, 64, 0
    )
    detail = {0.0: [], 1.0: []}
    for n in range(400):
        sample = crops[n]
        detail[float(sample["target"])].append(np.abs(np.diff(sample["image"], axis=2)).mean())
    assert 0.85 < np.median(detail[1.0]) / np.median(detail[0.0]) < 1.18


@pytest.mark.slow
def test_a_teacher_learns(tmp_path):
    """A few seconds of training must bring the held-out picture above what the teacher is given."""
    root = pocket.build(tmp_path / "pocket-6", 6)
    task, found = TASKS["deblur"], collections.open_collection(root)
    machine.seed_everything(0)
    teacher = task.build(8)
    crops = samples.Photographs({kind: found.real(kind) for kind in task.classes}, task.sample, 32, 0)
    options = {"folder": tmp_path, "key": "k", "batch": 8, "learning_rate": 4e-3, "seed": 0}
    Trainer(teacher, objectives.task_step(task), crops, steps=80, **options).fit()
    held_out = samples.Photographs({kind: found.real(kind, held_out=True) for kind in task.classes}, task.sample, 32, 1)
    said = predict(task, teacher, [held_out[n] for n in range(32)])
    found = task.score(said["output"], said["target"], said["image"])
    assert found["psnr_rgb"] > found["psnr_rgb_input"] + 0.5


class Watched:
    """A collection that notes what is taken of it."""

    def __init__(self, collection):
        self._collection, self.taken = collection, set()

    def __getattr__(self, name):
        self.taken.add(name)
        return getattr(self._collection, name)


def test_teachers_see_real_photographs_only(tmp_path):
    """Neither recipe touches pairs or test sets, and the stages read no other part of a collection."""
    assert settings.TeacherPretraining.reads == settings.Distillation.reads == ("real", "streaks")  # layers: no scenes
    collection = collections.open_collection(pocket.build(tmp_path / "pocket-6", 6))
    options = {"width": 8, "patch": 16, "seed": 0}
    for task in TASKS.values():
        seen = Watched(collection)
        recipe = recipes.teacher_pretraining(task, seen, **options)
        assert recipe.samples[0] and seen.taken == {"real", "streaks"}
    seen, teachers = Watched(collection), {"deblur": weights.freeze(networks.Restorer(8))}
    assert recipes.distillation(teachers, seen, guide="", **options).samples[0] and seen.taken == {"real", "streaks"}
