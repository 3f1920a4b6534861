"""Run folders: what is done, what is stale, what is missing."""

import json
import shutil

import click
import nbformat
import papermill
import pytest
from jupyter_client.kernelspec import NoSuchKernel

from ttlkit import files, machine
from ttlkit.apply import restore
from ttlkit.evaluate import votes
from ttlkit.runs import code, pipeline, records, released, stages, training
from ttlkit.runs.settings import Distillation, Evaluation, FineTuning, Gap, TeacherPretraining, resolve
from ttlkit.runs.stages import StageRun
from ttlkit.words import SettingsError


@pytest.fixture
def collection(tmp_path):
    folder = tmp_path / "mine"
    for part in ("real/rainy", "synthetic/set/rainy"):
        (folder / part).mkdir(parents=True)
        (folder / part / "a.png").write_bytes(b"x" * 10_000)
    return folder


def gap(collection, **given):
    return StageRun(resolve(Gap, {"profile": "smoke", "collection": str(collection), **given}))


def test_a_finished_stage_is_done_until_its_inputs_change(home, collection):
    first = gap(collection).begin()
    assert not gap(collection).is_done()
    files.write_json(first.folder / "distances.json", [1])
    first.finish(found=3)
    assert gap(collection).is_done()
    assert not gap(collection, seed=1).is_done()
    (collection / "synthetic/set/rainy/b.png").write_bytes(b"y")
    assert not gap(collection).is_done()


def test_figures_of_an_earlier_run_do_not_stay(home, collection):
    old = gap(collection).begin().folder / "figures" / "old.png"
    old.write_bytes(b"x")
    assert gap(collection).begin().folder == old.parent.parent and not old.exists() and old.parent.is_dir()


def test_a_stage_is_not_done_when_a_file_that_it_made_is_gone(home, collection):
    first = gap(collection).begin()
    files.write_json(first.folder / "distances.json", [1])
    first.finish()
    (first.folder / "distances.json").unlink()
    assert not gap(collection).is_done()


def test_votes_are_no_result_and_survive_a_rerun(home, collection):
    first = gap(collection).begin()
    path = first.folder / stages.VOTES
    votes.save_vote(path, votes.Question("a.png", "input", "student"), "left")
    first.finish()
    votes.save_vote(path, votes.Question("b.png", "input", "student"), "right")
    assert gap(collection).is_done() and stages.VOTES not in first.done()["files"]
    gap(collection).begin().finish()
    assert [vote["vote"] for vote in votes.load_votes(path)] == ["left", "right"]


def test_what_a_stage_only_uses_may_be_missing_but_counts(home, collection):
    (collection / "test/set/rainy").mkdir(parents=True)
    scenes = StageRun(resolve(Evaluation, {"profile": "smoke", "collection": str(collection), "inits": ""}))
    scenes.begin().finish()
    given = {"profile": "smoke", "collection": str(collection), "task": "recognition"}
    teacher = StageRun(resolve(TeacherPretraining, given)).begin(writes=False)
    (teacher.folder / "teacher.safetensors").parent.mkdir(parents=True)
    (teacher.folder / "teacher.safetensors").write_bytes(b"x")
    assert scenes.is_done()
    teacher.finish()
    assert scenes.stale() == "02_teacher_pretraining-recognition has been made"


def test_parts_that_a_stage_does_not_read_do_not_make_it_stale(home, collection):
    gap(collection).begin().finish()
    (collection / "test/new/rainy").mkdir(parents=True)
    (collection / "test/new/rainy/a.png").write_bytes(b"z")
    assert gap(collection).is_done()


def test_done_records_what_made_it(home, collection):
    gap(collection).begin().finish(found=3)
    done = json.loads((home / "outputs/smoke/01_gap_statistics/DONE.json").read_text())
    assert done["results"] == {"found": 3}
    assert done["inputs"]["settings"]["seed"] == 0
    assert {"versions", "commit", "device", "precision", "threads", "seconds", "files", "checksum"} <= set(done)
    assert done["versions"]["torch"] != "absent"


TEACHERS = ("recognition", "deblur", "streaks")


