"""Collections: layout, pairing, splits; samples are pure functions of their number."""

import numpy as np
import pytest

from ttlkit import data, images
from ttlkit import pocket as pocket_module
from ttlkit.data import CollectionError


@pytest.fixture(scope="module")
def pocket(tmp_path_factory):
    return pocket_module.build(tmp_path_factory.mktemp("made") / "pocket-6", 6)


def test_pocket_has_every_kind_of_set_and_says_that_it_is_simulated(pocket):
    found = data.open_collection(pocket)
    assert (len(found.rainy), len(found.clean), len(found.pairs)) == (6, 6, 6)
    assert {test.kind for test in found.tests} == {"paired", "masked", "unpaired"}
    assert found.simulated
    assert "SIMULATED" in found.label


def test_pocket_is_the_same_every_time(pocket, tmp_path):
    again = pocket_module.build(tmp_path / "pocket-6", 6)
    files = sorted(p.relative_to(pocket) for p in pocket.rglob("*.*"))
    assert files == sorted(p.relative_to(again) for p in again.rglob("*.*"))
    assert all((pocket / f).read_bytes() == (again / f).read_bytes() for f in files)


def test_pocket_rain_is_in_the_pairs(pocket):
    for pair in data.open_collection(pocket).pairs:
        rainy, clean = data.load_pair(pair)
        assert 0.5 < np.abs(rainy.astype(float) - clean).mean() < 80


def test_a_half_built_pocket_is_never_left(tmp_path, monkeypatch):
    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(images, "save_image", fail)
    with pytest.raises(CollectionError, match="No space left"):
        data.open_collection(tmp_path / "pocket-6", 6)
    assert list(tmp_path.iterdir()) == []


def fill(folder, *names, size=(20, 24)):
    for name in names:
        images.save_image(folder / name, np.full((*size, 3), 0.5, np.float32))


@pytest.fixture
def own(tmp_path):
    fill(tmp_path / "real/rainy", "a.png", "b.png")
    fill(tmp_path / "real/clean", "a.png", "b.png")
    fill(tmp_path / "synthetic/set/rainy", "1.jpg", "2.png")
    fill(tmp_path / "synthetic/set/clean", "1.png", "2.png")
    return tmp_path


def test_pairs_match_by_name_whatever_the_format(own):
    assert [p.rainy.stem for p in data.open_collection(own).pairs] == ["1", "2"]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda root: (root / "synthetic/set/clean/2.png").unlink(), ["2.png", "no partner"]),
        (lambda root: (root / "real/rainy/a.png").unlink(), ["real/rainy", "1 images"]),
        (lambda root: fill(root / "synthetic/set/rainy", "2.jpg"), ["same name"]),
        (lambda root: (root / "test/empty/rainy").mkdir(parents=True), ["test/empty/rainy", "no images"]),
    ],
)
def test_a_spoilt_collection_is_named_in_one_line(own, spoil, words):
    spoil(own)
    with pytest.raises(CollectionError) as caught:
        data.open_collection(own)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_missing_and_empty_collections(tmp_path):
    with pytest.raises(CollectionError, match="no such collection"):
        data.open_collection(tmp_path / "nowhere")
    with pytest.raises(CollectionError, match="0 images"):
        data.open_collection(tmp_path)


def test_pairs_of_unequal_size_are_refused(own):
    fill(own / "synthetic/set/clean", "2.png", size=(20, 25))
    with pytest.raises(CollectionError, match=r"24x20 and 25x20"):
        data.Pairs(data.open_collection(own).pairs, 16, 0)


def test_every_fifth_photograph_is_kept_back(pocket):
    found = data.open_collection(pocket)
    train, kept = found.photographs(["rainy"])["rainy"], found.photographs(["rainy"], kept_back=True)["rainy"]
    assert not set(train) & set(kept)
    assert len(train) + len(kept) == len(found.rainy)
    assert kept == list(found.rainy[::5])


def test_few_pairs_are_nested_and_keyed_by_seed(pocket):
    found = data.open_collection(pocket)
    assert found.few_pairs(4, 0)[:2] == found.few_pairs(2, 0)
    assert found.few_pairs(6, 0) != found.few_pairs(6, 1)
    with pytest.raises(CollectionError, match="n_pairs = 7"):
        found.few_pairs(7, 0)


def test_samples_depend_on_their_number_alone(pocket):
    found = data.open_collection(pocket)
    first = data.Photographs(found.photographs(), data.as_it_is, 32, 0)
    second = data.Photographs(found.photographs(), data.as_it_is, 32, 0)
    for n in (5, 2, 9):
        assert np.array_equal(first[n]["image"], second[n]["image"])
    other = data.Photographs(found.photographs(), data.as_it_is, 32, 1)
    assert not np.array_equal(first[5]["image"], other[5]["image"])
    assert first[0]["image"].shape == (3, 32, 32)


def test_an_epoch_shows_every_item_once():
    for epoch in range(3):
        assert sorted(data.keyed_index(0, epoch * 7 + i, 7) for i in range(7)) == list(range(7))


def test_crops_of_a_pair_are_aligned(own, rng=np.random.default_rng(0)):  # noqa: B008
    picture = rng.random((40, 50, 3)).astype(np.float32)
    for name in ("rainy", "clean"):
        images.save_image(own / f"synthetic/set/{name}/1.png", picture)
    (own / "synthetic/set/rainy/1.jpg").unlink()
    crops = data.Pairs([p for p in data.open_collection(own).pairs if p.rainy.stem == "1"], 16, 0)
    for n in range(5):
        assert np.array_equal(crops[n]["rainy"], crops[n]["clean"])
    assert not np.array_equal(crops[0]["rainy"], crops[1]["rainy"])


def test_images_smaller_than_a_crop_are_mirrored_outwards(own):
    fill(own / "real/rainy", "tiny.png", size=(1, 1))
    found = data.open_collection(own)
    crops = data.Photographs({"rainy": found.rainy}, data.as_it_is, 16, 0)
    assert all(crops[n]["image"].shape == (3, 16, 16) for n in range(4))


def test_real_collection_opens(shared_data):
    found = data.open_collection(shared_data / "collection")
    assert not found.simulated
    assert (len(found.rainy), len(found.clean), len(found.pairs)) == (194, 79, 200)
    assert {test.name for test in found.tests} >= {"rain100l", "yard"}
