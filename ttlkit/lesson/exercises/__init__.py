"""The exercises of the notebooks, one entry each. `lesson.check` judges answers; tests/test_exercises.py tries all.

To add one: an entry in the module of its notebook, and in the notebook the cells that `check.cells(name)` gives.
A new module is added to EXERCISES below.
"""

from ttlkit.lesson.exercises import ablation, distillation, evaluation, fine_tuning, gap, teachers
from ttlkit.lesson.exercises.entry import Exercise

EXERCISES: dict[str, Exercise] = {
    exercise.name: exercise
    for module in (gap, teachers, distillation, fine_tuning, evaluation, ablation)
    for exercise in module.EXERCISES
}
