"""The report: all stages of a run as one HTML file that needs no network.

What notebooks and programs wrote, and the names of files, sets and runs, is foreign: it enters the page through
`clean` or escaped, and in no other way.
"""

import base64
import io
import mimetypes
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from html import escape, unescape
from pathlib import Path, PurePosixPath
from string import Template
from typing import Any
from urllib.parse import quote, unquote

from PIL import Image

from ttlkit import files
from ttlkit.lesson import compare
from ttlkit.lesson.figures import table
from ttlkit.machine import leaving_out

SMALL = 10_000  # characters of a picture that is neither made smaller nor left out where it stands a second time
WIDEST = 1600  # pixels, of a figure
QUESTION = (
    "Can a network learn to remove rain from a few pairs of pictures? <i>scratch</i> has seen these pairs alone; the "
    "<i>student</i> had first learned to see from photographs without ground truth."
)
FAILED = '<pre class="error">'
_SLIDER, _PLOT = r'<figure class="slider">.*?</figure>', r'<p><img src="data:[^"]*"(?: alt="[^"]*")?></p>'
MISSING: str | None = None
try:
    with leaving_out("rfc3987_syntax"):  # of nbformat: takes over a second, and checks addresses that are not here
        import nbformat
    import nh3
    from pygments.formatters import HtmlFormatter

    from ttlkit.lesson.markdown import coloured, markdown_html
except ImportError as error:
    MISSING = error.name


class ReportError(RuntimeError):
    """The report cannot be written; the message names the file and the way out."""


def write_report(
    stages: Sequence[Path], out: Path, title: str, intro_markdown: str = "", notes: Sequence[str] = ()
) -> Path:
    """Write stages as one HTML file that needs no network; whole or not at all; returns `out`.

    `stages`: executed notebooks, or stage folders; of a folder without notebook.ipynb the results in its DONE.json,
    table.txt and figures/*.png are shown. Code is collapsed, outputs are visible, images inline, formulas MathML.
    Cells tagged `bootstrap` that did not fail, and widgets, are left out. `notes` are plain text, below the poster.
    Images come from a notebook's own folder, those of the intro from the folder of `out`.
    Raises ReportError for a damaged notebook, a folder without results or missing packages.
    """
    if MISSING:
        raise ReportError(f"the report needs the package {MISSING}: pip install 'ttlkit[report]'")
    out, found = Path(out), [section(Path(path), f"nb{i}") for i, path in enumerate(stages, 1)]
    # What links may name: the first of the sections that one notebook has made.
    ids = {f"{one.place.partition('-')[0]}.ipynb": one.id for one in reversed(found)}
    ids |= {"#poster": "poster", **{f"#{one.id}": one.id for one in found}}
    seen: dict[tuple[str, ...], str] = {}
    poster = _once(_poster(found), "at the top", seen)
    contents, sections = "", ""
    for one in found:
        heading = re.search(r"<h[1-6]>(.*?)</h[1-6]>", one.body, re.DOTALL)
        title_of = _text(heading[1]) if heading else one.place
        label = escape(f"{title_of} ({one.place})" if title_of != one.place else one.place)
        body = _linked(_once(one.body, f'in <a href="#{one.id}">{escape(one.place)}</a>', seen), one.id, ids)
        contents += f'<li><a href="#{one.id}">{label}</a></li>'
        fold = f"<details{' open' if FAILED in body else ''}><summary><h2>{label}</h2></summary>"
        sections += f'<section aria-label="{label}">{fold}<div id="{one.id}">{body}</div></details></section>\n'
    few = "".join(f'<p class="note">{escape(note)}</p>' for note in notes)
    page = Template(Path(__file__).with_name("report.html").read_text(encoding="utf-8")).substitute(
        title=escape(title),
        code_style=HtmlFormatter(nobackground=True).get_style_defs("pre"),
        dark_code_style=HtmlFormatter(nobackground=True, style="github-dark").get_style_defs("pre"),
        slider_style=compare.STYLE,
        notes=few if len(notes) < 3 else f'<details class="note"><summary>{len(notes)} notes</summary>{few}</details>',
        poster=poster and f'<div id="poster">{_linked(poster, "top", ids)}</div>',
        intro=_linked(clean(markdown_html(intro_markdown), out.parent), "intro", ids),
        contents=contents and f'<nav aria-label="Notebooks"><ol>{contents}</ol></nav>',
        sections=sections,
    )
    return files.write_text(out, page)


