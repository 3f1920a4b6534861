"""The report: all executed notebooks of a run as one HTML file that needs no network."""

from __future__ import annotations

import base64
import copy
import html
import mimetypes
import os
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

# What may hold a dollar sign that opens no formula (code, raw HTML, links, escapes), then the formulas.
_CODE = (
    r"^[ \t]*(?P<fence>`{3,}|~{3,})[^\n]*\n.*?(?:^[ \t]*(?P=fence)|\Z)"
    r"|(?P<tick>`+)(?!`).+?(?<!`)(?P=tick)(?!`)"
    r"|<(?P<tag>pre|code|script|style)\b.*?</(?P=tag)>|\]\([^)\s]+\)|https?://\S+"
)
_MATH = (
    r"\$\$(?P<block>[^`]+?)\$\$|(?P<env>\\begin\{(?P<name>[a-z]+\*?)\}.*?\\end\{(?P=name)\})|\\[\\$`]"
    r"|\$(?![\s$])(?P<inline>(?:(?!\n\s*\n)[^`$]|\\\$)+?)(?<![\s\\])\$(?!\d)"
)
_TOKEN = re.compile(f"{_CODE}|{_MATH}", re.MULTILINE | re.DOTALL)
_HELD = re.compile("\ue000(\\d+)\ue001")  # private-use characters: no Markdown rule touches them


# Spellings that latex2mathml draws wrongly or, for < and > inside \text, does not escape.
_TEX = {
    r"\operatorname*": r"\mathrm",
    r"\arg": r"\mathrm{arg}\,",
    "{aligned}": "{align*}",
    "{align}": "{align*}",
    "<": r"\lt ",
    ">": r"\gt ",
}


def mathml(tex: str, display: bool = False) -> str:
    """TeX to MathML, which browsers draw offline; the escaped TeX in <code> where that cannot be done."""
    from latex2mathml.converter import convert

    plain = tex
    for spelling, other in _TEX.items():
        plain = plain.replace(spelling, other)
    try:
        done = convert(plain.strip(), display="block" if display else "inline")
    except Exception:  # its parser raises IndexError, KeyError and others besides its own errors
        done = "\\"
    # It passes unknown commands and stray & through as text instead of raising.
    return f"<code>{html.escape(tex.strip())}</code>" if re.search(r"\\|&(?!#)", done) else done


def _inline_image(src: str, folder: str) -> str:
    """A data address for an image file relative to `folder`; anything else as it is."""
    path = Path(folder) / unquote(src)
    kind = mimetypes.guess_type(path.name)[0] or ""
    if ":" in src or not kind.startswith("image/") or not path.is_file():
        return src
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def markdown_html(source: str, folder: str = "", attachments: dict | None = None) -> str:
    """Markdown to HTML with formulas as MathML and images below `folder` inline; code stays as written."""
    import mistune
    from bs4 import BeautifulSoup
    from nbconvert.filters.markdown_mistune import IPythonRenderer

    held: list[tuple[str, str]] = []  # (as written, MathML)

    def hold(match: re.Match) -> str:
        tex = match["block"] or match["env"] or match["inline"]
        if tex is None:
            return match[0]
        held.append((match[0], mathml(tex, display=not match["inline"])))
        return f"\ue000{len(held) - 1}\ue001"

    # Not embed_images: nbconvert then closes every inline tag at once, and <b>word</b> loses its word.
    renderer = IPythonRenderer(escape=False, exclude_anchor_links=True, attachments=attachments or {})
    plugins = ["strikethrough", "table", "url", "task_lists", "def_list"]
    rendered = mistune.create_markdown(renderer=renderer, plugins=plugins)(_TOKEN.sub(hold, source))
    soup = BeautifulSoup(str(rendered), "html.parser")
    for tag in soup.find_all(True):
        for name, value in tag.attrs.items():
            if isinstance(value, str):
                tag[name] = _HELD.sub(lambda m: held[int(m[1])][0], value)
    for image in soup("img"):
        image["src"] = _inline_image(str(image.get("src", "")), folder)
    for text in soup.find_all(string=_HELD):
        as_code = text.find_parent(["code", "pre"]) is not None
        written = html.escape(text, quote=False)
        shown = [html.escape(raw) if as_code else formula for raw, formula in held]
        filled = _HELD.sub(lambda m: shown[int(m[1])], written)  # noqa: B023
        text.replace_with(BeautifulSoup(filled, "html.parser"))
    return str(soup)


