"""Judge the answers to a notebook's exercises: `check(name, answer)` prints "right", or what is wrong.

The exercises stand in `lesson.exercises`, one entry each. Neither they nor the cells of a notebook that are tagged
`exercise` count when a stage is asked whether it must run again.
"""

import copy
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from ttlkit.lesson.exercises import EXERCISES
from ttlkit.lesson.exercises.entry import Exercise
from ttlkit.words import check_name

TAG = "exercise"  # of all cells of an exercise


class _UnansweredError(Exception):
    """A function gave back the dots of the answer cell."""


def check(name: str, answer: Any) -> None:
    """Print what is to be said about an answer to the exercise `name`; `...` is none yet."""
    print(verdict(name, answer))


def verdict(name: str, answer: Any) -> str:
    """What `check` prints. SettingsError for an exercise that there is not; a bad answer raises nothing."""
    check_name(name, EXERCISES, "exercise")
    exercise = EXERCISES[name]
    unanswered = f"not answered yet; a first step: {exercise.begin}"
    if answer is ...:
        return unanswered
    if exercise.takes and not callable(answer):
        return f"not yet: give a function, answer({exercise.takes})"
    try:
        given = _said(answer if exercise.takes else lambda: answer, exercise)
    except _UnansweredError:
        return unanswered
    except (Exception, SystemExit) as error:  # noqa: BLE001 - of somebody's first lines nearly every kind there is
        said = " ".join(_text(error).split())[:300]
        hints = (hint for hint, pattern in exercise.stops.items() if re.search(pattern, said))
        return f"not yet: your lines stop with {said}; {next(hints, f'a first step: {exercise.begin}')}"
    wanted = _said(exercise.right, exercise)
    if _same(given, wanted, exercise.within):
        return "right"
    hint = exercise.remark(answer) or _known(given, exercise)
    return f"not yet: {hint or f'{_first_difference(given, wanted, exercise)}; a first step: {exercise.begin}'}"


def cells(name: str) -> list[dict[str, Any]]:
    """The three cells of an exercise in its notebook: question, answer, folded solution. As nbformat 4.5 has them."""
    exercise = EXERCISES[name]
    given = f"def answer({exercise.takes}):\n    return ...\n\n" if exercise.takes else "answer = ...\n"
    lines = f'# your lines go where the dots are\n{given}\ncheck("{name}", answer)'
    folded = f"<details><summary>Solution</summary>\n\n```python\n{exercise.solution}\n```\n\n</details>"
    question = f"**Exercise.** {exercise.question}"
    sources = {"question": question, "answer": lines, "solution": folded}
    code: dict[str, Any] = {"outputs": [], "execution_count": None}
    return [
        {
            "cell_type": "code" if part == "answer" else "markdown",
            "id": f"{part}-{name}",
            "metadata": {"tags": [TAG]},
            "source": source,
            **(code if part == "answer" else {}),
        }
        for part, source in sources.items()
    ]


def _text(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - an error of the reader's own, whose text fails
        return type(error).__name__


def _said(function: Callable[..., Any], exercise: Exercise) -> list[np.ndarray]:
    """What is seen of a function for each of the probes, which it may change; an empty array where it gives nothing."""
    with np.errstate(all="ignore"):
        values = [exercise.seen(function(*copy.deepcopy(probe))) for probe in exercise.probes]
        if any(value is ... for value in values):
            raise _UnansweredError
        return [_numbers(value) for value in values]


def _numbers(value: Any) -> np.ndarray:
    """An answer as an array; TypeError for complex ones, which numpy would cut."""
    if isinstance(value, list | tuple):
        value = [_numbers(one) for one in value]
    if hasattr(value, "detach"):  # a tensor of torch, perhaps with a gradient, or in bfloat16
        value = value.detach().double().cpu()
    if np.iscomplexobj(value):
        raise TypeError("the answer is complex")
    return np.asarray([] if value is None else value, np.float64)


def _same(given: list[np.ndarray], wanted: list[np.ndarray], within: float) -> bool:
    return all(_alike(*pair, within) for pair in zip(given, wanted, strict=True))


def _alike(given: np.ndarray, wanted: np.ndarray, within: float) -> bool:
    return given.shape == wanted.shape and np.allclose(given, wanted, within, 1e-6, equal_nan=True)


def _known(given: list[np.ndarray], exercise: Exercise) -> str:
    """The hint to the typical mistake that gives the same; "" if none does."""
    for hint, mistakes in exercise.wrong.items():
        for mistake in mistakes if isinstance(mistakes, tuple) else (mistakes,):
            if _same(given, _said(mistake, exercise), exercise.within):
                return hint
    return ""


def _first_difference(given: list[np.ndarray], wanted: list[np.ndarray], exercise: Exercise) -> str:
    """How an answer differs for the first probe where it does; the numbers among its arguments are named."""
    differ = [not _alike(*pair, exercise.within) for pair in zip(given, wanted, strict=True)]
    probe = differ.index(True)
    named = zip(exercise.takes.split(", "), exercise.probes[probe], strict=False)  # a value takes nothing
    numbers = [f"{name} = {value:g}" for name, value in named if np.ndim(value) == 0]
    return (f"for {', '.join(numbers)} " if numbers else "") + _difference(given[probe], wanted[probe])


def _difference(given: np.ndarray, wanted: np.ndarray) -> str:
    """How an answer differs from what is wanted, without the way there."""
    if not given.size:
        return "your function gives nothing back (does it end with return?)"
    if given.shape != wanted.shape:
        return f"your answer has the shape {given.shape}, wanted is {wanted.shape}"
    if not np.isfinite(given).all():
        return "your answer is not finite everywhere"
    if not given.ndim:
        return f"your answer is too {'large' if given > wanted else 'small'} by {abs(given - wanted):.3g}"
    return f"your answer is off by up to {np.abs(given - wanted).max():.3g}"
