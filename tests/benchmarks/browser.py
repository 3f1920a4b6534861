"""Speed and memory of the student in Chromium, beside torch and ONNX Runtime on the same machine, in one run.

.venv/bin/python tests/benchmarks/browser.py [--rounds 5]

Seconds a megapixel of a picture of 3 megapixels, decoding included, medians and ranges of the rounds, which take turns.
Then a picture of 12 megapixels: seconds, peak memory (PSS of all processes of Chromium), and the longest time that
the page stood still.
"""

import argparse
import os
import re
import shutil
import statistics
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from PIL import Image
from playwright.sync_api import sync_playwright

from ttlkit.apply import restore
from ttlkit.data import image_files, pocket
from ttlkit.site import element, serve

WATCH = """() => { globalThis.still = 0; let last = performance.now();
  setInterval(() => { const now = performance.now(); still = Math.max(still, now - last); last = now; }, 10); }"""


def in_browser(page, path: Path) -> tuple[float, str]:
    """Seconds that the page says a photograph took, and by what."""
    page.set_input_files("input[type=file]", path)
    page.locator(".busy").wait_for(state="hidden")
    status = page.locator("[role=status]").inner_text()
    seconds, engine = re.search(r"restored in ([\d.]+) s by (.+)\.$", status).groups()
    return float(seconds), f"Chromium, {engine}"


@contextmanager
def peak_memory():
    """A list that holds the largest PSS of Chromium's processes, in bytes, at the end."""
    most, done = [0], threading.Event()

    def watch():
        while not done.wait(0.2):
            total = 0
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    total += process.memory_full_info().pss if "chrom" in process.name() else 0
            most[0] = max(most[0], total)

    thread = threading.Thread(target=watch)
    thread.start()
    yield most
    done.set()
    thread.join()


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=5)
    given = options.parse_args()
    engines = {name: restore.load_engine(name=name) for name in ("torch", "onnx")}
    seconds: dict[str, list[float]] = {}
    chromium = shutil.which("chromium")
    with tempfile.TemporaryDirectory() as made, sync_playwright() as driver, serve.server(Path(made)) as server:
        folder = Path(made)
        element.write_page(folder / "student.html")
        for name, size in (("small", (2000, 1500)), ("large", (4000, 3000))):
            picture = Image.fromarray(image_files.to_u8(pocket.bundled("coffee"))).resize(size)
            picture.save(folder / f"{name}.jpg", quality=92)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        pages = []
        for address in ((folder / "student.html").as_uri(), f"http://127.0.0.1:{server.server_port}/student.html"):
            pages.append(browser.new_page())
            pages[-1].set_default_timeout(600_000)
            pages[-1].goto(address)
            in_browser(pages[-1], folder / "small.jpg")  # starts the engine
        for _ in range(given.rounds):
            for page in pages:
                taken, name = in_browser(page, folder / "small.jpg")
                seconds.setdefault(name, []).append(taken / 3)
            for name, engine in engines.items():
                began = time.perf_counter()
                restore.apply(engine, image_files.load_image_u8(folder / "small.jpg"))
                seconds.setdefault(name, []).append((time.perf_counter() - began) / 3)
        for page in pages:
            page.close()
        threads = os.environ.get("OMP_NUM_THREADS", "all")
        print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, threads: {threads}")
        for name, taken in seconds.items():
            print(f"{name}: {statistics.median(taken):.2f} s a megapixel ({min(taken):.2f} to {max(taken):.2f})")
        page = browser.new_page()
        page.set_default_timeout(600_000)
        page.goto((folder / "student.html").as_uri())
        page.evaluate(WATCH)
        with peak_memory() as most:
            taken, name = in_browser(page, folder / "large.jpg")
        still = page.evaluate("still")
        print(f"12 megapixels, {name}: {taken:.0f} s, {most[0] / 1e6:.0f} MB, longest standstill {still:.0f} ms")
        browser.close()
        server.shutdown()


if __name__ == "__main__":
    main()
