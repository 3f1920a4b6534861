"""Two folders against each other: measured once, cached by content, tested, and written down."""

import json
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pytest
from matplotlib.figure import Figure

from ttlkit import cli, machine, rain
from ttlkit.data import image_files, pocket
from ttlkit.gap import explorer, features, page, plots, stats, study
from ttlkit.lesson import report
from ttlkit.lesson.exercises import EXERCISES
from ttlkit.lesson.exercises import gap as exercises
from ttlkit.method import networks, weights
from ttlkit.rain import scenes

REPO = Path(__file__).resolve().parents[1]


def some_rain(seed):
    return rain.photoshop(scenes.dead_leaves(seed, 96, 128), seed).rainy


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two folders of 12 images: rain-free scenes, and others in rain."""
    root = tmp_path_factory.mktemp("gap")
    for seed in range(12):
        image_files.save_image(root / f"dry/{seed}.png", scenes.dead_leaves(100 + seed, 96, 128))
        image_files.save_image(root / f"rainy/{seed}.png", some_rain(seed))
    return root


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TTLKIT_CACHE", str(tmp_path / "cache"))


def test_files_are_measured_as_images_are(folders):
    paths = image_files.list_images(folders / "rainy")
    found = study.measure_files(paths, "rainy")
    expected = features.measure(image_files.load_image(path) for path in paths)
    assert list(found.values) == list(features.NAMES)
    for name, values in expected.items():
        np.testing.assert_array_equal(found.values[name], values)
    assert not found.about_rain().keys() & set(features.CAMERA)


@pytest.mark.slow
def test_several_processes_measure_the_same(folders, monkeypatch):
    paths = 2 * image_files.list_images(folders / "rainy")  # enough for processes to be worth their start
    monkeypatch.setattr(machine, "cores", lambda: 1)
    alone = study.measure_files(paths)
    monkeypatch.setenv("TTLKIT_CACHE", "off")
    monkeypatch.setattr(machine, "cores", lambda: 2)
    monkeypatch.setattr(features, "measure_one", never)  # in this process
    together = study.measure_files(paths)
    for name in features.NAMES:
        np.testing.assert_array_equal(alone.values[name], together.values[name])


def never(image):
    raise AssertionError("measured again")


def test_what_was_measured_is_looked_up_by_content(folders, tmp_path, monkeypatch):
    before = study.measure_files(image_files.list_images(folders / "dry"))
    shutil.copytree(folders / "dry", tmp_path / "moved")
    (tmp_path / "moved/0.png").rename(tmp_path / "moved/renamed.png")
    with monkeypatch.context() as known:
        known.setattr(features, "measure_one", never)
        after = study.measure_files(image_files.list_images(tmp_path / "moved"))
        assert sorted(after.values["veil"]) == sorted(before.values["veil"])
        with pytest.raises(AssertionError, match="measured again"):
            study.measure_files(image_files.list_images(folders / "dry"), equalised=True)  # other pixels
    for entry in (path for path in (tmp_path / "cache").rglob("*") if path.is_file()):
        entry.write_bytes(entry.read_bytes()[:-5])  # damaged: measured again
    again = study.measure_files(image_files.list_images(folders / "dry"))
    np.testing.assert_array_equal(again.values["veil"], before.values["veil"])


def test_a_side_without_images_is_named_for_what_it_is(folders, tmp_path, capsys):
    file = folders / "dry/0.png"
    for path, words in ((tmp_path / "nope", "no such folder"), (file, "is no folder"), (tmp_path, "no images in this")):
        assert cli.main(["gap", str(path), str(folders / "dry")]) == 1
        assert capsys.readouterr().err.startswith(f"ttlkit: {path}: {words}")


def test_what_cannot_be_read_is_left_out_and_named(folders, tmp_path):
    shutil.copytree(folders / "dry", tmp_path / "some")
    (tmp_path / "some/3.png").write_bytes((folders / "dry/3.png").read_bytes()[:200])
    found = study.measure_files(image_files.list_images(tmp_path / "some"), "some")
    assert len(found.paths) == len(found.values["veil"]) == 11
    assert len(found.skipped) == 1 and "3.png" in found.skipped[0]
    with pytest.raises(study.GapError, match=r"broken: no image that can be read \(.*3\.png"):
        study.measure_files([tmp_path / "some/3.png"], "broken")


@pytest.mark.slow
def test_rain_is_found_between_folders_and_nothing_between_halves(folders):
    dry, rainy = (study.measure_files(image_files.list_images(folders / name), name) for name in ("dry", "rainy"))
    found = study.compare(rainy, dry, rounds=400)
    by_name = {row["feature"]: row for row in found["features"]}
    density = by_name["streak_density"]
    assert density["p_holm"] < 0.05 and density["cliffs_delta"] > 0.8 and density["wasserstein"] > density["null"]
    assert density["a_a"] < density["wasserstein"] and by_name["megapixels"]["wasserstein"] == 0
    assert all(row["p_value"] < 0.05 for row in found["overall"])
    said = study.verdict(found["features"], "rainy", "dry")
    assert f"density of streaks ({density['wasserstein']:.1f} σ)" in said
    halves = study.compare(dry.part("one", range(0, 12, 2)), dry.part("two", range(1, 12, 2)), rounds=400)
    assert min(row["p_holm"] for row in halves["features"]) > 0.05
    assert "differ in 0 of" in study.verdict(halves["features"], "one", "two")


def test_equalising_takes_away_what_belongs_to_the_files():
    scene = scenes.dead_leaves(5, 450, 600)
    files = [scene, image_files.recompress(image_files.resize(scene, 900, 1200), 20)]
    before, after = (features.measure(map(change, files)) for change in (lambda image: image, features.equalise))
    for name in ("blockiness", "noise"):
        gaps = [abs(found[name][0] - found[name][1]) for found in (before, after)]
        assert gaps[1] < 0.7 * gaps[0], name
    assert before["megapixels"][1] > 3 * before["megapixels"][0]
    assert after["megapixels"][1] == after["megapixels"][0]


def test_equalising_takes_away_what_is_written_on_the_margin():
    plain = scenes.dead_leaves(7, 240, 320)
    marked = plain.copy()
    marked[-20:, 200:310:3] = 1  # bright thin lines: streaks, to every feature
    marked[:20] = marked[:, :30] = 0  # a frame
    before, after = (
        [features.measure_one(change(image)) for image in (plain, marked)]
        for change in (lambda image: image, features.equalise)
    )
    assert before[0] != before[1] and after[0] == after[1]
    assert features.equalise(np.full((1, 1, 3), 0.5)).shape == (1, 1, 3)


def test_estimates_agree_with_known_streaks():
    drawn = [
        rain.photoshop(np.full((160, 200, 3), 0.3, np.float32), i, angle_deg=a) for i, a in enumerate(range(-20, 25, 5))
    ]
    rows = {r["feature"]: r for r in study.against_truth([d.rainy for d in drawn], [d.streaks for d in drawn])}
    direction = rows["direction of streaks"]
    assert direction["correlation"] > 0.98 and abs(direction["bias"]) < 2 and direction["n"] == 9
    assert rows["density of streaks"]["correlation"] > 0.8
    with pytest.raises(study.GapError, match="at least 3"):
        study.against_truth([drawn[0].rainy], [drawn[0].streaks])


@pytest.mark.slow
def test_the_command_prints_the_table_and_writes_the_report(folders, tmp_path, capsys):
    (tmp_path / "broken").mkdir()
    shutil.copytree(folders / "dry", tmp_path / "dry")
    (tmp_path / "dry/bad.png").write_bytes(b"no picture")
    out = tmp_path / "report"
    assert cli.main(["gap", str(folders / "rainy"), str(tmp_path / "dry"), "--out", str(out)]) == 0
    told = capsys.readouterr()
    assert "| density of streaks |" in told.out and "classifier AUC" in told.out and "differ in" in told.out
    assert "bad.png" in told.err
    page = (out / "gap.html").read_text()
    assert page.count("data:image/") >= 5 and "http" not in page.split("</style>")[1].replace("http://www.w3.org", "")
    tables = json.loads((out / "gap.json").read_text())
    assert len(tables["features"]) == len(features.FEATURES) and len(tables["skipped"]) == 1
    assert len((out / "values.csv").read_text().splitlines()) == 1 + 12 + 12
    assert cli.main(["gap", str(folders / "rainy"), str(tmp_path / "broken")]) == 1
    assert "no images" in capsys.readouterr().err


@pytest.mark.slow
def test_a_recognition_teacher_can_look_too(folders, tmp_path):
    import torch

    torch.manual_seed(0)
    teacher = weights.save_weights(networks.Recogniser(8), tmp_path / "teacher.safetensors")
    seen = [study.deep_features(image_files.list_images(folders / name), teacher) for name in ("dry", "rainy")]
    assert seen[0].shape == (12, 64) and np.isfinite(seen).all()
    rows = study.compare_deep(*seen)
    assert [row["test"] for row in rows] == ["MMD²", "Fréchet distance", "classifier AUC"]
    other = weights.save_weights(networks.Restorer(8), tmp_path / "restorer.safetensors")
    with pytest.raises(study.GapError, match="holds a Restorer"):
        study.deep_features([], other)


@pytest.mark.parametrize("blocked", ["gap.json", "values.csv", "figures/distances.png", "gap.html"])
def test_what_cannot_be_written_is_named_and_nothing_is_left_half_written(folders, tmp_path, monkeypatch, blocked):
    few = study.measure_files(image_files.list_images(folders / "dry")[:3])
    for name in ("plot_distances", "plot_distributions", "plot_feature"):  # each takes a second
        monkeypatch.setattr(plots, name, lambda *values: Figure())
    found = study.compare(few, few, rounds=5)
    page.write(tmp_path / "good", few, few, found)
    kept = json.loads((tmp_path / "good/gap.json").read_text(), parse_constant=pytest.fail)  # JSON knows no NaN
    assert kept["features"][0]["a_a"] is None and kept["features"][0]["wasserstein"] == 0
    (tmp_path / "bad" / blocked / "in the way").mkdir(parents=True)
    with pytest.raises(study.GapError, match=rf"{blocked}: cannot be written"):
        page.write(tmp_path / "bad", few, few, found)
    assert not list((tmp_path / "bad").rglob("*.part"))


def test_sets_too_small_for_tests_on_all_features_still_get_their_table(folders):
    few = study.measure_files(image_files.list_images(folders / "dry")[:4])
    found = study.compare(few, few, rounds=50)
    assert found["overall"] == [] and len(found["features"]) == len(features.FEATURES)
    assert len(few.paths) < stats.LEAST
    alone = study.compare(few.part("one", [0]), few.part("other", [1]), rounds=50)["features"]
    assert all(np.isfinite([row["wasserstein"], row["null"], row["p_holm"]]).all() for row in alone)
    assert all(np.isnan(row["a_a"]) and row["p_value"] == 1 for row in alone)  # of two orders, each is as far apart


def test_estimates_of_what_never_changes_have_no_correlation():
    grey = np.full((40, 40, 3), 0.5, np.float32)
    rows = study.against_truth([grey] * 3, [grey[..., 0]] * 3)
    assert all(row["correlation"] == row["bias"] == 0 for row in rows)


@pytest.mark.slow
def test_without_the_packages_of_the_report_the_page_is_markdown(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "MISSING", "nh3")
    a, b = (study.measure_files(sorted((folders / kind).iterdir()), kind) for kind in ("rainy", "dry"))
    out = page.write(tmp_path / "out", a, b, study.compare(a, b, rounds=20))
    assert out == tmp_path / "out/gap.md" and "## How to read it" in out.read_text()
    assert not (tmp_path / "out/gap.html").exists()


# ---- what the lesson shows ----------------------------------------------------------------------------------------


def test_maps_have_one_scale_and_a_bar_that_says_what_it_measures():
    assert {one.shown for one in features.FEATURES if one.shown} == set(plots.MAPS)
    dry = scenes.dead_leaves(3, 96, 128)
    seen = features.BY_NAME["streak_density"], features.BY_NAME["streak_contrast"]
    figure = plots.plot_feature({"dry": dry, "wet": rain.photoshop(dry, 3).rainy}, *seen)
    one, first, other, second, bar = figure.axes
    assert (one.get_title(), other.get_title()) == ("dry", "wet") and bar.get_ylabel() == plots.MAPS["crests"]
    assert first.images[0].get_clim() == second.images[0].get_clim()
    number = features.streak_density(features.prepare(dry))
    assert first.get_title().startswith(f"density of streaks: {number:.3g} /100 px\nheight of streaks: ")


def test_what_follows_a_knob_does_so_with_every_seed():
    rising = np.array([[0, 1, 2], [0, 0.1, 3]])
    assert [study.follows(v) for v in (rising, -rising, np.array([[0, 1, 2], [0, 1, 0.9]]))] == ["rises", "falls", "–"]
    curves = {"rate": ("mm/h", (1, 10, 100), {"veil": rising}), "angle": ("°", (-5, 0, 5), {"veil": rising / 100})}
    left, right = plots.plot_knobs(curves).axes
    assert left.get_ylim() == right.get_ylim(), "a small change must look small"
    assert list(left.lines[0].get_ydata()) == [0, 0.55, 2.5] and right.get_xlabel() == "angle [°]"


def test_the_exercise_measures_what_the_explorer_shows_and_its_sliders_reach_it():
    assert exercises.STEADY == explorer.STEADY
    assert exercises.veil(**EXERCISES["far-rain"].right()) == pytest.approx(exercises.VEIL, abs=0.002)
    shown = rain.physical(exercises.scene(), 0, **explorer.STEADY).rainy
    assert exercises.veil() == pytest.approx(features.veil(features.prepare(shown)), abs=1e-5)
    least, most = (explorer.RAIN_KNOBS["horizon_m"][side] for side in ("min", "max"))
    ends = [exercises.veil(horizon_m=value) for value in (least, most)]
    assert ends[0] < exercises.VEIL - 0.05 and ends[1] > exercises.VEIL + 0.05
    for cell in nbformat.read(REPO / "notebooks/01_gap_statistics.ipynb", 4).cells:
        if (line := cell.source.partition("\n")[0]).startswith("scene = "):
            scope = {"image_files": image_files, "pocket": pocket}
            exec(line, scope)  # noqa: S102 - our own cell
    np.testing.assert_array_equal(scope["scene"], exercises.scene())
