"""The report stands alone: formulas, pictures, anchors, no network."""

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from ttlkit import live
from ttlkit import report as report_module

ROOT = Path(__file__).resolve().parents[1]
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("tex", [r"\frac{1}{N}\sum_i x_i", r"\begin{aligned}a&=b\\c&=d\end{aligned}", "x < y"])
def test_formula_becomes_mathml(tex):
    done = report_module.mathml(tex, display=True)
    assert done.startswith("<math") and 'display="block"' in done and "\\" not in done


@pytest.mark.parametrize("tex", [r"\frac{", r"\nosuchthing{x}", r"\text{<script>}", "a & b", ""])
def test_formula_that_cannot_be_converted_is_shown_as_written(tex):
    done = report_module.mathml(tex)
    assert done == f"<code>{report_module.html.escape(tex)}</code>"


def test_markdown_leaves_dollars_in_code_money_and_attributes_alone():
    page = report_module.markdown_html(
        "It costs $5 or `x$y$z` or $10 \\$3\n\n<b title='$q$'>bold</b>\n\n"
        "```\n$a$\n```\n\n    $indented$\n\n| a |\n|---|\n| $\\|x\\|$ |\n"
    )
    assert page.count("<math") == 1  # the one in the table
    for kept in (
        "costs $5 or",
        "<code>x$y$z</code>",
        "or $10 $3",
        ">bold</b>",
        'title="$q$"',
        "$a$",
        "$indented$",
    ):
        assert kept in page


class Page(HTMLParser):
    """Tags that stay open, ids, text, and every attribute that could load something."""

    VOID = {"meta", "img", "br", "hr", "input", "link"}

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.ids += [v for k, v in attrs if k == "id"]
        self.targets += [v or "" for k, v in attrs if k in report_module._LOADING]
        assert not [k for k, _ in attrs if k.startswith("on")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert tag in self.VOID or (self.open and self.open.pop() == tag), f"</{tag}> closes nothing"

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text += data


PNG = live.png_bytes(np.zeros((2, 3, 3), np.uint8))


def executed_notebook() -> nbformat.NotebookNode:
    widget = {
        "application/vnd.jupyter.widget-view+json": {"model_id": "m"},
        "text/plain": "FloatSlider(value=1)",
    }
    png = {"image/png": base64.b64encode(PNG).decode(), "text/plain": "<Picture size 4x3>"}
    evil = (
        '<style>@import "https://a.example/x.css"; .k {background: url(https://a.example/i.png)}</style>'
        '<img src="https://a.example/i.png" alt="gone"><script src="https://a.example/s.js"></script>'
        '<b onclick="go()" style="background:url(https://a.example/z)">kept</b>'
        '<!-- <script src="http://c"> -->'
    )
    outputs = [
        new_output("display_data", png),
        new_output("display_data", widget),
        new_output("display_data", {"text/html": evil}),
        new_output("execute_result", {"text/latex": r"$\displaystyle z^2$", "text/plain": "z**2"}, execution_count=1),
        new_output("stream", name="stdout", text="a < b & <script>alert(1)</script>\n"),
    ]
    notebook = new_notebook(
        cells=[
            new_markdown_cell(
                "# Stage <1> & loss $x_1$\n\n[![badge](https://c.example/b.svg)](https://c.example/open) "
                "[other](two.ipynb#x) [here](#Details) ![local](dot.png) ![kept](attachment:a.png)",
                attachments={"a.png": {"image/png": base64.b64encode(PNG).decode()}},
            ),
            new_code_cell("install_everything()", metadata={"tags": ["bootstrap"]}),
            new_code_cell("steps = 7", metadata={"tags": ["injected-parameters"]}),
            new_code_cell("print('<b>&amp;')", execution_count=1, outputs=outputs),
            new_markdown_cell("## Details\n\n$$\\sum_{k} R_k$$\n\n## Details\n\n$\\nosuchthing{x}$"),
        ]
    )
    notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {}, "version_major": 2}}
    return notebook


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("report")
    paths = [tmp_path / "a" / "notebook.ipynb", tmp_path / "b" / "two.ipynb"]
    notebook = executed_notebook()  # twice the same, as a stage that is run once a teacher
    for path in paths:
        path.parent.mkdir()
        (path.parent / "dot.png").write_bytes(PNG)
        nbformat.write(notebook, path)
    out = report_module.write_report(
        paths, tmp_path / "out" / "report.html", "Run <7> & more", "Intro with $y$.\n\n## Details"
    )
    assert out == tmp_path / "out" / "report.html" and [p.name for p in out.parent.iterdir()] == ["report.html"]
    return out.read_text(encoding="utf-8")


def test_report_stands_alone(report):
    page = Page(report)
    assert page.open == [] and "script" not in page.tags and "iframe" not in page.tags
    assert page.targets and all(t.startswith(("#", "data:image/")) for t in page.targets)
    assert not re.search(r"(src|href)\s*=\s*['\"]?\s*(https?:)?//", report)
    assert "@import" not in report and "url(http" not in report
    assert "FloatSlider" not in report and "widget-state" not in report and "model_id" not in report


def test_report_keeps_what_the_notebooks_say(report):
    page = Page(report)
    embedded = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    assert page.targets.count(embedded) == 6  # per notebook: output, local file, attachment
    assert page.tags.count("math") == 1 + 2 * 3  # intro; per notebook: title, output, sum
    assert page.text.count("a < b & <script>alert(1)</script>") == 2
    assert page.text.count("kept") == 2
    assert "badge (https://c.example/open)" in page.text
    assert r"<code>\nosuchthing{x}</code>" in report
    assert "install_everything" not in page.text and "Parameters of this run" in page.text
    assert page.tags.count("details") == 4 and page.tags.count("h1") == 1
    assert "Run <7> & more" in page.text


def test_report_anchors_are_unique_and_lead_somewhere(report):
    page = Page(report)
    assert len(set(page.ids)) == len(page.ids)
    inside = [t[1:] for t in page.targets if t.startswith("#")]
    assert set(inside) <= set(page.ids)
    assert inside[:2] == ["nb1", "nb2"] and {"nb1-details", "nb2-details"} <= set(inside)
    assert inside.count("nb2") == 3  # navigation, and the link to two.ipynb from both


def test_report_is_not_touched_when_a_notebook_is_broken(tmp_path):
    out = tmp_path / "report.html"
    out.write_text("old")
    (tmp_path / "bad.ipynb").write_text("{ no json")
    with pytest.raises(nbformat.reader.NotJSONError):
        report_module.write_report([tmp_path / "bad.ipynb"], out, "x")
    assert out.read_text() == "old"


def test_report_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("disk full")

    out = tmp_path / "report.html"
    out.write_text("old")
    monkeypatch.setattr(report_module.os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        report_module.write_report([], out, "x")
    assert out.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["report.html"]
