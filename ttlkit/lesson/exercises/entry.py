"""What an exercise is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Exercise:
    """One exercise of a notebook: the reader writes a function `answer`, or, where it takes nothing, a value.

    `question`: in words, as the notebook shows it; `takes`: the names that `answer` takes, in order; `begin`: where to
    begin, for who has written nothing yet. `right` does what `answer` should do; `wrong`: hint to a typical mistake,
    which does what that mistake does, or to several mistakes that deserve the same hint. `probes`: what all of them are
    called with, [()] for a value; right and mistakes must differ there.
    `solution`: a few lines of code, as the notebook shows them, folded.
    `seen`: where many answers are right, what is compared instead of them; it is equal within the share `within`.
    `stops`: hint to a pattern, for lines that stop with an error whose text holds it. `remark`: what is said of a wrong
    answer, from the answer itself and instead of any other hint; "" where there is nothing to say.
    """

    name: str
    notebook: str
    question: str
    takes: str
    begin: str
    right: Callable[..., Any]
    wrong: Mapping[str, Callable[..., Any] | tuple[Callable[..., Any], ...]]
    probes: Sequence[tuple[Any, ...]]
    solution: str
    seen: Callable[[Any], Any] = lambda answer: answer
    within: float = 1e-4
    stops: Mapping[str, str] = field(default_factory=dict)
    remark: Callable[[Any], str] = lambda answer: ""
