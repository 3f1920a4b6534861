"""Exercises: every solution, as its notebook shows it, is right; every mistake gets its hint; no answer fails."""

import ast
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest

from ttlkit.lesson import check
from ttlkit.lesson.exercises import EXERCISES
from ttlkit.runs import code
from ttlkit.words import SettingsError

REPO = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((REPO / "notebooks").glob("*.ipynb"))
FOLDED = re.compile(r"<details><summary>Solution</summary>\n\n```python\n(.*?)\n```\n\n</details>", re.DOTALL)


@pytest.fixture(params=EXERCISES, ids=str)
def exercise(request):
    return EXERCISES[request.param]


def cells(notebook):
    return nbformat.read(REPO / f"notebooks/{notebook}.ipynb", 4).cells


def before(exercise):
    """The cells before an exercise, and its own three."""
    found = cells(exercise.notebook)
    place = [cell.id for cell in found].index(f"question-{exercise.name}")
    return found[:place], found[place : place + 3]


def imports(found):
    """What the cells import, as a namespace."""
    scope: dict = {}
    for cell in found:
        if cell.cell_type == "code" and "bootstrap" not in cell.metadata.get("tags", []):
            lines = [node for node in ast.parse(cell.source).body if isinstance(node, ast.Import | ast.ImportFrom)]
            exec(compile(ast.Module(lines, []), "notebook", "exec"), scope)  # noqa: S102 - our own notebooks
    return scope


def written(lines, scope=None):
    """The `answer` that some lines define."""
    scope = {"np": np} if scope is None else scope
    exec(lines, scope)  # noqa: S102 - our own lines
    return scope["answer"]


def test_the_solution_as_the_notebook_shows_it_is_right(exercise):
    earlier, (_, answer, solution) = before(exercise)
    found = FOLDED.fullmatch(solution.source)
    scope = imports(earlier)
    assert check.verdict(exercise.name, written(found[1], scope)) == "right"
    assert written(answer.source, scope) is ...  # the cell as stored says that nothing is answered, and does not fail


def test_the_notebook_shows_the_exercise_as_its_entry_has_it(exercise):
    for cell, wanted in zip(before(exercise)[1], check.cells(exercise.name), strict=True):
        assert dict(cell) == wanted
    assert "from ttlkit.lesson.check import check" in "".join(c.source for c in before(exercise)[0])


def test_each_typical_mistake_gets_its_hint_and_no_hint_gives_the_solution_away(exercise):
    assert len(exercise.wrong) >= 3
    for hint, mistake in exercise.wrong.items():
        wrong = mistake if exercise.takes else mistake()
        assert check.verdict(exercise.name, wrong) == f"not yet: {hint}"
        assert not any(line.strip() in hint for line in exercise.solution.splitlines() if line.strip())


def test_no_answer_yet_says_where_to_begin_and_nothing_fails(exercise, capsys):
    assert check.check(exercise.name, ...) is None
    assert capsys.readouterr().out == f"not answered yet; a first step: {exercise.begin}\n"
    for odd in (None, "text", [1], lambda: 1, lambda *_: None, lambda *_: "text", lambda *_: np.nan, print):
        assert check.verdict(exercise.name, odd).startswith("not yet: ")


