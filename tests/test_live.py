"""What moves: the slider mixes pixels, the upload box reads files, the live plot leaves one picture."""

import datetime
import io
from pathlib import Path

import numpy as np
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from ttlkit.data import image_files
from ttlkit.gap import explorer
from ttlkit.lesson import live

ROOT = Path(__file__).resolve().parents[1]
RNG = np.random.default_rng(0)


def picture(height=12, width=20):
    return RNG.random((height, width, 3), dtype=np.float32)


# ---- slider and upload


def test_split_view_puts_before_left_and_after_right():
    before, after = np.zeros((4, 10, 3), np.float32), np.full((4, 10, 3), 0.5, np.float32)
    assert (live.split_view(before, after, 0) == 128).all()
    assert (live.split_view(before, after, 1) == 0).all()
    half = live.split_view(before, after, 0.5)
    assert (half[:, :4] == 0).all() and (half[:, 4:6] == 255).all() and (half[:, 6:] == 128).all()
    with pytest.raises(ValueError, match="same size"):
        live.split_view(before, after[:, :5], 0.5)


def decoded(png: bytes) -> np.ndarray:
    return image_files.decode_u8(io.BytesIO(png), "view.png")


def test_slider_moves_the_divider():
    before, after = picture(), picture()
    note, image, slider = live.compare_slider(before, after).children
    assert slider.description and "before" in note.value
    np.testing.assert_array_equal(decoded(image.value), live.split_view(before, after, 0.5))
    slider.value = 1.0
    np.testing.assert_array_equal(decoded(image.value), image_files.to_u8(before))
    slider.value = 0.0
    np.testing.assert_array_equal(decoded(image.value), image_files.to_u8(after))


def test_slider_scales_a_large_picture_down_for_the_view():
    wide = np.zeros((20, 2 * live.VIEW_SIDE, 3), np.float32)
    assert decoded(live.compare_slider(wide, wide).children[1].value).shape == (10, live.VIEW_SIDE, 3)


def upload(box, name: str, data: bytes):
    when = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    entry = {"name": name, "type": "image/png", "size": len(data), "content": memoryview(data)}
    entry["last_modified"] = when
    box.children[0].set_trait("value", (entry,))


def test_upload_box_shows_the_restored_picture_or_says_what_is_wrong():
    rainy_u8 = image_files.to_u8(picture())
    box = live.upload_box(lambda image: 1 - image)
    chooser, message, result = box.children
    assert chooser.description

    upload(box, "rain & <b>.png", live.png_bytes(rainy_u8))
    assert "rain &amp; &lt;b&gt;.png" in message.value and "20 × 12" in message.value
    _, image, slider = result.children[0].children
    slider.value = 0.0
    np.testing.assert_array_equal(decoded(image.value), 255 - rainy_u8)

    upload(box, "bad.png", b"no picture")
    assert "Not usable" in message.value and "bad.png" in message.value and result.children == ()

    box = live.upload_box(lambda image: image[:5])
    upload(box, "odd.png", live.png_bytes(rainy_u8))
    assert "Restoring odd.png failed" in box.children[1].value and "same size" in box.children[1].value


def test_upload_box_reads_what_ipywidgets_7_gives():
    png = live.png_bytes(image_files.to_u8(picture()))
    box = live.upload_box(lambda image: 1 - image)
    entry = {"metadata": {"name": "seven.png", "size": len(png)}, "content": png}
    for files, told in (({"seven.png": entry}, "seven.png: 20 × 12 pixels"), ({}, "seven.png"), ((), "seven.png")):
        box.children[0].notify_change({"name": "value", "type": "change", "old": (), "new": files})
        assert told in box.children[1].value and len(box.children[2].children) == 1


def test_broken_upload_names_the_file_and_no_path():
    whole = live.png_bytes(image_files.to_u8(picture(64, 64)))
    box = live.upload_box(lambda image: image)
    for data in (b"", b"no picture", whole[: len(whole) // 2]):
        upload(box, "holiday.png", data)
        told = box.children[1].value
        assert told.startswith("<b>Not usable.</b> holiday.png: ")
        assert "/" not in told.replace("</b>", "").replace("holiday.png", "") and box.children[2].children == ()


# ---- live plot


def execute(*sources: str):
    notebook = new_notebook(cells=[new_code_cell(source) for source in sources])
    resources = {"metadata": {"path": str(ROOT)}}
    return NotebookClient(notebook, timeout=60, kernel_name="python3", resources=resources).execute()


def test_live_plot_leaves_one_picture_and_a_figure_shows_without_magic():
    notebook = execute(
        "import time\n"
        "from ttlkit.lesson.live import LivePlot; from ttlkit.lesson.figures import plot_history\n"
        "with LivePlot(title='student', every=0.05) as plot:\n"
        "    for step in range(1, 31):\n"
        "        plot({'step': step, 'steps': 30, 'loss': 1 / step, 'seconds_left': 30.0 - step})\n"
        "        time.sleep(0.02)",
        "plot_history([{'step': 1, 'loss': 1.0}], ['loss'])",
        "plot.rows[-1]['step'], 'matplotlib.pyplot' in __import__('sys').modules",
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
    monkeypatch.setattr(live, "in_notebook", lambda: True)
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(IPython.display, "display", lambda f, display_id: drawn.append(f) or Handle(drawn))
    with live.LivePlot() as plot:
        for step in range(1, 101):
            now[0] += 0.1
            plot({"step": step, "steps": 100, "loss": 1.0, "seconds_left": 200 - 2.0 * step})
    assert len(drawn) in (5, 6)  # ten seconds, one drawing every two, one at the end
    assert drawn[0].get_suptitle() == "step 1/100, 03:18 left"
    assert drawn[-1].get_suptitle() == "step 100/100"
    assert drawn[-1].get_axes()[0].lines[0].get_xdata()[-1] == 100
    assert drawn[-1] is not drawn[-2] and drawn[-2].get_suptitle() != "step 100/100"

    def slow(figure, display_id):
        drawn.append(figure)
        now[0] += 1.0  # a second to draw: the next one waits nineteen
        return Handle(drawn)

    monkeypatch.setattr(IPython.display, "display", slow)
    drawn.clear()
    plot = live.LivePlot()
    for step in range(1, 19):
        plot({"step": step, "steps": 100, "loss": 1.0})
        now[0] += 1.0
    assert len(drawn) == 1


def test_live_plot_is_silent_outside_a_notebook(capsys):
    with live.LivePlot() as plot:
        plot({"step": 1, "steps": 2, "loss": 1.0})
    assert capsys.readouterr() == ("", "") and plot._handle is None


# ---- rain explorer


def test_rain_explorer_follows_its_sliders():
    from ttlkit.rain import scenes

    box = explorer.rain_explorer(scenes.dead_leaves(0, 96, 128), ["streak_direction", "streak_density"])
    image, row = box.children
    sliders, numbers = row.children
    before, told = image.value, numbers.value
    assert decoded(before).shape == (96, 256, 3) and "density of streaks" in told
    by_name = {slider.description.split(" [")[0]: slider for slider in sliders.children}
    by_name["rain rate"].value = 140.0
    assert image.value != before and numbers.value != told