def of(collection, kind, **given):
    return StageRun(resolve(kind, {"profile": "smoke", "collection": str(collection), **given}))


def make(collection, kind, file, **given):
    """A finished stage of which nothing but the file is there that it hands on."""
    stage = of(collection, kind, **given)
    stage.begin()
    (stage.folder / file).write_bytes(b"made")
    stage.finish()
    return stage


@pytest.mark.parametrize(
    ("kind", "given", "words"),
    [
        (Distillation, {"tasks": "deblur,rotation"}, ["02_teacher_pretraining-rotation", "task = 'rotation'"]),
        (FineTuning, {"init": "student", "tasks": "deblur"}, ["03_distillation.ipynb", "make reproduce"]),
        (FineTuning, {"init": "student", "guide": ""}, ["03_distillation.ipynb", "make reproduce"]),
        (FineTuning, {"init": "paper"}, ["03_distillation.ipynb with tasks = 'recognition,deblur'"]),
    ],
)
def test_a_missing_earlier_stage_that_nothing_released_stands_for_is_named(home, collection, kind, given, words):
    with pytest.raises(SettingsError) as caught:
        of(collection, kind, **given).begin()
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_what_is_released_stands_in_for_teachers_and_one_line_says_so(home, collection, capsys):
    stage = of(collection, Distillation).begin()
    told = [line for line in capsys.readouterr().out.splitlines() if "released" in line]
    assert len(told) == 1 and all(f"02_teacher_pretraining-{task}" in told[0] for task in TEACHERS)
    assert told[0].endswith("takes the released teachers recognition, deblur, streaks instead, "
                            "trained on real photographs")  # fmt: skip
    taught = training.load_teachers(stage, TEACHERS)
    assert list(taught) == list(TEACHERS) and {teacher.width for teacher in taught.values()} == {16}
    recorded = json.loads((stage.folder / "config.json").read_text())["released"]
    hashes = {task: files.sha256(machine.WEIGHTS / f"teacher-{task}.safetensors") for task in TEACHERS}
    assert recorded == {f"02_teacher_pretraining-{t}": {"teacher.safetensors": h} for t, h in hashes.items()}
    stage.finish()
    assert records.stand_ins_of(stage.done()["inputs"]) == recorded and stage.is_done()
    assert any("03_distillation took the released teachers" in note for note in pipeline.notes(stage.run_folder))


def test_released_teachers_are_taken_on_purpose_whatever_the_run_has(home, collection, monkeypatch, capsys):
    make(collection, TeacherPretraining, "teacher.safetensors", task="deblur")
    monkeypatch.setenv(stages.UNDER_PIPELINE, str(home / "outputs/smoke/03_distillation"))  # the pipeline does too
    stage = of(collection, Distillation, tasks="deblur", guide="", teachers_from="released").begin()
    assert "takes the released teacher deblur, trained on real photographs" in capsys.readouterr().out
    theirs = machine.WEIGHTS / "teacher-deblur.safetensors"
    assert stage.require("02_teacher_pretraining-deblur", "teacher.safetensors") == theirs
    assert list(records.stand_ins_of(stage.inputs)) == ["02_teacher_pretraining-deblur"]
    own = of(collection, Distillation, tasks="deblur", guide="", teachers_from="run")
    assert own.require("02_teacher_pretraining-deblur", "teacher.safetensors").read_bytes() == b"made"
    assert own.key != stage.key


def test_a_released_file_goes_stale_when_the_run_has_its_own(home, collection):
    given = {"init": "student", "guidance": 0}
    tuned = of(collection, FineTuning, **given).begin()
    assert tuned.require("03_distillation", "student.safetensors") == machine.WEIGHTS / "distilled.safetensors"
    before = tuned.key
    tuned.finish()
    make(collection, Distillation, "student.safetensors")
    assert tuned.stale() == "03_distillation has been made"
    again = of(collection, FineTuning, **given)
    assert again.require("03_distillation", "student.safetensors").read_bytes() == b"made"
    assert again.key != before  # no checkpoint of the one is taken up by the other
    again.begin().finish()
    assert again.is_done() and json.loads((again.folder / "config.json").read_text())["released"] == {}
    shutil.rmtree(again.run_folder / "03_distillation")
    assert again.stale() == "03_distillation has been made again"