# Mistakes as readers write them: the lines, and a word of the hint.
WRITTEN = {
    "wasserstein": ("def answer(x, y, sigma): return abs(np.sort(x) - np.sort(y)).mean()", "unit"),
    "far-rain": ("answer = {'rate': 100}", "did you mean 'rate_mm_h'"),
    "p-value": ("def answer(distance, splits): return np.mean(splits >= distance)", "one more"),
    "cliffs-delta": ("def answer(x, y): return np.sign(x - y).mean()", "stop with ValueError"),
    "stem": ("def answer(width): return width * 3 * 3 * 12", "added"),
    "veil": (
        "from scipy.ndimage import gaussian_filter\n"
        "def answer(image, s, t, light): return gaussian_filter(image, s) * t + light * (1 - t)",
        "Colours|colours",
    ),
    "yes-or-no": (
        "def answer(z, y):\n    p = 1 / (1 + np.exp(-z))\n    return (-y * np.log(p) - (1 - y) * np.log(1 - p)).mean()",
        r"shape \(\), wanted is \(8,\)",
    ),
    "standardise": ("def answer(f): return (f - f.mean()) / f.std()", "loudest"),
    "adapter": ("def answer(f, m, b): return np.tensordot(m, f, axes=1) + b", "stop with ValueError"),
    "whole-loss": ("def answer(d, o, w): return d.mean(axis=1).mean() + o", "as much as it should"),
    "charbonnier": ("def answer(r, c, e): return np.sqrt(np.mean((r - c) ** 2) + e ** 2)", "other way round"),
    "target": ("def answer(p, m, dry): return np.where(dry, p, m)", "stop with ValueError"),
    "blend": ("def answer(learned, start, share):\n    learned + share * (start - learned)", "return"),
    "psnr": ("def answer(r, c): return 10 * np.log10(255**2 / np.mean((r - c) ** 2))", "squares too"),
    "luma": (
        "def answer(e):\n    y = (65.481 * e + 128.553 * e + 24.966 * e + 16) / 255\n"
        "    return -20 * np.log10(e), -20 * np.log10(y)",
        "no part of the error",
    ),
    "interval": ("def answer(g, d): return np.quantile(np.mean(g[d], 1), [0.05, 0.95])", "90 %"),
    "seeds": ("def answer(scores): return np.std(scores.mean(axis=1))", "divide by S - 1"),
    "two-levels": (
        "def answer(g, seeds, images):\n    return np.quantile([g[s].mean() for s in seeds], [0.025, 0.975])",
        "images are not",
    ),
    "coin": ("def answer(n): return 1 / 2**n", "named before"),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_mistakes_as_readers_write_them(name):
    lines, word = WRITTEN[name]
    assert re.search(word, check.verdict(name, written(lines)))


def test_a_number_may_be_asked_for(monkeypatch):
    number = check.EXERCISES["stem"].__class__(
        "n", "x", "?", "", "count", lambda: 6, {"too few": lambda: 5}, [()], "answer = 6"
    )
    monkeypatch.setitem(check.EXERCISES, "n", number)
    assert [check.verdict("n", n) for n in (6, 5, 4)] == [
        "right",
        "not yet: too few",
        "not yet: your answer is too small by 2; a first step: count",
    ]
    assert check.cells("n")[1]["source"] == '# your lines\nanswer = ...\n\ncheck("n", answer)'


def test_a_misspelt_exercise_is_named():
    with pytest.raises(SettingsError, match="did you mean 'veil'"):
        check.check("viel", ...)


def test_answers_make_no_stage_stale(monkeypatch, tmp_path):
    """Neither lines that a reader writes and saves, nor another hint."""
    stage = "02_teacher_pretraining"
    hashes = code.notebook_hash(stage), code.training_cells(stage)
    notebook = nbformat.read(REPO / f"notebooks/{stage}.ipynb", 4)
    answers = [
        cell for cell in notebook.cells if cell.cell_type == "code" and check.TAG in cell.metadata.get("tags", [])
    ]
    answers[0].source = answers[0].source.replace("...", "7")
    nbformat.write(notebook, tmp_path / f"{stage}.ipynb")
    monkeypatch.setattr(code, "notebook_path", lambda stage: tmp_path / f"{stage}.ipynb")
    assert (code.notebook_hash(stage), code.training_cells(stage)) == hashes
    assert not any("check" in name or "exercises" in name for name in code.of_notebook(stage))


def test_every_exercise_of_a_notebook_has_its_entry():
    for path in NOTEBOOKS:
        named = {cell.id.partition("-")[2] for cell in cells(path.stem) if cell.id.startswith("answer-")}
        assert named == {name for name, exercise in EXERCISES.items() if exercise.notebook == path.stem}
