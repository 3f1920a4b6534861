"""What moves in a notebook: the live plot of a training, the before/after slider, the upload box."""

from __future__ import annotations

import html
import io
import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ttlkit import images as im
from ttlkit.show import finite_number, plot_history

VIEW_SIDE = 900  # longest side, in pixels, of a picture in the slider: each move sends it as a PNG


def in_notebook() -> bool:
    """Whether this runs in a Jupyter kernel (not in plain Python, not in IPython's terminal)."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return hasattr(shell, "kernel")


def duration(seconds: float) -> str:
    """Seconds in words: `45 s`, `3 min 20 s`, `2 h 05 min`."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


class LivePlot:
    """Curves of a running training in a notebook, called with each log row; elsewhere it does nothing.

    Drawn at most every `every` seconds, and for at most a twentieth of the time; `close()`, or leaving the
    `with`, draws the last state. A saved notebook keeps exactly one picture.
    """

    def __init__(self, keys: Sequence[str] = ("loss",), title: str | None = None, every: float = 2.0):
        self.keys, self.title, self.every = tuple(keys), title, every
        self.rows: list[dict] = []
        self._active, self._handle, self._due = in_notebook(), None, 0.0

    def __call__(self, row: dict) -> None:
        """Take one log row: {"step", "steps", "loss", "seconds_left", ...}."""
        if self._active:
            self.rows.append(dict(row))
            if time.monotonic() >= self._due:
                self._draw(running=True)

    def _draw(self, running: bool) -> None:
        from IPython.display import display

        start, row = time.monotonic(), self.rows[-1]
        step, steps, left = row["step"], row.get("steps"), finite_number(row.get("seconds_left"))
        title = f"{self.title + ': ' if self.title else ''}step {step}" + (f"/{steps}" if steps else "")
        if running and math.isfinite(left):
            title += f", {duration(left)} left"
        figure = plot_history(self.rows, self.keys, title)
        if self._handle is None:
            self._handle = display(figure, display_id=True)
        else:
            self._handle.update(figure)
        self._due = time.monotonic() + max(self.every, 19 * (time.monotonic() - start))

    def close(self) -> None:
        """Draw the last state, once."""
        if self._active and self.rows:
            self._draw(running=False)
        self._active = False

    def __enter__(self) -> LivePlot:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def split_view(before: np.ndarray, after: np.ndarray, position: float) -> np.ndarray:
    """Mix two pictures (H, W, 3) to uint8: `before` left of `position` in [0, 1], `after` right of it.

    At 0 it is all after, at 1 all before; in between a white line marks the divider.
    """
    if before.shape != after.shape:
        raise ValueError(f"before {before.shape} and after {after.shape} must have the same size")
    mixed, width = im.to_u8(after).copy(), before.shape[1]
    edge = round(min(max(position, 0.0), 1.0) * width)
    mixed[:, :edge] = im.to_u8(before)[:, :edge]
    if 0 < edge < width:
        mixed[:, edge - 1 : edge + 1] = 255
    return mixed


def png_bytes(picture_u8: np.ndarray) -> bytes:
    """Encode uint8 (H, W, 3) as PNG in memory, fast rather than small."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture_u8).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _view(picture: np.ndarray) -> np.ndarray:
    """uint8, scaled down to at most VIEW_SIDE pixels a side."""
    height, width = picture.shape[:2]
    scale = VIEW_SIDE / max(height, width)
    if scale < 1:
        picture = im.resize(picture, max(1, round(height * scale)), max(1, round(width * scale)))
    return im.to_u8(picture)


def compare_slider(before: np.ndarray, after: np.ndarray):
    """A widget: drag the slider to see `before` on the left and `after` on the right of the divider.

    Images (H, W, 3), float in [0, 1] or uint8, of one size (else ValueError); works with ipywidgets 7 and 8.
    """
    import ipywidgets as widgets

    left, right = _view(before), _view(after)
    picture = widgets.Image(value=png_bytes(split_view(left, right, 0.5)), format="png")
    slider = widgets.FloatSlider(
        value=0.5,
        min=0,
        max=1,
        step=0.01,
        readout_format=".0%",
        description="Share shown as before",
        style={"description_width": "initial"},
        layout={"width": "100%", "max_width": f"{max(300, left.shape[1])}px"},
    )

    def on_move(change) -> None:
        picture.value = png_bytes(split_view(left, right, change["new"]))

    slider.observe(on_move, "value")
    return widgets.VBox([widgets.HTML("Left of the line: before. Right of it: after."), picture, slider])


def read_upload(value) -> tuple[str, bytes] | None:
    """(name, bytes) of the last file, or None; ipywidgets 7 gives {name: {...}}, 8 ({"name": ...}, ...)."""
    if isinstance(value, dict):
        value = [{**entry, "name": name} for name, entry in value.items()]
    files = list(value)
    return (str(files[-1]["name"]), bytes(files[-1]["content"])) if files else None


def decode_upload(name: str, data: bytes) -> np.ndarray:
    """Bytes of an image file to float32 (H, W, 3) in [0, 1]; ImageError names the uploaded file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "upload"
        path.write_bytes(data)
        try:
            return im.load_image(path)
        except im.ImageError as error:
            raise im.ImageError(str(error).replace(str(path), name)) from None


