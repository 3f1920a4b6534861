"""Settings: what is refused, what the profile fills in."""

import pytest

from ttlkit import machine
from ttlkit.method import starts
from ttlkit.method.weights import load_weights
from ttlkit.runs.profiles import PROFILES
from ttlkit.runs.settings import STAGES, Distillation, FineTuning, TeacherPretraining, resolve, teacher_stages
from ttlkit.words import SettingsError


def test_profile_fills_what_is_not_given():
    settings = resolve(TeacherPretraining, {"profile": "smoke", "steps": 7, "width": None})
    assert (settings.steps, settings.width, settings.run) == (7, PROFILES["smoke"].teacher_width, "smoke")


def test_text_numbers_from_yaml_become_numbers():
    assert resolve(TeacherPretraining, {"learning_rate": "1e-4", "steps": "5"}).learning_rate == 1e-4


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"taks": "deblur"}, ["taks", "did you mean 'task'"]),
        ({"profile": "poket"}, ["poket", "did you mean 'pocket'"]),
        ({"steps": "many"}, ["steps", "many"]),
        ({"steps": 0}, ["steps = 0", "at least 1"]),
        ({"patch": 30}, ["patch = 30", "multiple of 16"]),
        ({"run": 1}, ["run = 1", "-r"]),
        ({"run": "../elsewhere"}, ["run", "plain folder name"]),
        ({"seed": -1}, ["seed = -1", "at least 0"]),
    ],
)
def test_bad_parameters_give_one_line_that_names_them(given, words):
    with pytest.raises(SettingsError) as caught:
        resolve(TeacherPretraining, given)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_every_stage_resolves_under_every_profile():
    for kind in STAGES.values():
        for profile in PROFILES:
            settings = resolve(kind, {"profile": profile})
            assert None not in vars(settings).values()


def test_needs_follow_the_initialisation():
    teacher = "02_teacher_pretraining-{}".format
    for init, guided, needs in (
        ("scratch", False, []),
        ("scratch-total", False, []),
        ("deblur", False, [teacher("deblur")]),
        ("streaks", True, [teacher("streaks")]),
        ("student", True, ["03_distillation", teacher("streaks")]),
        ("unguided", False, ["03_distillation"]),
        ("all", True, [teacher(task) for task in ("recognition", "deblur", "streaks")]),
    ):
        settings = resolve(FineTuning, {"init": init, "teachers_from": "run"})
        assert (settings.guided, settings.needs()) == (guided, needs)
    for without in ({"guide": ""}, {"guidance": 0}):
        assert resolve(FineTuning, {"init": "student", **without}).needs() == ["03_distillation"]


def test_released_teachers_are_taken_where_the_profile_says_so():
    assert resolve(Distillation, {}).takes() == teacher_stages(["recognition", "deblur", "streaks"])
    assert resolve(Distillation, {}).needs() == resolve(FineTuning, {"init": "scratch"}).takes() == []
    assert resolve(FineTuning, {}).takes() == teacher_stages(["streaks"])
    own = resolve(Distillation, {"tasks": "deblur,mine"})  # of a task of one's own nothing is released
    assert (own.takes(), own.needs()) == (teacher_stages(["deblur"]), teacher_stages(["mine"]))
    assert resolve(Distillation, {"profile": "smoke"}).takes() == []


def test_a_run_is_not_called_as_the_site_is():
    with pytest.raises(SettingsError, match="outputs/site is where `make site` builds"):
        resolve(FineTuning, {"run": "site"})


def test_scratch_may_have_what_all_stages_cost_together():
    profile = PROFILES["sweep"]  # teachers as wide as the student: 500 steps each, 400 of distillation, 400 guided ones
    total = 3 * 500 + 400 * (1 + 3 / 3) + 400 * (1.5 + 0.5 / 3)
    assert resolve(FineTuning, {"profile": "sweep", "init": "scratch-total"}).steps == round(total)
    assert resolve(FineTuning, {"profile": "sweep", "init": "scratch"}).steps == profile.fine_tuning_steps
    assert resolve(FineTuning, {"init": "scratch-total", "steps": 5}).steps == 5


def test_the_released_student_is_never_made_narrower():
    least = starts.STARTS["released"].least_width
    assert load_weights(machine.WEIGHTS / "student.safetensors").width == least
    smoke = {"profile": "smoke", "init": "released"}
    assert resolve(FineTuning, smoke).width == least and resolve(FineTuning, {**smoke, "init": "scratch"}).width == 8
    assert resolve(FineTuning, {**smoke, "width": 24}).width == 24
    with pytest.raises(SettingsError, match="width = 8: init = 'released' needs 16 or more"):
        resolve(FineTuning, {**smoke, "width": 8})


def test_precision_can_be_forced(monkeypatch):
    monkeypatch.setenv("TTLKIT_PRECISION", "no")
    assert machine.precision() == "no"
    monkeypatch.delenv("TTLKIT_PRECISION")
    assert machine.precision() in ("bf16", "fp16", "no")
