"""What fine-tuning starts from: one table. Paper: the transferred student, against the same network from scratch.

Ours: the other rows, which say what each part of the transfer is worth. Nothing here imports torch before a network
is built, so settings can read the table.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Build = Callable[[int, Mapping[str, Any], Any], Any]


@dataclass(frozen=True)
class Start:
    """One way to begin.

    `build(width, teachers, student)`: the network to fine-tune, from the teachers by task and the distilled student
    that it needs: `student`, `every_teacher`, or (a task as the start) the teacher of that task. `guided`: it has
    something to forget, so the guide looks after it. `blends`: it may take back a share of the weights it started
    from. `long`: it trains for as many steps as cost what all stages of the student cost together.
    """

    why: str
    build: Build
    student: bool = False
    every_teacher: bool = False
    guided: bool = False
    blends: bool = True
    long: bool = False


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


def side_by_side(width: int, teachers: Mapping[str, Any], student: Any) -> Any:
    """All teachers in one large network."""
    from ttlkit.method.weights import gather

    return gather(list(teachers.values()))


def _like(source: Any) -> Any:
    from ttlkit.method.networks import Restorer
    from ttlkit.method.weights import transfer

    return transfer(source, Restorer(source.width))


STARTS: dict[str, Start] = {
    "scratch": Start("the same network, untrained", untrained, blends=False),
    "scratch-total": Start("untrained, with the computing of all stages", untrained, blends=False, long=True),
    "all": Start("every teacher side by side, not distilled", side_by_side, every_teacher=True, guided=True),
    "student": Start("the distilled student: the method", distilled, student=True, guided=True),
    "unguided": Start("the distilled student, left without its guide", distilled, student=True),
}
SCRATCH, STUDENT = "scratch", "student"  # the two rows that the claim compares


def start_of(init: str, guide: str = "") -> Start:
    """The entry of STARTS, or, for the name of a task, its teacher: guided where it is itself the guide."""
    return STARTS.get(init) or Start(f"the teacher `{init}` alone", taught, guided=init == guide)


def teachers_of(init: str, tasks: Sequence[str]) -> list[str]:
    """The tasks whose teachers a start is built from."""
    if init not in STARTS:
        return [init]
    return list(tasks) if STARTS[init].every_teacher else []
