"""The report stands alone: formulas, pictures, anchors, no network, and nothing foreign that runs."""

import base64
import html
import importlib.util
import io
import json
import os
import re
import sys
import time
from html.parser import HTMLParser

import nbformat
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from IPython.core.formatters import DisplayFormatter
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from ttlkit import files
from ttlkit.data import pocket
from ttlkit.lesson import compare, figures, live, markdown, report
from ttlkit.runs import pipeline


@pytest.mark.parametrize("tex", [r"\frac{1}{N}\sum_i x_i", r"\begin{aligned}a&=b\\c&=d\end{aligned}", "x < y"])
def test_formula_becomes_mathml(tex):
    done = markdown.mathml(tex, display=True)
    assert done.startswith("<math") and 'display="block"' in done and "\\" not in done


@pytest.mark.parametrize("tex", [r"\frac{", r"\nosuchthing{x}", r"\text{<script>}", "a & b", ""])
def test_formula_that_cannot_be_converted_is_shown_as_written(tex):
    done = markdown.mathml(tex)
    assert done == f"<code>{html.escape(tex)}</code>"


def test_markdown_leaves_dollars_in_code_money_and_attributes_alone():
    page = markdown.markdown_html(
        "It costs $5 or `x$y$z` or $10 \\$3\n\n<b title='$q$'>bold</b>\n\n"
        "```\n$a$\n```\n\n    $indented$\n\n| a |\n|---|\n| $\\|x\\|$ |\n"
    )
    assert page.count("<math") == 1  # the one in the table
    for kept in (
        "costs $5 or",
        "<code>x$y$z</code>",
        "or $10 $3",
        ">bold</b>",
        "title='$q$'",
        "$a$",
        "$indented$",
    ):
        assert kept in page
    assert markdown.markdown_html("$x$ is 5").count("<math") == 1
    assert markdown.markdown_html("\\begin{align}\na &= b\n\\end{align}\n\n$$\nc\n$$").count('display="block"') == 2


@settings(max_examples=150, deadline=None)
@given(st.text(st.sampled_from("ab1 ![](){}<>&;#*_`~|$\\\"'-+.:/=\n\ré雨\x1b")))
def test_a_name_in_markdown_stays_what_it_is(name):
    """In a paragraph, and in a cell."""
    text = html.escape(" ".join(name.split())).replace("&#x27;", "'")
    assert markdown.markdown_html(f"x{figures.in_markdown(name)}") == f"<p>x{text}</p>\n"
    assert f"<td>x{text}</td>" in markdown.markdown_html(figures.markdown_table([{"name": f"x{name.strip()}"}]))


LOADING = {"src", "srcset", "href", "xlink:href", "poster", "data", "action", "formaction", "background", "ping"}


