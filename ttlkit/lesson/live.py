"""What moves in a notebook: the live plot of a training, the before/after slider, the upload box."""

import html
import io
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import numpy as np
from PIL import Image
from tqdm import tqdm

from ttlkit.data import image_files
from ttlkit.lesson.figures import plot_history

VIEW_SIDE = 900  # longest side, in pixels, of a picture in the slider: each move sends it as a PNG


def in_notebook() -> bool:
    """Whether this runs in a Jupyter kernel (not in plain Python, not in IPython's terminal)."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return hasattr(shell, "kernel")


class LivePlot(AbstractContextManager):
    """Curves of a running training in a notebook, called with each log row; elsewhere it does nothing.

    Drawn at most every `every` seconds, and for at most a twentieth of the time; leaving the `with` draws the
    last state. A saved notebook keeps exactly one picture.
    """

    def __init__(self, keys: Sequence[str] = ("loss",), title: str | None = None, every: float = 2.0):
        self.keys, self.title, self.every = keys, title, every
        self.rows: list[dict] = []
        self._active, self._handle, self._due = in_notebook(), None, 0.0

    def __call__(self, row: dict) -> None:
        """Take one log row: {"step", "steps", "loss", "seconds_left", ...}."""
        if self._active:
            self.rows.append(dict(row))
            if time.monotonic() >= self._due:
                self._draw(row.get("seconds_left"))

    def __exit__(self, *_) -> None:
        if self.rows:
            self._draw()

    def _draw(self, seconds_left: float | None = None) -> None:
        from IPython.display import display

        start, row = time.monotonic(), self.rows[-1]
        title = f"{self.title + ': ' if self.title else ''}step {row['step']}/{row['steps']}"
        if seconds_left is not None:
            title += f", {tqdm.format_interval(seconds_left)} left"
        figure = plot_history(self.rows, self.keys, title)
        if self._handle:
            self._handle.update(figure)
        else:
            self._handle = display(figure, display_id=True)
        self._due = time.monotonic() + max(self.every, 19 * (time.monotonic() - start))


def split_view(before: np.ndarray, after: np.ndarray, position: float) -> np.ndarray:
    """Two pictures (H, W, 3) as one, uint8: `before` left of `position` in [0, 1], `after` right of it.

    At 0 it is all after, at 1 all before; in between a white line marks the divider.
    """
    if before.shape != after.shape:
        raise ValueError(f"before {before.shape} and after {after.shape} must have the same size")
    edge = round(position * before.shape[1])
    mixed = np.concatenate([image_files.to_u8(before[:, :edge]), image_files.to_u8(after[:, edge:])], axis=1)
    if 0 < edge < before.shape[1]:
        mixed[:, edge - 1 : edge + 1] = 255
    return mixed


def png_bytes(picture_u8: np.ndarray) -> bytes:
    """Encode uint8 (H, W, 3) as PNG in memory, fast rather than small."""
    buffer = io.BytesIO()
    Image.fromarray(picture_u8).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def compare_slider(before: np.ndarray, after: np.ndarray):
    """A widget: drag the slider to see `before` on the left and `after` on the right of the divider.

    Images (H, W, 3), float in [0, 1] or uint8, of one size (else ValueError); works with ipywidgets 7 and 8.
    """
    import ipywidgets as widgets

    def small(picture: np.ndarray) -> np.ndarray:
        view = Image.fromarray(image_files.to_u8(picture))
        view.thumbnail((VIEW_SIDE, VIEW_SIDE))
        return np.asarray(view)

    left, right = small(before), small(after)
    shown = widgets.Image(format="png")
    slider = widgets.FloatSlider(
        0.5, min=0, max=1, step=0.01, description="Share shown as before", readout_format=".0%",
        style={"description_width": "initial"}, layout={"width": "100%", "max_width": f"{max(300, left.shape[1])}px"},
    )  # fmt: skip

    def on_move(_=None) -> None:
        shown.value = png_bytes(split_view(left, right, slider.value))

    on_move()
    slider.observe(on_move, "value")
    return widgets.VBox([widgets.HTML("Left of the line: before. Right of it: after."), shown, slider])


def upload_box(restore: Callable[[np.ndarray], np.ndarray]):
    """A widget: choose a picture, see it before and after `restore` (float (H, W, 3) to the same)."""
    import ipywidgets as widgets

    chooser = widgets.FileUpload(description="Choose a picture", accept="image/*", layout={"width": "auto"})
    message = widgets.HTML("Choose a rainy photograph. It stays on the machine that runs this notebook.")
    result = widgets.VBox([])

    def on_upload(change) -> None:
        files = change["new"]  # ipywidgets 7 gives {name: {"content", ...}}, 8 ({"name", "content", ...}, ...)
        if isinstance(files, dict):
            files = [{**entry, "name": name} for name, entry in files.items()]
        if not files:
            return
        given, name = files[-1]["name"], html.escape(files[-1]["name"])
        message.value = f"{name}: restoring …"
        result.children = ()
        start = time.monotonic()
        try:
            rainy = image_files.to_float(image_files.decode_u8(io.BytesIO(files[-1]["content"]), given))
            result.children = (compare_slider(rainy, restore(rainy)),)
            height, width, _ = rainy.shape
            message.value = f"{name}: {width} × {height} pixels, restored in {time.monotonic() - start:.1f} s."
        except image_files.ImageError as error:
            message.value = f"<b>Not usable.</b> {html.escape(str(error))}"
        except Exception as error:  # a callback's traceback would vanish in the server's log
            message.value = f"<b>Restoring {name} failed.</b> {html.escape(repr(error))}"

    chooser.observe(on_upload, "value")
    return widgets.VBox([chooser, message, result])
