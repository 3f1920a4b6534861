"""Leaks: planted copies are found however they were changed, and strangers are left alone."""

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.feature import match_descriptors

from ttlkit import rain
from ttlkit.data import image_files, leaks, pocket

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "motorcycle_left")
TEXTURES = ("brick", "grass", "gravel")


def crop(image, share, seed=0):
    height, width = (round(share * side) for side in image.shape[:2])
    rng = np.random.default_rng(seed)
    top, left = rng.integers(image.shape[0] - height + 1), rng.integers(image.shape[1] - width + 1)
    return image[top : top + height, left : left + width]


CHANGES = {
    "as it is": lambda x: x,
    "mirrored": lambda x: x[:, ::-1],
    "half the size": lambda x: image_files.resize(x, x.shape[0] // 2, x.shape[1] // 2),
    "a third of the size": lambda x: image_files.resize(x, x.shape[0] // 3, x.shape[1] // 3),
    "enlarged": lambda x: image_files.resize(x, x.shape[0] * 3 // 2, x.shape[1] * 3 // 2),
    "squeezed into a square": lambda x: image_files.resize(x, 256, 256),
    "cropped to 70 %": lambda x: crop(x, 0.7),
    "cropped to 50 %": lambda x: crop(x, 0.5),
    "recompressed": lambda x: image_files.recompress(x, 15),
    "darkened": lambda x: x * 0.4,
    "brightened": lambda x: np.clip(x * 1.6, 0, 1),
    "gamma": lambda x: x**2,
    "grey": lambda x: np.repeat(image_files.to_grey(x)[..., None], 3, axis=2),
    "in rain": lambda x: rain.photoshop(x, 3).rainy,
    "all at once": lambda x: image_files.recompress(image_files.resize(crop(x, 0.7)[:, ::-1] * 0.8, 256, 256), 40),
}


def described(image, name="candidate"):
    return leaks.scene(Path(name), np.ascontiguousarray(image, np.float32))


@pytest.fixture(scope="module")
def test_side():
    return [described(pocket.bundled(name), name) for name in (*PHOTOGRAPHS, *TEXTURES)]


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES, ids=list(CHANGES))
def test_a_planted_copy_is_found_and_nothing_else(change, test_side):
    for name in ("chelsea", "coffee"):
        candidate = described(CHANGES[change](pocket.bundled(name)))
        found = list(leaks.find_leaks([candidate], test_side))
        assert [leak.test.name for leak in found] == [name]
        assert ("mirrored" in found[0].evidence) == (change in ("mirrored", "all at once"))


@pytest.mark.slow
def test_strangers_are_left_alone(test_side):
    others = ("retina", "color", "hubble_deep_field", "ihc", "lily", "page", "text", "clock_motion", "moon", "camera")
    candidates = [described(pocket.scene(i)) for i in range(0, 12, 3)]  # dead leaves
    for name in others:
        try:
            candidates.append(described(pocket.bundled(name)))
        except FileNotFoundError:  # scikit-image downloads some of them
            continue
    assert len(candidates) >= 6
    assert list(leaks.find_leaks(candidates, test_side)) == []


def test_a_shared_watermark_does_not_make_strangers_one_scene():
    marked = []
    for name in ("coffee", "chelsea"):
        picture = pocket.bundled(name)[:300, :400].copy()
        picture[10:90, 10:130] = pocket.bundled("astronaut")[:80, 180:300]
        marked.append(described(picture, name))
    alone = match_descriptors(marked[0].descriptors, marked[1].descriptors, max_ratio=leaks.RATIO)
    assert len(alone) >= leaks.POINTS  # the mark alone has points enough
    assert list(leaks.find_leaks(marked[:1], marked[1:])) == []


def test_two_crops_of_one_texture_that_share_nothing_are_strangers():
    grass = pocket.bundled("grass")
    left, right = (described(half, "half") for half in (grass[:, :250], grass[:, 260:]))
    assert list(leaks.find_leaks([left], [right])) == []


def test_pictures_without_points_are_compared_as_thumbnails():
    blobs = [gaussian_filter(np.random.default_rng(i).random((300, 400)), 40) for i in range(4)]
    soft = [np.repeat(((b - b.min()) / np.ptp(b))[..., None], 3, axis=2) for b in blobs]
    scenes = [described(picture, str(i)) for i, picture in enumerate(soft)]
    again = described(image_files.resize(soft[1][:, ::-1] * 0.7, 150, 200))
    found = [(leak.test.name, leak.evidence) for leak in leaks.find_leaks([again], scenes)]
    assert found == [("1", "the same thumbnail, mirrored")]
    flat = described(np.full((100, 100, 3), 0.5))
    assert list(leaks.find_leaks([flat], [flat, *scenes])) == []  # says nothing about a scene


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (2, 3), (23, 23), (24, 2000), (40, 41)])
def test_any_size_can_be_described(shape):
    scene = described(np.random.default_rng(0).random((*shape, 3)))
    assert np.isfinite(scene.descriptors).all() and np.isfinite(scene.thumbnail).all()
    assert len(list(leaks.find_leaks([scene], [scene]))) <= 1


def test_no_test_scenes_no_leaks(test_side):
    assert list(leaks.find_leaks(test_side, [])) == []


def test_the_29_known_leaks_and_none_of_the_look_alikes(shared_data):
    with open(shared_data / "leaks/expected.csv") as file:
        expected = {row["file"]: row for row in csv.DictReader(file)}
    wanted = {Path(row["matches"]) for row in expected.values() if row["matches"]}
    folder = shared_data / "collection"
    strangers = [
        p for name in ("roadscene", "yard") for p in image_files.list_images(folder / f"test/{name}/clean")[::8]
    ]
    test = [leaks.scene(p, image_files.load_image_u8(p)) for p in [*(folder / p for p in sorted(wanted)), *strangers]]
    train = (leaks.scene(p, image_files.load_image_u8(p)) for p in image_files.list_images(shared_data / "leaks/clean"))
    found = list(leaks.find_leaks(train, test))
    assert {leak.train.name for leak in found} == {n for n, row in expected.items() if row["same_scene"] == "yes"}
    named = {(leak.train.name, str(leak.test.relative_to(folder))) for leak in found}
    assert named >= {(n, row["matches"]) for n, row in expected.items() if row["matches"]}