class Page(HTMLParser):
    """Tags that stay open, ids, text, and every attribute that could load something; nothing may run."""

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
        assert tag not in {"script", "iframe", "object", "embed", "link", "base", "form", "svg", "frame", "template"}
        if self.open[:2] == ["html", "body"]:
            assert tag not in {"style", "meta", "title", "noscript", "textarea", "select", "plaintext", "xmp"}
        self.tags.append(tag)
        self.ids += [v for k, v in attrs if k == "id"]
        self.targets += [v or "" for k, v in attrs if k in LOADING]
        assert not [k for k, _ in attrs if k.startswith("on")]
        assert not [v for k, v in attrs if k == "style" and ("url" in v or "position" in v)]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert tag in self.VOID or (self.open and self.open.pop() == tag), f"</{tag}> closes nothing"

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text += data

    def handle_comment(self, data):
        raise AssertionError(f"a comment: {data}")

    unknown_decl = handle_pi = handle_comment


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
                "[![Open in Colab](https://c.example/b.svg)](https://colab.research.google.com/github/x) "
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
def page_text(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("report")
    paths = [tmp_path / "a" / "notebook.ipynb", tmp_path / "b" / "two.ipynb"]
    notebook = executed_notebook()  # twice the same, as a stage that is run once a teacher
    for path in paths:
        path.parent.mkdir()
        (path.parent / "dot.png").write_bytes(PNG)
        nbformat.write(notebook, path)
    out = tmp_path / "out" / "report.html"
    notes = ["stage <4> came from *another* run"]
    assert report.write_report(paths, out, "Run <7> & more", "Intro with $y$.\n\n## Details", notes) == out
    assert [p.name for p in out.parent.iterdir()] == ["report.html"]
    return out.read_text(encoding="utf-8")


def test_report_stands_alone(page_text):
    page = Page(page_text)
    assert page.open == []
    assert page.targets and all(t.startswith(("#", "data:image/")) for t in page.targets)
    assert not re.search(r"(src|href)\s*=\s*['\"]?\s*(https?:)?//", page_text)
    assert "@import" not in page_text and "url(http" not in page_text
    assert "FloatSlider" not in page_text and "widget-state" not in page_text and "model_id" not in page_text


def test_report_keeps_what_the_notebooks_say(page_text):
    page = Page(page_text)
    embedded = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    assert page.targets.count(embedded) == 6  # per notebook: output, local file, attachment
    assert page.tags.count("math") == 1 + 2 * 3  # intro; per notebook: title, output, sum
    assert page.text.count("a < b & <script>alert(1)</script>") == 2
    assert page.text.count("kept") == 2
    assert "badge (https://c.example/open)" in page.text and "Colab" not in page.text
    assert r"<code>\nosuchthing{x}</code>" in page_text
    assert "install_everything" not in page.text and "Parameters of this run" in page.text
    assert page.tags.count("details") == 2 * 3 and page.tags.count("h1") == 1  # the stage, parameters, code
    assert "Run <7> & more" in page.text and "stage <4> came from *another* run" in page.text
    assert '<span class="nb">print</span>' in page_text  # code is coloured


def test_report_anchors_are_unique_and_lead_somewhere(page_text):
    page = Page(page_text)
    assert len(set(page.ids)) == len(page.ids)
    inside = [t[1:] for t in page.targets if t.startswith("#")]
    assert set(inside) <= set(page.ids)
    assert inside[:2] == ["nb1", "nb2"] and {"nb1-details", "nb2-details"} <= set(inside)
    assert inside.count("nb2") == 3  # navigation, and the link to two.ipynb from both


def test_report_is_not_touched_when_a_notebook_is_broken(tmp_path):
    out = tmp_path / "report.html"
    out.write_text("old")
    whole = nbformat.writes(executed_notebook())
    for text in (
        "{ no json",
        "",
        "[]",
        "{}",
        '{"cells": [{}], "nbformat": 4, "metadata": {}}',
        whole[: len(whole) // 2],
    ):
        (tmp_path / "bad.ipynb").write_text(text)
        with pytest.raises(
            report.ReportError, match=r"bad\.ipynb: not a whole notebook .*run its stage again$"
        ) as caught:
            report.write_report([tmp_path / "bad.ipynb"], out, "x")
        assert "\n" not in str(caught.value)
    with pytest.raises(report.ReportError, match="absent.ipynb"):
        report.write_report([tmp_path / "absent.ipynb"], out, "x")
    assert out.read_text() == "old"


def test_report_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("disk full")

    out = tmp_path / "report.html"
    out.write_text("old")
    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        report.write_report([], out, "x")
    assert out.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_a_name_may_be_as_long_as_disks_take(tmp_path):
    out = tmp_path / ("🌧" * 62 + ".html")  # 253 bytes
    assert report.write_report([], out, "x") == out and out.is_file()


def test_missing_packages_are_named_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nh3", None)
    spec = importlib.util.spec_from_file_location("report_without_nh3", report.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.raises(module.ReportError, match=r"needs the package nh3: pip install 'ttlkit\[report\]'"):
        module.write_report([], tmp_path / "r.html", "x")


# ---- outputs


def output_page(tmp_path, *outputs, tags=()):
    cell = new_code_cell("work()", outputs=list(outputs), metadata={"tags": list(tags)})
    nbformat.write(new_notebook(cells=[cell]), tmp_path / "one.ipynb")
    return Page(report.write_report([tmp_path / "one.ipynb"], tmp_path / "out.html", "x").read_text())


def test_errors_are_seen_even_of_a_bootstrap_cell(tmp_path):
    error = new_output("error", ename="ValueError", evalue="no", traceback=["\x1b[0;31mValueError\x1b[0m: <no> way"])
    assert "ValueError: <no> way" in output_page(tmp_path, error, tags=["bootstrap"]).text


def test_a_progress_bar_leaves_nothing_and_windows_line_ends_neither(tmp_path):
    bar = new_output("stream", name="stderr", text="first\r\n 0%|  \r 50%|# \r100%|##\n50% of it\rend")
    text = output_page(
        tmp_path, bar, new_output("stream", name="stdout", text="\rsets:  33%|##   | 1/3 [00:02<?]")
    ).text
    assert "first\nend" in text and "%" not in text and "sets" not in text


def test_an_empty_table_has_no_row_without_cells(tmp_path):
    assert (
        "tr"
        not in output_page(tmp_path, new_output("display_data", {"text/html": figures.table([])._repr_html_()})).tags
    )


def test_a_line_of_a_megabyte_takes_no_time(tmp_path):
    began = time.process_time()
    text = output_page(tmp_path, new_output("stream", name="stdout", text="long " * 200_000 + "\x1b[0mend")).text
    assert "long end" in text and time.process_time() - began < 5


def test_outputs_show_their_best_form(tmp_path):
    svg = "<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
    page = output_page(
        tmp_path,
        new_output("display_data", {"text/html": "<i>html</i>", "text/markdown": "no", "text/plain": "no"}),
        new_output("display_data", {"text/markdown": "**marked** $x$", "text/plain": "no"}),
        new_output("display_data", {"image/svg+xml": svg, "text/plain": "no"}),
        new_output("display_data", {"text/plain": "plain <b>"}),
        new_output("display_data", {"application/javascript": "alert(1)", "text/plain": "no"}),
        new_output("display_data", {"application/x-odd": "no"}),
    )
    assert "html" in page.text and "marked" in page.text and "plain <b>" in page.text and "no" not in page.text
    assert page.tags.count("math") == 1 and "strong" in page.tags
    assert f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}" in page.targets


# ---- stages that were run by hand


def by_hand(folder, **results):
    (folder / "figures").mkdir(parents=True)
    (folder / "figures" / "a b$.png").write_bytes(PNG)
    (folder / "table.txt").write_text(
        "profile smoke, SIMULATED\n\npsnr\n| model | rain |\n| --- | ---: |\n| input | 20.0 ± 1 |\n"
    )
    files.write_json(folder / "DONE.json", {"stage": folder.name, "results": results})
    return folder


def test_a_stage_run_by_hand_is_a_section(tmp_path):
    folder = by_hand(
        tmp_path / "05_real_scene_evaluation", loss=0.12345, seeds=[0, 1], summary=[{"set": "yard", "psnr": 30.128}]
    )
    link = new_notebook(cells=[new_markdown_cell("# First\n\n[the table](05_real_scene_evaluation.ipynb)")])
    nbformat.write(link, tmp_path / "first.ipynb")
    text = report.write_report([tmp_path / "first.ipynb", folder], tmp_path / "out.html", "x").read_text()
    page = Page(text)
    assert (
        "run by hand" in page.text and page.text.count("05_real_scene_evaluation") == 4
    )  # in the contents, twice as heading, beside the figure
    for shown in ("loss", "0.1235", "[0, 1]", "yard", "30.13", "20.0 ± 1"):
        assert shown in page.text
    assert page.targets.count("#nb2") == 3 and "| model" not in text and '<td style="text-align:right">20.0' in text
    assert 'alt="a b$"' in text and sum(t.startswith("data:image/png") for t in page.targets) == 1


def test_a_folder_with_a_notebook_is_that_notebook_and_an_empty_one_is_named(tmp_path):
    folder = by_hand(tmp_path / "01_gap_statistics")
    nbformat.write(new_notebook(cells=[new_markdown_cell("# Gap")]), folder / "notebook.ipynb")
    text = report.write_report([folder], tmp_path / "out.html", "x").read_text()
    assert "Gap (01_gap_statistics)" in text and "by hand" not in text
    for content in (None, "{ half"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        if content:
            (tmp_path / "empty" / "DONE.json").write_text(content)
        with pytest.raises(report.ReportError, match="empty: holds neither notebook.ipynb nor a whole DONE.json"):
            report.write_report([tmp_path / "empty"], tmp_path / "out.html", "x")


# ---- the top of the page


def figure(name, shade):
    drawn = np.random.default_rng(shade).integers(0, 256, (90, 120, 3), np.uint8)
    png = base64.b64encode(live.png_bytes(drawn)).decode()
    return new_output("display_data", {"image/png": png}, metadata={"image/png": {"alt": name} if name else {}})


@pytest.fixture
def run(tmp_path):
    """Two trainings that show the same figure, 05 with a verdict and two figures, 00 with a slider."""
    compared = compare.slider(np.zeros((60, 80, 3)), np.ones((60, 80, 3)), "a yard", ("rain", "restored"))
    outputs = {
        "04_x-a": [figure("the pairs", 1)],
        "04_x-b": [figure("the pairs", 1)],
        "05_x": [figure("", 2), figure("", 3)],
        "00_x": [new_output("display_data", {"text/html": compared})],
    }
    for place, shown in outputs.items():
        (tmp_path / place / "figures").mkdir(parents=True)
        cells = [new_markdown_cell(f"# Of {place}\n\n## Seen"), new_code_cell("x", outputs=shown)]
        nbformat.write(new_notebook(cells=cells), tmp_path / place / "notebook.ipynb")
    (tmp_path / "05_x/figures/psnr_rgb.png").write_bytes(base64.b64decode(outputs["05_x"][1].data["image/png"]))
    (tmp_path / "05_x/table.txt").write_text(
        "profile smoke, SIMULATED\n\npsnr_rgb: PSNR on RGB in dB, more is better\n"
        "| model | x |\n| --- | --- |\n| a | 1 |\n"
    )
    files.write_json(tmp_path / "05_x/DONE.json", {"results": {"verdict": "The student <wins>.\nBy little."}})
    return [tmp_path / place for place in outputs]


def test_the_report_is_a_poster_then_contents_then_folded_stages(run, tmp_path):
    text = report.write_report(run, tmp_path / "out.html", "x").read_text()
    places = [text.index(part) for part in (
        '<p class="verdict">The student &lt;wins&gt;.</p>', "<p>By little.</p>", "SIMULATED",
        'class="ttlkit-slider"', "<p>PSNR on RGB in dB, more is better: mean",
        "<td>a</td>", 'alt="psnr rgb: Seen"', "<nav ", "<section "
    )]  # fmt: skip
    assert places == sorted(places)
    for part in ('class="ttlkit-slider"', 'alt="psnr rgb: Seen"', 'alt="the pairs"', 'alt="Seen"'):
        assert text.count(part) == 1  # no picture twice
    assert text.count("<section ") == text.count("<details><summary><h2>") == 4 and "<details open>" not in text
    page = Page(text)
    assert page.open == [] and {t[1:] for t in page.targets if t[0] == "#"} <= set(page.ids)
    assert page.targets.count("#poster") == 2 and "The same picture stands in 04_x-a: the pairs" in page.text
    assert page.tags.count("input") == compare.STOPS


def test_sections_stand_in_the_order_of_the_run(run, tmp_path):
    for place in ("04_x-a", "04_x-b", "00_x"):
        files.write_json(tmp_path / place / "DONE.json", {})
    os.utime(tmp_path / "04_x-a/DONE.json", (1e9, 2e9))
    order = ["04_x-b", "04_x-a", "05_x", "00_x"]
    assert [path.parent.name for path in pipeline.sections(tmp_path)] == order


def test_a_figure_says_what_it_shows():
    shown = figures.plot_images([[np.zeros((8, 8, 3))] * 2], ["rainy", "clean"], rows=["ya\nrd"], title="SIMULATED")
    data, facts = DisplayFormatter().format(shown)
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert facts["image/png"]["alt"] == figures.describe(shown) == "SIMULATED; rainy; ya rd; clean"


def test_a_failed_stage_is_open_and_a_run_without_verdict_shows_the_facts(run, tmp_path):
    files.write_json(run[2] / "DONE.json", {"results": None})
    error = new_output("error", ename="ValueError", evalue="no", traceback=["ValueError: no"])
    nbformat.write(new_notebook(cells=[new_code_cell("x", outputs=[error])]), run[3] / "notebook.ipynb")
    text = report.write_report(run, tmp_path / "out.html", "x").read_text()
    assert text.count("<details open>") == 1 and "verdict" not in text.partition("<body>")[2]
    assert text.index("SIMULATED") < text.index("<nav ") and "ttlkit-slider" not in text.partition("<body>")[2]


@pytest.mark.parametrize(("old", "new"), [
    ('type="radio"', 'type="radio" onclick="go()"'), ("</div>", "<script>go()</script></div>"),
    (" checked", " checked autofocus"),
    ("data:image/jpeg", "https://evil.example/data:image/jpeg"), ("max-width:80px", "background:url(https://evil.example)"),
    ("</small></p>", "</small></p><script>go()</script>"), ('alt="a yard: rain"', 'alt="x" onerror="go()"'),
    ("<div", "<style>@import 'https://evil.example'</style><div"), ('name="', 'name="x" form="'),
])  # fmt: skip
def test_what_only_looks_like_a_slider_is_no_slider(old, new, tmp_path):
    page = compare.slider(np.zeros((60, 80, 3)), np.ones((60, 80, 3)), "a yard", ("rain", "restored"))
    forged = page.replace(old, new)
    assert (
        forged != page
        and "input" not in report.clean(forged, tmp_path)
        and "evil" not in report.clean(forged, tmp_path)
    )


# ---- foreign text

HOSTILE = {
    "script": "<script>alert('PWNED')</script>",
    "broken script": "<scr<script>ipt>alert('PWNED')</scr</script>ipt>",
    "handler": "<img src=x onerror=alert('PWNED')>",
    "svg": "<svg onload=alert('PWNED')><script>PWNED</script></svg>",
    "cdata": "<math><![CDATA[</math><script>alert('PWNED')</script>]]></math>",
    "cdata in html": "<![CDATA[ <script>alert('PWNED')</script> ]]>",
    "math to html": "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img onerror=PWNED&gt;'>",
    "math link": "<math href='https://evil.example'><mi xlink:href='javascript:PWNED'>x</mi></math>",
    "annotation": "<math><annotation-xml encoding='text/html'><script>PWNED</script></annotation-xml></math>",
    "never closed": "<style>PWNED <textarea> <plaintext> <!-- <svg><math><style>",
    "comment": "<!--><script>alert('PWNED')</script>-->",
    "breaks out of attribute": "\"'><script>alert('PWNED')</script>",
    "breaks out of section": "</pre></details></section></body></html><script>alert('PWNED')</script>",
    "breaks out of title": "</title></style><script>alert('PWNED')</script>",
    "alt text": "<img alt='<script>PWNED</script>' src='https://evil.example/x.png'>",
    "link text": "<a href='https://evil.example/\"><script>PWNED</script>'>x</a>",
    "javascript link": "[x](javascript:alert('PWNED')) <a href=' java&#10;script:PWNED'>x</a>",
    "data page": "<a href='data:text/html,<script>PWNED</script>'>x</a> ![x](data:text/html;base64,PHNjcmlwdD4=)",
    "frame": "<iframe srcdoc='<script>PWNED</script>'></iframe><object data='https://evil.example'></object>",
    "external image": "![x](https://evil.example/x.png) <img src='//evil.example/x' srcset='https://evil.example 2x'>",
    "external style": "<style>@import 'https://evil.example';</style><link rel=stylesheet href=https://evil.example>",
    "style attribute": "<p style='background:url(https://evil.example);position:fixed'>x</p>",
    "style in a cell": "<table><td onclick=PWNED style='text-align:right;background:url(//evil.example)'>x</table>",
    "form": "<form action='https://evil.example'><button formaction='javascript:PWNED'>x</button></form>",
    "redirect": "<meta http-equiv=refresh content='0;url=https://evil.example'><base href='https://evil.example'>",
    "file outside": "![x](../secret.png) <img src='../secret.png'> <img src='%2e%2e/secret.png'>",
    "absolute file": "<img src='SECRET_PATH'> <img src='file://SECRET_PATH'> ![x](SECRET_PATH)",
    "link to a file outside": "![x](link.png) <img src='link.png'>",
    "file that is no image": "<img src='notes.txt'> <img src='attachment:notes.txt'> <a href='notes.txt'>x</a>",
    "hostile address": "<img src='%00.png'> <img src='" + "a" * 5000 + ".png'> <img src='folder.png'>",
    "formula": "$\\text{<script>PWNED</script>}$ $\\href{javascript:PWNED}{x}$ $$<img src=x onerror=PWNED>$$",
    "code": '```python\n</code></pre><script>PWNED</script>\n```\n\n```"><script>\nPWNED\n```',
    "heading": "# <script>PWNED</script>\n\n# x\" onclick=PWNED\n\n<h1 id='nb1' onclick=PWNED>x</h1>",
    "ids and names": "<p id='nb1'>x</p><a name='nb1' id='nb1'></a><details ontoggle=PWNED open>x</details>",
    "half a character": "\ud800 \x00 \ufffe",
}


@pytest.mark.parametrize("payload", HOSTILE.values(), ids=HOSTILE)
def test_foreign_text_neither_runs_nor_loads_nor_reads(tmp_path, payload):
    """In every place that takes foreign text: cells, outputs, results, tables, names of files and of the run."""
    run = tmp_path / "run"
    run.mkdir()
    secret = tmp_path / "secret.png"
    secret.write_bytes(PNG + b"SECRET")
    payload = payload.replace("SECRET_PATH", str(secret))
    in_name = re.sub(r"[/\x00\ud800]", "\u2215", payload)[:60]  # a file's name takes no slash
    hand = by_hand(run / f"06 {in_name}", **{payload: payload, "rows": [{payload: payload}]})
    (hand / "table.txt").write_text(f"| {payload} |\n| --- |\n| x |\n\n{payload}", "utf-8", "replace")
    (hand / "figures" / f"{in_name}.png").write_bytes(PNG)
    (run / "notes.txt").write_text("SECRET")
    (run / "folder.png").mkdir()
    (run / "link.png").symlink_to(secret)
    note = {"text/plain": base64.b64encode(b"SECRET").decode()}
    cells = [
        new_markdown_cell(payload, attachments={"notes.txt": note}),
        new_code_cell(payload),
        new_code_cell("x", outputs=[new_output("display_data", {kind: payload}) for kind in report._SHOWN]),
        new_code_cell("x", outputs=[new_output("stream", name="stdout", text=payload)]),
        new_code_cell("x", outputs=[new_output("error", ename=payload, evalue=payload, traceback=[payload])]),
        new_code_cell(
            "x", outputs=[new_output("display_data", {"image/png": ""}, metadata={"image/png": {"alt": payload}})]
        ),
    ]
    notebook = new_notebook(cells=cells, metadata={"papermill": {"input_path": payload}})
    (run / "one.ipynb").write_text(json.dumps(notebook))
    out = report.write_report([run / "one.ipynb", hand], run / "out.html", payload, payload, [payload])
    text = out.read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == [] and len(set(page.ids)) == len(page.ids)
    for target in page.targets:
        assert re.match(r"#|data:image/(png|jpeg|svg\+xml);base64,", target), target
        assert not target.startswith("#") or target[1:] in page.ids
    for hidden in (b"SECRET", secret.read_bytes()):
        assert base64.b64encode(hidden).decode() not in text
    assert page.targets.count(f"data:image/png;base64,{base64.b64encode(PNG).decode()}") == 2  # of by_hand


def test_large_figures_are_stored_small(tmp_path):
    photograph = pocket.bundled("coffee")[:300, :450]
    buffer = io.BytesIO()
    Image.fromarray((photograph * 255).astype("uint8")).save(buffer, "PNG")
    kind, coded = report._lighter(base64.b64encode(buffer.getvalue()).decode())
    assert kind == "image/webp" and len(coded) < len(buffer.getvalue()) / 4
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(coded))).convert("RGB")) / 255
    assert np.square(shown - photograph).mean() < 10**-3.2  # 32 dB
    assert report._lighter("no picture" * 10_000) == ("image/png", "no picture" * 10_000)
