"""Figures and tables show the data that they are given."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.text import Text

from ttlkit.data import image_files
from ttlkit.gap import plots
from ttlkit.lesson import drawings, figures
from ttlkit.method import networks
from ttlkit.method.starts import STARTS

ROOT = Path(__file__).resolve().parents[1]
RNG = np.random.default_rng(0)


def picture(height=12, width=20):
    return RNG.random((height, width, 3), dtype=np.float32)


# ---- figures


def test_grid_has_an_axes_a_cell_with_names_and_captions():
    cells = [
        [(picture(), "24.1 dB"), image_files.to_u8(picture()), None],
        [picture(), picture()[..., 0], picture()],
    ]
    figure = figures.plot_images(cells, ["rainy", "restored", "clean"], ["first", "second"], title="two")
    axes = figure.get_axes()
    assert len(axes) == 6
    assert [len(ax.images) for ax in axes] == [1, 1, 0, 1, 1, 1]
    assert [ax.get_title() for ax in axes[:3]] == ["rainy", "restored", "clean"]
    assert (axes[0].get_ylabel(), axes[3].get_ylabel(), axes[0].get_xlabel()) == (
        "first",
        "second",
        "24.1 dB",
    )
    np.testing.assert_array_equal(axes[0].images[0].get_array(), image_files.to_u8(cells[0][0][0]))
    with pytest.raises(ValueError, match="names do not fit"):
        figures.plot_images(cells, ["rainy", "restored"])


def test_history_draws_the_mean_over_the_raw_and_skips_what_is_missing():
    rows = [{"step": i, "loss": float(i % 2), "psnr": 20.0 if i % 50 == 0 else None} for i in range(200)]
    rows += [{"step": 0, "loss": math.nan, "psnr": 25.0}]  # a resumed run writes a step again
    loss, psnr = figures.plot_history(rows, ["loss", "psnr"]).get_axes()
    raw, mean = (line.get_ydata() for line in loss.lines)
    np.testing.assert_array_equal(raw, np.arange(200) % 2)
    np.testing.assert_allclose(mean[10:-10], 0.5)
    assert psnr.lines[0].get_xdata().tolist() == [0, 50, 100, 150]
    assert psnr.lines[0].get_ydata().tolist() == [25, 20, 20, 20]
    assert "no values" in figures.plot_history([], ["loss"]).get_axes()[0].texts[0].get_text()


def test_smoothing_keeps_a_constant_to_its_ends():
    flat = [{"step": step, "loss": 3.0} for step in range(140)]
    mean = figures.plot_history(flat, ["loss"]).get_axes()[0].lines[1].get_ydata()
    np.testing.assert_allclose(mean, np.full(140, 3.0))


def test_distributions_count_finite_values_and_mark_medians():
    values = {
        "real rainy": np.array([1.0, 2, 3, 4, 50, math.nan]),
        "clean": np.full(9, 2.0),
        "none": np.array([]),
    }
    ax = plots.plot_distributions(values, "contrast", "levels").get_axes()[0]
    assert [t.get_text() for t in ax.get_xticklabels()] == [
        "real rainy\nn = 5",
        "clean\nn = 9",
        "none\nn = 0",
    ]
    assert [t.get_text() for t in ax.texts] == ["3", "2"]
    assert ax.get_ylabel() == "contrast (levels)"
    assert [len(c.get_offsets()) for c in ax.collections if hasattr(c, "get_sizes") and len(c.get_sizes())] == [5, 9]


def test_scores_draw_interval_dot_and_reference_per_set():
    rows = [
        {"model": m, "set": s, "psnr": v, "psnr_low": v - 1, "psnr_high": v + 2}
        for s in ("a", "b")
        for m, v in (("input", 20.0), ("student", 28.0), ("scratch", 26.0))
    ]
    rows[-1]["psnr"] = None
    figure = figures.plot_scores(rows, "psnr")
    ax = figure.get_axes()[0]
    assert [line.get_ydata().tolist() for line in ax.lines] == [[28, 28], [26]]
    segments = [[s[:, 1].tolist() for s in c.get_segments()] for c in ax.collections]
    assert segments == [[[20, 20], [20, 20]], [[27, 30], [27, 30]], [[25, 28]]]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["input", "student", "scratch"]
    assert ax.lines[0].get_color() == figures.colours(["student"])["student"]


def test_distances_are_sorted_and_the_null_is_marked():
    rows = [
        {
            "feature": "a",
            "label": "A",
            "wasserstein": 0.2,
            "cliffs_delta": 0.5,
            "p_value": 0.0001,
            "null": 0.1,
        },
        {
            "feature": "b",
            "label": "B",
            "wasserstein": 0.9,
            "cliffs_delta": -0.25,
            "p_value": 0.2,
            "null": 0.05,
        },
    ]
    ax = plots.plot_distances(rows).get_axes()[0]
    assert [bar.get_width() for bar in ax.patches] == [0.2, 0.9]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["A", "B"]
    assert [c.get_segments()[0][0, 0] for c in ax.collections] == [0.1, 0.05]
    assert [t.get_text() for t in ax.texts] == ["δ = +0.50, p < 0.001", "δ = -0.25, p = 0.200"]


def test_a_name_keeps_its_colour_and_names_in_one_figure_differ():
    names = ["student", "scratch", "input", "odd one", "another", "third"]
    together = figures.colours(names)
    assert len(set(together.values())) == len(names)
    for name in ("student", "scratch", "input"):
        assert figures.colours([name, "other"])[name] == together[name]
    assert figures.colours(["real_rainy"])["real_rainy"] == figures.colours(["real rainy"])["real rainy"]


def test_a_figure_is_a_png_for_a_notebook_and_unknown_to_pyplot():
    import matplotlib.pyplot as plt

    figure = figures.plot_history([{"step": 1, "loss": 2.0}], ["loss"])
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert plt.get_fignums() == []


def words_of(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def test_several_trainings_stand_in_one_axes_each_with_the_first_key_that_it_has():
    guided = [{"step": n, "loss": 5.0, "pairs": 1.0} for n in (10, 20)]
    figure = figures.plot_curves({"student": guided, "scratch": [{"step": 10, "loss": 2.0}]}, ["pairs", "loss"], "here")
    (ax,) = figure.axes
    drawn = {line.get_label(): list(line.get_ydata()) for line in ax.lines if not line.get_label().startswith("_")}
    assert drawn == {"student": [1.0, 1.0], "scratch": [2.0]} and ax.get_ylabel() == "here"


@pytest.mark.parametrize(("width", "side"), [(8, 32), (24, 64)])
def test_the_drawn_network_has_the_shapes_of_the_network(width, side):
    backbone = networks.UNet(width)
    with torch.no_grad():
        shapes = [" × ".join(map(str, found.shape[1:])) for found in backbone(torch.zeros(1, 3, side, side))]
    words = words_of(drawings.plot_network(backbone, side, title="net"))
    for shape, place in zip(shapes, networks.LEVELS, strict=True):
        assert shape in words and place in words
    assert "one logit" in words_of(drawings.plot_network(backbone, side, "one logit"))


def test_the_starts_are_drawn_from_the_table():
    words = words_of(drawings.plot_starts(list(STARTS), "student", "streaks"))
    assert set(STARTS) <= set(words) and {start.way for start in STARTS.values() if start.way} <= set(words)
    few = words_of(drawings.plot_starts(["scratch", "deblur", "student"], "deblur", "streaks", ["blend"]))
    assert {"untrained", "teachers", "student", "few pairs", "the guide", "(blend)"} <= set(few)
    assert not {"all pairs", "real rain"} & set(few)  # no row there has them
    assert "the guide" not in words_of(drawings.plot_starts(["unguided"], "", "streaks"))


def test_features_are_drawn_on_one_scale():
    loud = torch.tensor([0.1, 9, 1])[:, None, None]
    features = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * loud
    values = features.numpy()
    assert np.array_equal(drawings.loudest(features), drawings.as_grey(values[0, 1], values[:, 1]))
    assert drawings.as_grey(np.full((2, 2), 3.0), np.array([1.0, 5.0])).tolist() == [[0.5, 0.5], [0.5, 0.5]]
    variance, mean = torch.var_mean(features, (0, 2, 3), correction=0, keepdim=True)
    standardised = (features - mean) / variance.sqrt()
    told, said = drawings.side_by_side(standardised, features)
    np.testing.assert_allclose(told, said, atol=1e-5)  # a perfect student looks like its teacher
    assert np.all(drawings.side_by_side(0 * features, features)[1] == 0.5)
    (line,) = drawings.plot_scales({"a": values}).axes[0].lines
    assert list(line.get_ydata()) == sorted(values.std(axis=(0, 2, 3)), reverse=True)


NAMES = ["$$", r"rain_$\foo$", "a$b", "$x$", r"\$"]


@pytest.mark.parametrize(
    "drawn",
    [
        lambda: figures.plot_images([[(picture(), n) for n in NAMES]], NAMES, NAMES[1:2], title=NAMES[1]),
        lambda: figures.plot_history([{"step": 1, "$x$": 2.0}], ["$x$", r"$\foo$"], NAMES[1]),
        lambda: figures.plot_scores(
            [{"set": n, "model": m, "psnr": 1.0} for n in NAMES[:3] for m in NAMES], "psnr", "$$"
        ),
        lambda: figures.plot_ablation(
            [{"set": n, "n_pairs": 1, "model": m, "mean": 1.0, "spread": None} for n in NAMES[:3] for m in NAMES], "$$"
        ),
        lambda: plots.plot_distributions({n: np.ones(3) for n in NAMES}, r"$\foo$"),
        lambda: plots.plot_relation(
            [{"x": 1, "y": 2, "model": n, "set": n} for n in NAMES], "x", "y", (NAMES[0], NAMES[1])
        ),
    ],
    ids=["images", "history", "scores", "ablation", "distributions", "relation"],
)
def test_names_with_dollars_are_drawn_as_written(drawn):
    """matplotlib reads $...$ as a formula: it refuses `$$` and unknown commands, and swallows the dollars of others."""
    figure = drawn()
    figure._repr_png_()
    assert not any(text.get_parse_math() for text in figure.findobj(Text) if "$" in text.get_text())


# ---- tables


def test_table_formats_numbers_and_escapes_text():
    rows = [{"m": "a|b<i>$x$", "v": np.float32(1.234), "n": 3}, {"m": "c", "v": math.nan, "n": None}]
    text = figures.markdown_table(rows, {"m": "Model", "v": "PSNR", "n": "N"}, digits=1)
    assert text.splitlines() == [
        "| Model | PSNR | N |",
        "| --- | ---: | ---: |",
        "| a&#124;b&lt;i&gt;&#36;x&#36; | 1.2 | 3 |",
        "| c | – | – |",
    ]
    page = figures.table(rows)._repr_html_()
    assert "a|b&lt;i&gt;$x$" in page and "<i>" not in page and page.count("<tr>") == 3


def test_the_best_of_a_column_is_bold_as_far_as_it_has_one():
    rows = [
        {"m": "9 <net>", "psnr": "22.69 ± 2.89", "change": 1.5, "same": 2, "note": "none"},
        {"m": "b", "psnr": "23.10 ± 0.10", "change": -0.5, "same": 2, "note": None},
        {"m": "c", "psnr": "–", "change": math.nan, "same": 2, "note": "none"},
    ]
    lines = figures.markdown_table(rows, best=max).splitlines()[2:]
    assert lines[0] == "| 9 &lt;net&gt; | 22.69 ± 2.89 | **1.50** | 2 | none |"
    assert lines[1:] == ["| b | **23.10 ± 0.10** | -0.50 | 2 | – |", "| c | – | – | 2 | none |"]
    page = figures.table(rows, best=min)._repr_html_()
    assert "<b>22.69 ± 2.89</b>" in page and "<b>-0.50</b>" in page and page.count("<b>") == 2
    assert "<b>" not in figures.table(rows)._repr_html_()


@pytest.mark.parametrize(("height", "width"), [(120, 150), (40, 200), (20, 30)])
def test_the_place_to_look_at_is_where_two_images_differ_most(height, width):
    one, other = np.zeros((2, height, width, 3), np.float32)
    other[10:15, width - 12 : width - 8] = 1
    place = figures.where_different(one, other, side=48)
    seen = other[place]
    assert seen.shape == (min(48, height), min(48, width), 3) and seen.sum() == other.sum()
