"""The released student: small, found without network, takes streaks away, leaves dry scenes and real rain no worse."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

from ttlkit import data, images, metrics, models, pocket, rain, restore


@pytest.fixture(scope="module")
def student():
    return restore.load_restorer(restore.RELEASED)


def psnr(restored, truth):
    return float(metrics.psnr(images.to_tensor(restored), images.to_tensor(truth)))


def test_it_is_small_and_says_what_it_is(student):
    assert restore.RELEASED.stat().st_size <= 4e6
    assert models.count_parameters(student) < 1e6
    with safe_open(restore.RELEASED, framework="pt") as file:
        header = json.loads(file.metadata()["ttlkit"])
    assert header["kind"] == "Restorer" and header["init"] == "student"
    assert (restore.RELEASED.parent / "README.md").is_file()


def test_it_leaves_a_dry_photograph_and_takes_streaks_away(student):
    photograph = pocket.bundled("coffee")[:320, :480]  # in no collection that it was trained on
    assert psnr(restore.restore(student, photograph), photograph) > 33  # the grain of its wood is hard
    gains = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        rainy = rain.lay(photograph, rain.streak_holes(photograph.shape[:2], rng), rng)
        gains.append(psnr(restore.restore(student, rainy), photograph) - psnr(rainy, photograph))
    assert np.mean(gains) > 3 and min(gains) > 2


@pytest.mark.slow
def test_no_test_set_gets_worse(student, shared_data):
    for test in data.open_collection(shared_data / "collection").tests:
        pairs = [data.load_pair(pair) for pair in test.spread(3)]
        gains = [psnr(restore.restore(student, rainy), clean) - psnr(rainy, clean) for rainy, clean in pairs]
        assert np.mean(gains) > 0, test.name


@pytest.mark.slow
def test_dry_photographs_stay_as_they_are(student, shared_data):
    dry = data.open_collection(shared_data / "collection").photographs(["clean"], kept_back=True)["clean"]
    loaded = [images.load_image_u8(path) for path in data.spread(dry, 8)]
    assert np.mean([psnr(restore.restore(student, image), image) for image in loaded]) > 40


def test_tiles_equal_the_whole(student):
    image = np.random.default_rng(0).random((97, 345, 3)).astype(np.float32)
    with torch.inference_mode():
        whole = restore.restore(student, image)
    assert np.abs(restore.restore(student, image, tile=32) - whole).max() < 1 / 255
