"""What the release has in store for a stage that a run has not made: no notebook refuses to start."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ttlkit import machine
from ttlkit.runs.profiles import GUIDE, TASK_NAMES
from ttlkit.words import split_names

SWEEP = machine.WEIGHTS / "sweep.csv"  # scores of the runs of a sweep, for notebook 06
DISTILLED, TEACHER = "03_distillation", "teacher "
# The folder of a stage to: what it is in words, the file that it hands on, and the released one that stands in.
STAND_INS = {
    **{
        f"02_teacher_pretraining-{task}": (f"{TEACHER}{task}", "teacher.safetensors", f"teacher-{task}.safetensors")
        for task in split_names(TASK_NAMES)
    },
    DISTILLED: ("distilled student", "student.safetensors", "distilled.safetensors"),
    "04_fine_tuning-student": ("student", "restorer.safetensors", "student.safetensors"),
}


def files_for(name: str, settings: Any) -> dict[str, Path]:
    """Name to released file, of what stands in for the stage `name` before one with `settings`; {} where nothing does.

    The released student has been distilled from certain teachers, and stands in for no student of others.
    """
    told = (getattr(settings, "tasks", TASK_NAMES), getattr(settings, "guide", GUIDE))
    if name not in STAND_INS or (
        name == DISTILLED and (split_names(told[0]), told[1]) != (split_names(TASK_NAMES), GUIDE)
    ):
        return {}
    _, file, released = STAND_INS[name]
    return {file: machine.WEIGHTS / released}


def what(names: Iterable[str]) -> str:
    """What stands in for these stages, in words: 'teachers deblur, streaks and distilled student'; '' for none."""
    found = [STAND_INS[name][0] for name in names if name in STAND_INS]
    teachers = [words.removeprefix(TEACHER) for words in found if words.startswith(TEACHER)]
    said = [f"teacher{'s' * (len(teachers) > 1)} {', '.join(teachers)}"] if teachers else []
    return " and ".join([*said, *(words for words in found if not words.startswith(TEACHER))])
