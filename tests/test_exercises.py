"""Exercises: every solution, as its notebook shows it, is right; every mistake gets its hint; no answer fails."""

import ast
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest

from ttlkit.evaluate import metrics
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
    stored = written(answer.source, scope)  # the cell as stored says that nothing is answered, and does not fail
    assert check.verdict(exercise.name, stored) == f"not answered yet; a first step: {exercise.begin}"
    assert callable(stored) == bool(exercise.takes)


def test_the_notebook_shows_the_exercise_as_its_entry_has_it(exercise):
    for cell, wanted in zip(before(exercise)[1], check.cells(exercise.name), strict=True):
        assert dict(cell) == wanted
    assert "from ttlkit.lesson.check import check" in "".join(c.source for c in before(exercise)[0])


def test_each_typical_mistake_gets_its_hint_and_no_hint_gives_the_solution_away(exercise):
    assert len(exercise.wrong) >= 3 or exercise.name == "far-rain"  # whose hints are tried below
    for hint, mistakes in exercise.wrong.items():
        for mistake in mistakes if isinstance(mistakes, tuple) else (mistakes,):
            wrong = mistake if exercise.takes else mistake()
            assert check.verdict(exercise.name, wrong) == f"not yet: {hint}"
    for hint in (*exercise.wrong, *exercise.stops):
        assert not any(line.strip() in hint for line in exercise.solution.splitlines() if line.strip())


def test_no_answer_yet_says_where_to_begin_and_nothing_fails(exercise, capsys):
    assert check.check(exercise.name, ...) is None
    assert capsys.readouterr().out == f"not answered yet; a first step: {exercise.begin}\n"
    for odd in (None, "text", [1], lambda: 1, lambda *_: None, lambda *_: "text", lambda *_: np.nan, print):
        assert check.verdict(exercise.name, odd).startswith("not yet: ")


