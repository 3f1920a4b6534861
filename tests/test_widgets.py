"""What moves, in JupyterLab and Notebook 7, in a real browser: by mouse, by touch, by keyboard."""

import importlib.util
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from ttlkit.gap import explorer

sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright (extra `test`)")
pytest.importorskip("jupyterlab", reason="needs JupyterLab (extra `desktop`)")
REPO = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow
CELLS = [
    "from ttlkit.gap import explorer\nfrom ttlkit.rain import scenes\n"
    "explorer.rain_explorer(scenes.dead_leaves(0, 96, 128), ['streak_direction'])",
    "import numpy as np\nfrom ttlkit.lesson import compare\n"
    "compare.slider(np.zeros((120, 400, 3)), np.ones((120, 400, 3)), 'a wall')",
    "import time\nfrom ttlkit.lesson.live import LivePlot\n"
    "with LivePlot(every=0.2) as plot:\n    for step in range(1, 9):\n"
    "        plot({'step': step, 'steps': 8, 'loss': 1 / step, 'seconds_left': 8.0 - step})\n        time.sleep(0.1)",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of a Jupyter server, with a notebook of CELLS in its folder."""
    folder = tmp_path_factory.mktemp("jupyter")
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    cells = [new_code_cell(cell) for cell in CELLS]
    nbformat.write(new_notebook(cells=cells, metadata=kernel), folder / "one.ipynb")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root", f"--ServerApp.port={port}"]
    command += [f"--ServerApp.root_dir={folder}", "--IdentityProvider.token=", "--ServerApp.disable_check_xsrf=True"]
    kinds = ("_CONFIG", "_DATA", "_RUNTIME", "LAB_SETTINGS", "LAB_WORKSPACES")
    own = {f"JUPYTER{kind}_DIR": str(folder / "own" / kind) for kind in kinds}
    environment = {**os.environ, "PYTHONPATH": str(REPO), "JUPYTER_PREFER_ENV_PATH": "1", **own}
    with open(folder / "log.txt", "w") as log, subprocess.Popen(command, env=environment, stderr=log) as process:
        try:
            for _ in range(300):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=5).close()
                    break
                except OSError:
                    time.sleep(0.2)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


@pytest.fixture(params=["lab/tree", "notebooks"])
def page(server, browser, request):
    """The notebook in JupyterLab or in Notebook 7, all its cells run."""
    if request.param == "notebooks" and not importlib.util.find_spec("notebook"):
        pytest.skip("needs Notebook 7 (extra `test`)")
    with browser.new_context(viewport={"width": 1280, "height": 1000}, has_touch=True) as context:
        shown = context.new_page()
        shown.set_default_timeout(60_000)
        shown.goto(f"{server}/{request.param}/one.ipynb")
        first = shown.locator(".jp-CodeCell").first
        while not re.match(
            r"\[[\d*]+\]:", first.locator(".jp-InputPrompt").inner_text()
        ):  # the kernel is not there yet
            first.locator(".cm-content").click()
            shown.keyboard.press("Shift+Enter")
            shown.wait_for_timeout(200)
        for _ in CELLS[1:]:
            shown.keyboard.press("Shift+Enter")
        last = shown.locator(".jp-CodeCell").nth(len(CELLS) - 1)
        sync_api.expect(last.locator(".jp-InputPrompt")).to_have_text(re.compile(r"\[\d+\]:"), timeout=60_000)
        assert last.locator(".jp-OutputArea img").count() == 1  # the live plot leaves one picture
        yield shown


def test_what_moves_in_jupyter(page):
    """By mouse, by touch, by keyboard; the figure follows."""
    picture, tracks = page.locator("img.widget-image"), page.locator(".noUi-target")
    boxes = [tracks.nth(number).bounding_box() for number in range(tracks.count())]
    assert len(boxes) == len(explorer.RAIN_KNOBS) and all(box["width"] >= 200 for box in boxes)

    def follows(action) -> float:
        """The fourth slider's value after an action that the figure has followed."""
        before = picture.get_attribute("src")
        action()
        sync_api.expect(picture).not_to_have_attribute("src", before, timeout=20_000)
        return float(page.locator(".noUi-handle").nth(3).get_attribute("aria-valuenow"))

    def drag():
        page.locator(".noUi-handle").nth(3).hover()
        page.mouse.down()
        page.mouse.move(at(0.8), boxes[3]["y"], steps=3)
        page.mouse.up()

    def at(share):
        return boxes[3]["x"] + share * boxes[3]["width"]

    def key():
        page.locator(".widget-text input").nth(3).focus()
        page.keyboard.press("ArrowUp")

    assert follows(drag) == pytest.approx(0.4 + 0.8 * 2.6, abs=0.11)
    assert follows(lambda: page.touchscreen.tap(at(0.5), boxes[3]["y"] + 2)) == pytest.approx(1.7, abs=0.11)
    assert follows(key) == pytest.approx(1.8, abs=0.11)

    buttons = page.locator(".ttlkit-slider > input")
    checked = "all => all.findIndex(one => one.checked)"
    buttons.nth(10).click()
    page.keyboard.press("ArrowRight")  # which JupyterLab would take for itself
    assert buttons.evaluate_all(checked) == 11
