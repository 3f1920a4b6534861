"""The report: all stages of a run as one HTML file that needs no network.

What notebooks and programs wrote, and the names of files, sets and runs, is foreign: it enters the page through
`_clean` or escaped, and in no other way.
"""

from __future__ import annotations

import base64
import html
import json
import mimetypes
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from ttlkit import files
from ttlkit.lesson.figures import table

try:
    import nbformat
    import nh3
    from latex2mathml.converter import convert
    from markdown_it import MarkdownIt
    from mdit_py_plugins.amsmath import amsmath_plugin
    from mdit_py_plugins.dollarmath import dollarmath_plugin
    from mdit_py_plugins.dollarmath.index import math_inline_dollar
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer
except ImportError as _error:
    MISSING: str | None = _error.name
else:
    MISSING = None


class ReportError(RuntimeError):
    """The report cannot be written; the message names the file and the way out."""


def write_report(
    stages: Sequence[Path], out: Path, title: str, intro_markdown: str = "", notes: Sequence[str] = ()
) -> Path:
    """Write stages as one HTML file that needs no network; whole or not at all; returns `out`.

    `stages`: executed notebooks, or stage folders; a folder without notebook.ipynb is shown as `section_of` does. Code
    is collapsed, outputs are visible, images inline, formulas MathML. Cells tagged `bootstrap` that did not fail, and
    widgets, are left out. `notes` are plain text at the top. Images come from a notebook's own folder, those of the
    intro from the folder of `out`. Raises ReportError for a damaged notebook or missing packages.
    """
    if MISSING:
        raise ReportError(f"the report needs the package {MISSING}: pip install 'ttlkit[report]'")
    out, found = Path(out), [_section(Path(path)) for path in stages]
    sections = {name: f"nb{i}" for i, (name, _, _) in reversed(list(enumerate(found, 1)))}
    parts, entries = [], []
    for i, (_, place, body) in enumerate(found, 1):
        heading = re.search(r"<h[1-6]>(.*?)</h[1-6]>", body, re.DOTALL)
        label = _escape(f"{_text(heading[1])} ({place})" if heading and heading[1] != place else place)
        entries.append(f'<li><a href="#nb{i}">{label}</a></li>')
        parts.append(f'<section id="nb{i}" aria-label="{label}">{_anchored(body, f"nb{i}", sections)}</section>')
    intro = _anchored(_clean(markdown_html(intro_markdown), out.parent), "intro", sections)
    nav = f'<nav aria-label="Notebooks"><ol>{"".join(entries)}</ol></nav>' if entries else ""
    said = "".join(f'<p class="note">{_escape(note)}</p>' for note in notes)
    page = f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{_escape(title)}</title><style>{_STYLE}{HtmlFormatter().get_style_defs("pre")}</style></head>
<body><h1>{_escape(title)}</h1>{said}{intro}{nav}
{"".join(parts)}</body></html>
"""
    return files.write_text(out, page)


_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 60rem; margin: 0 auto; padding: 1rem }
section { border-top: 3px solid #0072B2; margin-top: 3rem } img { max-width: 100%; height: auto }
pre { overflow-x: auto; background: #f5f5f5; padding: .6rem; font-size: .85rem; margin: .4rem 0 }
table { border-collapse: collapse; margin: .6rem 0; display: block; overflow-x: auto }
th, td { padding: .2rem .7rem; border-bottom: 1px solid #ccc } .note { background: #fff6db; padding: .4rem .7rem }
summary { color: #005a8e; cursor: pointer; font-size: .85rem }
pre.stderr, pre.error { background: #fdecea } math[display=block] { padding: .8rem 0; overflow: auto hidden }
"""

# ---- sections


def _section(path: Path) -> tuple[str, str, str]:
    """(notebook that links mean, place, clean HTML) of an executed notebook or a stage folder."""
    if (path / "notebook.ipynb").is_file():
        path /= "notebook.ipynb"
    place = path.parent.name if path.name == "notebook.ipynb" else path.stem
    stage = f"{place.partition('-')[0]}.ipynb"
    if path.is_dir():
        return stage, place, section_of(path)
    try:
        notebook = nbformat.read(path, as_version=4)
        source = notebook.metadata.get("papermill", {}).get("input_path") or stage
        return Path(source).name, place, "\n".join(_cells(notebook, path.parent))
    except Exception as error:  # of a file that is half written or no notebook, nearly every kind there is
        words = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise ReportError(f"{files.shown(path)}: not a whole notebook ({words}); run its stage again") from error