@dataclass
class Section:
    id: str  # in the page
    place: str  # the name of the stage's folder, or of the notebook
    folder: Path
    body: str  # clean HTML


def _poster(found: Sequence[Section]) -> str:
    """The top of a run's page: its verdict, a slider, a table, a figure; pictures are taken out of the sections."""
    evaluation = next((one for one in found if one.place.startswith("05_")), None)
    if not evaluation:
        return ""
    done, path = files.read_json(evaluation.folder / "DONE.json"), evaluation.folder / "table.txt"
    results = done.get("results") if isinstance(done, dict) else None
    verdict = results.get("verdict") if isinstance(results, dict) else None
    text = path.read_text("utf-8", "replace") if path.is_file() else ""
    table = re.search(r"^(.*)\n((?:\|.*(?:\n|$))+)", text, re.MULTILINE)

    def take(pattern: str, *among: Section) -> str:
        for one in among:
            if shown := re.search(pattern, one.body, re.DOTALL):
                one.body = one.body.replace(shown[0], '<p><a href="#poster">Shown at the top.</a></p>', 1)
                return f'{shown[0]}<p>From <a href="#{one.id}">{escape(one.place)}</a>.</p>'
        return ""

    first, _, rest = verdict.partition("\n") if isinstance(verdict, str) else ("", "", "")
    parts = [f"<p>{QUESTION}</p>", f'<p class="verdict">{escape(first)}</p>'] if first else []
    parts += [f"<p>{escape(line)}</p>" for line in rest.splitlines()]
    facts = text.partition("\n\n")[0].splitlines()  # what was measured, and whether on simulated rain
    parts += [f"<p>{escape(line)}</p>" for line in facts if not (table and line in table[0])]
    parts.append(take(_SLIDER, evaluation, *(one for one in found if one.place.startswith("00_"))))
    if table:
        metric = table[1].partition(": ")[2] or table[1]  # "psnr_rgb: PSNR on RGB in dB, more is better"
        caption = f"{metric}: mean over images ± half a 95 % interval"
        parts += [f"<p>{escape(caption)}</p>", clean(markdown_html(table[2]), path.parent)]
    named = (rf'<p><img src="[^"]*" alt="{name}[^"]*"></p>' for name in ("differences", "psnr rgb"))
    parts.append(next(filter(None, (take(plot, evaluation) for plot in (*named, _PLOT))), ""))
    return "\n".join(parts)


def _once(body: str, where: str, seen: dict[tuple[str, ...], str]) -> str:
    """The body, with each picture that the page has `seen` already in place of it a line that says where."""

    def first(found: re.Match) -> str:
        sources = tuple(re.findall(r' src="(data:[^"]*)"', found[0]))
        if sources in seen:
            alt = re.search(r' alt="([^"]*)"', found[0])
            return f"<p>The same picture stands {seen[sources]}: {alt[1] if alt else ''}</p>"
        if len("".join(sources)) > SMALL:
            seen[sources] = where
        return found[0]

    return re.sub(f"{_SLIDER}|{_PLOT}", first, body, flags=re.DOTALL)


def section(path: Path, id: str = "") -> Section:
    """An executed notebook or a stage folder.

    Its parts are cleaned each for itself: one that is never closed takes no other.
    """
    if (path / "notebook.ipynb").is_file():
        path /= "notebook.ipynb"
    if path.is_dir():
        return Section(id, path.name, path, "\n".join(clean(part, path) for part in _by_hand(path)))
    place, near, parts = path.parent.name if path.name == "notebook.ipynb" else path.stem, "", []
    names = {base64.b64encode(one.read_bytes()).decode(): one.stem for one in path.parent.glob("figures/*.png")}
    try:
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "markdown":
                near = [near, *re.findall(r"^#+ +(.+)$", cell.source, re.MULTILINE)][-1]
            parts += [clean(part, path.parent, cell.get("attachments")) for part in _parts(cell, names, near)]
        return Section(id, place, path.parent, "\n".join(parts))
    except Exception as error:  # of a file that is half written or no notebook, nearly every kind there is
        words = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise ReportError(f"{files.shown(path)}: not a whole notebook ({words}); run its stage again") from error


