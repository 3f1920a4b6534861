"""The site of a run: whole, from a file, offline, at two widths, in light and dark, for keyboard and screen reader."""

import base64
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from nbformat import writes
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from ttlkit import cli
from ttlkit.data import cache
from ttlkit.lesson import live
from ttlkit.site import element

pytest.importorskip("mkdocs", reason="needs MkDocs (extra `site`)")
sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright (extra `test`)")
axe = pytest.importorskip("axe_playwright_python", reason="needs axe-playwright-python (extra `test`)")
FETCHED = [element.packed_at(package) for package in element.HASHES]  # before the tests' own cache is set
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not all(path.is_file() for path in FETCHED), reason="needs packages that `make site` fetches"),
]
PNG = live.png_bytes(np.zeros((400, 900, 3), np.uint8))


@pytest.fixture(scope="module")
def site(tmp_path_factory, cache_folder):
    """The site of a run with two stages, made by the command."""
    kept = cache.folder() / "npm"
    if not kept.exists():
        kept.symlink_to(FETCHED[0].parent)
    home = tmp_path_factory.mktemp("home")
    figure = new_output("display_data", {"image/png": base64.b64encode(PNG).decode()})
    wide = "| a |" + " b |" * 40 + "\n|---|" + "---|" * 40 + "\n| quokka |" + " 1234567 |" * 40
    long = new_output("stream", name="stdout", text="<b>printed</b> " * 60)
    for name, other in (("00_start_here", "04_fine_tuning"), ("04_fine_tuning-student", "00_start_here")):
        cells = [
            new_markdown_cell(
                f"# Lesson of {name} &lt;i>\n\n[next]({other}.ipynb), [code](../ttlkit/cli.py)\n\n{wide}"
            ),
            new_code_cell("x = 1", outputs=[figure, long]),
            new_markdown_cell(
                "## The idea\n\nWith $x_1$:\n\n$$\\sum_{k=1}^{K} " + "R_k + " * 60 + "0$$\n\n## The idea"
            ),
        ]
        stage = home / "outputs" / "mine" / name
        stage.mkdir(parents=True)
        (stage / "notebook.ipynb").write_text(writes(new_notebook(cells=cells)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TTLKIT_HOME", str(home))
        assert cli.main(["site", "--run", "mine"]) == 0
    shutil.move(home / "outputs" / "site", home / "elsewhere")  # it works wherever it is copied to
    return home / "elsewhere"


class Page(HTMLParser):
    """What a page loads, where it links to, and its ids."""

    def __init__(self, path):
        super().__init__()
        self.loads, self.links, self.ids = [], [], set()
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attributes):
        given = {name: value or "" for name, value in attributes}
        self.ids.add(given.get("id"))
        if tag == "a":
            self.links += [given["href"]] if "href" in given else []
        elif tag != "link" or given.get("rel") not in ("canonical", "prev", "next"):
            self.loads += [given[name] for name in ("src", "href", "data", "poster") if name in given]


def test_every_page_is_there_loads_nothing_foreign_and_no_link_is_dead(site):
    pages = {path: Page(path) for path in site.rglob("*.html")}
    names = {path.relative_to(site).as_posix() for path in pages}
    lessons = {"lessons/00_start_here.html", "lessons/04_fine_tuning-student.html"}
    assert {"index.html", "try.html", "results.html", "card.html", "library.html", *lessons} <= names
    assert sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) < 25e6
    for path, page in pages.items():
        if path.name == "404.html":  # no host but a server's shows it, and its addresses begin at the root
            continue
        for address in [*page.loads, *page.links]:
            parts = urlsplit(address)
            if address in page.loads:
                assert not parts.netloc and parts.scheme in ("", "data"), f"{path.name} loads {address[:99]}"
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.is_file(), f"{path.name}: {address} leads nowhere"
            if parts.fragment and target in pages and not parts.fragment.startswith("__"):
                assert unquote(parts.fragment) in pages[target].ids, f"{path.name}: no {address}"
    for style in site.rglob("*.css"):
        assert not re.findall(r"url\(['\"]?(?:https?:)?//", style.read_text("utf-8"))


def test_pages_say_what_they_should(site):
    landing = (site / "index.html").read_text("utf-8")
    for words in ("ttlkit-slider", " dB", "make reproduce", "ttlkit derain holiday.jpg", "of the run mine"):
        assert words in landing
    lesson = (site / "lessons" / "04_fine_tuning-student.html").read_text("utf-8")
    assert "&lt;b&gt;printed&lt;/b&gt;" in lesson and "<math" in lesson and 'id="the-idea-1"' in lesson
    assert 'href="00_start_here.html"' in lesson and "blob/main/ttlkit/cli.py" in lesson
    assert lesson.count("&lt;i&gt;") >= 3 and "<i>" not in lesson  # title, heading, lists: a name is no markup
    library = (site / "library.html").read_text("utf-8")
    for name in ("derain", "physical", "layered", "compare"):
        assert f"{name}</span>" in library or f">{name}<" in library
    assert "Remove the rain from a photograph" in library


