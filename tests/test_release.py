"""The released student: small, found without network, takes streaks away, leaves dry scenes and real rain no worse."""

import json
import re

import numpy as np
import pytest
import torch
from safetensors import safe_open

from ttlkit import machine, rain
from ttlkit.apply import restore
from ttlkit.data import collections, image_files, pocket, tensors
from ttlkit.evaluate import metrics, scores
from ttlkit.method import networks, weights
from ttlkit.runs import code, released

RESULTS = code.notebook_path("").parent / "RESULTS.md"
MODELS = {  # the rows of the tables, by the names in scores.csv
    "input, untouched": scores.UNTOUCHED,
    "released student": "student",
    "released student-large": "student-large",
    **{f"PReNet, Rain{name} weights": f"prenet-rain{name.lower()}" for name in ("100H", "100L", "1400")},
}


@pytest.fixture(scope="module")
def student():
    return restore.load_restorer(restore.RELEASED)


def psnr(restored, truth):
    return float(metrics.psnr(tensors.to_tensor(restored), tensors.to_tensor(truth)))


def test_it_is_small_and_says_what_it_is(student):
    assert restore.RELEASED.stat().st_size <= 4e6
    assert networks.count_parameters(student) < 1e6
    with safe_open(restore.RELEASED, framework="pt") as file:
        header = json.loads(file.metadata()["ttlkit"])
    assert header["kind"] == "Restorer" and header["init"] == "student"
    assert (restore.RELEASED.parent / "README.md").is_file()


def test_the_other_weights_are_small_and_load():
    """Teachers and distilled student, as float16; the originals were compared when they were made, see the card."""
    folder = restore.RELEASED.parent
    assert sum(path.stat().st_size for path in folder.iterdir() if path != restore.LARGE) <= 12e6
    assert restore.LARGE.stat().st_size <= 12e6
    card = (folder / "README.md").read_text()
    for path in folder.glob("*.safetensors"):
        model = weights.load_weights(path)
        assert model.width == (24 if path == restore.LARGE else 16) and f"`{path.name}`" in card
        expected = networks.Recogniser if "recognition" in path.name else networks.Restorer
        assert type(model) is expected


def test_released_weights_go_by_their_names_unless_a_file_is_called_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "student").mkdir()  # the folder of a run, say
    assert restore.find_weights("student") == restore.RELEASED
    assert restore.find_weights("student-large") == restore.LARGE
    photograph = pocket.bundled("coffee")[:64, :64]
    large = restore.derain(photograph, weights="student-large")
    assert (large != restore.derain(photograph)).any()
    (tmp_path / "student-large").write_bytes(restore.RELEASED.read_bytes())
    assert (restore.derain(photograph, weights="student-large") == restore.derain(photograph)).all()
    with pytest.raises(weights.WeightsError, match="student-huge: no such weights"):
        restore.derain(photograph, weights="student-huge")


def test_half_precision_changes_less_than_a_level(student, tmp_path):
    half = weights.save_weights(weights.load_weights(restore.RELEASED), tmp_path / "a.safetensors", half=True)
    photograph = pocket.bundled("coffee")[:128, :160]
    restored = restore.restore(restore.load_restorer(half), photograph)
    assert np.abs(restored - restore.restore(student, photograph)).max() < 1 / 255


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
    for test in collections.open_collection(shared_data / "collection").tests:
        gains = []
        for pair in test.spread(3):
            (rainy, clean), where = collections.load_pair(pair), collections.load_valid(pair)
            restored = image_files.to_u8(restore.restore(student, rainy))
            before, after = (
                np.square(image / 255.0 - clean / 255.0)[... if where is None else where].mean()
                for image in (rainy, restored)
            )
            gains.append(10 * np.log10(before / after))
        assert np.mean(gains) > 0, test.name


@pytest.mark.slow
def test_dry_photographs_stay_as_they_are(student, shared_data):
    dry = collections.open_collection(shared_data / "collection").real("clean", held_out=True)
    loaded = [image_files.load_image_u8(path) for path in collections.spread(dry, 8)]
    assert np.mean([psnr(restore.restore(student, image), image) for image in loaded]) > 40