@pytest.mark.parametrize("left", ["config.json", ".finished.json", "checkpoint.pt", "DONE.json"])
def test_a_stage_that_was_begun_is_not_replaced_by_what_is_released(home, collection, left):
    stage = of(collection, FineTuning, init="student", guidance=0)
    (stage.run_folder / "03_distillation").mkdir(parents=True)
    assert stage.has("03_distillation") and stage.stand_ins("03_distillation")  # an empty folder is nothing
    (stage.run_folder / "03_distillation" / left).write_text("half")
    assert stage.has("03_distillation") and not stage.stand_ins("03_distillation")
    with pytest.raises(SettingsError, match=r"03_distillation, which is not finished .*; or remove .*03_distillation"):
        stage.begin()


def test_a_damaged_stage_is_not_replaced_by_what_is_released(home, collection):
    make(collection, Distillation, "student.safetensors")
    stage = of(collection, FineTuning, init="student", guidance=0)
    (stage.run_folder / "03_distillation" / "student.safetensors").write_bytes(b"edited")
    with pytest.raises(SettingsError, match=r"whose student.safetensors is damaged or gone"):
        stage.begin().require("03_distillation", "student.safetensors")


def test_the_pipeline_takes_nothing_that_is_released(home, collection, monkeypatch):
    stage = of(collection, FineTuning, init="student", guidance=0)
    monkeypatch.setenv(stages.UNDER_PIPELINE, str(stage.folder))
    assert not stage.stand_ins("03_distillation")
    with pytest.raises(SettingsError, match=r"03_distillation, which is not finished"):
        stage.begin()
    scenes = of(collection, Evaluation)
    monkeypatch.setenv(stages.UNDER_PIPELINE, str(scenes.folder))
    with pytest.raises(SettingsError, match=r"04_fine_tuning-scratch, which is not finished"):
        scenes.begin()


def test_what_was_made_by_hand_from_the_release_runs_again_in_the_pipeline(home, collection):
    of(collection, FineTuning, init="student").begin().finish()
    given = {"profile": "smoke", "collection": str(collection)}
    assert "04_fine_tuning-student" in pipeline.outlook(pipeline.plan(**given))


def test_the_evaluation_leaves_out_what_is_neither_made_nor_released(home, collection, capsys):
    scenes = of(collection, Evaluation, inits="scratch,deblur,student").begin()
    told = [line for line in capsys.readouterr().out.splitlines() if "not finished" in line]
    assert told == [
        "04_fine_tuning-student, 02_teacher_pretraining-recognition are not finished in outputs/smoke: "
        "takes the released teacher recognition and student instead, trained on real photographs",
        "04_fine_tuning-scratch, 04_fine_tuning-deblur are not finished in outputs/smoke: left out",
    ]
    rows = [init for init in ("scratch", "deblur", "student") if scenes.has(f"04_fine_tuning-{init}")]
    assert rows == ["student"]
    found = scenes.require("04_fine_tuning-student", "restorer.safetensors")
    assert found == restore.RELEASED
    (recogniser,) = scenes.settings.uses()  # which notebook 05 judges real rain with
    assert scenes.require(recogniser, "teacher.safetensors").name == "teacher-recognition.safetensors"
    scenes.finish()
    make(collection, FineTuning, "restorer.safetensors", init="scratch")
    assert scenes.stale() == "04_fine_tuning-scratch has been made"


def test_every_released_file_is_there():
    stand_ins = {s[2] for s in released.STAND_INS.values()}
    assert {path.name for path in machine.WEIGHTS.glob("*.safetensors")} == {*stand_ins, restore.LARGE.name}


def test_a_stage_of_another_run_is_found_before_this_one_has_a_folder(home, collection):
    other = gap(collection, run="other").begin()
    files.write_json(other.folder / "distances.json", [1])
    other.finish(found=3)
    found = gap(collection, run="new").require("../other/01_gap_statistics", "distances.json")
    assert found == other.folder / "distances.json" and found.is_file()
    with pytest.raises(SettingsError, match="not finished"):
        gap(collection, run="new").require("../third/01_gap_statistics", "distances.json")


