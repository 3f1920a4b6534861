"""Evaluation: a perfect restorer scores perfectly, the input is a row, differences are paired."""

import csv
import shutil
from itertools import product

import numpy as np
import pytest

from ttlkit.data import collections, image_files, pocket
from ttlkit.evaluate import scores


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    return collections.open_collection(pocket.build(tmp_path_factory.mktemp("made") / "pocket-10", 10))


def darker(image):
    return image_files.to_float(image) * 0.8


@pytest.fixture(scope="module")
def rows(collection):
    return scores.score({"input": scores.untouched, "darker": darker}, scores.cases(collection, 2))


def test_every_set_and_model_has_its_rows(rows, collection):
    assert {(r["set"], r["model"]) for r in rows} == {
        (name, m) for name in (*(t.name for t in collection.tests), "dry") for m in ("input", "darker")
    }
    kinds = {r["kind"]: set(r) - {"set", "kind", "image", "model"} for r in rows if r["model"] == "darker"}
    assert kinds["paired"] == {"psnr_rgb", "ssim_rgb", "psnr_y", "ssim_y"}
    assert kinds["masked"] == {"change_inside", "change_outside"}
    assert kinds["unpaired"] == {"change"}
    assert kinds["dry"] == {"psnr_dry"}


def test_dry_photographs_are_those_that_no_stage_trains_on(rows, collection):
    dry = {r["image"]: r["psnr_dry"] for r in rows if (r["set"], r["model"]) == ("dry", "input")}
    assert set(dry) <= {path.name for path in collection.clean[::5]}
    assert set(dry.values()) == {100.0}
    assert all(10 < r["psnr_dry"] < 30 for r in rows if (r["set"], r["model"]) == ("dry", "darker"))


def test_the_input_row_is_the_untouched_image(rows):
    for row in rows:
        if row["model"] == "input" and row["kind"] != "paired":
            assert max(row.get(k, 0) for k in ("change", "change_inside", "change_outside")) < 0.01


def test_truth_scores_perfectly(collection):
    test = next(t for t in collection.tests if t.name == "traced")
    clean = image_files.load_image_u8(test.pairs[0].truth)
    found = scores.score({"truth": lambda rainy: image_files.to_float(clean)}, [(test, test.pairs[0])])[0]
    assert found["psnr_rgb"] == 100
    assert found["ssim_y"] == pytest.approx(1)


def test_sets_to_choose_with_are_scored_apart_and_where_they_can_be_trusted(tmp_path):
    """What moved, and so is wrong in the clean image, is black in `valid`: it does not count."""
    built = pocket.build(tmp_path / "pocket-6", 6)
    shutil.rmtree(built / "val")
    (built / "val").mkdir()
    (built / "test/traced").rename(built / "val/moved")
    for path in image_files.list_images(built / "val/moved/rainy"):
        rainy = image_files.load_image(path)
        clean, valid = rainy.copy(), np.ones_like(rainy)
        clean[:20], valid[:20] = 1 - clean[:20], 0
        image_files.save_image(built / "val/moved/clean" / path.name, clean)
        image_files.save_image(built / "val/moved/valid" / path.name, valid)
    opened = collections.open_collection(built)
    assert [test.name for test in opened.val] == ["moved"] and "moved" not in {test.name for test in opened.tests}
    found = scores.score({"input": scores.untouched}, scores.cases(opened, 2, "val"))
    assert {row["set"] for row in found} == {"moved", "dry"}
    assert {row["psnr_rgb"] for row in found if row["set"] == "moved"} == {100}
    (built / "val/moved/valid" / path.name).unlink()
    with pytest.raises(collections.CollectionError, match=r"no partner of that name in .*valid"):
        collections.open_collection(built)


def test_a_restorer_that_gives_nan_is_named(collection):
    work = scores.cases(collection, 1)[:1]
    with pytest.raises(ValueError, match=rf"{work[0][1].rainy.name}: broken restores it to NaN"):
        scores.score({"broken": lambda rainy: image_files.to_float(rainy) * np.nan}, work)


def test_summary_is_the_mean_within_its_interval(rows):
    for row in scores.summarise(rows):
        members = [r for r in rows if (r["set"], r["model"]) == (row["set"], row["model"])]
        assert row["n"] == len(members) == 2
        for name in scores.metric_names(members):
            assert row[name] == pytest.approx(np.mean([m[name] for m in members]))
            assert row[f"{name}_low"] - 1e-9 <= row[name] <= row[f"{name}_high"] + 1e-9


def test_differences_are_paired_and_signed(rows):
    found = scores.differences(rows, "darker", "input")
    assert {row["set"] for row in found} == {"photoshop", "traced"}
    for row in found:
        own = [r for r in rows if r["set"] == row["set"]]
        mean = {m: np.mean([r["psnr_rgb"] for r in own if r["model"] == m]) for m in ("darker", "input")}
        assert row["difference"] == pytest.approx(mean["darker"] - mean["input"])
    assert scores.differences(rows, "input", "input")[0]["difference"] == 0


def test_a_collection_without_test_sets_is_named(collection):
    import dataclasses

    with pytest.raises(collections.CollectionError, match="no test sets"):
        scores.cases(dataclasses.replace(collection, tests=()), 2)