def test_a_run_without_stages_is_an_error_that_names_the_way_out(home, capsys):
    assert cli.main(["site", "--run", "none"]) == 1
    assert "none: no finished stages; run `ttlkit reproduce --run none`" in capsys.readouterr().err
    assert cli.main(["site", "--serve"]) == 1
    assert "no site yet; build it: ttlkit site" in capsys.readouterr().err


def test_a_folder_that_holds_something_else_is_not_replaced(home, capsys):
    (home / "outputs" / "mine" / "00_start_here").mkdir(parents=True)
    (home / "outputs" / "mine" / "00_start_here" / "notebook.ipynb").write_text(writes(new_notebook()))
    (home / "photographs").mkdir()
    (home / "photographs" / "one.jpg").write_bytes(b"dear")
    assert cli.main(["site", "--run", "mine", "--out", str(home / "photographs")]) == 1
    assert "one.jpg: no site's; move it away, or choose another --out" in capsys.readouterr().err
    assert (home / "photographs" / "one.jpg").read_bytes() == b"dear"


def test_what_was_put_into_a_site_is_not_lost_when_it_is_built_again(site, home, capsys):
    (home / "outputs" / "mine" / "00_start_here").mkdir(parents=True)
    (home / "outputs" / "mine" / "00_start_here" / "notebook.ipynb").write_text(writes(new_notebook()))
    shutil.copytree(site, home / "outputs" / "site")
    (home / "outputs" / "site" / "CNAME").write_text("rain.example")
    assert cli.main(["site", "--run", "mine"]) == 1
    assert "CNAME: no site's; move it away" in capsys.readouterr().err
    assert (home / "outputs" / "site" / "CNAME").exists() and (home / "outputs" / "site" / "index.html").exists()
    assert cli.main(["site", "--serve", "--port", "99999"]) == 1 and "from 0" in capsys.readouterr().err
    for name in ("../mine", "mine/", ""):
        assert cli.main(["site", "--run", name]) == 1 and "must be a plain folder name" in capsys.readouterr().err


def test_the_report_names_the_page_that_lies_beside_it(home):
    stage = home / "outputs" / "mine" / "00_start_here"
    stage.mkdir(parents=True)
    (stage / "notebook.ipynb").write_text(writes(new_notebook()))
    (stage.parent / "student.html").write_text("made by ttlkit export")
    assert cli.main(["report", "mine"]) == 0
    assert "student.html, beside this report" in (stage.parent / "report.html").read_text("utf-8")


def serious(page):
    """What axe-core finds serious on a page."""
    page.evaluate(next(Path(axe.__file__).parent.glob("axe*.js")).read_text("utf-8"))
    found = page.evaluate("axe.run(document, {preload: false, resultTypes: ['violations']})")["violations"]
    return [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]


@pytest.mark.parametrize(
    ("width", "scheme", "pages"),
    [
        (1280, "light", ("index", "card", "library")),
        (390, "dark", ("try", "results", "lessons/04_fine_tuning-student")),
    ],
)
def test_pages_fit_and_axe_finds_nothing_serious(browser, site, width, scheme, pages):
    """From files, offline; also that nothing is asked of another host, and no script fails."""
    bad = []
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
    with context as opened:
        page = opened.new_page()
        page.on("request", lambda asked: asked.url.startswith(("file:", "blob:", "data:")) or bad.append(asked.url))
        page.on("pageerror", lambda error: bad.append(str(error)))
        for name in pages:
            page.goto((site / f"{name}.html").as_uri())
            assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, f"{name} is too wide"
            assert serious(page) == [], name
    assert bad == []


def test_search_and_the_student_work_from_files_without_a_network(browser, site):
    with browser.new_context(viewport={"width": 1280, "height": 900}, offline=True) as opened:
        page = opened.new_page()
        page.goto((site / "try.html").as_uri())
        page.locator(".examples button").nth(2).click()
        sync_api.expect(page.locator("derain-photo [role=status]")).to_contain_text("restored in", timeout=60_000)
        assert serious(page) == []  # with the result and its sliders
        page.locator("input.md-search__input").click()
        page.keyboard.type("quokka")
        result = page.locator(".md-search-result__link").first
        result.wait_for()
        assert "lessons/" in result.get_attribute("href")
