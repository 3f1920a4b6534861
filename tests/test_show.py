"""show: what figures hold, tables, slider and upload, the live plot in a real kernel, the offline report."""

import base64
import datetime
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from ttlkit import show

ROOT = Path(__file__).resolve().parents[1]
RNG = np.random.default_rng(0)


def picture(height=12, width=20):
    return RNG.random((height, width, 3), dtype=np.float32)


# ---- figures


def test_grid_has_an_axes_a_cell_with_names_and_captions():
    cells = [
        [(picture(), "24.1 dB"), show.im.to_u8(picture()), None],
        [picture(), picture()[..., 0], picture()],
    ]
    figure = show.plot_images(cells, ["rainy", "restored", "clean"], ["first", "second"], title="two")
    axes = figure.get_axes()
    assert len(axes) == 6
    assert [len(ax.images) for ax in axes] == [1, 1, 0, 1, 1, 1]
    assert [ax.get_title() for ax in axes[:3]] == ["rainy", "restored", "clean"]
    assert (axes[0].get_ylabel(), axes[3].get_ylabel(), axes[0].get_xlabel()) == (
        "first",
        "second",
        "24.1 dB",
    )
    np.testing.assert_array_equal(axes[0].images[0].get_array(), show.im.to_u8(cells[0][0][0]))
    with pytest.raises(ValueError, match="names do not fit"):
        show.plot_images(cells, ["rainy", "restored"])


def test_zoom_repeats_exactly_the_marked_box():
    whole = picture(40, 60)
    ax = show.plot_images([[whole]], ["x"], zoom=(0.25, 0.5, 0.25, 0.25)).get_axes()[0]
    (inset,) = ax.child_axes
    np.testing.assert_array_equal(inset.images[0].get_array(), show.im.to_u8(whole)[10:20, 30:45])
    assert ax.patches[0].get_bbox().bounds == (29.5, 9.5, 15, 10)


def test_history_draws_the_mean_over_the_raw_and_skips_what_is_missing():
    rows = [{"step": i, "loss": float(i % 2), "psnr": 20.0 if i % 50 == 0 else None} for i in range(200)]
    rows += [{"step": 0, "loss": math.nan, "psnr": 25.0}]  # a resumed run writes a step again
    loss, psnr = show.plot_history(rows, ["loss", "psnr"]).get_axes()
    raw, mean = (line.get_ydata() for line in loss.lines)
    np.testing.assert_array_equal(raw, np.arange(200) % 2)
    np.testing.assert_allclose(mean[10:-10], 0.5)
    assert psnr.lines[0].get_xdata().tolist() == [0, 50, 100, 150]
    assert psnr.lines[0].get_ydata().tolist() == [25, 20, 20, 20]
    assert "no values" in show.plot_history([], ["loss"]).get_axes()[0].texts[0].get_text()


def test_smoothing_keeps_a_constant_to_its_ends():
    np.testing.assert_allclose(show.smooth(np.full(30, 3.0), 7), 3.0)


def test_distributions_count_finite_values_and_mark_medians():
    values = {
        "real rainy": np.array([1.0, 2, 3, 4, 50, math.nan]),
        "clean": np.full(9, 2.0),
        "none": np.array([]),
    }
    ax = show.plot_distributions(values, "contrast", "levels").get_axes()[0]
    assert [t.get_text() for t in ax.get_xticklabels()] == [
        "real rainy\nn = 5",
        "clean\nn = 9",
        "none\nn = 0",
    ]
    assert [t.get_text() for t in ax.texts] == ["3", "2"]
    assert ax.get_ylabel() == "contrast (levels)"
    assert [
        len(c.get_offsets()) for c in ax.collections if hasattr(c, "get_sizes") and len(c.get_sizes())
    ] == [5, 9]


