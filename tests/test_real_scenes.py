"""Real rain without ground truth: what closes the gap, what does not, and what is changed where."""

import numpy as np
import pytest
import torch

from ttlkit.data import collections, image_files, pocket
from ttlkit.evaluate import real_scenes, scores
from ttlkit.lesson import figures
from ttlkit.method.networks import Recogniser


def drawn(rng, count, shift=0.0):
    """Two features of so many photographs; rain moves both."""
    return {name: rng.normal(shift, 1, count) for name in ("a", "b")}


def closing(outputs, inputs=None, clean=120, seed=0):
    rng = np.random.default_rng(seed)
    inputs = inputs or drawn(rng, 60, 2.0)
    return {row["model"]: row for row in real_scenes.closing(inputs, outputs(inputs, rng), drawn(rng, clean), seed)}


def test_untouched_closes_nothing_and_rain_free_photographs_close_everything():
    found = closing(lambda inputs, rng: {"none": inputs, "all": drawn(rng, 60), "half": drawn(rng, 60, 1.0)})
    for name in ("input", "none"):
        assert [found[name][key] for key in ("closed", "closed_low", "closed_high")] == [0, 0, 0]
    assert found["all"]["closed"] == pytest.approx(1, abs=0.1)
    assert found["half"]["closed"] == pytest.approx(0.55, abs=0.1)  # of what lies between the input and the floor
    for name, truth in (("all", 1.0), ("half", 0.55)):
        assert found[name]["closed_low"] < truth < found[name]["closed_high"]
    floor = found[real_scenes.RAIN_FREE]
    assert floor["closed"] is None and floor["distance_low"] < floor["distance"] < floor["distance_high"]
    assert floor["distance"] == pytest.approx(found["all"]["distance"], abs=0.1)


def test_what_moves_away_is_below_zero_and_the_same_seed_gives_the_same():
    def worse(inputs, rng):
        return {"worse": {name: values + 1 for name, values in inputs.items()}}

    found = closing(worse)
    assert found["worse"]["closed_high"] < -0.2
    assert found == closing(worse)


def test_the_intervals_hold_what_other_photographs_say():
    found = [
        closing(lambda inputs, rng: {"half": {n: v - 1 for n, v in inputs.items()}}, seed=seed)["half"]
        for seed in range(25)
    ]
    usual = np.mean([row["closed"] for row in found])
    assert np.mean([row["closed_low"] <= usual <= row["closed_high"] for row in found]) >= 0.8


def test_where_there_is_no_gap_no_share_is_named():
    inputs = drawn(np.random.default_rng(1), 60)
    found = closing(lambda inputs, rng: {"some": drawn(rng, 60)}, inputs)
    assert found["some"]["closed"] is None and found["input"]["closed"] is None
    assert "no gap to close" in real_scenes.in_words(list(found.values()))[0]
    assert figures.plot_real_scenes(list(found.values())).axes


def test_too_few_photographs_are_named():
    with pytest.raises(ValueError, match="1 rainy and 3 rain-free photographs: at least 2 and 4"):
        real_scenes.closing({"a": np.ones(1)}, {}, {"a": np.ones(3)})


class Halves(Recogniser):
    """Sees rain in the left half of every picture."""

    def __init__(self):
        super().__init__(8)

    def rain_map(self, image):
        logits = torch.ones_like(image[:, :1])
        logits[..., image.shape[-1] // 2 :] = -1
        return logits


def right_half_darker(image):
    image = image_files.to_float(image).copy()
    image[:, image.shape[1] // 2 :] *= 0.5
    return image


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    made = collections.open_collection(pocket.build(tmp_path_factory.mktemp("made") / "pocket-10", 10))
    models = {scores.UNTOUCHED: scores.untouched, "right": right_half_darker, "blur": real_scenes.blurred}
    rows = real_scenes.measure(models, made.rainy[:4], Halves())
    return rows, real_scenes.summarise(rows, real_scenes.measure_rain_free(made.clean, 4)), made


def test_changes_are_told_apart_by_where_the_recogniser_sees_rain(measured):
    rows, summary, _ = measured
    assert len(rows) == 4 * 3 and all(name in rows[0] for name in real_scenes.ABOUT_RAIN)
    found = {row["model"]: row for row in summary}
    assert list(found) == [scores.UNTOUCHED, "right", "blur", real_scenes.RAIN_FREE]
    assert found["input"]["change_inside"] == found["input"]["change_outside"] == 0
    assert found["right"]["change_inside"] == 0 and found["right"]["change_outside"] > 10
    assert found["blur"]["change_inside"] > 0.1
    assert found["right"]["change_outside_low"] <= found["right"]["change_outside"]


def test_the_table_the_words_and_the_figure_hold_every_restorer(measured):
    _, summary, made = measured
    table = real_scenes.as_table(summary)
    assert [row["model"] for row in table] == [row["model"] for row in summary]
    assert "[" in table[1]["distance"] and table[-1]["closed"] is None
    assert [line.split(":")[0] for line in real_scenes.in_words(summary)] == ["right", "blur"]
    assert len(figures.plot_real_scenes(summary).axes) == 2
    without = real_scenes.measure({scores.UNTOUCHED: scores.untouched}, made.rainy[:2])
    assert "change_inside" not in without[0]


def test_large_photographs_are_scaled_first(tmp_path):
    image_files.save_image(tmp_path / "a.png", np.random.default_rng(0).random((20, 960, 3), dtype=np.float32))
    sizes = []
    real_scenes.measure({"input": lambda image: sizes.append(image.shape) or image}, [tmp_path / "a.png"])
    assert sizes == [(10, 480, 3)]