def section_of(folder: Path) -> str:
    """A stage that was run by hand, as clean HTML: the results in its DONE.json, table.txt, figures/*.png.

    Raises ReportError where there is no whole DONE.json.
    """
    folder = Path(folder)
    done = files.read_json(folder / "DONE.json")
    if not isinstance(done, dict):
        raise ReportError(f"{files.shown(folder)}: holds neither notebook.ipynb nor a whole DONE.json; run this stage")
    page = [f"<h1>{_escape(done.get('stage') or folder.name)}</h1>"]
    page.append("<p>This stage was run by hand: no executed notebook is kept, only what it left in its folder.</p>")
    numbers = []
    for name, value in dict(done.get("results") or {}).items():
        if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
            page.append(f"<h2>{_escape(name)}</h2>{table(value)._repr_html_()}")
        else:
            numbers.append({"result": name, "value": json.dumps(value) if isinstance(value, (list, dict)) else value})
    if numbers:
        page.insert(2, table(numbers, digits=4)._repr_html_())
    if (folder / "table.txt").is_file():
        page.append(markdown_html((folder / "table.txt").read_text(encoding="utf-8", errors="replace")))
    for path in sorted((folder / "figures").glob("*.png")):
        page.append(f'<p><img src="figures/{quote(os.fsencode(path.name))}" alt="{_escape(path.stem)}"></p>')
    return "\n".join(_clean(part, folder) for part in page)  # each for itself: one that is never closed takes no other


def _cells(notebook, folder: Path) -> Iterator[str]:
    for cell in notebook.cells:
        outputs, tags = cell.get("outputs", []), cell.metadata.get("tags", [])
        if "bootstrap" in tags and not any(output.output_type == "error" for output in outputs):
            continue
        if cell.cell_type == "markdown":
            yield _clean(markdown_html(cell.source), folder, cell.get("attachments", {}))
        elif cell.cell_type == "code" and cell.source.strip():
            label = "Parameters of this run" if "injected-parameters" in tags else "Code"
            code = f"<details><summary>{label}</summary><pre>{_coloured(cell.source)}</pre></details>"
            yield "\n".join(_clean(part, folder) for part in (code, *map(_output, outputs)))


def _output(output) -> str:
    if output.output_type == "stream":
        return f'<pre class="{_escape(output.name)}">{_terminal(output.text)}</pre>'
    if output.output_type == "error":
        return f'<pre class="error">{_terminal(chr(10).join(output.traceback) or output.evalue)}</pre>'
    shown = [kind for kind in _SHOWN if kind in output.data]
    if not shown or (shown == ["text/plain"] and any("widget" in kind or "script" in kind for kind in output.data)):
        return ""  # a widget's text is only its constructor call
    kind, value = shown[0], output.data[shown[0]]
    if kind == "text/html":
        return value
    if kind in ("text/markdown", "text/latex"):
        return markdown_html(value)
    if kind == "text/plain":
        return f"<pre>{_terminal(value)}</pre>"
    alt = _escape(output.metadata.get(kind, {}).get("alt", "Figure drawn by the code above"))
    coded = base64.b64encode(value.encode(errors="replace")).decode() if kind == "image/svg+xml" else value
    return f'<p><img src="data:{kind};base64,{_escape(coded)}" alt="{alt}"></p>'


_SHOWN = ("text/html", "text/markdown", "image/svg+xml", "text/latex", "image/png", "image/jpeg", "text/plain")


