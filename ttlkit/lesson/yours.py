"""A photograph of the reader's own: from an upload box, a path or a link."""

import html
import io
import time
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from urllib.error import URLError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

import numpy as np

from ttlkit.data import image_files
from ttlkit.files import shown
from ttlkit.lesson import compare, live

MOST_PIXELS = 12_000_000  # of a picture in the box; `ttlkit derain` takes any size
MOST_BYTES = 64 << 20  # of a file behind a link
PATIENCE = 30.0  # seconds that a link may say nothing
# (picture uint8, progress=a function of the share that is done) -> the same, restored
Derain = Callable[..., np.ndarray]


def load_picture(place: str) -> np.ndarray:
    """The picture at a path, or behind a link, as uint8 (H, W, 3); ImageError of one line where there is none."""
    if not place.lower().startswith(("http://", "https://")):
        return image_files.load_image_u8(Path(place).expanduser())
    try:
        with urlopen(Request(place, headers={"User-Agent": "ttlkit"}), timeout=PATIENCE) as answer:
            content = answer.read(MOST_BYTES + 1)
    except (OSError, ValueError, HTTPException) as error:  # no host, no such page, no such address
        said = error.reason if type(error) is URLError else error
        words = " ".join(str(said).split())[:200]
        raise image_files.ImageError(
            f"{shown(place)}: cannot be fetched ({words}); save it and give its path"
        ) from None
    if len(content) > MOST_BYTES:
        raise image_files.ImageError(f"{shown(place)}: more than {MOST_BYTES >> 20} MB; save it and scale it down")
    return image_files.decode_u8(io.BytesIO(content), name_of(place))


def name_of(place: str) -> str:
    """The name of the file at a path or behind a link."""
    path = unquote(urlsplit(place).path) if "://" in place else place.replace("\\", "/")
    return shown(PurePosixPath(path).name or "picture")


def box(derain: Derain, folder: Path | None = None):
    """A widget: choose a picture, or give its path or its link, and see it before and after `derain`.

    Pictures above 12 megapixels are scaled down. The restored one is saved in `folder`. Works with ipywidgets 7 and 8.
    """
    import ipywidgets as widgets

    chooser = widgets.FileUpload(description="Choose a picture", accept="image/*", layout={"width": "auto"})
    place = widgets.Text(placeholder="or a path, or a link", layout={"width": "360px", "max_width": "100%"})
    go = widgets.Button(description="Restore", layout={"width": "auto"})
    message = widgets.HTML("Choose a rainy photograph. It stays on the machine that runs this notebook.")
    result = widgets.VBox([])

    def show(name: str, load: Callable[[], np.ndarray]) -> None:
        told, result.children, began = html.escape(name), (), time.monotonic()
        message.value = f"{told}: reading …"
        try:
            rainy, scaled = fit(load())
            height, width, _ = rainy.shape

            def progress(share: float) -> None:
                message.value = f"{told}: {width} × {height} pixels{scaled}, restoring … {live.bar(share)}"

            progress(0.0)
            restored = derain(rainy, progress=progress)
            slider = compare.slider(rainy, restored, name)
            seen = [small(picture) for picture in (rainy, restored)]
            figure = compare.plot_before_after([seen], [""])._repr_png_()
            result.children = (widgets.HTML(slider), widgets.Image(value=figure, layout={"max_width": "100%"}))
            done = f"{told}: {width} × {height} pixels{scaled}, restored in {time.monotonic() - began:.1f} s."
            message.value = f"{done} Saving …" if folder else done
            if folder:
                path = folder / f"{Path(name).stem[:80]}-derained.png"
                image_files.save_image(path, restored)
                message.value = f"{done} Saved as {html.escape(shown(path))}"
        except image_files.ImageError as error:
            message.value = f"<b>Not usable.</b> {html.escape(str(error))}"
        except Exception as error:  # a callback's traceback would vanish in the server's log
            message.value = f"<b>Restoring {told} failed.</b> {html.escape(repr(error))}"

    def on_upload(change) -> None:
        files = change["new"]  # ipywidgets 7 gives {name: {"content", ...}}, 8 ({"name", "content", ...}, ...)
        if isinstance(files, dict):
            files = [{**entry, "name": name} for name, entry in files.items()]
        if files:
            name, content = name_of(files[-1]["name"]), files[-1]["content"]
            show(name, lambda: image_files.decode_u8(io.BytesIO(content), name))

    def on_go(_) -> None:
        if given := place.value.strip():
            show(name_of(given), lambda: load_picture(given))

    chooser.observe(on_upload, "value")
    go.on_click(on_go)
    bar = widgets.HBox([chooser, place, go], layout={"flex_flow": "row wrap"})
    return widgets.VBox([bar, message, result])


def fit(picture: np.ndarray) -> tuple[np.ndarray, str]:
    """A picture of at most MOST_PIXELS, and words that say so where it has been scaled down."""
    height, width = picture.shape[:2]
    if height * width <= MOST_PIXELS:
        return picture, ""
    scale = (MOST_PIXELS / (height * width)) ** 0.5
    less = image_files.resize(image_files.to_float(picture), max(1, int(height * scale)), max(1, int(width * scale)))
    return image_files.to_u8(less), f" (scaled down from {width} × {height})"


def small(picture: np.ndarray) -> np.ndarray:
    """A picture, uint8, of at most VIEW_SIDE pixels a side."""
    scale = live.VIEW_SIDE / max(picture.shape[:2])
    if scale >= 1:
        return image_files.to_u8(picture)
    return image_files.to_u8(image_files.resize(picture, *(max(1, round(n * scale)) for n in picture.shape[:2])))