_TEMPLATE = """{% extends 'basic/index.html.j2' %}
{% block input_group %}<details class="code"><summary>{{ 'Parameters of this run' if 'injected-parameters' in
cell.metadata.get('tags', []) else 'Code' }}</summary>{{ super() }}</details>{% endblock %}"""
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 60rem; margin: 0 auto; padding: 1rem }
section { border-top: 3px solid #0072B2; margin-top: 3rem } img, svg { max-width: 100%; height: auto }
pre { overflow-x: auto; background: #f5f5f5; padding: .6rem; font-size: .85rem; margin: .4rem 0 }
table { border-collapse: collapse; margin: .6rem 0 }
th, td { padding: .2rem .7rem; border-bottom: 1px solid #ccc }
summary { color: #005a8e; cursor: pointer; font-size: .85rem } .output_html { overflow-x: auto }
.output_stderr pre, .output_error pre { background: #fdecea }
math[display=block] { margin: .8rem 0; overflow-x: auto }
"""


def _slug(text: str) -> str:
    return re.sub(r"[^\w]+", "-", text.lower()).strip("-") or "section"


def _trimmed(notebook):
    """A copy without what a page on paper cannot use: widgets, scripts, the bootstrap cell."""
    notebook = copy.deepcopy(notebook)
    notebook.metadata.pop("widgets", None)
    failed = [any(o.output_type == "error" for o in c.get("outputs", [])) for c in notebook.cells]
    notebook.cells = [
        c for c, bad in zip(notebook.cells, failed, strict=True) if bad or "bootstrap" not in c.metadata.get("tags", [])
    ]
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            lost = [data.pop(kind) for kind in list(data) if "widget" in kind or "javascript" in kind]
            if lost and not any(kind.startswith("image/") or kind == "text/html" for kind in data):
                data.clear()  # a widget's text is only its constructor call
            for kind in [k for k in data if k.startswith("image/")]:
                output.metadata.setdefault(kind, {}).setdefault("alt", "Figure drawn by the code above")
            if "text/latex" in data and "text/html" not in data:
                data["text/markdown"] = data.pop("text/latex")
        if "outputs" in cell:
            cell.outputs = [o for o in cell.outputs if o.get("data", True)]
    return notebook


def _seal(soup, prefix: str, sections: dict[str, str]) -> None:
    """Make a section stand alone: no script, nothing from the network, ids that start with `prefix`."""
    from bs4 import Comment

    for tag in soup(["script", "iframe", "object", "embed", "link", "meta", "base", "form"]):
        tag.decompose()
    for comment in soup.find_all(string=lambda s: isinstance(s, Comment)):
        comment.extract()
    for tag in soup("style"):
        tag.string = _offline_css(tag.get_text())
    for image in soup("img"):
        if not image.get("src", "").startswith("data:image/"):
            image.replace_with(image.get("alt") or "")
    used: set[str] = set()
    for heading in soup(re.compile("^h[1-6]$")):
        slug = f"{prefix}-{_slug(heading.get_text())}"
        heading["id"] = next(s for n in range(1000) if (s := f"{slug}-{n}" if n else slug) not in used)
        used.add(heading["id"])
        heading.name = f"h{min(6, int(heading.name[1]) + 1)}"  # the report's own title is the only h1
    for tag in soup.find_all(True):
        if tag.get("id", "").startswith("cell-id="):
            del tag["id"]  # a notebook run twice, once a teacher, has the same cells
        if "style" in tag.attrs:
            tag["style"] = _offline_css(tag["style"])
        for name in [n for n in tag.attrs if n.startswith("on") or n in _LOADING]:
            value = tag[name]
            if not (value.startswith("#") or (tag.name == "img" and value.startswith("data:image/"))):
                del tag[name]
                if tag.name == "a":
                    _relink(tag, value, sections)
            elif tag.name == "a" and (anchor := f"{prefix}-{_slug(value[1:])}") in used:
                tag["href"] = f"#{anchor}"


_LOADING = ("src", "srcset", "href", "xlink:href", "poster", "data", "action", "formaction", "background")


def _relink(tag, target: str, sections: dict[str, str]) -> None:
    """Point a link at a notebook of this report to its section; spell out a web address."""
    name = target.split("#")[0].split("?")[0].rsplit("/", 1)[-1]
    if target.startswith(("http://", "https://")):
        if tag.get_text() != target:
            tag.append(f" ({target})")
    elif name in sections:
        tag["href"] = f"#{sections[name]}"


def _offline_css(css: str) -> str:
    return re.sub(r"@import[^;]*;?|url\((?!\s*['\"]?(?:data:|#))[^)]*\)", "", css, flags=re.IGNORECASE)


def write_report(notebooks: Sequence[Path], out: Path, title: str, intro_markdown: str = "") -> Path:
    """Write executed notebooks as one HTML file that needs no network; whole or not at all; returns `out`.

    Code is collapsed, outputs are visible, images inline, formulas MathML. Cells tagged `bootstrap` and
    widgets are left out. Errors: nbformat's for a file that is no notebook, FileNotFoundError.
    """
    import nbformat
    from bs4 import BeautifulSoup
    from jinja2 import pass_context
    from nbconvert import HTMLExporter
    from pygments.formatters import HtmlFormatter

    notebooks, out = [Path(n) for n in notebooks], Path(out)
    loaded = [nbformat.read(path, as_version=4) for path in notebooks]
    ids = [f"nb{i}" for i in range(1, len(loaded) + 1)]
    sections: dict[str, str] = {}
    for path, notebook, section in zip(notebooks, loaded, ids, strict=True):
        source = notebook.metadata.get("papermill", {}).get("input_path") or path.name
        sections.setdefault(Path(source).name, section)

    parts, entries = [], []
    for path, notebook, section in zip(notebooks, loaded, ids, strict=True):
        folder = str(path.parent)

        @pass_context
        def render(context, source, folder=folder):
            return markdown_html(source, folder, context.get("cell", {}).get("attachments"))

        exporter = HTMLExporter(
            raw_template=_TEMPLATE,
            filters={"markdown2html": render},
            exclude_input_prompt=True,
            exclude_output_prompt=True,
        )
        soup = BeautifulSoup(exporter.from_notebook_node(_trimmed(notebook))[0], "html.parser")
        _seal(soup, section, sections)
        first = soup.find(re.compile("^h[1-6]$"))
        place = path.parent.name if path.stem == "notebook" else path.stem
        label = f"{first.get_text()} ({place})" if first else place
        entries.append(f'<li><a href="#{section}">{html.escape(label)}</a></li>')
        parts.append(f'<section id="{section}" aria-label="{html.escape(label)}">{soup}</section>')

    intro = BeautifulSoup(markdown_html(intro_markdown), "html.parser")
    _seal(intro, "intro", sections)
    nav = f'<nav aria-label="Notebooks"><ol>{"".join(entries)}</ol></nav>' if entries else ""
    page = f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{html.escape(title)}</title><style>{_STYLE}{HtmlFormatter().get_style_defs(".highlight")}</style></head>
<body><h1>{html.escape(title)}</h1>{intro}{nav}
{"".join(parts)}</body></html>
"""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        partial.write_text(page, encoding="utf-8")
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)
    return out
