"""What moves: the live plot leaves one picture, the rain explorer follows its sliders."""

import io
from pathlib import Path

import numpy as np
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from ttlkit.data import image_files
from ttlkit.gap import explorer
from ttlkit.lesson import live

ROOT = Path(__file__).resolve().parents[1]


def decoded(png: bytes) -> np.ndarray:
    return image_files.decode_u8(io.BytesIO(png), "view.png")


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
    by_name["rate_mm_h: rain rate"].value = 140.0
    assert image.value != before and numbers.value != told