def test_a_name_that_papermill_injects_by_mistake_is_refused(home, collection):
    scope = {"profile": "smoke", "sede": 3, "In": ["", "# Parameters\nsede = 3\n"]}
    with pytest.raises(SettingsError, match="sede.*did you mean 'seed'"):
        stages.start("01_gap_statistics", scope)
    scope = {"profile": "smoke", "lr": 1e-3, "In": ["", 'profile = "smoke"  # type: str\nlr = 1e-3']}  # by hand
    with pytest.raises(SettingsError, match="'lr'; did you mean 'learning_rate'"):
        stages.start("02_teacher_pretraining", scope)
    corrected = {**scope, "In": [*scope["In"], 'profile = "smoke"  # type: str'], "collection": str(collection)}
    assert stages.start("02_teacher_pretraining", corrected).settings.learning_rate == 2e-3


@pytest.mark.parametrize(
    ("stage", "given", "refused"),
    [
        ("02_teacher_pretraining", {"lr": 1e-3}, "'lr'; did you mean 'learning_rate'"),
        ("02_teacher_pretraining", {"steps": 0}, "needs at least 1"),
        ("02_teacher_pretraining", {"steps": True}, "yes or no"),
        ("02_teacher_pretraining", {"task": "deblurr"}, "task: 'deblurr'; did you mean 'deblur'"),
        ("03_distillation", {"tasks": "deblur,streak"}, "tasks: 'streak'; did you mean 'streaks'"),
        ("05_real_scene_evaluation", {"inits": "scratch,studnt"}, "inits: 'studnt'; did you mean 'student'"),
        ("02_teacher_pretraining", {"steps": 5, "task": "streaks"}, ""),
        ("05_real_scene_evaluation", {"inits": "streaks,student", "images": 3}, ""),
    ],
)
def test_papermill_refuses_a_wrong_parameter_before_a_kernel_starts(stage, given, refused, tmp_path):
    copy, out = tmp_path / "my copy.ipynb", tmp_path / "out.ipynb"
    shutil.copy(code.notebook_path(stage), copy)  # a file by another name is known too
    out.write_text("what an earlier run has made")
    with pytest.raises(click.ClickException if refused else NoSuchKernel, match=refused or "none"):
        papermill.execute_notebook(copy, out, given, kernel_name="none", progress_bar=False)
    assert (out.read_text() == "what an earlier run has made") == bool(refused)


def test_papermill_lets_a_notebook_of_others_be(tmp_path):
    theirs = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import ttlkit")])
    theirs.metadata["kernelspec"] = {"name": "none", "language": "python", "display_name": "none"}
    name = tmp_path / "02_teacher_pretraining.ipynb"
    nbformat.write(theirs, name)
    with pytest.raises(NoSuchKernel):
        papermill.execute_notebook(name, tmp_path / "out.ipynb", {"lr": 1e-3}, progress_bar=False)


def test_other_names_in_the_notebook_are_nobodys_business(home, collection):
    scope = {"profile": "smoke", "collection": str(collection), "sede": 3, "In": ["", "sede = 3"]}
    assert stages.start("01_gap_statistics", scope).settings.seed == 0


def test_write_json_keeps_the_old_file_when_it_fails(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"good": 1})
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, {"bad": float("nan")})
    assert json.loads(path.read_text()) == {"good": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_fingerprint_sees_content_and_survives_a_copy(tmp_path):
    import shutil

    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.png").write_bytes(b"1" * 100)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert records.folder_hash(tmp_path / "a") == records.folder_hash(tmp_path / "b")
    (tmp_path / "b/x.png").write_bytes(b"2" * 100)
    assert records.folder_hash(tmp_path / "a") != records.folder_hash(tmp_path / "b")


def test_track_passes_items_on_and_logs_the_last_step(home, collection):
    run = gap(collection).begin()
    assert list(run.track([5, 6, 7], "things")) == [5, 6, 7]
    row = json.loads((run.folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert row == {"what": "things", "step": 3, "steps": 3}