def test_tiles_equal_the_whole(student):
    image = np.random.default_rng(0).random((97, 345, 3)).astype(np.float32)
    with torch.inference_mode():
        whole = restore.restore(student, image)
    assert np.abs(restore.restore(student, image, tile=32) - whole).max() < 1 / 255


def released_scores():
    """ttlkit/weights/scores.csv: every row of the tables on every image."""
    return scores.load_rows(machine.WEIGHTS / "scores.csv")


@pytest.mark.slow
@pytest.mark.parametrize("path", [restore.RELEASED, restore.LARGE], ids=lambda path: path.stem)
def test_published_scores_are_what_a_student_scores(path, shared_data):
    collection = collections.open_collection(shared_data / "collection")
    published = {(row["set"], row["image"]): row for row in released_scores() if row["model"] == path.stem}
    model = restore.load_restorer(path)
    restorer = {path.stem: lambda image: restore.restore(model, image, precision="no")}
    for sets in scores.SETS:
        work = [case for case in scores.cases(collection, 2, sets) if case[0].kind != "dry"]  # large photographs
        for row in scores.score(restorer, work):
            expected = published[row["set"], row["image"]]
            assert row["psnr_rgb"] == pytest.approx(expected["psnr_rgb"], abs=0.05), row["image"]
            assert row["ssim_y"] == pytest.approx(expected["ssim_y"], abs=0.002), row["image"]


def test_the_tables_say_what_the_scores_say():
    """Tables of README, card and RESULTS that begin with a measure in code, on all images."""
    rows, found = released_scores(), 0
    for page in (machine.PACKAGE.parent / "README.md", machine.WEIGHTS / "README.md", RESULTS):
        for metric, head, body in re.findall(r"\| all images, `(\w+)` (\|.*)\n\|-.*\n((?:\|.*\n)+)", page.read_text()):
            names = [re.sub(r" \(.*\)", "", name.strip()) for name in head.strip("|\n").split("|")]
            summary = scores.summarise([row for row in rows if row["set"] in names])
            tables = [{row["model"]: row for row in scores.pivot(summary, m)} for m in (metric, "psnr_dry")]
            for line in body.splitlines():
                label, *values = (cell.strip(" *") for cell in line.strip("|").split("|"))
                if label.startswith("gain"):
                    continue
                for name, value in zip(names, values, strict=True):
                    table = tables[name == "dry"]
                    expected = table.get(MODELS[label], {}).get(name, "")
                    numbers = [[float(number) for number in cell.split("±") if number] for cell in (value, expected)]
                    assert numbers[0] == pytest.approx(numbers[1], abs=0.011), (page.name, metric, label, name)
                found += 1
    assert found >= 30


def test_the_tables_of_the_sweep_say_what_its_scores_say():
    """A row of RESULTS begins with its name, after the family in italics; each table follows its number of pairs."""
    text = RESULTS.read_text()
    section = text[text.index("## The claim, row by row") : text.index("## The claim in the first edition")]
    expected = scores.by_pairs(scores.over_seeds(scores.load_rows(released.SWEEP)))
    said = dict(zip(expected, re.findall(r"\| row \|(.*\n\|-.*\n(?:\|.*\n)+)", section), strict=True))
    for n_pairs, table in said.items():
        head, _, *lines = table.splitlines()
        sets = [name.strip() for name in head.split("|")[:-2]]
        rows = {row["row"]: row for row in expected[n_pairs]}
        shown = []
        for line in lines:
            label, *values = (cell.strip() for cell in line.strip("|").split("|"))
            name = re.sub(r"\*[^*]+:\* |\*\*", "", label).split(" (")[0]
            expect = [rows[name][set_name] for set_name in [*sets, scores.MEAN]]
            if name == scores.UNTOUCHED:
                expect = [value.split(" ±")[0] for value in expect]  # no seed changes it
            assert values == [*expect[:-1], expect[-1].split(" ±")[0]], (n_pairs, name)
            shown.append(name)
        assert set(shown) | {scores.UNTOUCHED} == set(rows), n_pairs
