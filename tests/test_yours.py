"""The reader's own photograph: uploaded, at a path, behind a link; restored with progress, or refused in one line."""

import datetime
import http.server
import io
import re
import threading

import numpy as np
import pytest
from PIL import Image

from ttlkit.data import image_files
from ttlkit.lesson import live, yours

RNG = np.random.default_rng(0)


def picture(height=12, width=20):
    return RNG.integers(0, 256, (height, width, 3), np.uint8)


def inverted(image, progress):
    progress(0.5)
    return 255 - image


def upload(box, name: str, data: bytes):
    when = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    entry = {"name": name, "type": "image/png", "size": len(data), "content": memoryview(data)}
    entry["last_modified"] = when
    chooser(box).set_trait("value", (entry,))


def chooser(box):
    return box.children[0].children[0]


@pytest.fixture
def site(tmp_path):
    """A web server of this machine, and its folder."""
    folder = tmp_path / "site"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()


def test_an_upload_is_restored_shown_and_saved(tmp_path):
    rainy, told = picture(), []
    box = yours.box(inverted, tmp_path / "yours")
    message, result = box.children[1:]
    message.observe(lambda change: told.append(change["new"]), "value")
    upload(box, "rain & <b>.png", live.png_bytes(rainy))
    assert "rain &amp; &lt;b&gt;.png" in message.value and "20 × 12" in message.value
    assert any('<progress value="0.50"' in text for text in told) and "<progress" not in message.value
    slider, figure = result.children
    assert "ttlkit-slider" in slider.value and image_files.decode_u8(io.BytesIO(figure.value), "x.png").shape[2] == 3
    saved = image_files.load_image_u8(tmp_path / "yours" / "rain & <b>-derained.png")
    np.testing.assert_array_equal(saved, 255 - rainy)


def test_what_cannot_be_restored_is_said_in_one_line(tmp_path):
    box = yours.box(inverted)
    upload(box, "bad.png", b"no picture")
    message, result = box.children[1:]
    assert "Not usable" in message.value and "bad.png" in message.value and result.children == ()
    box = yours.box(lambda image, progress: image[:5])
    upload(box, "odd.png", live.png_bytes(picture()))
    assert "Restoring odd.png failed" in box.children[1].value and "same size" in box.children[1].value
    (tmp_path / "file").write_text("no folder")
    box = yours.box(inverted, tmp_path / "file")
    upload(box, "a.png", live.png_bytes(picture()))
    assert "Not usable" in box.children[1].value


def test_uploads_of_ipywidgets_7_are_read():
    png = live.png_bytes(picture())
    box = yours.box(inverted)
    entry = {"metadata": {"name": "seven.png", "size": len(png)}, "content": png}
    for files in ({"seven.png": entry}, {}, ()):
        chooser(box).notify_change({"name": "value", "type": "change", "old": (), "new": files})
        assert "seven.png: 20 × 12 pixels" in box.children[1].value and len(box.children[2].children) == 2


def test_broken_upload_names_the_file_and_no_path():
    whole = live.png_bytes(picture(64, 64))
    box = yours.box(inverted)
    for data in (b"", b"no picture", whole[: len(whole) // 2]):
        upload(box, "holiday.png", data)
        told = box.children[1].value
        assert told.startswith("<b>Not usable.</b> holiday.png: ")
        assert "/" not in told.replace("</b>", "").replace("holiday.png", "") and box.children[2].children == ()


def test_a_path_or_a_link_is_restored_too(tmp_path, site):
    address, folder = site
    rainy = picture()
    for place in (folder / "a b.png", tmp_path / "c.png"):
        Image.fromarray(rainy).save(place)
    box = yours.box(inverted)
    _, text, button = box.children[0].children
    for given, name in ((f"{address}/a%20b.png?x=1", "a b.png"), (f" {tmp_path}/c.png ", "c.png")):
        text.value = given
        button.click()
        assert f"{name}: 20 × 12 pixels, restored" in box.children[1].value
    text.value = f"{address}/none.png"
    button.click()
    assert "Not usable" in box.children[1].value and "Error 404" in box.children[1].value
    np.testing.assert_array_equal(yours.load_picture(f"{address}/a%20b.png"), rainy)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("http://127.0.0.1:9/a.png", "cannot be fetched"),
        ("https://", "cannot be fetched"),
        ("http://[::1/a.png", "cannot be fetched"),
        ("http://127.0.0.1:port/a.png", "cannot be fetched"),
        ("~/no such file.png", "no such file"),
    ],
)
def test_a_place_without_a_picture_is_one_line(place, words):
    with pytest.raises(image_files.ImageError, match=words) as caught:
        yours.load_picture(place)
    assert "\n" not in str(caught.value)


def test_a_link_to_a_page_or_to_too_much_is_one_line(site, monkeypatch):
    address, folder = site
    (folder / "page.html").write_text("<html>")
    with pytest.raises(image_files.ImageError, match=r"page.html: not an image"):
        yours.load_picture(f"{address}/page.html")
    monkeypatch.setattr(yours, "MOST_BYTES", 3)
    with pytest.raises(image_files.ImageError, match="more than"):
        yours.load_picture(f"{address}/page.html")


def test_large_pictures_are_scaled_down(monkeypatch):
    monkeypatch.setattr(yours, "MOST_PIXELS", 100)
    assert yours.fit(np.zeros((10, 10, 3), np.uint8))[1] == ""
    less, words = yours.fit(np.zeros((30, 40, 3), np.uint8))
    assert less.shape == (8, 11, 3) and less.dtype == np.uint8 and "30" in words and "40" in words


def test_progress_is_one_line_in_the_end(monkeypatch):
    import IPython.display

    drawn = []

    class Handle:
        def update(self, what):
            drawn.append(what._repr_html_())

    monkeypatch.setattr(live, "in_notebook", lambda: True)
    monkeypatch.setattr(IPython.display, "display", lambda w, display_id: drawn.append(w._repr_html_()) or Handle())
    progress = live.Progress("a <b>", every=0.0)
    for share in (0.25, 1.0):
        progress(share)
    assert drawn[0].endswith("a &lt;b&gt;: 25%") and 'value="0.25"' in drawn[0]
    assert re.fullmatch(r"a &lt;b&gt;: \d+\.\d s", drawn[-1])