def _by_hand(folder: Path) -> Iterator[str]:
    """Parts of a stage that was run by hand, from what it left in its folder."""
    done = files.read_json(folder / "DONE.json")
    if not isinstance(done, dict):
        raise ReportError(f"{files.shown(folder)}: holds neither notebook.ipynb nor a whole DONE.json; run this stage")
    yield f"<h1>{escape(str(done.get('stage') or folder.name))}</h1>"
    yield "<p>This stage was run by hand: no executed notebook is kept, only what it left in its folder.</p>"
    results = dict(done.get("results") or {})
    tables = {name: rows for name, rows in results.items() if isinstance(rows, list) and {*map(type, rows)} == {dict}}
    numbers = [{"result": name, "value": value} for name, value in results.items() if name not in tables]
    yield table(numbers, digits=4)._repr_html_() if numbers else ""
    for name, rows in tables.items():
        yield f"<h2>{escape(name)}</h2>{table(rows)._repr_html_()}"
    if (folder / "table.txt").is_file():
        yield markdown_html((folder / "table.txt").read_text(encoding="utf-8", errors="replace"))
    for path in sorted((folder / "figures").glob("*.png")):
        source = f"figures/{quote(path.name, errors='surrogateescape')}"
        yield f'<p><img src="{source}" alt="{escape(_words(path.stem))}"></p>'


def _parts(cell, names: dict[str, str], near: str) -> Iterator[str]:
    """Parts of a cell; `names` of pictures by their base64, and the heading `near` it, say what pictures show."""
    outputs, tags = cell.get("outputs", []), cell.metadata.get("tags", [])
    if "bootstrap" in tags and not any(output.output_type == "error" for output in outputs):
        return
    if cell.cell_type == "markdown":
        yield markdown_html(cell.source)
    elif cell.cell_type == "code" and cell.source.strip():
        label = "Parameters of this run" if "injected-parameters" in tags else "Code"
        yield f"<details><summary>{label}</summary><pre>{coloured(cell.source)}</pre></details>"
        yield from (_output(output, names, near) for output in outputs)


_SHOWN = ("text/html", "text/markdown", "image/svg+xml", "text/latex", "image/png", "image/jpeg", "text/plain")


def _output(output, names: dict[str, str], near: str) -> str:
    """The best form of a cell's output as HTML; of a widget nothing: its text is only its constructor call."""
    if output.output_type == "stream":
        return _printed(output.name, output.text)
    if output.output_type == "error":
        return _printed("error", "\n".join(output.traceback) or output.evalue)
    kind = next((kind for kind in _SHOWN if kind in output.data), "")
    value = output.data.get(kind, "")
    if kind == "text/html":
        return value
    if kind in ("text/markdown", "text/latex"):
        return markdown_html(value)
    if kind.startswith("image/"):
        told = [_words(names.get(value.strip(), "")), output.metadata.get(kind, {}).get("alt") or near]
        alt = escape(": ".join(filter(None, told)) or "figure drawn by the code above")
        coded = base64.b64encode(value.encode(errors="replace")).decode() if kind == "image/svg+xml" else value
        kind, coded = _lighter(coded) if kind == "image/png" else (kind, coded)
        return f'<p><img src="data:{kind};base64,{escape(coded)}" alt="{alt}"></p>'
    return "" if any("widget" in other or "script" in other for other in output.data) else _printed("", value)


def _words(name: str) -> str:
    return re.sub("[_-]+", " ", name)


def _lighter(coded: str) -> tuple[str, str]:
    """A PNG (base64) as WebP, which takes a tenth, so that the page can be mailed: its kind, and base64."""
    if len(coded) > SMALL:
        with suppress(ValueError, OSError, Image.DecompressionBombError):  # what is no PNG stays as it is
            picture, buffer = Image.open(io.BytesIO(base64.b64decode(coded))).convert("RGB"), io.BytesIO()
            picture.thumbnail((WIDEST, picture.height))
            picture.save(buffer, "WEBP", quality=75)
            if (webp := base64.b64encode(buffer.getvalue()).decode()) and len(webp) < len(coded):
                return "image/webp", webp
    return "image/png", coded


def _printed(kind: str, text: str) -> str:
    """Printed text without colours and progress bars."""
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|^[^\n]*\r(?=[^\n])", "", text, flags=re.MULTILINE)
    text = re.sub(r"^[^\n]*\d%\|[^\n]*\n?", "", text, flags=re.MULTILINE)
    return f'<pre class="{escape(kind)}">{escape(text)}</pre>' if text.strip() else ""