def upload_box(restore: Callable[[np.ndarray], np.ndarray]):
    """A widget: choose a picture, see it before and after `restore` (float (H, W, 3) to the same)."""
    import ipywidgets as widgets

    chooser = widgets.FileUpload(
        description="Choose a picture", accept="image/*", multiple=False, layout={"width": "auto"}
    )
    message = widgets.HTML("Choose a rainy photograph. It stays on the machine that runs this notebook.")
    result = widgets.VBox([])

    def on_upload(change) -> None:
        upload = read_upload(change["new"])
        if upload is None:
            return
        name, result.children = html.escape(upload[0]), ()
        message.value = f"{name}: restoring …"
        start = time.monotonic()
        try:
            rainy = decode_upload(*upload)
            result.children = (compare_slider(rainy, restore(rainy)),)
            size = f"{rainy.shape[1]} × {rainy.shape[0]} pixels"
            message.value = f"{name}: {size}, restored in {time.monotonic() - start:.1f} s."
        except im.ImageError as error:
            message.value = f"<b>Not usable.</b> {html.escape(str(error))}"
        except Exception as error:  # a callback's traceback would vanish in the server's log
            message.value = f"<b>Restoring {name} failed.</b> {html.escape(repr(error))}"

    chooser.observe(on_upload, "value")
    return widgets.VBox([chooser, message, result])


RAIN_KNOBS = {  # of rain.physical: what a class may turn, and from where to where
    "angle_deg": (-30.0, 30.0, 10.0),
    "rate_mm_h": (3.0, 150.0, 40.0),
    "near_m": (0.4, 3.0, 0.6),
    "exposure_s": (0.002, 0.033, 0.008),
}


def rain_explorer(scene: np.ndarray, names: Sequence[str], seed: int = 0):
    """A widget: turn direction, rain rate, distance and exposure; see the rain, and what the features say.

    `scene` is a rain-free image (H, W, 3), float in [0, 1] or uint8; `names`: of `features.FEATURES`. It is scaled down
    so that a turn takes a fraction of a second.
    """
    import ipywidgets as widgets

    from ttlkit import features, rain

    small = features.scale_down(im.to_float(im.to_u8(scene)), 320)
    chosen = [features.FEATURES[features.NAMES.index(name)] for name in names]
    picture, numbers = widgets.Image(format="png"), widgets.HTML()
    sliders = {}
    for name, (least, most, value) in RAIN_KNOBS.items():
        knob = rain.PHYSICAL[name]
        sliders[name] = widgets.FloatSlider(
            value=value,
            min=least,
            max=most,
            step=(most - least) / 100,
            readout_format=".3g",
            description=f"{knob.text.split(',')[0]} [{knob.unit}]",
            continuous_update=False,
            style={"description_width": "initial"},
            layout={"width": "100%", "max_width": "480px"},
        )

    def draw(change=None) -> None:
        drawn = rain.physical(small, seed, **{name: slider.value for name, slider in sliders.items()})
        seen = features.prepare(drawn.rainy)
        found = features.FEATURES[features.NAMES.index("streak_density")].see(seen)
        beside = np.repeat((found / max(float(found.max()), 1e-6))[..., None], 3, axis=2)
        picture.value = png_bytes(np.concatenate([im.to_u8(drawn.rainy), im.to_u8(beside)], axis=1))
        cells = "".join(
            f"<tr><td>{html.escape(f.label)}</td><td align=right>{f.measure(seen):.3g} {html.escape(f.unit)}</td></tr>"
            for f in chosen
        )
        numbers.value = f"<table>{cells}</table>"

    for slider in sliders.values():
        slider.observe(draw, "value")
    draw()
    return widgets.VBox([picture, widgets.HBox([widgets.VBox(list(sliders.values())), numbers])])