# What a reader makes of the dots in the answer cell, and a word of what is said to it; (name, lines, word).
WRITTEN = (
    ("wasserstein", "return abs(np.sort(x) - np.sort(y)).mean()", "unit"),
    ("wasserstein", "return (np.sort(x) - np.sort(y)).mean() / sigma", r"where is \|\.\.\.\|"),
    ("wasserstein", "return np.abs(x.sort() - y.sort()).mean() / sigma", r"TypeError.*; x.sort\(\) sorts in place"),
    ("wasserstein", "x = x.sort()\n    return np.abs(x - np.sort(y)).mean() / sigma", "sorts in place"),
    ("p-value", "return np.mean(splits >= distance)", "one more"),
    ("cliffs-delta", "return np.sign(x - y).mean()", "stop with ValueError"),
    ("stem", "return width * kernel * kernel * 12", "added"),
    ("stem", "return 4 * 9 * width + width", "either 3×3 = 9 is missing, or the three colours"),
    ("stem", "return 12 * 3 * width + width", "either 3×3 = 9 is missing, or the three colours"),
    ("stem", "return 4 * kernel * kernel * width + width", "three colours"),
    ("stem", "return 12 * 9 * width + 1", "one bias for each"),
    ("stem", "return 12 * 9 * width + width", "5×5"),
    ("veil", "return gaussian_filter(photograph, sigma) * t + light * (1 - t)", "colours run"),
    ("veil", "return gaussian_filter(photograph, (sigma, sigma, 0)) * t + light", "share 1 - t"),
    ("veil", "return gaussian_filter(photograph, (sigma, sigma, 0)) * t + (1 - t)", "times what"),
    ("veil", "return gaussian_filter(photograph, (0, sigma, sigma)) * t + light * (1 - t)", "rows, columns, colours"),
    (
        "yes-or-no",
        "p = 1 / (1 + np.exp(-logit))\n    return (-rainy * np.log(p) - (1 - rainy) * np.log(1 - p)).mean()",
        "one loss for each crop, no mean",
    ),
    (
        "yes-or-no",
        "p = 1 / (1 + np.exp(logit))\n    return -rainy * np.log(p) - (1 - rainy) * np.log(1 - p)",
        "p near 1",
    ),
    (
        "yes-or-no",
        "p = 1 / (1 + np.exp(-logit))\n    return -(1 - rainy) * np.log(p) - rainy * np.log(1 - p)",
        "label 1 is rainy",
    ),
    (
        "yes-or-no",
        "p = 1 / (1 + np.exp(-logit))\n    return -rainy * np.log(p) + (1 - rainy) * np.log(1 - p)",
        "both terms",
    ),
    ("standardise", "return (features - features.mean()) / features.std()", "loudest"),
    ("adapter", "return np.tensordot(matrix, features, axes=1) + bias", "ValueError.*; the bias needs two more axes"),
    ("adapter", "return bias + np.einsum('dc,chw->dhw', matrix, features)", "two more axes"),
    ("adapter", "return matrix * features + bias[:, None, None]", "first step: np.einsum"),
    ("whole-loss", "return distances.mean(axis=1).mean() + output", "as much as it should"),
    ("whole-loss", "return distances.mean() + 10 * output", "not always 10"),
    (
        "whole-loss",
        "return distances.mean() + 11 * output",
        "for output = 0.05, weight = 10 your answer is too large by 0.05",
    ),
    ("charbonnier", "return np.sqrt(np.mean((restored - clean) ** 2) + epsilon ** 2)", "other way round"),
    ("charbonnier", "return np.sqrt((restored - clean) ** 2 + epsilon**2).sum()", "not their sum"),
    ("charbonnier", "return np.sqrt((restored - clean) ** 2).mean() + epsilon", "below the root"),
    ("charbonnier", "return ((restored - clean) ** 2 + epsilon**2).mean()", "root is missing"),
    ("charbonnier", "return ((restored - clean) ** 2).mean()", "mean square"),
    ("target", "return np.where(dry, photographs, made)", "stop with ValueError"),
    ("blend", "learned + share * (start - learned)", "return"),
    ("blend", "return (1 - share) * learned", "comes back of the start"),
    ("blend", "return 0.9 * learned + 0.1 * start", "for share = 0.8 your answer is off"),
    ("psnr", "return 10 * np.log10(255**2 / np.mean((restored - clean) ** 2))", "squares too"),
    ("psnr", "return -10 * np.log10(np.mean((restored - clean) ** 2))", "wrap around.*and 255 levels"),
    ("psnr", "return 20 * np.log10(np.mean((restored / 255 - clean / 255) ** 2))", "20 goes with the root"),
    ("psnr", "return -10 * np.log(np.mean((restored / 255 - clean / 255) ** 2))", "natural"),
    ("psnr", "return -10 * np.log10(np.mean(restored / 255 - clean / 255) ** 2)", "square each difference first"),
    (
        "luma",
        "y = (65.481 * error + 128.553 * error + 24.966 * error + 16) / 255\n"
        "    return -20 * np.log10(error), -20 * np.log10(y)",
        "no part of the error",
    ),
    ("luma", "return -10 * np.log10(error), -10 * np.log10(error * 219 / 255)", "square the error first"),
    ("luma", "return -20 * np.log10(error), -20 * np.log10(error * 255 / 219)", "smaller"),
    ("luma", "return -20 * np.log10(error), -20 * np.log10(error * 219)", "divide by 255"),
    ("interval", "return np.quantile(np.mean(gains[drawn], 1), [0.05, 0.95])", "90 %"),
    ("interval", "return np.percentile(gains[drawn].mean(1), [0.025, 0.975])", "2.5 and 97.5"),
    ("interval", "return np.quantile(gains[drawn].mean(1), [0.975, 0.025])", "low first"),
    (
        "interval",
        "half = 1.96 * gains.std(ddof=1) / np.sqrt(len(gains))\n    return [gains.mean() - half, gains.mean() + half]",
        "normal law",
    ),
    ("seeds", "return np.std(scores.mean(axis=1))", "divide by S - 1"),
    ("seeds", "return scores.std(axis=0, ddof=1).mean()", "average over images first"),
    ("two-levels", "return np.quantile([gains[s].mean() for s in seeds], [0.025, 0.975])", "images are not"),
    (
        "two-levels",
        "return np.quantile([gains[s][:, i].mean(axis=1) for s, i in zip(seeds, images)], [0.025, 0.975])",
        "over seeds too",
    ),
    ("coin", "return 1 / 2**n", "named before"),
    ("coin", "return 1 / n", "n = 1 and 2 only"),
    ("coin", "return (2 * 0.5) ** n", "for n = 2 your answer is too large by 0.5"),
)


def replaced(name, lines):
    """The answer of the cell of an exercise, with these lines in the place of the dots."""
    source = check.cells(name)[1]["source"].replace("return ...", lines).partition("check(")[0]
    return written("from scipy.ndimage import gaussian_filter\n" + source)