_MATH = {
    "math", "menclose", "mfrac", "mi", "mn", "mo", "mover", "mpadded", "mphantom", "mroot", "mrow", "mspace", "msqrt",
    "mstyle", "msub", "msubsup", "msup", "mtable", "mtd", "mtext", "mtr", "munder", "munderover",
}  # fmt: skip
_MATH_LOOK = {
    "accent", "columnalign", "columnlines", "columnspacing", "depth", "display", "displaystyle", "fence", "form",
    "height", "linethickness", "lspace", "mathcolor", "mathsize", "mathvariant", "maxsize", "minsize", "movablelimits",
    "notation", "rowlines", "rowspacing", "rspace", "scriptlevel", "separator", "stretchy", "voffset", "width",
}  # fmt: skip
_PICTURE = re.compile(r"data:image/(png|jpeg|gif|webp|svg\+xml)[;,]")
_ATTRIBUTES = {
    "a": {"href"}, "img": {"src", "alt"}, "span": {"class"}, "pre": {"class"},
    **dict.fromkeys(("td", "th"), {"style", "colspan", "rowspan"}), **dict.fromkeys(_MATH, _MATH_LOOK),
}  # fmt: skip


def clean(page: str, folder: Path, attachments: dict[str, Any] | None = None) -> str:
    """Foreign HTML made harmless: nothing runs and nothing loads, images of `folder` and `attachments` are put in.

    Other pictures become their description. Links are looked after by `_linked`. A before/after slider stays one.
    """
    if slider := compare.without_style(page):
        return f'<figure class="slider">{slider}</figure>'  # a class that no foreign HTML keeps

    def look(_: str, name: str, value: str) -> str | None:
        if name != "src" or _PICTURE.match(value):  # a picture that is in already is no path
            return value
        for kind, data in (attachments or {}).get(unquote(value.removeprefix("attachment:")), {}).items():
            return f"data:{kind};base64,{data}" if kind.startswith("image/") else None
        with suppress(OSError, ValueError):  # a name too long, or with a null character
            path = (folder / unquote(value, errors="surrogateescape")).resolve()
            if path.is_relative_to(folder.resolve()) and path.is_file():
                kind, data = mimetypes.guess_type(path.name)[0], base64.b64encode(path.read_bytes()).decode()
                kind, data = _lighter(data) if kind == "image/png" else (kind, data)
                value = f"data:{kind};base64,{data}"
        return value if _PICTURE.match(value) else None

    clean = nh3.clean(
        page.encode("utf-8", "replace").decode(),
        tags=nh3.ALLOWED_TAGS | _MATH,
        clean_content_tags={"script", "style", "title", "iframe", "object"},
        attributes=_ATTRIBUTES,
        attribute_filter=look,
        filter_style_properties={"text-align", "font-weight"},
        url_schemes={"http", "https", "data", "attachment"},
        link_rel=None,
    )
    return re.sub(r'<img(?: alt="([^"]*)")?>', lambda found: escape(unescape(found[1] or "")), clean)


def _linked(clean: str, prefix: str, ids: dict[str, str]) -> str:
    """Clean HTML whose headings have ids that start with `prefix`, and whose links lead to places in this page.

    Those are its headings and the notebooks in `ids` (file name to id); a web address is spelled out.
    """
    places = dict(ids)

    def heading(found: re.Match) -> str:
        name, level = _slug(_text(found[2])), min(6, int(found[1]) + 1)  # the report's own title is the only h1
        if name in places:  # a link leads to the first heading of this name
            return f"<h{level}>{found[2]}</h{level}>"
        places[name] = f"{prefix}-{name[1:]}"
        return f'<h{level} id="{places[name]}">{found[2]}</h{level}>'

    def link(found: re.Match) -> str:
        target, shown = unquote(unescape(found[1])), found[2]
        if "colab.research.google.com" in target:  # opens the notebook of the project, not of this run
            return ""
        if target.startswith(("http:", "https:")):
            return shown if _text(shown) == target else f"{shown} ({escape(target)})"
        file, _, place = target.partition("#")
        anchor = places.get(PurePosixPath(file).name or _slug(place))
        return f'<a href="#{anchor}">{shown}</a>' if anchor else shown

    page = re.sub(r"<h([1-6])>(.*?)</h\1>", heading, clean, flags=re.DOTALL)
    page = re.sub(r'<a href="([^"]*)">(.*?)</a>', link, page, flags=re.DOTALL)
    return re.sub(r"<(p|tr)>\s*</\1>", "", page)  # a row without cells is no HTML


def _slug(text: str) -> str:
    return "#" + re.sub(r"[^\w]+", "-", text.lower()).strip("-")


def _text(page: str) -> str:
    return unescape(re.sub(r"<[^>]*>", "", page))
