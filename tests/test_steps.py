"""Steps: a guide keeps real photographs as they should be, is never trained, and the student copies its output."""

import numpy as np
import pytest
import torch

from ttlkit import rain
from ttlkit.data import collections, pocket, samples
from ttlkit.method import losses, networks, objectives, weights
from ttlkit.method.connected_tasks import TASKS


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    return collections.open_collection(pocket.build(tmp_path_factory.mktemp("made") / "pocket-6", 6))


def teacher(seed):
    torch.manual_seed(seed)
    model = networks.Restorer(8)
    torch.nn.init.normal_(model.head.weight, std=0.1)
    return weights.freeze(model)


def batch(size=4):
    values = torch.rand(3, size, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    rainy, clean, photograph = values
    return {"rainy": rainy, "clean": clean, "photograph": photograph, "dry": torch.tensor([1.0, 0.0] * (size // 2))}


def test_guidance_is_the_guides_output_on_rain_and_the_photograph_itself_where_it_is_dry():
    guide, student, seen = teacher(0), teacher(1), batch()
    loss, logs = objectives.restoration_step(guide, 0.5)(student, seen)
    with torch.no_grad():
        pairs = losses.restoration(student(seen["rainy"]), seen["clean"])
        dry = losses.restoration(student(seen["photograph"][:1]), seen["photograph"][:1])
        wet = losses.restoration(student(seen["photograph"][1:2]), guide(seen["photograph"][1:2]).clamp(0, 1))
    torch.testing.assert_close(logs["pairs"], pairs)
    torch.testing.assert_close(logs["photographs"], torch.cat([dry, wet]).mean())
    torch.testing.assert_close(loss, pairs + 0.5 * torch.cat([dry, wet]).mean())
    plain, _ = objectives.restoration_step()(student, {k: seen[k] for k in ("rainy", "clean")})
    torch.testing.assert_close(plain, pairs)


def test_a_guide_stays_as_it_was():
    guide, student = teacher(0), networks.Restorer(8)
    before, start = weights.checksum(guide), weights.checksum(student)
    optimizer = torch.optim.SGD(student.parameters(), 0.1)
    objectives.restoration_step(guide, 0.5)(student, batch())[0].mean().backward()
    distiller = networks.Distiller(student, {"streaks": guide})
    objectives.distillation_step({"streaks": guide}, guide)(distiller, {"image": batch()["rainy"]})[0].mean().backward()
    optimizer.step()
    assert weights.checksum(guide) == before and weights.checksum(student) != start


def test_a_student_that_is_the_guide_has_nothing_to_learn_from_its_output():
    guide = teacher(0)
    step = objectives.distillation_step({"streaks": guide}, guide)
    _, same = step(networks.Distiller(guide, {"streaks": guide}), {"image": batch()["rainy"]})
    _, other = step(networks.Distiller(networks.Restorer(8), {"streaks": guide}), {"image": batch()["rainy"]})
    assert float(same["restored"].max()) < 1.1e-3 < float(other["restored"].min())  # Charbonnier's floor is 1e-3


def test_a_share_of_the_samples_is_rendered_and_every_one_has_its_photograph(collection):
    pairs = samples.Pairs(collection.pairs, 32, 0)
    seen = samples.Photographs({kind: collection.real(kind) for kind in ("rainy", "clean")}, samples.as_it_is, 32, 0)
    drawn = samples.Photographs({"clean": collection.real("clean")}, TASKS["streaks"].sample, 32, 0)
    crops = samples.Guided(pairs, seen, drawn, 0.75)
    found = [crops[n] for n in range(80)]
    rendered = [np.array_equal(s["clean"], drawn[n]["target"]) for n, s in enumerate(found)]
    assert 0.6 < np.mean(rendered) < 0.9
    assert all(np.array_equal(s["clean"], pairs[n]["clean"]) for n, s in enumerate(found) if not rendered[n])
    assert [float(s["dry"]) for s in found[:4]] == [0, 1, 0, 1]  # half a batch holds both kinds
    assert set(samples.Guided(pairs, None, None, 0.0)[0]) == {"rainy", "clean"}


def test_layers_come_from_files_or_are_drawn(tmp_path):
    from ttlkit.data import image_files

    stripes = np.zeros((80, 90, 3), np.float32)
    stripes[:, ::6] = 1
    image_files.save_image(tmp_path / "a.png", stripes)
    files = samples.Layers([tmp_path / "a.png"])
    for layers in (files, samples.Layers()):
        found = layers(48, np.random.default_rng(0))
        assert found.shape == (48, 48) and found.dtype == np.float32
        assert 0 <= found.min() < 0.2 and 0.5 < found.max() <= 1
        assert np.array_equal(found, layers(48, np.random.default_rng(0)))
    assert not np.array_equal(files(48, np.random.default_rng(1)), files(48, np.random.default_rng(2)))


def test_laying_streaks_over_a_picture_adds_light_only_where_they_are():
    clean = np.full((16, 16, 3), 0.2, np.float32)
    layer = np.zeros((16, 16), np.float32)
    layer[:, 4] = 1
    for seed in range(20):
        rainy = rain.lay(clean, layer, np.random.default_rng(seed))
        assert np.array_equal(np.delete(rainy, 4, axis=1), np.delete(clean, 4, axis=1))
        assert (rainy[:, 4] > 0.25).all() and rainy.max() <= 1


def test_rain_in_places_is_a_mix_of_rain_and_none():
    clean, rainy = np.zeros((48, 64, 3), np.float32), np.ones((48, 64, 3), np.float32)
    shares = [rain.in_places(rainy, clean, np.random.default_rng(seed)) for seed in range(60)]
    assert all(s.dtype == np.float32 and s.shape == clean.shape and s.min() >= 0 and s.max() <= 1 for s in shares)
    assert np.mean([s.max() > s.min() for s in shares]) > 0.8  # not the same everywhere
    assert 0.3 < np.mean(shares) < 0.7
    assert max(np.abs(np.diff(s, axis=1)).max() for s in shares) < 0.3  # no edges
