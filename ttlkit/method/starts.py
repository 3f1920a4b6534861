"""The rows of the comparison: what fine-tuning starts from, and what it then learns from. One table.

Paper: a student of two tasks, fine-tuned on few pairs, against the same network from scratch. Ours: the third task
`streaks`, the guide, rendered rain, blending; the rows that leave out one of them say what it is worth. The references
of the others stand in adaptation and semi_supervised. Nothing here imports torch before a network is built, so settings
can read the table.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ttlkit import machine

Build = Callable[[int, Mapping[str, Any], Any], Any]


@dataclass(frozen=True)
class Start:
    """One row.

    `build(width, teachers, student)`: the network to fine-tune, from the teachers by task and the distilled student
    that it needs: `student`, `every_teacher`, or (a task as the start) the teacher of that task. `tasks`: of a
    student of its own, distilled without guide; '': the run's student.

    Each of these is what the profile says, or, without it, nothing: `guided`: the guide looks after what it might
    forget; `rendered`: a share of the samples is rain rendered on photographs, else it learns from pairs alone;
    `blends`: a share of the weights it started from comes back. `long`: it trains for as many steps as cost what all
    stages of the student cost together. `every_pair`: of all that the collection holds, not few. `way`: how it is
    trained, an entry of recipes.WAYS; '': all weights, on pairs. `unlabelled`: that way sees real rainy photographs.
    `least_width`: that of weights which can be widened only.
    """

    why: str
    build: Build
    student: bool = False
    tasks: str = ""
    every_teacher: bool = False
    guided: bool = False
    rendered: bool = False
    blends: bool = False
    long: bool = False
    every_pair: bool = False
    way: str = ""
    unlabelled: bool = False
    least_width: int = 0


def untrained(width: int, teachers: Mapping[str, Any], student: Any) -> Any:
    """A restorer that knows nothing."""
    from ttlkit.method.networks import Restorer

    return Restorer(width)


def distilled(width: int, teachers: Mapping[str, Any], student: Any) -> Any:
    """A restorer with all that the distilled student has learned."""
    return _like(student)


def taught(width: int, teachers: Mapping[str, Any], student: Any) -> Any:
    """A restorer with what its only teacher has learned."""
    (teacher,) = teachers.values()
    return _like(teacher)


def released(width: int, teachers: Mapping[str, Any], student: Any) -> Any:
    """The released student; where `width` is more than its own, widened so that it first restores as before."""
    from ttlkit.method.weights import load_weights, widen

    return widen(load_weights(machine.WEIGHTS / "student.safetensors"), width)


def side_by_side(width: int, teachers: Mapping[str, Any], student: Any) -> Any:
    """All teachers in one large network."""
    from ttlkit.method.weights import gather

    return gather(list(teachers.values()))


def _like(source: Any) -> Any:
    from ttlkit.method.networks import Restorer
    from ttlkit.method.weights import transfer

    return transfer(source, Restorer(source.width))


PAPER_TASKS = "recognition,deblur"  # the two that the paper names

_scratch = partial(Start, build=untrained)
_paper = partial(Start, build=distilled, student=True, tasks=PAPER_TASKS)
_ours = partial(Start, build=distilled, student=True, rendered=True, blends=True)
_semi = partial(Start, build=untrained, unlabelled=True)
STARTS: dict[str, Start] = {
    # Supervised, from scratch.
    "scratch": _scratch("the same network, untrained"),
    "scratch-total": _scratch("untrained, with the computing of all stages", long=True),
    "scratch-rendered": _scratch("untrained, with rendered rain beside the pairs", rendered=True),
    "all-pairs": _scratch("untrained, on every pair of the collection", every_pair=True),
    # As the paper has it: two tasks, no guide, pairs alone. How it fine-tunes is not known to us: five ways.
    "paper": _paper("two tasks, distilled, all weights on pairs"),
    "paper-frozen": _paper("two tasks, the encoder frozen", way="encoder frozen"),
    "paper-head-first": _paper("two tasks, the head alone at first", way="head first"),
    "paper-near": _paper("two tasks, held near the start", way="near the start"),
    "paper-low-rank": _paper("two tasks, low-rank changes", way="low rank"),
    # Ours, and each part of it left out once.
    "student": _ours("the distilled student: the method", guided=True),
    "no-streaks": _ours("the student of the paper's two tasks, so without a guide too", tasks=PAPER_TASKS),
    "unguided": _ours("the distilled student, left without its guide"),
    "no-rendered": _ours("the distilled student, on pairs alone", guided=True, rendered=False),
    "all": Start(
        "every teacher side by side, not distilled",
        side_by_side,
        every_teacher=True,
        guided=True,
        rendered=True,
        blends=True,
    ),
    # To go on from what is released. It has seen far more than the others, so it says nothing about the claim.
    "released": Start("the released student, trained on", released, rendered=True, blends=True, least_width=16),
    # Semi-supervised, from scratch: the pairs, and real rainy photographs.
    "mixture": _semi("real rain follows a mixture of Gaussians", way="mixture"),
    "gaussian-process": _semi("real rain follows a Gaussian process over the pairs", way="Gaussian process"),
    "mean-teacher": _semi("real rain follows the student's own average", way="mean teacher"),
    "mixture-rendered": _semi("as mixture, with rendered rain too", way="mixture", rendered=True),
    "gaussian-process-rendered": _semi(
        "as gaussian-process, with rendered rain too", way="Gaussian process", rendered=True
    ),
    "mean-teacher-rendered": _semi("as mean-teacher, with rendered rain too", way="mean teacher", rendered=True),
}
SCRATCH, STUDENT = "scratch", "student"  # the two rows that the claim compares


def start_of(init: str, guide: str = "") -> Start:
    """The entry of STARTS, or, for the name of a task, its teacher: guided where it is itself the guide."""
    alone = Start(f"the teacher `{init}` alone", taught, guided=init == guide, rendered=True, blends=True)
    return STARTS.get(init) or alone


def student_variant(tasks: Sequence[str], guide: str) -> str:
    """The suffix of the stage that distils such a student: its tasks where an entry of STARTS names it, else ''."""
    own = not guide and ",".join(tasks) in {start.tasks for start in STARTS.values() if start.tasks}
    return "+".join(tasks) if own else ""


def teachers_of(init: str, tasks: Sequence[str]) -> list[str]:
    """The tasks whose teachers a start is built from."""
    if init not in STARTS:
        return [init]
    return list(tasks) if STARTS[init].every_teacher else []
