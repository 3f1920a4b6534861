"""The site as a folder: pages from the notebooks of a run, the documents and the docstrings, by MkDocs Material.

Nothing is loaded from another host: formulas are MathML, fonts the reader's own, pictures files of the site.
"""

import base64
import hashlib
import json
import logging
import os
import re
import warnings
from collections.abc import Sequence
from html import escape, unescape
from pathlib import Path, PurePosixPath
from string import Template
from typing import Any
from urllib.parse import unquote

from ttlkit import files, rain
from ttlkit.apply import restore
from ttlkit.data import image_files, pocket
from ttlkit.lesson import compare, report
from ttlkit.machine import checkout
from ttlkit.site import element
from ttlkit.site.element import ASSETS, SiteError

SOURCE = "https://github.com/ttlkit/ttlkit/blob/main"  # where a link to a file leads that is no page of the site
LISTED = ".site.json"  # the files of a site, written by its build: what else lies in the folder is not ours
DOCUMENTS = {"results.md": "notebooks/RESULTS.md", "card.md": "ttlkit/weights/README.md"}


def build(stages: Sequence[Path], out: Path, title: str, notes: Sequence[str] = ()) -> Path:
    """Build the site in the folder `out`, whole or not at all; a site that was there is replaced. Returns `out`.

    `stages`: executed notebooks or stage folders, as of the report; `notes`: lines that stand above each lesson.
    The folder works as it is from any static host, below any address, and opened as files. Raises SiteError and
    ReportError.
    """
    try:
        from mkdocs.commands.build import build as run_mkdocs
        from mkdocs.config import load_config
        from mkdocs.exceptions import MkDocsException
    except ImportError as error:
        raise SiteError(f"{error.name} is not installed; pip install 'ttlkit[site,export,report]'") from None
    _check_replaceable(out)
    with files.beside(out) as folder:
        docs, made = folder / "docs", folder / "site"
        lessons = _write_pages(docs, stages, title, notes)
        nav: list[dict[str, Any]] = [{"Home": "index.md"}, {"Try it": "try.md"}]
        nav += [{"Lessons": [f"lessons/{name}" for name in lessons]}]
        more = {"Results": "results.md", "The student": "card.md", "Library": "library.md"}
        nav += [{name: page} for name, page in more.items() if (docs / page).is_file()]
        logging.getLogger("mkdocs").setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                config = load_config(str(ASSETS / "mkdocs.yml"), docs_dir=str(docs), site_dir=str(made), nav=nav)
                run_mkdocs(config)
            except MkDocsException as error:
                raise SiteError(f"{out}: MkDocs could not build it ({' '.join(str(error).split())})") from None
        for unused in [*made.rglob("*.map"), *made.rglob("lunr")]:
            files.remove(unused)  # source maps, and search in languages that the site has not
        files.write_json(made / LISTED, sorted(path.relative_to(made).as_posix() for path in made.rglob("*")))
        files.remove(out)
        os.replace(made, out)
    return out


def _check_replaceable(out: Path) -> None:
    """SiteError for a folder that holds anything which no build of a site has written."""
    listed = files.read_json(out / LISTED)
    known = {LISTED, *(listed if isinstance(listed, list) else [])}
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise SiteError(f"{files.shown(out)}: no folder; choose another --out")
    for path in out.rglob("*") if out.is_dir() else ():
        if path.relative_to(out).as_posix() not in known:
            raise SiteError(f"{files.shown(path)}: no site's; move it away, or choose another --out")


def _write_pages(docs: Path, stages: Sequence[Path], title: str, notes: Sequence[str]) -> list[str]:
    """All pages and what they show; returns the names of the lessons, in order."""
    root = checkout()
    bodies = {}
    for place, body in ((one.place, one.body) for one in map(report.section, stages)):
        said = "".join(
            f'<div class="admonition note"><p>{escape(note)}</p></div>' for note in notes if note.split()[0] == place
        )
        bodies[f"lessons/{place}.md"] = (said + body, f"notebooks/{place.partition('-')[0]}.ipynb")
    lessons = [PurePosixPath(name).name for name in bodies]
    for name, source in DOCUMENTS.items():
        if root and (root / source).is_file():
            text = (root / source).read_text("utf-8")
            bodies[name] = (report.clean(report.markdown_html(text), (root / source).parent), source)
    targets = {source: name for name, (_, source) in reversed(bodies.items())}  # the first of a notebook's lessons
    for name, (body, source) in bodies.items():
        body = _with_picture_files(_linked(body, name, source, targets), docs, name)
        _write(docs / name, body)
    for name in ("try.md", "library.md"):
        files.write_text(docs / name, (ASSETS / name).read_text("utf-8").replace("$credit", element.CREDIT))
    _write(docs / "index.md", _landing(root, title, lessons))
    files.write_text(docs / "site.css", (ASSETS / "site.css").read_text("utf-8") + compare.STYLE)
    for name, text in {**element.parts(), "iframe-worker.js": element.shim()}.items():
        files.write_text(docs / "derain" / name, text)
    return lessons


