"""Collections: layout, pairing, splits; samples are pure functions of their number."""

import multiprocessing
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ttlkit.data import collections, image_files, pocket, samples
from ttlkit.data.collections import CollectionError


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("TTLKIT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return pocket.build(tmp_path_factory.mktemp("made") / "pocket-6", 6)


def test_pocket_has_every_kind_of_set_and_says_that_it_is_simulated(built):
    found = collections.open_collection(built)
    assert (len(found.rainy), len(found.clean), len(found.pairs)) == (6, 6, 6)
    assert {test.kind for test in found.tests} == {"paired", "masked", "unpaired"}
    assert found.simulated
    assert "SIMULATED" in found.label


def test_pocket_is_the_same_every_time(built, tmp_path):
    again = pocket.build(tmp_path / "pocket-6", 6)
    files = sorted(p.relative_to(built) for p in built.rglob("*.*"))
    assert files == sorted(p.relative_to(again) for p in again.rglob("*.*"))
    assert all((built / f).read_bytes() == (again / f).read_bytes() for f in files)


def test_pocket_rain_is_in_the_pairs(built):
    for pair in collections.open_collection(built).pairs:
        rainy, clean = collections.load_pair(pair)
        assert 0.5 < np.abs(rainy.astype(float) - clean).mean() < 80


def test_a_half_built_pocket_is_never_left(tmp_path, monkeypatch):
    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(CollectionError, match="No space left"):
        collections.open_collection(tmp_path / "pocket-2", 2)
    assert list(tmp_path.iterdir()) == []


def fill(folder, *names, size=(20, 24)):
    for name in names:
        image_files.save_image(folder / name, np.full((*size, 3), 0.5, np.float32))


@pytest.fixture
def own(tmp_path):
    fill(tmp_path / "real/rainy", "a.png", "b.png")
    fill(tmp_path / "real/clean", "a.png", "b.png")
    fill(tmp_path / "synthetic/set/rainy", "1.jpg", "2.png")
    fill(tmp_path / "synthetic/set/clean", "1.png", "2.png")
    return tmp_path


def test_pairs_match_by_name_whatever_the_format(own):
    assert [p.rainy.stem for p in collections.open_collection(own).pairs] == ["1", "2"]


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
        collections.open_collection(own)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_missing_and_empty_collections(tmp_path):
    with pytest.raises(CollectionError, match="no such collection"):
        collections.open_collection(tmp_path / "nowhere")
    with pytest.raises(CollectionError, match="0 images"):
        collections.open_collection(tmp_path)


def test_pairs_of_unequal_size_are_refused(own):
    fill(own / "synthetic/set/clean", "2.png", size=(20, 25))
    with pytest.raises(CollectionError, match=r"24x20 and 25x20"):
        samples.Pairs(collections.open_collection(own).pairs, 16, 0)


def test_every_fifth_photograph_is_held_out(built):
    found = collections.open_collection(built)
    train, held_out = found.real("rainy"), found.real("rainy", held_out=True)
    assert not set(train) & set(held_out)
    assert len(train) + len(held_out) == len(found.rainy)
    assert held_out == list(found.rainy[::5])
    assert found.real("clean") == [path for i, path in enumerate(found.clean) if i % 5]


def test_few_pairs_are_nested_and_keyed_by_seed(built):
    found = collections.open_collection(built)
    assert found.few_pairs(4, 0)[:2] == found.few_pairs(2, 0)
    assert found.few_pairs(6, 0) != found.few_pairs(6, 1)
    with pytest.raises(CollectionError, match="n_pairs = 7"):
        found.few_pairs(7, 0)


def photographs_of(collection):
    return {kind: collection.real(kind) for kind in ("rainy", "clean")}


def test_samples_depend_on_their_number_alone(built):
    found = collections.open_collection(built)
    first = samples.Photographs(photographs_of(found), samples.as_it_is, 32, 0)
    second = samples.Photographs(photographs_of(found), samples.as_it_is, 32, 0)
    for n in (5, 2, 9):
        assert np.array_equal(first[n]["image"], second[n]["image"])
    other = samples.Photographs(photographs_of(found), samples.as_it_is, 32, 1)
    assert not np.array_equal(first[5]["image"], other[5]["image"])
    assert first[0]["image"].shape == (3, 32, 32)


def test_an_epoch_shows_every_item_once():
    for epoch in range(3):
        assert sorted(samples.keyed_index(0, epoch * 7 + i, 7) for i in range(7)) == list(range(7))


def test_crops_of_a_pair_are_aligned(own, rng=np.random.default_rng(0)):  # noqa: B008
    picture = rng.random((40, 50, 3)).astype(np.float32)
    for name in ("rainy", "clean"):
        image_files.save_image(own / f"synthetic/set/{name}/1.png", picture)
    (own / "synthetic/set/rainy/1.jpg").unlink()
    crops = samples.Pairs([p for p in collections.open_collection(own).pairs if p.rainy.stem == "1"], 16, 0)
    for n in range(5):
        assert np.array_equal(crops[n]["rainy"], crops[n]["clean"])
    assert not np.array_equal(crops[0]["rainy"], crops[1]["rainy"])


def test_images_smaller_than_a_crop_are_mirrored_outwards(own):
    fill(own / "real/rainy", "tiny.png", size=(1, 1))
    found = collections.open_collection(own)
    crops = samples.Photographs({"rainy": found.rainy}, samples.as_it_is, 16, 0)
    assert all(crops[n]["image"].shape == (3, 16, 16) for n in range(4))


def plain_photograph(paths_by_label, patch, seed, n, long_side=480):
    """Sample n of `Photographs` as the documentation has it, from files decoded on the spot."""
    labels = list(paths_by_label)
    rng = np.random.default_rng([seed, n, 1])
    paths = paths_by_label[labels[n % len(labels)]]
    epoch, place = divmod(n // len(labels), len(paths))
    picture = image_files.load_image_u8(paths[np.random.default_rng([seed, epoch, 7]).permutation(len(paths))[place]])
    edge = round(0.02 * min(picture.shape[:2]))
    picture = picture[edge : picture.shape[0] - edge, edge : picture.shape[1] - edge]
    scale = long_side / max(picture.shape[:2])
    if scale < 1:
        size = [max(1, round(side * scale)) for side in picture.shape[:2]]
        picture = image_files.to_u8(image_files.resize(picture, *size))
    lacking = [max(0, patch - side) for side in picture.shape[:2]]
    picture = np.pad(picture, [(0, lacking[0]), (0, lacking[1]), (0, 0)], mode="symmetric")
    side = min(round(patch / rng.uniform(0.5, 1)), *picture.shape[:2])
    top, left = (rng.integers(length - side + 1) for length in picture.shape[:2])
    crop = image_files.to_float(picture[top : top + side, left : left + side])
    crop = crop[:, ::-1] if rng.random() < 0.5 else crop
    return (crop if side == patch else image_files.resize(crop, patch, patch)).transpose(2, 0, 1)


def plain_pair(pairs, patch, seed, n):
    """Sample n of `Pairs`, from files decoded on the spot."""
    rng = np.random.default_rng([seed, n, 2])
    epoch, place = divmod(n, len(pairs))
    pair = pairs[np.random.default_rng([seed, epoch, 7]).permutation(len(pairs))[place]]
    both = [image_files.load_image(path) for path in (pair.rainy, pair.truth)]
    lacking = [max(0, patch - side) for side in both[0].shape[:2]]
    both = [np.pad(image, [(0, lacking[0]), (0, lacking[1]), (0, 0)], mode="symmetric") for image in both]
    top, left = (rng.integers(length - patch + 1) for length in both[0].shape[:2])
    crops = [image[top : top + patch, left : left + patch] for image in both]
    if rng.random() < 0.5:
        crops = [crop[:, ::-1] for crop in crops]
    return [crop.transpose(2, 0, 1) for crop in crops]


@pytest.mark.parametrize("where", ["off", "cold", "warm"])
def test_samples_are_those_of_plain_decoding_bit_for_bit(built, tmp_path, monkeypatch, where):
    monkeypatch.setenv("TTLKIT_CACHE", "off" if where == "off" else str(tmp_path / "cache"))
    found = collections.open_collection(built)
    shelves = photographs_of(found)
    for long_side in (480, 100):
        for _ in range(2 if where == "warm" else 1):
            photographs = samples.Photographs(shelves, samples.as_it_is, 48, 3, long_side=long_side)
            pairs = samples.Pairs(found.pairs, 48, 3)
        for n in (0, 1, 7, 30):
            expected = plain_photograph(shelves, 48, 3, n, long_side)
            assert np.array_equal(photographs[n]["image"], expected)
            rainy, clean = plain_pair(found.pairs, 48, 3, n)
            assert np.array_equal(pairs[n]["rainy"], rainy) and np.array_equal(pairs[n]["clean"], clean)
            assert photographs[n]["image"].flags.writeable and pairs[n]["rainy"].flags.writeable


@pytest.mark.parametrize("times", [1, 2])
def test_unreadable_and_unequal_files_are_named_with_a_warm_cache_too(own, times):
    pairs = collections.open_collection(own).pairs
    samples.Pairs(pairs, 16, 0)
    fill(own / "synthetic/set/clean", "2.png", size=(20, 25))
    for _ in range(times):
        with pytest.raises(CollectionError, match=r"rainy/2\.png and .*clean/2\.png: sizes differ .24x20 and 25x20"):
            samples.Pairs(pairs, 16, 0)
    (own / "synthetic/set/clean/1.png").write_bytes(b"no image")
    with pytest.raises(image_files.ImageError, match=r"clean/1\.png: not an image"):
        samples.Pairs(pairs, 16, 0)
    (own / "real/rainy/b.png").unlink()
    with pytest.raises(image_files.ImageError, match=r"rainy/b\.png: no such file"):
        samples.Photographs({"rainy": [own / "real/rainy/b.png"]}, samples.as_it_is, 16, 0)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(height=st.integers(1, 40), width=st.integers(1, 40), long_side=st.sampled_from([8, 480]), n=st.integers(0, 50))
def test_images_of_any_size_give_whole_crops(tmp_path, height, width, long_side, n):
    picture = np.random.default_rng(n).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image_files.save_image(tmp_path / "a.png", picture)
    shelf = {"rainy": [tmp_path / "a.png"]}
    crop = samples.Photographs(shelf, samples.as_it_is, 36, 0, long_side=long_side)[n]["image"]
    assert np.array_equal(crop, plain_photograph(shelf, 36, 0, n, long_side))
    pair = collections.Pair(tmp_path / "a.png", tmp_path / "a.png")
    sample = samples.Pairs([pair], 36, 0)[n]
    assert sample["rainy"].shape == (3, 36, 36)
    assert np.array_equal(sample["rainy"], sample["clean"])
    assert set(image_files.to_u8(sample["rainy"]).ravel()) <= set(picture.ravel())


@pytest.mark.parametrize("size", [(1, 1), (1, 1000), (1000, 1)])
def test_a_single_row_or_pixel_is_mirrored_many_times_over(tmp_path, size):
    fill(tmp_path, "a.png", size=size)
    crop = samples.Photographs({"rainy": [tmp_path / "a.png"]}, samples.as_it_is, 128, 0)[0]["image"]
    assert crop.shape == (3, 128, 128)
    np.testing.assert_allclose(crop, 128 / 255, atol=1e-6)


def draw(drawn_from):
    return [drawn_from[n] for n in range(6)]


@pytest.mark.parametrize("cache", ["on", "off"])
def test_spawned_workers_draw_the_same_samples(built, tmp_path, monkeypatch, cache):
    monkeypatch.setenv("TTLKIT_CACHE", "off" if cache == "off" else str(tmp_path / "cache"))
    found = collections.open_collection(built)
    kinds = [samples.Photographs(photographs_of(found), samples.as_it_is, 32, 0), samples.Pairs(found.pairs, 32, 0)]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for kind, drawn in zip(kinds, pool.map(draw, kinds), strict=True):
            for here, there in zip(draw(kind), drawn, strict=True):
                assert all(np.array_equal(here[name], there[name]) for name in here)


def test_real_collection_opens(shared_data):
    found = collections.open_collection(shared_data / "collection")
    assert not found.simulated
    assert len(found.rainy) >= 194 and len(found.clean) >= 79 and len(found.pairs) >= 200, "it grows"
    assert {test.name for test in found.tests} >= {"rain100l", "yard"}
