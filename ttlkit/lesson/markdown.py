"""Markdown as HTML, with formulas as MathML, which browsers draw offline, and Python in colours."""

import re
from html import escape
from xml.etree import ElementTree

from latex2mathml.converter import convert
from markdown_it import MarkdownIt
from mdit_py_plugins.amsmath import amsmath_plugin
from mdit_py_plugins.dollarmath.index import dollarmath_plugin, math_inline_dollar
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer


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
    """Markdown to HTML with formulas as MathML; code, prices and HTML stay as written. Not clean: see `report`."""
    rule = math_inline_dollar(allow_space=False, allow_double=True)

    def formula(state, silent: bool) -> bool:
        return bool(_FORMULA.match(state.src, state.pos)) and rule(state, silent)

    page = MarkdownIt("commonmark", {"highlight": coloured}).enable(["table", "strikethrough"])
    page.use(dollarmath_plugin, renderer=lambda tex, how: mathml(tex, how["display_mode"]), double_inline=True)
    page.use(amsmath_plugin, renderer=lambda tex: mathml(tex, display=True))
    page.inline.ruler.at("math_inline", formula)
    return page.render(source)


def coloured(code: str, language: str = "python", _: str = "") -> str:
    """Python as <span>s of pygments' classes; other languages plain."""
    return highlight(code, PythonLexer(), HtmlFormatter(nowrap=True)) if language == "python" else escape(code)
