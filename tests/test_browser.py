"""In a real browser: no name, output or number that enters a report runs, loads or shows a file of somewhere else."""

import base64
import json

import nbformat
import numpy as np
import pytest
from matplotlib.figure import Figure
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from ttlkit import files, machine
from ttlkit.data.check import Finding
from ttlkit.evaluate import scores
from ttlkit.gap import page, plots, study
from ttlkit.lesson import figures, report

sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright (extra `test`)")
pytestmark = pytest.mark.slow

# Each is a name of a file too: no slash, no null character. SECRET: the path of a picture outside, its slashes coded.
PAYLOADS = [
    "<script>__hit()<∕script>",
    "<![CDATA[x><img src=x onerror=__hit()>]]>",
    "<!DOCTYPE x [<!ENTITY y '<img src=x onerror=__hit()>'>]>",
    "<?xml-stylesheet href='x'?><img src=x onerror=__hit()>",
    "<!--><img src=x onerror=__hit()>-->",
    "<img src=x onerror=__hit()>",
    "<svg onload=__hit()>",
    "<svg><animate onbegin=__hit() attributeName=x dur=1s>",
    "<math><mtext><img src=x onerror=__hit()>",
    "<body onload=__hit()>",
    "<details open ontoggle=__hit()>",
    "<input autofocus onfocus=__hit()>",
    "<video src=x onerror=__hit()>",
    "<iframe srcdoc='<script>parent.__hit()<∕script>'>",
    "<object data=javascript:__hit()>",
    "<meta http-equiv=refresh content=0;url=javascript:__hit()>",
    "<base href=http:%2f%2fevil.example>",
    "<link rel=stylesheet href=http:evil.example>",
    "<style>@import 'http:evil.example'",
    "<p style=background:url(http:evil.example)>x",
    "\"' onmouseover=__hit() x='",
    "--><img src=x onerror=__hit()>",
    "]]><img src=x onerror=__hit()>",
    "<plaintext><xmp><noscript><textarea><title>",
    "[x](javascript:__hit())",
    "![x](SECRET)",
    "<img src=SECRET>",
    "`x` ``` <b>*x*</b> __x__ ~~x~~ \\*x\\* &amp; &lt;".replace("/", "∕"),
    "$x_1$ $$\\href{javascript:__hit()}{x}$$",
    "# x | y | z {{x}} ${__hit()} %3Cscript%3E",
    "- x", "1. x", "> x", "x ![y][z] [z] <http:evil.example>",
]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a picture in it that no report may show, and what names it."""
    folder = tmp_path_factory.mktemp("browser")
    save_picture(folder / "secret.png", 99)
    coded = str(folder / "secret.png").replace("/", "%2f")
    return folder, [payload.replace("SECRET", coded) for payload in PAYLOADS]


def save_picture(path, seed, side=48):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)).save(path)


def visit(browser, path, bypass_csp=True):
    """What happens on a page: (whatever ran, was said or asked for), its text, and the addresses of its pictures.

    `bypass_csp`: the page's own policy, the second lock, is off, so that the first one is what is looked at.
    """
    happened = []
    with browser.new_context(bypass_csp=bypass_csp, offline=True) as context:
        page = context.new_page()
        page.expose_function("__hit", lambda: happened.append("a script ran"))
        page.on("console", lambda said: happened.append(said.text))
        page.on("pageerror", lambda error: happened.append(str(error)))
        page.on("dialog", lambda shown: (happened.append(shown.message), shown.dismiss()))
        page.on("request", lambda asked: asked.url.startswith("data:") or happened.append(asked.url))
        page.goto(path.as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        page.wait_for_timeout(200)
        handlers = page.evaluate(
            """[...document.querySelectorAll('*')].flatMap(one => [...one.attributes])
            .filter(a => a.name.startsWith('on') || /^\\s*(javascript|http|file):/i.test(a.value)).map(a => a.value)"""
        )
        text = " ".join(page.evaluate("document.body.textContent").split())
        pictures = page.evaluate("[...document.images].map(one => [one.src, one.naturalWidth])")
    assert happened.pop(0) == path.as_uri()
    return happened + handlers, text, pictures


def check_page(browser, path, secret, payloads):
    happened, text, pictures = visit(browser, path)
    assert happened == []
    assert all(source.startswith("data:image/") and width for source, width in pictures)
    assert base64.b64encode(secret.read_bytes()).decode() not in path.read_text()
    assert [payload for payload in payloads if " ".join(payload.split()) not in text] == []
    return text, pictures


def printed(text, name="stdout"):
    return new_code_cell("x", outputs=[new_output("stream", name=name, text=text)])


def shown(**data):
    return new_code_cell("x", outputs=[new_output("display_data", {k.replace("_", "/"): v for k, v in data.items()})])


def failed(text):
    return new_code_cell("x", outputs=[new_output("error", ename=text, evalue=text, traceback=[f"\x1b[0;31m{text}"])])


def test_the_report_of_a_run_named_as_badly_as_can_be(browser, place):
    """Names of runs, stages, sets, peers, files; what cells print, tables of numbers, tracebacks, notes."""
    folder, payloads = place
    run = folder / "run"
    rows = [{"set": p, "kind": "paired", "image": p, "model": p, "psnr_rgb": 20.0} for p in payloads]
    scores.save_rows(run / "05 x" / "scores.csv", rows)
    summary = scores.summarise(scores.load_rows(run / "05 x" / "scores.csv"))
    table = figures.table(summary)
    sections = []
    for number, payload in enumerate(payloads):
        stage = run / f"05 {number} {payload[:40]}"
        save_picture(stage / "figures" / f"{payload[:80]}.png", number, 4)
        files.write_json(stage / "DONE.json", {"stage": payload, "results": {payload: payload, "rows": rows[:1]}})
        sections.append(stage)
    cells = [
        *(printed(str(Finding("leak", payload, payload, payload))) for payload in payloads),
        *(failed(f"CollectionError: {payload}: no images") for payload in payloads),
        *(printed(payload, "stderr") for payload in payloads),
        *(shown(text_plain=payload) for payload in payloads),
        shown(text_html=table._repr_html_()),
        shown(text_markdown=table._repr_markdown_()),
        *(new_code_cell(payload) for payload in payloads),
    ]
    (run / "05 x" / "notebook.ipynb").write_text(nbformat.writes(new_notebook(cells=cells)))
    intro = figures.markdown_table(scores.pivot(summary, "psnr_rgb"))
    (sections[0] / "table.txt").write_text(f"psnr_rgb\n{intro}")
    title = " ".join(payloads)
    out = report.write_report([run / "05 x", *sections], run / "report.html", title, intro, payloads)
    text, pictures = check_page(browser, out, folder / "secret.png", [*payloads, title])
    assert len(pictures) == len(payloads)  # a figure of each stage run by hand, and nothing that a name asks for
    for payload in payloads:  # in no place has a name become markup, which would hide part of it
        seen, row = text.count(" ".join(payload.split())), sum(payload in other for other in payloads)
        assert seen >= 21 * row, (payload, seen)


def test_foreign_markup_is_harmless_too(browser, place):
    """Where cells may hold markup, it is shown without what runs or loads."""
    folder, payloads = place
    cells = [
        cell
        for payload in (payload.replace("∕", "/") for payload in payloads)
        for cell in (new_markdown_cell(payload), shown(text_html=payload), shown(text_markdown=payload))
    ]
    drawing = "<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'><script>__hit()</script></svg>"
    cells.append(new_code_cell("x", outputs=[new_output("display_data", {"image/svg+xml": drawing})]))
    (folder / "foreign").mkdir()
    (folder / "foreign" / "one.ipynb").write_text(json.dumps(new_notebook(cells=cells)))
    out = report.write_report([folder / "foreign" / "one.ipynb"], folder / "foreign" / "report.html", "x")
    _, pictures = check_page(browser, out, folder / "secret.png", [])
    assert len(pictures) == 1  # the drawing
    out.write_text(out.read_text().replace("</body>", "<img src=x onerror=__hit()><script>__hit()</script></body>"))
    assert "a script ran" in visit(browser, out)[0], "this would see a script"
    happened, *_ = visit(browser, out, bypass_csp=False)
    assert happened and "a script ran" not in happened, "the page's own policy is a second lock"


def test_the_report_fits_a_phone_and_the_dark(browser, tmp_path):
    """Nothing scrolls sideways but tables, code and formulas in their own boxes; a link opens what is folded."""
    wide = "x" * 300
    cells = [
        new_markdown_cell(
            f"# {wide}\n\n`{wide}`\n\n$$\\sum_i {'x_i + ' * 60} 0$$ and ${'x_i + ' * 60} 0$\n\n## Far down"
        ),
        new_code_cell(f"{wide} = 1", outputs=[new_output("stream", name="stdout", text=wide)]),
        shown(text_html=figures.table([{f"{wide}{n}": wide for n in range(3)}])._repr_html_()),
    ]
    nbformat.write(new_notebook(cells=cells), tmp_path / "one.ipynb")
    cells = [new_markdown_cell("[there](one.ipynb)")]
    nbformat.write(new_notebook(cells=cells), tmp_path / "two.ipynb")
    out = report.write_report(
        [tmp_path / "one.ipynb", tmp_path / "two.ipynb"], tmp_path / "report.html", wide, notes=[wide]
    )
    with browser.new_context(viewport={"width": 390, "height": 800}, color_scheme="dark", offline=True) as context:
        page = context.new_page()
        page.goto(out.as_uri())
        assert not page.locator("#nb1").is_visible()
        page.click("nav a >> nth=0")
        assert page.locator("#nb1").is_visible() and not page.locator("#nb2").is_visible()
        page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(22, 25, 29)"


def test_the_gap_of_sets_and_files_named_as_badly_as_can_be(browser, place, monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 1)  # a process takes longer than the work
    monkeypatch.setattr(plots, "plot_feature", lambda *values: Figure())  # takes a second, and shows no name
    folder, payloads = place
    sides = []
    for side in "ab":
        for number in range(3):
            save_picture(folder / side / f"{number}.png", ord(side) + number)
        for payload in payloads:
            (folder / side / f"{payload}.png").write_bytes(b"no picture")
        sides.append(study.measure_files(sorted((folder / side).iterdir()), " ".join(payloads)))
    found = study.compare(*sides, rounds=5)
    out = page.write(folder / "![x](SECRET) <b> 100% 'a'", *sides, found)
    text, pictures = check_page(browser, out, folder / "secret.png", [f"{payload}.png" for payload in payloads])
    assert text.count(" ".join(payloads)) >= 1 + 4 and len(pictures) == 9