def test_scores_draw_interval_dot_and_reference_per_set():
    rows = [
        {"model": m, "set": s, "psnr": v, "psnr_low": v - 1, "psnr_high": v + 2}
        for s in ("a", "b")
        for m, v in (("input", 20.0), ("student", 28.0), ("scratch", 26.0))
    ]
    rows[-1]["psnr"] = None
    figure = show.plot_scores(rows, "psnr")
    ax = figure.get_axes()[0]
    assert [float(line.get_ydata()[0]) for line in ax.lines] == [28, 26, 28]
    segments = [c.get_segments()[0] for c in ax.collections]
    assert [s[:, 1].tolist() for s in segments] == [[20, 20], [27, 30], [25, 28], [20, 20], [27, 30]]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["input", "student", "scratch"]
    assert ax.lines[0].get_color() == ax.lines[2].get_color() == show.colours(["student"])["student"]


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
    ax = show.plot_distances(rows).get_axes()[0]
    assert [bar.get_width() for bar in ax.patches] == [0.2, 0.9]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["A", "B"]
    assert [c.get_segments()[0][0, 0] for c in ax.collections] == [0.1, 0.05]
    assert [t.get_text() for t in ax.texts] == ["δ = +0.50, p < 0.001", "δ = -0.25, p = 0.200"]


def test_a_name_keeps_its_colour_and_names_in_one_figure_differ():
    names = ["student", "scratch", "input", "odd one", "another", "third"]
    together = show.colours(names)
    assert len(set(together.values())) == len(names)
    for name in ("student", "scratch", "input"):
        assert show.colours([name, "other"])[name] == together[name]
    assert show.colours(["real_rainy"])["real_rainy"] == show.colours(["real rainy"])["real rainy"]


def test_a_figure_is_a_png_for_a_notebook_and_unknown_to_pyplot():
    import matplotlib.pyplot as plt

    figure = show.plot_history([{"step": 1, "loss": 2.0}], ["loss"])
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert plt.get_fignums() == []


# ---- tables


def test_table_formats_numbers_and_escapes_text():
    rows = [{"m": "a|b<i>$x$", "v": np.float32(1.234), "n": 3}, {"m": "c", "v": math.nan, "n": None}]
    text = show.markdown_table(rows, {"m": "Model", "v": "PSNR", "n": "N"}, digits=1)
    assert text.splitlines() == [
        "| Model | PSNR | N |",
        "| --- | ---: | ---: |",
        "| a&#124;b&lt;i&gt;&#36;x&#36; | 1.2 | 3 |",
        "| c | – | – |",
    ]
    page = show.table(rows)._repr_html_()
    assert "a|b&lt;i&gt;$x$" in page and "<i>" not in page and page.count("<tr>") == 3


# ---- slider and upload


def test_split_view_puts_before_left_and_after_right():
    before, after = np.zeros((4, 10, 3), np.float32), np.full((4, 10, 3), 0.5, np.float32)
    assert (show.split_view(before, after, 0) == 128).all()
    assert (show.split_view(before, after, 1) == 0).all()
    half = show.split_view(before, after, 0.5)
    assert (half[:, :4] == 0).all() and (half[:, 4:6] == 255).all() and (half[:, 6:] == 128).all()
    with pytest.raises(ValueError, match="same size"):
        show.split_view(before, after[:, :5], 0.5)


def decoded(png: bytes) -> np.ndarray:
    return show.im.to_u8(show.decode_upload("view.png", png))


def test_slider_moves_the_divider():
    before, after = picture(), picture()
    note, image, slider = show.compare_slider(before, after).children
    assert slider.description and "before" in note.value
    np.testing.assert_array_equal(decoded(image.value), show.split_view(before, after, 0.5))
    slider.value = 1.0
    np.testing.assert_array_equal(decoded(image.value), show.im.to_u8(before))
    slider.value = 0.0
    np.testing.assert_array_equal(decoded(image.value), show.im.to_u8(after))


def test_slider_scales_a_large_picture_down_for_the_view():
    wide = np.zeros((20, 2 * show.VIEW_SIDE, 3), np.float32)
    assert decoded(show.compare_slider(wide, wide).children[1].value).shape == (10, show.VIEW_SIDE, 3)