def test_pivot_and_csv_hold_every_row(rows, tmp_path):
    table = scores.pivot(scores.summarise(rows), "psnr_rgb")
    assert [row["model"] for row in table] == ["input", "darker"]
    assert set(table[0]) == {"model", "photoshop", "traced", "mean of sets"}
    both = [float(table[1][name].split()[0]) for name in ("photoshop", "traced")]
    assert float(table[1]["mean of sets"]) == pytest.approx(sum(both) / 2, abs=0.011)
    scores.save_rows(tmp_path / "a.csv", rows)
    with open(tmp_path / "a.csv") as file:
        assert len(list(csv.DictReader(file))) == len(rows)


def test_rows_survive_names_that_mean_something_to_csv_or_pandas(tmp_path):
    names = ("NA", "null", "1", "#a", 'quo"te, comma\nline', "$x$")
    common = {"kind": "paired", "image": "x.png", "psnr_rgb": 0.1 + 0.2}
    rows = [{"set": name, "model": name, **common} for name in names]
    scores.save_rows(tmp_path / "a.csv", rows)
    assert scores.load_rows(tmp_path / "a.csv") == rows
    assert [row["set"] for row in scores.summarise(rows)] == [row["set"] for row in rows]


def test_no_rows_give_empty_tables():
    assert scores.summarise([]) == scores.pivot([], "psnr_rgb") == scores.differences([], "a", "b") == []
    assert scores.over_seeds([]) == scores.gains_over_seeds([], "a", "b") == []


def over_two_seeds():
    """Two models, two sets, two seeds, ten and fifty pairs: `good` is 2 dB above `poor`, but level with it on b."""
    found = product(("poor", "good"), ("a", "b"), range(4), (0, 1), (10, 50))
    return [
        {"model": model, "set": name, "image": str(i), "seed": seed, "n_pairs": n}
        | {"psnr_rgb": 20 + i + 2 * (model == "good" and name == "a")}
        for model, name, i, seed, n in found
    ]


def test_verdicts_follow_from_the_intervals():
    rows = over_two_seeds()
    for row in rows:  # on b the two change places from image to image
        if row["set"] == "b":
            row["psnr_rgb"] += (row["model"] == "good") * (-1) ** int(row["image"])
    first, second = scores.verdicts(scores.gains_over_seeds(rows, "good", "poor"))
    ahead, undecided = first.split("; ")
    assert ahead == "With 10 pairs, good is ahead of poor on a (+2.00 dB [+2.00, +2.00])"
    assert undecided.startswith("not surely different from poor on b (+0.00") and second.startswith(
        "With 50 pairs, good is ahead"
    )
    (back,) = scores.verdicts(scores.gains_over_seeds([r for r in rows if r["n_pairs"] == 10], "poor", "good"))
    assert "poor is behind good on a (-2.00" in back


@pytest.mark.parametrize(("low", "high", "said"), [(0.1, 2, "ahead of"), (-2, -0.1, "behind"), (-1, 2, "not surely")])
def test_a_verdict_is_computed_and_tells_the_rain_of_the_pairs_from_other_rain(low, high, said):
    gains = [
        {
            "set": name,
            "model": "student",
            "against": "scratch",
            "difference": (low + high) / 2,
            "low": low,
            "high": high,
        }
        for name in ("of the pairs", "b", "c")
    ]
    (sentence,) = scores.verdicts(gains, {"of the pairs"})
    assert sentence.startswith(f"The transferred student is {said}") and sentence.endswith("the pairs' own rain.")
    other, own = sentence.split("; ")
    assert other.endswith("rain that no pair shows") and " b (" in other and " c (" in other and "of the pairs (" in own
    assert "pairs'" not in scores.verdicts(gains)[0]
    gains[0] |= {"low": -1.0, "high": 1.0}
    assert "not surely different from scratch on of the pairs" in scores.verdicts(gains, {"of the pairs"})[0]


def test_every_metric_has_its_words_and_the_input_no_row_where_it_is_compared_with_itself(rows):
    measured = scores.metric_names(rows)
    assert set(measured) == set(scores.METRICS)
    for metric in measured:
        named = {row["model"] for row in scores.pivot(scores.summarise(rows), metric)}
        assert named == ({"darker"} if metric in scores.AGAINST_INPUT else {"input", "darker"}), metric
    zero = {m: {r[m] for r in rows if r["model"] == "input" and m in r} for m in scores.AGAINST_INPUT}
    assert zero == {"psnr_dry": {100.0}, "change_inside": {0.0}, "change_outside": {0.0}, "change": {0.0}}


def test_the_best_is_that_of_the_mean_of_sets():
    rows = over_two_seeds()
    assert scores.best(rows, ["poor", "good"]) == "good" and scores.best(rows, ["poor"]) == "poor"
    elsewhere = [{**row, "n_pairs": 200, "psnr_rgb": 90.0} for row in rows if row["model"] == "poor"]
    assert scores.best(rows + elsewhere, ["poor", "good"]) == "good"  # who has a run alone does not win by it
    with pytest.raises(collections.CollectionError, match="poor, none: no run and set"):
        scores.best(rows, ["poor", "none"])


def test_a_table_for_each_number_of_pairs():
    tables = scores.by_pairs(scores.over_seeds(over_two_seeds()))
    assert list(tables) == [10, 50]
    assert tables[10][1] == {
        "row": "good", "a": "23.50 ± 0.00", "b": "21.50 ± 0.00", scores.MEAN: "22.50 ± 0.00", "seeds": 2
    }  # fmt: skip
