"""What an exercise is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Exercise:
    """One exercise of a notebook: the reader writes a function `answer`, or, where it takes nothing, a value.

    `question`: in words, as the notebook shows it; `takes`: the names that `answer` takes, in order; `begin`: where to
    begin, for who has written nothing yet. `right` does what `answer` should do; `wrong`: hint to a typical mistake,
    which does what that mistake does. `probes`: what all of them are called with, [()] for a value; right and mistakes
    must differ there.
    `solution`: a few lines of code, as the notebook shows them, folded.
    `seen`: where many answers are right, what is compared instead of them; it is equal within the share `within`.
    """

    name: str
    notebook: str
    question: str
    takes: str
    begin: str
    right: Callable[..., Any]
    wrong: Mapping[str, Callable[..., Any]]
    probes: Sequence[tuple[Any, ...]]
    solution: str
    seen: Callable[[Any], Any] = lambda answer: answer
    within: float = 1e-4
