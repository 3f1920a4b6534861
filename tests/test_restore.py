"""Inference: tiles equal the whole, any size works, files keep their names, bad files cost nothing."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ttlkit import config, images, models, restore


@pytest.fixture(scope="module")
def model():
    config.seed_everything(0)
    model = models.Restorer(8)
    for p in model.parameters():  # far from the identity, or a seam could not show
        torch.nn.init.normal_(p, std=0.15)
    return model.eval()


def picture(height, width):
    return np.random.default_rng(0).random((height, width, 3)).astype(np.float32)


def test_the_network_under_test_changes_the_image(model):
    image = picture(40, 40)
    assert np.abs(restore.restore(model, image) - image).mean() > 0.05


@pytest.mark.parametrize(("height", "width"), [(97, 131), (64, 64), (1, 200), (130, 3)])
@pytest.mark.parametrize("tile", [16, 64])
def test_tiles_equal_the_whole(model, height, width, tile):
    image = picture(height, width)
    whole = restore.restore(model, image)
    assert np.abs(restore.restore(model, image, tile=tile) - whole).max() < 1e-5


@settings(max_examples=20, deadline=None)
@given(height=st.integers(1, 70), width=st.integers(1, 70), tile=st.sampled_from([16, 32, 48]))
def test_tiles_equal_the_whole_at_any_size(model, height, width, tile):
    image = picture(height, width)
    assert np.abs(restore.restore(model, image, tile=tile) - restore.restore(model, image)).max() < 1e-5


def test_half_precision_is_close(model):
    image = picture(48, 48)
    assert np.abs(restore.restore(model, image, precision="bf16") - restore.restore(model, image)).mean() < 0.02


def test_bad_arguments(model):
    with pytest.raises(images.ImageError, match="shape"):
        restore.restore(model, np.zeros((4, 4), np.float32))
    with pytest.raises(ValueError, match="tile = 30"):
        restore.restore(model, picture(8, 8), tile=30)


def test_a_folder_keeps_names_and_outlives_a_bad_file(model, tmp_path):
    for name in ("a.png", "c.jpg"):
        images.save_image(tmp_path / "in" / name, picture(20, 30))
    (tmp_path / "in/b.png").write_bytes(b"not an image")
    files = restore.plan_files(tmp_path / "in", tmp_path / "out")
    problems = [problem for _, _, problem in restore.restore_files(model, files)]
    assert [bool(problem) for problem in problems] == [False, True, False]
    assert "b.png" in problems[1]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.png", "c.jpg"]
    assert images.load_image(tmp_path / "out/a.png").shape == (20, 30, 3)


def test_the_input_is_never_overwritten(model, tmp_path):
    images.save_image(tmp_path / "a.png", picture(8, 8))
    before = (tmp_path / "a.png").read_bytes()
    files = restore.plan_files(tmp_path / "a.png", tmp_path)
    assert "would overwrite" in next(restore.restore_files(model, files))[2]
    assert (tmp_path / "a.png").read_bytes() == before


def test_one_file_to_a_file_or_into_a_folder(tmp_path):
    images.save_image(tmp_path / "a.png", picture(8, 8))
    assert restore.plan_files(tmp_path / "a.png", tmp_path / "b.jpg") == [(tmp_path / "a.png", tmp_path / "b.jpg")]
    assert restore.plan_files(tmp_path / "a.png", tmp_path / "out") == [(tmp_path / "a.png", tmp_path / "out/a.png")]


def test_what_is_missing_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(images.ImageError, match="no such file"):
        restore.plan_files(tmp_path / "none", tmp_path)
    with pytest.raises(images.ImageError, match="no images"):
        restore.plan_files(tmp_path / "empty", tmp_path)
    with pytest.raises(models.WeightsError, match="ttlkit reproduce --run mine"):
        restore.student_of(tmp_path / "mine")
    with pytest.raises(models.WeightsError, match="no \\*.pth or"):
        restore.find_peers([str(tmp_path / "empty")])


def test_an_ensemble_restores_like_any_other(tmp_path):
    config.seed_everything(0)
    teachers = [models.Recogniser(8), models.Restorer(16)]
    together = models.gather(teachers)
    assert models.checksum(together.backbones[1]) == models.checksum(teachers[1].backbone)
    again = restore.load_peer(models.save_weights(together, tmp_path / "all.safetensors"))
    image = picture(21, 35)
    assert np.array_equal(restore.restore(again, image), restore.restore(together.eval(), image))


def test_a_recogniser_does_not_restore(tmp_path):
    path = models.save_weights(models.Recogniser(8), tmp_path / "r.safetensors")
    with pytest.raises(models.WeightsError, match="Recogniser"):
        restore.load_restorer(path)