def _write(path: Path, body: str) -> None:
    """A page that is HTML already; `hooks` hands it through. Its title is its first heading."""
    heading = re.search(r"<h1[^>]*>(.*?)</h1>", body, re.DOTALL)
    title = re.sub(r"<[^>]*>", "", heading[1]) if heading else escape(path.stem)  # escaped, as the theme needs it
    _, dash, variant = path.stem.partition("-")  # of a lesson that was run several times
    about = {"title": f"{title} ({escape(variant)})" if dash else title, "html": True}
    hidden = {} if path.parent.name == "lessons" else {"hide": ["navigation"]}  # one page, no list beside it
    files.write_text(path, f"---\n{json.dumps(about | hidden)}\n---\n{body}")


def _landing(root: Path | None, title: str, lessons: Sequence[str]) -> str:
    """The promise, a slider, the result in one sentence, two commands."""
    look: dict[str, Any] = {"layers": 3, "width_px": 3.2, "finer": 0.6, "slender": 22, "cover": 0.1, "peak": 0.45}
    look |= {"hides": 0.6, "light": 0.92, "lamps": 0.2, "veil": 0.04, "noise": 0.003, "jpeg": 95, "edge": 1.4}
    drops = rain.layered(pocket.bundled("china"), 2, **look, angle_deg=10, turn_deg=5)
    rainy = image_files.to_u8(drops.rainy)
    slider = compare.slider(
        rainy, restore.derain(rainy), "a pavilion", ("rendered rain", "restored by the released student")
    )
    text = (root / "README.md").read_text("utf-8") if root and (root / "README.md").is_file() else ""
    found = re.search(r"\*\*Reading\*\*: (.+?[a-z)]\.)(?=\s+[A-Z])", text, re.DOTALL)  # its first sentence
    result = (
        report.clean(report.markdown_html(found[1][0].upper() + " ".join(found[1][1:].split())), ASSETS)
        if found
        else ""
    )
    page = Template((ASSETS / "index.html").read_text("utf-8"))
    first = f"lessons/{lessons[0].replace('.md', '.html')}" if lessons else "library.html"
    return page.substitute(slider=slider, result=result, run=escape(title), first=first, credit=element.CREDIT)


def _linked(body: str, name: str, source: str, targets: dict[str, str]) -> str:
    """Headings with ids, code that can be coloured, and links that lead to pages of the site or to the source."""
    ids: dict[str, int] = {}

    def heading(found: re.Match) -> str:
        slug = re.sub(r"[^\w]+", "-", unescape(re.sub(r"<[^>]*>", "", found[2])).lower()).strip("-") or "part"
        ids[slug] = ids.get(slug, -1) + 1
        return f'<h{found[1]} id="{slug}{f"-{ids[slug]}" if ids[slug] else ""}">{found[2]}</h{found[1]}>'

    def link(found: re.Match) -> str:
        path, _, place = unquote(unescape(found[1])).partition("#")
        if re.match(r"[a-z]+:", path) or not path:
            return found[0]
        path = os.path.normpath(PurePosixPath(source).parent / path)
        if path in targets:
            path = os.path.relpath(targets[path], PurePosixPath(name).parent).replace(".md", ".html")
        else:
            path = f"{SOURCE}/{path}"
        return f'<a href="{escape(path)}{f"#{escape(place)}" if place else ""}">'

    body = re.sub(r"<h([1-6])>(.*?)</h\1>", heading, body, flags=re.DOTALL)
    body = re.sub(r"(</summary>)(<pre.*?</pre>)", r'\1<div class="highlight">\2</div>', body, flags=re.DOTALL)
    body = re.sub(
        '<(pre|table|math(?= display="block"))(?=[ >])', r'<\1 tabindex="0"', body
    )  # what may be wider than a phone scrolls by keyboard
    body = body.replace('<span class="math inline">', "<span>")  # the theme lets what is called `inline` float
    return re.sub(r'<a href="([^"]*)">', link, body)


def _with_picture_files(body: str, docs: Path, name: str) -> str:
    """The pictures of a page as files, each once: a third smaller than in the page, and loaded when they are seen."""

    def place(found: re.Match) -> str:
        content = base64.b64decode(found[2])
        path = docs / "pictures" / f"{hashlib.sha256(content).hexdigest()[:16]}.{found[1].removesuffix('+xml')}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return f'loading="lazy" src="{"../" * name.count("/")}pictures/{path.name}"'

    return re.sub(r'src="data:image/([\w+]+);base64,([^"]+)"', place, body)