def _terminal(text: str) -> str:
    """Printed text without colours, and of a progress bar only its last state."""
    return _escape(re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|[^\n]*\r(?=[^\n])", "", text))


# ---- Markdown

# Spellings that latex2mathml draws wrongly or, for < and > inside \text, does not escape.
_TEX = {
    r"\operatorname*": r"\mathrm", r"\arg": r"\mathrm{arg}\,", "{aligned}": "{align*}", "{align}": "{align*}",
    "<": r"\lt ", ">": r"\gt ",
}  # fmt: skip


def mathml(tex: str, display: bool = False) -> str:
    """TeX to MathML, which browsers draw offline; the escaped TeX in <code> where that cannot be done."""
    plain = tex
    for spelling, other in _TEX.items():
        plain = plain.replace(spelling, other)
    try:
        done = convert(plain.strip(), display="block" if display else "inline")
    except Exception:  # its parser raises IndexError, KeyError and others besides its own errors
        done = "\\"
    # It passes unknown commands and stray & through as text instead of raising.
    return f"<code>{_escape(tex.strip())}</code>" if re.search(r"\\|&(?!#)", done) else done


def markdown_html(source: str) -> str:
    """Markdown to HTML with formulas as MathML; code, prices and HTML stay as written. Not clean: see `_clean`."""
    rule = math_inline_dollar(allow_space=False, allow_double=True)

    def formula(state, silent: bool) -> bool:
        start = state.pos
        found = rule(state, True)
        tex, after, state.pos = state.src[start : state.pos], state.src[state.pos : state.pos + 1], start
        # Neither "$5 or `x$y`" nor "$5 or $10" holds a formula.
        return found and "`" not in tex and not after.isdigit() and rule(state, silent)

    page = MarkdownIt("commonmark", {"highlight": _coloured}).enable(["table", "strikethrough"])
    page.use(dollarmath_plugin, renderer=lambda tex, how: mathml(tex, how["display_mode"]), double_inline=True)
    page.use(amsmath_plugin, renderer=lambda tex: mathml(tex, display=True))
    page.inline.ruler.at("math_inline", formula)
    return page.render(source)


def _coloured(code: str, language: str = "python", _: str = "") -> str:
    """Python as <span>s of pygments' classes; other languages plain."""
    return highlight(code, PythonLexer(), HtmlFormatter(nowrap=True)) if language == "python" else _escape(code)


# ---- what may enter the page

_MATH = {
    "math", "menclose", "mfrac", "mi", "mn", "mo", "mover", "mpadded", "mphantom", "mroot", "mrow", "mspace", "msqrt",
    "mstyle", "msub", "msubsup", "msup", "mtable", "mtd", "mtext", "mtr", "munder", "munderover",
}  # fmt: skip
_MATH_LOOK = {
    "accent", "columnalign", "columnlines", "columnspacing", "depth", "display", "displaystyle", "fence", "form",
    "height", "linethickness", "lspace", "mathcolor", "mathsize", "mathvariant", "maxsize", "minsize", "movablelimits",
    "notation", "rowlines", "rowspacing", "rspace", "scriptlevel", "separator", "stretchy", "voffset", "width",
}  # fmt: skip
_ATTRIBUTES = {
    "a": {"href"},
    "img": {"src", "alt"},
    **dict.fromkeys(("td", "th"), {"style", "colspan", "rowspan"}),
    **dict.fromkeys(("span", "pre"), {"class"}),
    **dict.fromkeys(_MATH, _MATH_LOOK),
}


def _clean(page: str, folder: Path, attachments: dict[str, Any] | None = None) -> str:
    """Foreign HTML made harmless: nothing runs and nothing loads, images of `folder` and `attachments` are put in.

    Other pictures become their description. Links are looked after by `_anchored`.
    """
    clean = nh3.clean(
        page.encode("utf-8", "replace").decode(),
        tags=nh3.ALLOWED_TAGS | _MATH,
        clean_content_tags={"script", "style", "title", "iframe", "object"},
        attributes=_ATTRIBUTES,
        attribute_filter=lambda _, name, value: _image(value, folder, attachments or {}) if name == "src" else value,
        filter_style_properties={"text-align", "font-weight"},
        url_schemes={"http", "https", "data", "attachment"},
        link_rel=None,
    )
    return re.sub(r'<img(?: alt="([^"]*)")?>', lambda found: _escape(html.unescape(found[1] or "")), clean)


def _image(source: str, folder: Path, attachments: dict[str, Any]) -> str | None:
    """An image's address as data: of a file below `folder`, an attachment, or data already; None for any other."""
    scheme, _, name = source.partition(":")
    if scheme == "attachment":
        kind, data = next(iter(dict(attachments.get(unquote(name), {})).items()), ("", ""))
        source = f"data:{kind};base64,{data}"
    elif scheme != "data":
        try:
            path = (folder / unquote(source, errors="surrogateescape")).resolve()
            if path.is_relative_to(folder.resolve()) and path.is_file():
                data = base64.b64encode(path.read_bytes()).decode()
                source = f"data:{mimetypes.guess_type(path.name)[0]};base64,{data}"
        except (OSError, ValueError):  # a name too long, or with a null character
            return None
    return source if re.match(r"data:image/(png|jpeg|gif|webp|svg\+xml)[;,]", source) else None


def _anchored(clean: str, prefix: str, sections: dict[str, str]) -> str:
    """Clean HTML whose headings have ids that start with `prefix`, and whose links lead to places in this page.

    Those are headings and the notebooks in `sections` (file name to id); a web address is spelled out.
    """
    used: list[str] = []

    def heading(found: re.Match) -> str:
        slug = f"{prefix}-{_slug(_text(found[2]))}"
        used.append(next(name for n in range(len(used) + 1) if (name := f"{slug}-{n}" if n else slug) not in used))
        level = min(6, int(found[1]) + 1)  # the report's own title is the only h1
        return f'<h{level} id="{used[-1]}">{found[2]}</h{level}>'

    def link(found: re.Match) -> str:
        target, shown = unquote(html.unescape(found[1])), found[2]
        if target.startswith(("http:", "https:")):
            return shown if _text(shown) == target else f"{shown} ({_escape(target)})"
        file, _, place = target.partition("#")
        anchor = sections.get(file.partition("?")[0].rpartition("/")[2]) if file else f"{prefix}-{_slug(place)}"
        return f'<a href="#{anchor}">{shown}</a>' if anchor in (*used, *sections.values()) else shown

    page = re.sub(r"<h([1-6])>(.*?)</h\1>", heading, clean, flags=re.DOTALL)
    return re.sub(r'<a href="([^"]*)">(.*?)</a>', link, page, flags=re.DOTALL)


def _slug(text: str) -> str:
    return re.sub(r"[^\w]+", "-", text.lower()).strip("-") or "section"


def _text(page: str) -> str:
    return html.unescape(re.sub(r"<[^>]*>", "", page))


def _escape(text: object) -> str:
    return html.escape(str(text).encode("utf-8", "replace").decode())