def test_upload_is_read_in_both_shapes():
    seven = {"a.png": {"metadata": {"name": "a.png", "size": 2}, "content": b"xy"}}
    eight = ({"name": "a.png", "type": "image/png", "size": 2, "content": memoryview(b"xy")},)
    assert show.read_upload(seven) == show.read_upload(eight) == ("a.png", b"xy")
    assert show.read_upload({}) is None and show.read_upload(()) is None


def test_broken_upload_names_the_file_and_no_path():
    whole = show.png_bytes(show.im.to_u8(picture(64, 64)))
    for data in (b"", b"no picture", whole[: len(whole) // 2]):
        with pytest.raises(show.im.ImageError, match=r"^holiday\.png: ") as caught:
            show.decode_upload("holiday.png", data)
        assert "/" not in str(caught.value).replace("holiday.png", "")


def upload(box, name: str, data: bytes):
    when = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    entry = {"name": name, "type": "image/png", "size": len(data), "content": memoryview(data)}
    entry["last_modified"] = when
    box.children[0].set_trait("value", (entry,))


def test_upload_box_shows_the_restored_picture_or_says_what_is_wrong():
    rainy_u8 = show.im.to_u8(picture())
    box = show.upload_box(lambda image: 1 - image)
    chooser, message, result = box.children
    assert chooser.description

    upload(box, "rain & <b>.png", show.png_bytes(rainy_u8))
    assert "rain &amp; &lt;b&gt;.png" in message.value and "20 × 12" in message.value
    _, image, slider = result.children[0].children
    slider.value = 0.0
    np.testing.assert_array_equal(decoded(image.value), 255 - rainy_u8)

    upload(box, "bad.png", b"no picture")
    assert "Not usable" in message.value and "bad.png" in message.value and result.children == ()

    box = show.upload_box(lambda image: image[:5])
    upload(box, "odd.png", show.png_bytes(rainy_u8))
    assert "Restoring odd.png failed" in box.children[1].value and "same size" in box.children[1].value


# ---- live plot


def execute(*sources: str):
    notebook = new_notebook(cells=[new_code_cell(source) for source in sources])
    resources = {"metadata": {"path": str(ROOT)}}
    return NotebookClient(notebook, timeout=60, kernel_name="python3", resources=resources).execute()


def test_live_plot_leaves_one_picture_and_a_figure_shows_without_magic():
    notebook = execute(
        "import time\n"
        "from ttlkit.show import LivePlot, plot_history\n"
        "with LivePlot(title='student', every=0.05) as live:\n"
        "    for step in range(1, 31):\n"
        "        live({'step': step, 'steps': 30, 'loss': 1 / step, 'seconds_left': 30.0 - step})\n"
        "        time.sleep(0.02)\n"
        "live.close()",
        "plot_history([{'step': 1, 'loss': 1.0}], ['loss'])",
        "live.rows[-1]['step'], 'matplotlib.pyplot' in __import__('sys').modules",
    )
    live, figure, state = (cell.outputs for cell in notebook.cells)
    assert [sorted(o.data) for o in live] == [["image/png", "text/plain"]]
    assert [sorted(o.data) for o in figure] == [["image/png", "text/plain"]]
    assert live[0].data["image/png"] != figure[0].data["image/png"]
    assert state[0].data["text/plain"] == "(30, False)"


class Handle:
    def __init__(self, drawn):
        self.drawn = drawn

    def update(self, figure):
        self.drawn.append(figure)


def test_live_plot_waits_between_drawings_and_ends_with_the_last_row(monkeypatch):
    import IPython.display

    drawn, now = [], [0.0]
    monkeypatch.setattr(show, "in_notebook", lambda: True)
    monkeypatch.setattr(show.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(IPython.display, "display", lambda f, display_id: drawn.append(f) or Handle(drawn))
    with show.LivePlot() as live:
        for step in range(1, 101):
            now[0] += 0.1
            live({"step": step, "steps": 100, "loss": 1.0, "seconds_left": 200 - 2.0 * step})
    live.close()  # nothing more to draw
    assert len(drawn) in (5, 6)  # ten seconds, one drawing every two, one at the end
    assert drawn[0].get_suptitle() == "step 1/100, 3 min 18 s left"
    assert drawn[-1].get_suptitle() == "step 100/100"
    assert drawn[-1].get_axes()[0].lines[0].get_xdata()[-1] == 100
    assert drawn[-1] is not drawn[-2] and drawn[-2].get_suptitle() != "step 100/100"

    def slow(figure, display_id):
        drawn.append(figure)
        now[0] += 1.0  # a second to draw: the next one waits nineteen
        return Handle(drawn)

    monkeypatch.setattr(IPython.display, "display", slow)
    drawn.clear()
    live = show.LivePlot()
    for step in range(1, 19):
        live({"step": step, "steps": 100, "loss": 1.0})
        now[0] += 1.0
    assert len(drawn) == 1


def test_live_plot_is_silent_outside_a_notebook(capsys):
    with show.LivePlot() as live:
        live({"step": 1, "steps": 2, "loss": 1.0})
    assert capsys.readouterr() == ("", "") and live._handle is None


def test_duration_in_words():
    assert [show.duration(s) for s in (4.4, 59.6, 200, 7500)] == [
        "4 s",
        "1 min 00 s",
        "3 min 20 s",
        "2 h 05 min",
    ]


# ---- formulas and report


@pytest.mark.parametrize(
    "tex", [r"\frac{1}{N}\sum_i x_i", r"\begin{aligned}a&=b\\c&=d\end{aligned}", "x < y"]
)
def test_formula_becomes_mathml(tex):
    done = show.mathml(tex, display=True)
    assert done.startswith("<math") and 'display="block"' in done and "\\" not in done


@pytest.mark.parametrize("tex", [r"\frac{", r"\nosuchthing{x}", r"\text{<script>}", "a & b", ""])
def test_formula_that_cannot_be_converted_is_shown_as_written(tex):
    done = show.mathml(tex)
    assert done == f"<code>{show.html.escape(tex)}</code>"


def test_markdown_leaves_dollars_in_code_money_and_attributes_alone():
    page = show.markdown_html(
        "It costs $5 or `x$y$z` or $10 \\$3\n\n<b title='$q$'>bold</b>\n\n"
        "```\n$a$\n```\n\n    $indented$\n\n| a |\n|---|\n| $\\|x\\|$ |\n"
    )
    assert page.count("<math") == 1  # the one in the table
    for kept in (
        "costs $5 or",
        "<code>x$y$z</code>",
        "or $10 $3",
        ">bold</b>",
        'title="$q$"',
        "$a$",
        "$indented$",
    ):
        assert kept in page


class Page(HTMLParser):
    """Tags that stay open, ids, text, and every attribute that could load something."""

    VOID = {"meta", "img", "br", "hr", "input", "link"}

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.ids += [v for k, v in attrs if k == "id"]
        self.targets += [v or "" for k, v in attrs if k in show._LOADING]
        assert not [k for k, _ in attrs if k.startswith("on")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert tag in self.VOID or (self.open and self.open.pop() == tag), f"</{tag}> closes nothing"

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text += data


PNG = show.png_bytes(np.zeros((2, 3, 3), np.uint8))


def executed_notebook() -> nbformat.NotebookNode:
    widget = {
        "application/vnd.jupyter.widget-view+json": {"model_id": "m"},
        "text/plain": "FloatSlider(value=1)",
    }
    png = {"image/png": base64.b64encode(PNG).decode(), "text/plain": "<Picture size 4x3>"}
    evil = (
        '<style>@import "https://a.example/x.css"; .k {background: url(https://a.example/i.png)}</style>'
        '<img src="https://a.example/i.png" alt="gone"><script src="https://a.example/s.js"></script>'
        '<b onclick="go()" style="background:url(https://a.example/z)">kept</b>'
        '<!-- <script src="http://c"> -->'
    )
    outputs = [
        new_output("display_data", png),
        new_output("display_data", widget),
        new_output("display_data", {"text/html": evil}),
        new_output(
            "execute_result", {"text/latex": r"$\displaystyle z^2$", "text/plain": "z**2"}, execution_count=1
        ),
        new_output("stream", name="stdout", text="a < b & <script>alert(1)</script>\n"),
    ]
    notebook = new_notebook(
        cells=[
            new_markdown_cell(
                "# Stage <1> & loss $x_1$\n\n[![badge](https://c.example/b.svg)](https://c.example/open) "
                "[other](two.ipynb#x) [here](#Details) ![local](dot.png) ![kept](attachment:a.png)",
                attachments={"a.png": {"image/png": base64.b64encode(PNG).decode()}},
            ),
            new_code_cell("install_everything()", metadata={"tags": ["bootstrap"]}),
            new_code_cell("steps = 7", metadata={"tags": ["injected-parameters"]}),
            new_code_cell("print('<b>&amp;')", execution_count=1, outputs=outputs),
            new_markdown_cell("## Details\n\n$$\\sum_{k} R_k$$\n\n## Details\n\n$\\nosuchthing{x}$"),
        ]
    )
    notebook.metadata["widgets"] = {
        "application/vnd.jupyter.widget-state+json": {"state": {}, "version_major": 2}
    }
    return notebook


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("report")
    paths = [tmp_path / "a" / "notebook.ipynb", tmp_path / "b" / "two.ipynb"]
    notebook = executed_notebook()  # twice the same, as a stage that is run once a teacher
    for path in paths:
        path.parent.mkdir()
        (path.parent / "dot.png").write_bytes(PNG)
        nbformat.write(notebook, path)
    out = show.write_report(
        paths, tmp_path / "out" / "report.html", "Run <7> & more", "Intro with $y$.\n\n## Details"
    )
    assert out == tmp_path / "out" / "report.html" and [p.name for p in out.parent.iterdir()] == [
        "report.html"
    ]
    return out.read_text(encoding="utf-8")


def test_report_stands_alone(report):
    page = Page(report)
    assert page.open == [] and "script" not in page.tags and "iframe" not in page.tags
    assert page.targets and all(t.startswith(("#", "data:image/")) for t in page.targets)
    assert not re.search(r"(src|href)\s*=\s*['\"]?\s*(https?:)?//", report)
    assert "@import" not in report and "url(http" not in report
    assert "FloatSlider" not in report and "widget-state" not in report and "model_id" not in report


def test_report_keeps_what_the_notebooks_say(report):
    page = Page(report)
    embedded = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    assert page.targets.count(embedded) == 6  # per notebook: output, local file, attachment
    assert page.tags.count("math") == 1 + 2 * 3  # intro; per notebook: title, output, sum
    assert page.text.count("a < b & <script>alert(1)</script>") == 2
    assert page.text.count("kept") == 2
    assert "badge (https://c.example/open)" in page.text
    assert r"<code>\nosuchthing{x}</code>" in report
    assert "install_everything" not in page.text and "Parameters of this run" in page.text
    assert page.tags.count("details") == 4 and page.tags.count("h1") == 1
    assert "Run <7> & more" in page.text


def test_report_anchors_are_unique_and_lead_somewhere(report):
    page = Page(report)
    assert len(set(page.ids)) == len(page.ids)
    inside = [t[1:] for t in page.targets if t.startswith("#")]
    assert set(inside) <= set(page.ids)
    assert inside[:2] == ["nb1", "nb2"] and {"nb1-details", "nb2-details"} <= set(inside)
    assert inside.count("nb2") == 3  # navigation, and the link to two.ipynb from both


def test_report_is_not_touched_when_a_notebook_is_broken(tmp_path):
    out = tmp_path / "report.html"
    out.write_text("old")
    (tmp_path / "bad.ipynb").write_text("{ no json")
    with pytest.raises(nbformat.reader.NotJSONError):
        show.write_report([tmp_path / "bad.ipynb"], out, "x")
    assert out.read_text() == "old"


def test_report_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("disk full")

    out = tmp_path / "report.html"
    out.write_text("old")
    monkeypatch.setattr(show.os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        show.write_report([], out, "x")
    assert out.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["report.html"]