@pytest.mark.parametrize(("name", "lines", "word"), WRITTEN)
def test_mistakes_as_readers_write_them(name, lines, word):
    assert re.search(word, check.verdict(name, replaced(name, lines)))


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("wasserstein", "x.sort(), y.sort()\n    return sum(abs(x - y)) / len(x) / sigma"),
        ("yes-or-no", "return np.logaddexp(0, logit) - rainy * logit"),
        ("adapter", "return np.tensordot(matrix, features, 1) + bias.reshape(-1, 1, 1)"),
        ("blend", "return learned + share * (start - learned)"),
        ("psnr", "e = restored.astype(float) - clean\n    return 20 * np.log10(255 / np.sqrt((e * e).mean()))"),
        ("interval", "m = np.sort(gains[drawn].mean(1))\n    return m[[int(0.025 * len(m)), int(0.975 * len(m))]]"),
        ("interval", "m = sorted(gains[drawn].mean(1))\n    return m[len(m) // 40 - 1], m[-len(m) // 40]"),
        (
            "two-levels",
            "m = gains[seeds[:, :, None], images[:, None]].mean((1, 2))\n    return np.percentile(m, [2.5, 97.5])",
        ),
        ("two-levels", "m = sorted(gains[s][:, i].mean() for s, i in zip(seeds, images))\n    return m[75], m[2925]"),
        ("coin", "return 2 ** (1 - n)"),
        ("stem", "return width * (1 + 12 * kernel**2)"),
    ],
)
def test_the_same_in_another_form_is_right(name, lines):
    assert check.verdict(name, replaced(name, lines)) == "right"


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({}, "your veil is 0.457, wanted is 0.60; all knobs stand where they start"),
        ({"horizon_m": 20}, "all knobs stand where they start"),
        ({"angle_deg": -20, "near_m": 2}, "hardly move the veil"),
        (
            {"rate_mm_h": 150},
            "your veil is 0.496, wanted is 0.60; even 150 mm/h, the end of its slider, gives 0.50; through how much",
        ),
        ({"rate_mm_h": 90, "angle_deg": 0}, "even 150 mm/h, the end of its slider, gives 0.50"),
        ({"horizon_m": 22}, "look through more of it"),
        ({"rate_mm_h": 150, "horizon_m": 15}, "look through more of it"),
        ({"horizon_m": 400}, "look through less of it"),
        ({"rate": 100}, "did you mean 'rate_mm_h'"),
        ({"focus_m": 5}, "knob"),
        ({"horizon_m": ...}, "stop with TypeError"),
        (225, "give a dict of knobs"),
    ],
)
def test_far_rain_is_answered_by_the_knobs_that_are_turned(knobs, said):
    verdict = check.verdict("far-rain", knobs)
    assert verdict.startswith("not yet: ") and said in verdict


def test_the_comment_in_the_solution_of_far_rain_is_right_too():
    (other,) = re.findall(r"# so does (\{.*\})", EXERCISES["far-rain"].solution)
    assert check.verdict("far-rain", ast.literal_eval(other)) == "right"


def test_two_levels_draws_as_the_intervals_of_the_kit_do():
    """Crossed: in each round the same images for all seeds."""
    gains, random = np.random.default_rng(0).normal(0, 1, (3, 9)), np.random.default_rng(0)
    seeds, images = (random.integers(count, size=(2000, count)) for count in gains.shape)
    np.testing.assert_allclose(EXERCISES["two-levels"].right(gains, seeds, images), metrics.bootstrap(gains)[1:])


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
    assert check.cells("n")[1]["source"] == '# your lines go where the dots are\nanswer = ...\n\ncheck("n", answer)'


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


def test_tensors_in_a_list_count_and_complex_numbers_do_not():
    torch = pytest.importorskip("torch")

    def luma(error):
        right = EXERCISES["luma"].right(error)
        return [torch.tensor(float(value), requires_grad=True) for value in right]

    assert check.verdict("luma", luma) == "right"
    assert "TypeError: the answer is complex" in check.verdict("luma", lambda error: np.array([1j, 2]) * error)


def test_an_error_whose_text_fails_is_still_said():
    class BadError(Exception):
        def __str__(self):
            raise RuntimeError

    def answer(error):
        raise BadError

    assert "stop with BadError" in check.verdict("luma", answer)
