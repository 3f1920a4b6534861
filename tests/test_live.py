"""What moves: the live plot leaves one picture, the rain explorer follows its sliders."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from jupyter_client.manager import start_new_kernel
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
    assert drawn[0].get_suptitle() == "step 1/100, 03:18 left" and live.STANDS_STILL in drawn[0].get_supxlabel()
    assert drawn[-1].get_suptitle() == "step 100/100" and not drawn[-1].get_supxlabel()
    assert drawn[-1].get_axes()[0].lines[0].get_xdata()[-1] == 100
    assert drawn[-1] is not drawn[-2] and drawn[-2].get_suptitle() != "step 100/100"

    drawn.clear()
    with live.LivePlot() as plot:  # a training of before, taken up
        for step in (1, 2):
            plot({"step": step, "steps": 3, "loss": 1.0})
        assert drawn == []
        plot({"step": 3, "steps": 3, "loss": 1.0, "seconds_left": 0.0})
        assert list(drawn[0].get_axes()[0].lines[0].get_xdata()) == [1, 2, 3]
    drawn.clear()
    with live.LivePlot() as plot:  # one that was finished
        plot({"step": 3, "steps": 3, "loss": 1.0})
    assert len(drawn) == 1

    def slow(figure, display_id):
        drawn.append(figure)
        now[0] += 1.0  # a second to draw: the next one waits nineteen
        return Handle(drawn)

    monkeypatch.setattr(IPython.display, "display", slow)
    drawn.clear()
    plot = live.LivePlot()
    for step in range(1, 19):
        plot({"step": step, "steps": 100, "loss": 1.0, "seconds_left": 1.0})
        now[0] += 1.0
    assert len(drawn) == 1


TRAINING = """
import torch, time
from pathlib import Path
from ttlkit.lesson.live import LivePlot
from ttlkit.method.trainer import Trainer

class Samples(torch.utils.data.Dataset):
    def __getitem__(self, number):
        time.sleep(0.01)
        return {{"x": torch.ones(1)}}
    def __len__(self):
        return 10**6

def step(model, batch):
    loss = model(batch["x"])[:, 0] ** 2
    return loss, {{}}

def fit(steps):
    torch.manual_seed(0)
    options = {{"steps": steps, "batch": 1, "learning_rate": 1e-3, "seed": 0, "workers": 1, "log_every": 1}}
    trainer = Trainer(torch.nn.Linear(1, 1), step, Samples(), folder=Path({folder!r}), key=str(steps), **options)
    with LivePlot(every=0.1) as plot:
        trainer.fit(plot)
"""


@pytest.mark.slow
def test_interrupted_in_a_kernel_one_line_stands_there_and_the_curve_goes_on(tmp_path):
    """As with the button of Jupyter: a signal to the kernel's process group, its loader's worker among it."""
    kernel, client = start_new_kernel(kernel_name="python3", cwd=str(ROOT))
    try:

        def run(source, interrupt=False):
            outputs, asked = [], client.execute(source)
            while True:
                message = client.get_iopub_msg(timeout=60)
                kind, content = message["msg_type"], message["content"]
                if message["parent_header"].get("msg_id") == asked and kind not in ("status", "execute_input"):
                    outputs.append((kind, content))
                elif message["parent_header"].get("msg_id") == asked and content.get("execution_state") == "idle":
                    return outputs
                if interrupt and kind == "display_data":
                    kernel.interrupt_kernel()
                    interrupt = False

        assert run(TRAINING.format(folder=str(tmp_path))) == []
        *_, (kind, stopped) = run("fit(9000)", interrupt=True)
        assert kind == "error" and stopped["ename"] == "Stopped" and len(stopped["traceback"]) == 1
        done = int(re.fullmatch(r"Stopped: step (\d+) of 9000 is saved; run again: .*", stopped["traceback"][0])[1])
        *_, (kind, again) = run("fit(9000)", interrupt=True)
        assert int(re.search(r"step (\d+) of", again["evalue"])[1]) > done > 0
        first, found = (run("fit(5)") for _ in range(2))
        assert "display_data" in [kind for kind, _ in first]
        assert found[0][1]["text"] == "going on from step 5 of 5: it was trained before\n"
        assert found[1][1]["metadata"]["image/png"]["alt"] == "step 5/5; loss; step"
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)


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
    by_name = {label.value: both for label, both in zip(sliders.children[::2], sliders.children[1::2], strict=True)}
    slider, number = by_name["rate_mm_h: rain rate [mm/h]"].children
    slider.value = 140.0
    assert number.value == 140.0
    assert image.value != before and numbers.value != told
    before = image.value
    number.value = 20.0
    assert slider.value == 20.0 and image.value != before
