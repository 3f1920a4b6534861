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
from html import escape, unescape
from pathlib import Path, PurePosixPath
from string import Template
from typing import Any
from urllib.parse import quote, unquote
from xml.etree import ElementTree

from PIL import Image

from ttlkit import files
from ttlkit.lesson.figures import table
from ttlkit.machine import leaving_out

MISSING: str | None = None
try:
    with leaving_out("rfc3987_syntax"):  # of nbformat: takes over a second, and checks addresses that are not here
        import nbformat
    import nh3
    from latex2mathml.converter import convert
    from markdown_it import MarkdownIt
    from mdit_py_plugins.amsmath import amsmath_plugin
    from mdit_py_plugins.dollarmath.index import dollarmath_plugin, math_inline_dollar
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer
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
    Cells tagged `bootstrap` that did not fail, and widgets, are left out. `notes` are plain text at the top. Images
    come from a notebook's own folder, those of the intro from the folder of `out`.
    Raises ReportError for a damaged notebook, a folder without results or missing packages.
    """
    if MISSING:
        raise ReportError(f"the report needs the package {MISSING}: pip install 'ttlkit[report]'")
    out, found = Path(out), [section(Path(path)) for path in stages]
    # What links may name: the first of the sections that one notebook has made.
    ids = {f"{place.partition('-')[0]}.ipynb": f"nb{i}" for i, (place, _) in reversed(list(enumerate(found, 1)))}
    contents, sections = "", ""
    for i, (place, body) in enumerate(found, 1):
        heading = re.search(r"<h[1-6]>(.*?)</h[1-6]>", body, re.DOTALL)
        label = escape(f"{_text(heading[1])} ({place})" if heading and heading[1] != place else place)
        contents += f'<li><a href="#nb{i}">{label}</a></li>'
        sections += f'<section id="nb{i}" aria-label="{label}">{_linked(body, f"nb{i}", ids)}</section>\n'
    page = Template(Path(__file__).with_name("report.html").read_text(encoding="utf-8")).substitute(
        title=escape(title),
        code_style=HtmlFormatter().get_style_defs("pre"),
        notes="".join(f'<p class="note">{escape(note)}</p>' for note in notes),
        intro=_linked(clean(markdown_html(intro_markdown), out.parent), "intro", ids),
        contents=contents and f'<nav aria-label="Notebooks"><ol>{contents}</ol></nav>',
        sections=sections,
    )
    return files.write_text(out, page)


def section(path: Path) -> tuple[str, str]:
    """(place, clean HTML) of an executed notebook or a stage folder.

    Its parts are cleaned each for itself: one that is never closed takes no other.
    """
    if (path / "notebook.ipynb").is_file():
        path /= "notebook.ipynb"
    if path.is_dir():
        return path.name, "\n".join(clean(part, path) for part in _by_hand(path))
    place = path.parent.name if path.name == "notebook.ipynb" else path.stem
    try:
        cells = nbformat.read(path, as_version=4).cells
        parts = (clean(part, path.parent, cell.get("attachments")) for cell in cells for part in _parts(cell))
        return place, "\n".join(parts)
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
        yield f'<p><img src="figures/{quote(path.name, errors="surrogateescape")}" alt="{escape(path.stem)}"></p>'


def _parts(cell) -> Iterator[str]:
    outputs, tags = cell.get("outputs", []), cell.metadata.get("tags", [])
    if "bootstrap" in tags and not any(output.output_type == "error" for output in outputs):
        return
    if cell.cell_type == "markdown":
        yield markdown_html(cell.source)
    elif cell.cell_type == "code" and cell.source.strip():
        label = "Parameters of this run" if "injected-parameters" in tags else "Code"
        yield f"<details><summary>{label}</summary><pre>{_coloured(cell.source)}</pre></details>"
        yield from map(_output, outputs)


_SHOWN = ("text/html", "text/markdown", "image/svg+xml", "text/latex", "image/png", "image/jpeg", "text/plain")


def _output(output) -> str:
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
        alt = escape(output.metadata.get(kind, {}).get("alt", "Figure drawn by the code above"))
        coded = base64.b64encode(value.encode(errors="replace")).decode() if kind == "image/svg+xml" else value
        kind, coded = _lighter(coded) if kind == "image/png" else (kind, coded)
        return f'<p><img src="data:{kind};base64,{escape(coded)}" alt="{alt}"></p>'
    return "" if any("widget" in other or "script" in other for other in output.data) else _printed("", value)


def _lighter(coded: str) -> tuple[str, str]:
    """A large PNG (base64) as WebP, which takes a tenth, so that the page can be mailed: its kind, and base64."""
    if len(coded) > 60_000:
        with suppress(ValueError, OSError, Image.DecompressionBombError):  # what is no PNG stays as it is
            buffer = io.BytesIO()
            Image.open(io.BytesIO(base64.b64decode(coded))).convert("RGB").save(buffer, "WEBP", quality=80)
            if (webp := base64.b64encode(buffer.getvalue()).decode()) and len(webp) < len(coded):
                return "image/webp", webp
    return "image/png", coded


def _printed(kind: str, text: str) -> str:
    """Printed text without colours, and of a progress bar only its last state."""
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|^[^\n]*\r(?=[^\n])", "", text, flags=re.MULTILINE)
    return f'<pre class="{escape(kind)}">{escape(text)}</pre>' if text else ""


def mathml(tex: str, display: bool = False) -> str:
    """TeX to MathML, which browsers draw offline; the escaped TeX in <code> where that cannot be done."""
    tex = tex.strip()
    known = re.sub(r"{align(ed)?}", "{align*}", tex).replace(r"\arg", r"\mathrm{arg}\,")
    known = known.replace(r"\operatorname*", r"\mathrm")  # older versions draw its star
    try:
        done = convert(known, display="block" if display else "inline")
        ElementTree.fromstring(done)  # stray & and < come out as they are,
    except Exception:  # its parser raises IndexError, KeyError and others besides its own errors
        done = "\\"
    return f"<code>{escape(tex)}</code>" if "\\" in done else done  # and so do unknown commands


# A formula holds no code and ends before no digit: neither "$5 or `x$y`" nor "$5 or $10" is one.
_FORMULA = re.compile(r"\$\$?(\\.|[^\\$`])+\$\$?(?![\d$])", re.DOTALL)


def markdown_html(source: str) -> str:
    """Markdown to HTML with formulas as MathML; code, prices and HTML stay as written. Not clean: see `clean`."""
    rule = math_inline_dollar(allow_space=False, allow_double=True)

    def formula(state, silent: bool) -> bool:
        return bool(_FORMULA.match(state.src, state.pos)) and rule(state, silent)

    page = MarkdownIt("commonmark", {"highlight": _coloured}).enable(["table", "strikethrough"])
    page.use(dollarmath_plugin, renderer=lambda tex, how: mathml(tex, how["display_mode"]), double_inline=True)
    page.use(amsmath_plugin, renderer=lambda tex: mathml(tex, display=True))
    page.inline.ruler.at("math_inline", formula)
    return page.render(source)


def _coloured(code: str, language: str = "python", _: str = "") -> str:
    """Python as <span>s of pygments' classes; other languages plain."""
    return highlight(code, PythonLexer(), HtmlFormatter(nowrap=True)) if language == "python" else escape(code)


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

    Other pictures become their description. Links are looked after by `_linked`.
    """

    def look(_: str, name: str, value: str) -> str | None:
        if name != "src" or _PICTURE.match(value):  # a picture that is in already is no path
            return value
        for kind, data in (attachments or {}).get(unquote(value.removeprefix("attachment:")), {}).items():
            return f"data:{kind};base64,{data}" if kind.startswith("image/") else None
        with suppress(OSError, ValueError):  # a name too long, or with a null character
            path = (folder / unquote(value, errors="surrogateescape")).resolve()
            if path.is_relative_to(folder.resolve()) and path.is_file():
                data = base64.b64encode(path.read_bytes()).decode()
                value = f"data:{mimetypes.guess_type(path.name)[0]};base64,{data}"
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
        if target.startswith(("http:", "https:")):
            return shown if _text(shown) == target else f"{shown} ({escape(target)})"
        file, _, place = target.partition("#")
        anchor = places.get(PurePosixPath(file).name or _slug(place))
        return f'<a href="#{anchor}">{shown}</a>' if anchor else shown

    page = re.sub(r"<h([1-6])>(.*?)</h\1>", heading, clean, flags=re.DOTALL)
    return re.sub(r'<a href="([^"]*)">(.*?)</a>', link, page, flags=re.DOTALL)


def _slug(text: str) -> str:
    return "#" + re.sub(r"[^\w]+", "-", text.lower()).strip("-")


def _text(page: str) -> str:
    return unescape(re.sub(r"<[^>]*>", "", page))
