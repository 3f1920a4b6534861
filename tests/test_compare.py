"""The before/after slider: HTML and CSS alone, by mouse, touch and keyboard; and the plain figure beside it."""

import base64
import io
import re
import shutil

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image

from ttlkit.data import image_files
from ttlkit.lesson import compare, live, report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
BLACK, WHITE = np.zeros((120, 400, 3), np.float32), np.full((120, 400, 3), 255, np.uint8)


def decoded(source: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))))


def test_slider_holds_both_pictures_and_says_what_they_show():
    rng = np.random.default_rng(0)
    before, after = (np.full((60, 90, 3), value, np.float32) + rng.uniform(0, 0.1) for value in (0.2, 0.7))
    page = compare.slider(before, after, "a <cat>", ("in rain", "restored"))
    sources, alts = re.findall(r'<img[^>]* src="([^"]+)"', page), re.findall(r'alt="([^"]+)"', page)
    assert alts == ["a &lt;cat&gt;: in rain", "a &lt;cat&gt;: restored"]
    for source, picture in zip(sources, (before, after), strict=True):
        assert np.abs(decoded(source).astype(int) - image_files.to_u8(picture)).max() <= 3
    assert page.count("<input") == compare.STOPS and page.count(" checked") == 1
    assert "<script" not in page and not re.search(r"\son\w+=", page) and "http" not in page
    assert page._repr_html_() == str(page) and len(repr(page)) < 100  # the pictures are not in the text form too


def test_slider_scales_down_and_refuses_two_sizes():
    wide = np.zeros((40, 2 * live.VIEW_SIDE, 3), np.float32)
    page = compare.slider(wide, wide, "x")
    assert decoded(re.search(r'src="([^"]+)"', page)[1]).shape == (20, live.VIEW_SIDE, 3)
    assert f"max-width:{live.VIEW_SIDE}px" in page
    with pytest.raises(ValueError, match="same size"):
        compare.slider(wide, wide[:, :5], "x")


def test_two_sliders_of_the_same_pictures_do_not_share_buttons():
    names = [re.search(r'name="([^"]+)"', compare.slider(BLACK, WHITE, "x"))[1] for _ in range(2)]
    assert names[0] != names[1]


@pytest.mark.skipif(bool(report.MISSING), reason="needs the packages of the extra `report`")
def test_a_report_keeps_a_slider_with_buttons_of_its_own(tmp_path):
    page = compare.slider(BLACK, WHITE, "a <wall>: 'x' & y", ("in rain", "it's dry"))
    clean = [report.clean(page, tmp_path) for _ in range(2)]  # as in two notebooks
    own = [set(re.findall(r' name="([^"]+)"', one)) for one in clean]
    assert len(own[0]) == len(own[1]) == 1 and own[0] != own[1]
    assert re.sub(r' name="[^"]+"', "", clean[0].removeprefix('<figure class="slider">').removesuffix("</figure>")) == (
        re.sub(r' name="[^"]+"', "", page.partition("</style>")[2])
    )


def test_the_plain_figure_shows_five_times_the_difference():
    before, after = np.full((8, 8, 3), 0.5, np.float32), np.full((8, 8, 3), 115, np.uint8)
    figure = compare.plot_before_after([[before, after]], ["one"], "title")
    shown = figure.get_axes()[2].get_images()[0].get_array()
    assert abs(int(shown[0, 0, 0]) - 5 * (127.5 - 115)) <= 1 and figure.get_suptitle() == "title"


# ---- in a browser


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright (extra `test`)")
    if not CHROMIUM:
        pytest.skip("needs Chromium: apt-get install chromium")
    with sync_api.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


def share_before(page) -> float:
    """How much of the pictures' lower edge is black, without the handle."""
    box = page.locator(".ttlkit-slider").bounding_box()
    place = {"x": box["x"], "y": box["y"] + box["height"] - 12, "width": box["width"], "height": 8}
    picture = np.asarray(Image.open(io.BytesIO(page.screenshot(clip=place))).convert("L"))
    return float((picture < 128).mean())


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "width"), [("saved page", 1000), ("report", 390)])
def test_slider_works_without_a_script(browser, tmp_path, kind, width):
    path, slider = tmp_path / "page.html", compare.slider(BLACK, WHITE, "a wall")
    path.write_text(f"<!doctype html><title>x</title><body>{slider}")
    if kind == "report":
        shown = new_output("display_data", {"text/html": str(slider)})
        nbformat.write(new_notebook(cells=[new_code_cell("x", outputs=[shown])]), tmp_path / "one.ipynb")
        report.write_report([tmp_path / "one.ipynb"], path, "x")
    context = browser.new_context(
        java_script_enabled=False, offline=True, viewport={"width": width, "height": 700}, has_touch=True
    )
    with context:
        page = context.new_page()
        page.goto(path.as_uri())
        if kind == "report":
            page.click("section summary >> nth=0")  # opens the stage
        box = page.locator(".ttlkit-slider").bounding_box()
        assert box["width"] >= 200 and box["x"] + box["width"] <= width

        def at(share):
            return box["x"] + share * box["width"], box["y"] + 10

        assert share_before(page) == pytest.approx(0.5, abs=0.02)
        page.mouse.move(*at(0.8))
        assert share_before(page) == pytest.approx(0.8, abs=0.03)  # it follows the pointer
        page.mouse.move(0, box["y"] + box["height"] + 100)
        assert share_before(page) == pytest.approx(0.5, abs=0.02)
        page.mouse.click(*at(0.25))
        page.mouse.move(0, box["y"] + box["height"] + 100)
        assert share_before(page) == pytest.approx(0.25, abs=0.03)  # and stays where it was clicked
        for _ in range(4):
            page.keyboard.press("ArrowRight")
        assert share_before(page) == pytest.approx(0.35, abs=0.03)
        page.touchscreen.tap(*at(0.9))
        assert share_before(page) == pytest.approx(0.9, abs=0.03)
        page.mouse.click(5, box["y"] + box["height"] + 100)
        page.keyboard.press("Tab")
        page.keyboard.press("Home")  # no key of a radio button
        page.keyboard.press("ArrowLeft")
        assert share_before(page) == pytest.approx(0.875, abs=0.03)
