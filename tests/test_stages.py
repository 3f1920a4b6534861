"""Run folders: what is done, what is stale, what is missing."""

import json

import pytest

from ttlkit import files
from ttlkit.evaluate import votes
from ttlkit.runs import stages
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
    assert scenes.stale() == "02_teacher_pretraining-recognition has been made again"


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


@pytest.mark.parametrize(
    ("kind", "given", "words"),
    [
        (Distillation, {}, ["02_teacher_pretraining-recognition", "task = 'recognition'", "make reproduce"]),
        (FineTuning, {"init": "student"}, ["03_distillation.ipynb", "make reproduce"]),
    ],
)
def test_a_missing_earlier_stage_is_named(home, collection, kind, given, words):
    run = StageRun(resolve(kind, {"profile": "smoke", "collection": str(collection), **given}))
    with pytest.raises(SettingsError) as caught:
        run.begin()
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


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
    assert stages.folder_hash(tmp_path / "a") == stages.folder_hash(tmp_path / "b")
    (tmp_path / "b/x.png").write_bytes(b"2" * 100)
    assert stages.folder_hash(tmp_path / "a") != stages.folder_hash(tmp_path / "b")


def test_track_passes_items_on_and_logs_the_last_step(home, collection):
    run = gap(collection).begin()
    assert list(run.track([5, 6, 7], "things")) == [5, 6, 7]
    row = json.loads((run.folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert row == {"what": "things", "step": 3, "steps": 3}
