"""The command line and the pipeline: one clear line for what a user can solve."""

import json
import os
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest

from ttlkit import cli, commands
from ttlkit.apply import bulk
from ttlkit.data import cache, image_files
from ttlkit.data.public import catalogue
from ttlkit.method import networks, weights
from ttlkit.runs import pipeline
from ttlkit.runs.settings import STAGES, resolve
from ttlkit.runs.stages import StageRun
from ttlkit.words import SettingsError


def run(capsys, *arguments):
    code = cli.main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["reproduce", "--profile", "poket"], ["poket", "did you mean 'pocket'"]),
        (["reproduce", "--collection", "/nowhere/at/all"], ["/nowhere/at/all", "no such collection"]),
        (["reproduce", "--tasks", "deblurr"], ["deblurr", "did you mean 'deblur'"]),
        (["reproduce", "--inits", "scratch,sudent"], ["sudent", "did you mean 'student'"]),
        (["reproduce", "--run", "a/b"], ["a/b", "plain folder name"]),
        (["derain", "/nowhere.png", "out"], ["/nowhere.png", "no such file"]),
        (["derain", "/nowhere/*.png"], ["/nowhere/*.png", "no such file"]),
        (["export", "student.pt"], ["student.pt", ".onnx"]),
        (["report", "never"], ["never", "run `ttlkit reproduce` first"]),
        (["data", "show", "/nowhere"], ["/nowhere", "no such collection"]),
    ],
)
def test_what_a_user_can_solve_is_one_line(arguments, words, home, capsys):
    code, _, err = run(capsys, *arguments)
    assert code == 1
    assert len(err.strip().splitlines()) == 1
    for word in words:
        assert word in err


def test_too_few_pairs_and_no_test_sets_are_said_before_anything_is_trained(home, capsys):
    assert run(capsys, "data", "build", "--profile", "smoke")[0] == 0
    root = home / "datasets/pocket-8"
    code, _, err = run(capsys, "reproduce", "--profile", "smoke", "--n-pairs", 9)
    assert code == 1 and "n_pairs = 9" in err and "holds 8" in err and "--n-pairs" in err
    shutil.rmtree(root / "test")
    code, _, err = run(capsys, "reproduce", "--profile", "smoke", "--collection", root)
    assert code == 1 and "no test sets" in err
    assert not (home / "outputs").exists()


@pytest.mark.parametrize("name", ["collection", "peers", "run"])
def test_names_that_are_not_utf_8_are_refused_before_anything_is_run(name, home, capsys):
    code, _, said = run(capsys, "reproduce", "--profile", "smoke", f"--{name}", "caf\udce9")
    assert code == 1 and said.startswith(f"ttlkit: {name} = ") and said.count("\n") == 1
    assert said.endswith("caf\\udce9: no UTF-8, so no notebook can hold it; rename it\n")


def test_a_collection_may_have_a_comma_in_its_name(home, capsys):
    said = run(capsys, "reproduce", "--profile", "smoke", "--collection", f"{home}/rain, none")[2]
    assert said.startswith(f"ttlkit: {home}/rain, none: no such collection")


@pytest.mark.parametrize("name", ["05_real_scene_evaluation/table.txt", "report.html"])
def test_damaged_files_of_a_run_do_not_keep_its_report_from_being_written(name, home, capsys):
    pytest.importorskip("markdown_it")
    stage = StageRun(resolve(STAGES["01_gap_statistics"], {"profile": "smoke", "run": "a"})).begin()
    stage.finish(found=3)
    path = home / "outputs/a" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"caf\xe9")
    code, out, err = run(capsys, "report", "a")
    assert code == 0 and out.startswith("report: "), err


def test_derain_without_weights_says_how_to_get_them(home, capsys, tmp_path):
    image_files.save_image(tmp_path / "a.png", np.zeros((8, 8, 3), np.float32))
    code, _, err = run(capsys, "derain", tmp_path / "a.png", tmp_path / "out", "--run", "mine")
    assert code == 1 and "ttlkit reproduce --run mine" in err


def test_derain_writes_sheets_with_before_and_after(home, capsys, tmp_path):
    student = weights.save_weights(networks.Restorer(8), tmp_path / "w.safetensors")
    for i in range(21):
        image_files.save_image(tmp_path / f"in/{i:02d}.png", np.full((30, 40, 3), i / 30, np.float32))
    image_files.save_image(tmp_path / "in/compare-07-derained.jpg", np.zeros((9, 9, 3), np.float32))  # is not read
    arguments = ["derain", tmp_path / "in", tmp_path / "out", "--weights", student, "--compare"]
    assert run(capsys, *arguments)[0] == 0
    sheets = [image_files.load_image_u8(tmp_path / f"out/compare-{i:02d}-derained.jpg") for i in (1, 2)]
    assert sheets[0].shape == (5 * 308, 4 * 608, 3) and sheets[1].shape == (308, 608, 3)
    assert abs(int(sheets[1][15, 20, 0]) - round(20 / 30 * 255)) < 4  # the last picture, before


def test_derain_skips_and_lists_what_it_cannot_read(home, capsys, tmp_path):
    student = weights.save_weights(networks.Restorer(8), tmp_path / "w.safetensors")
    image_files.save_image(tmp_path / "in/a.png", np.zeros((9, 7, 3), np.float32))
    (tmp_path / "in/b.jpg").write_bytes(b"broken")
    code, out, err = run(capsys, "derain", tmp_path / "in", tmp_path / "out", "--weights", student)
    assert code == 1 and "1 of 2" in out and "b.jpg" in err
    assert image_files.load_image(tmp_path / "out/a.png").shape == (9, 7, 3)


@pytest.fixture
def student(tmp_path):
    return weights.save_weights(networks.Restorer(8), tmp_path / "w.safetensors")


def test_derain_overwrites_nothing_unless_told(home, capsys, tmp_path, student):
    for name in ("in/a.png", "in/b.png", "out/a.png", "out/compare-01-derained.jpg"):
        image_files.save_image(tmp_path / name, np.zeros((9, 7, 3), np.float32))
    before = (tmp_path / "out/a.png").read_bytes()
    command = ["derain", tmp_path / "in", tmp_path / "out", "--weights", student, "--compare"]
    code, out, _ = run(capsys, *command)
    assert code == 0 and "1 of 1 images" in out and "out/a.png; --out OUT --overwrite" in out
    assert "compare-02-derained.jpg" in out
    assert (tmp_path / "out/a.png").read_bytes() == before
    assert run(capsys, *command)[0] == 1  # nothing left to do
    code, out, err = run(capsys, *command, "--overwrite")
    assert code == 1 and out == "" and err == f"ttlkit: {tmp_path}/out: holds images. Is it OUT? `IN --out OUT` " \
        "writes there (with --overwrite it replaces), --out FOLDER restores all of them\n"  # fmt: skip
    assert (tmp_path / "out/a.png").read_bytes() == before
    code, out, _ = run(
        capsys, "derain", tmp_path / "in", "--weights", student, "--out", tmp_path / "out", "--overwrite"
    )
    assert code == 0 and "2 of 2" in out and (tmp_path / "out/a.png").read_bytes() != before


def test_derain_never_replaces_the_last_of_several_images(home, capsys, tmp_path, student):
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path in paths:
        image_files.save_image(path, np.zeros((9, 7, 3), np.float32))
    before = paths[-1].read_bytes()
    code, out, _ = run(capsys, "derain", *paths, "--weights", student, "--overwrite")
    assert code == 0 and "3 of 3" in out and paths[-1].read_bytes() == before
    assert sorted(p.name for p in tmp_path.glob("*-derained.png")) == [f"{i}-derained.png" for i in range(3)]
    assert run(capsys, "derain", *paths[:2], tmp_path / "out", "--weights", student)[0] == 0
    assert len(list((tmp_path / "out").iterdir())) == 2
    assert run(capsys, "derain", tmp_path / "*.png", "--out", tmp_path / "all", "--weights", student)[0] == 0
    assert sorted(p.name for p in (tmp_path / "all").iterdir()) == ["0.png", "1.png", "2.png"]


def test_derain_takes_strength_and_tile(home, capsys, tmp_path, student):
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    image_files.save_image(tmp_path / "a.png", image)
    command = ["derain", tmp_path / "a.png", "--weights", student, "--device", "cpu", "--engine", "torch"]
    assert run(capsys, *command, "--strength", 0, "--tile", 32)[0] == 0
    assert np.array_equal(image_files.load_image_u8(tmp_path / "a-derained.png"), image)
    for wrong, words in ((["--strength", 2], "0 to 1.5"), (["--tile", 30], "multiple of 16")):
        code, _, err = run(capsys, *command, *wrong, "--overwrite")
        assert code == 1 and words in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("more", [[], ["--overwrite"], ["--compare", "--overwrite"]])
def test_derain_takes_no_folder_of_photographs_for_out(more, home, capsys, tmp_path, student):
    """As `derain */` gives them, with the results first."""
    for name in ("trip/1.png", "trip/2.png", "trip-derained/1.png", "trip-derained/2.png", "x/1.png", "y/3.png"):
        image_files.save_image(tmp_path / name, np.full((9, 7, 3), 0.5, np.float32))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
    folders = [["trip-derained", "trip"], ["x", "trip"], ["trip/1.png", "trip/2.png", "y"]]
    for names in folders:
        code, out, err = run(capsys, "derain", *[f"{tmp_path}/{name}/" for name in names], "--weights", student, *more)
        assert code == 1 and ("Is it OUT? `IN --out OUT`" in err or "--out OUT --overwrite replaces" in out)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.suffix != ".safetensors"}


def test_derain_goes_on_in_the_folder_that_a_killed_one_left(home, capsys, tmp_path, student):
    for name in ("in/a.png", "in/b.png", "out/a.png"):
        image_files.save_image(tmp_path / name, np.zeros((9, 7, 3), np.float32))
    (tmp_path / "empty").mkdir()
    for folder, done in (("out", "1 of 1"), ("empty", "2 of 2")):
        assert done in run(capsys, "derain", tmp_path / "in", tmp_path / folder, "--weights", student)[1]


def test_sheets_replace_nothing(home, capsys, tmp_path, student):
    """Not even where a photograph is called as they are, or was restored from one that nearly is."""
    for name in ("compare-01", "compare-01-derained", "compare-02-derained"):
        image_files.save_image(tmp_path / f"{name}.jpg", np.zeros((9, 7, 3), np.float32))
    before = {name: (tmp_path / name).read_bytes() for name in ("compare-01.jpg", "compare-02-derained.jpg")}
    code, out, _ = run(capsys, "derain", tmp_path / "*.jpg", "--weights", student, "--compare", "--overwrite")
    assert code == 0 and "1 of 1" in out and "compare-03-derained.jpg" in out
    assert image_files.load_image_u8(tmp_path / "compare-01-derained.jpg").shape == (9, 7, 3)  # the result
    assert before == {name: (tmp_path / name).read_bytes() for name in before}


def test_a_name_that_is_too_long_stops_none_of_the_others(home, capsys, tmp_path, student):
    for name in ("b" * 250, "c"):
        image_files.save_image(tmp_path / f"{name}.png", np.zeros((9, 7, 3), np.float32))
    code, out, err = run(capsys, "derain", tmp_path / "*.png", "--weights", student)
    assert code == 1 and "1 of 2" in out and (tmp_path / "c-derained.png").exists()
    assert "skipped: " in err and "File name too long" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["derain", ""], "is empty"),
        (["derain", "a.png", ""], "is empty"),
        (["derain", "a.png", "--out", ""], "is empty"),
        (["gap", "a", "b", "--images", "-1"], "-1: give a whole number, at least 1"),
        (["gap", "a", "b", "--images", "0"], "0: give a whole number, at least 1"),
        (["gap", "a", "b", "--seed", "-1"], "-1: give a whole number, at least 0"),
    ],
)
def test_what_no_command_can_mean_is_refused(arguments, words, capsys):
    with pytest.raises(SystemExit):
        cli.main(arguments)
    assert words in capsys.readouterr().err


def test_out_of_a_format_that_cannot_be_written_is_no_folder(home, capsys, tmp_path, student):
    image_files.save_image(tmp_path / "a.jpg", np.zeros((9, 7, 3), np.float32))
    for out in ([tmp_path / "x.gif"], ["--out", tmp_path / "x.HEIC"]):
        code, _, err = run(capsys, "derain", tmp_path / "a.jpg", *out, "--weights", student)
        assert code == 1 and "cannot be written in that format; use one of .png, .jpg" in err
    assert not list(tmp_path.glob("x.*"))
    (tmp_path / "x.gif").mkdir()
    assert run(capsys, "derain", tmp_path / "a.jpg", tmp_path / "x.gif", "--weights", student)[0] == 0


@pytest.mark.parametrize("command", ["reproduce --collection", "data check", "data show"])
def test_the_home_of_nobody_is_one_line(command, home, capsys):
    code, _, err = run(capsys, *command.split(), "~nosuch/x")
    assert code == 1 and "~nosuch/x" in err and err.count("\n") == 1
    chosen = cli.build_parser().parse_args(["reproduce", "--peers", "~nosuch/x"])
    assert commands._given(chosen, "peers")["peers"].endswith("/~nosuch/x")


def test_a_cache_in_the_home_of_nobody_is_one_line(home, capsys, monkeypatch):
    monkeypatch.setenv("TTLKIT_CACHE", "~nosuch/x")
    assert run(capsys, "data", "cache") == (
        1, "", "ttlkit: TTLKIT_CACHE = ~nosuch/x: no such user; give a folder, or off\n"
    )  # fmt: skip


def test_the_root_has_a_place_for_results(capsys, monkeypatch):
    monkeypatch.setattr(bulk, "list_images", lambda folder: [])
    assert run(capsys, "derain", "/") == (1, "", "ttlkit: /: no images in this folder\n")


def test_names_that_the_terminal_cannot_show_are_escaped():
    code = "from ttlkit.words import as_command\nas_command(lambda: print('z\\xe9') or 0)"
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=env, timeout=60)
    assert (done.stdout, done.stderr) == (b"z\\xe9\n", b"")


def test_what_was_stopped_goes_on_only_where_it_does(home, capsys, monkeypatch, tmp_path):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(bulk, "plan_paths", stop)
    said = [run(capsys, "derain", tmp_path, *more) for more in ([], ["--overwrite"])]
    assert said[0] == (130, "", "\nstopped; the same command goes on from here\n")
    assert said[1] == (130, "", "\nstopped; the same command begins again, since --overwrite replaces all\n")


def test_data_build_then_show(home, capsys):
    code, out, _ = run(capsys, "data", "build", "--profile", "smoke")
    assert code == 0 and "8 rainy" in out and "SIMULATED" in out
    code, out, _ = run(capsys, "data", "show", "--profile", "smoke")
    assert code == 0 and "test/traced: 2 paired" in out


def test_data_list_shows_every_set_with_its_licence(home, capsys):
    code, out, _ = run(capsys, "data", "list")
    assert code == 0 and out.count("licence: ") == len(catalogue.load_catalogue())
    assert "rain100h " in out and not any(line.startswith("*  ") for line in out.splitlines())


def test_data_fetch_takes_what_was_dropped_in_and_goes_on_after_a_failure(home, capsys, monkeypatch):
    text = """
[{name}]
title = "Two pairs"
version = "1"
kind = "test"
count = 2
citation = "Somebody, 2026"
licence = "CC0"
drop = "its folder"
rules = [
  {{ match = 'rainy/(?P<name>.+)', to = "test/{name}/rainy/{{name}}" }},
  {{ match = 'clean/(?P<name>.+)', to = "test/{name}/clean/{{name}}" }},
]
"""
    path = home / "catalogue.toml"
    path.write_text(text.format(name="mine") + text.format(name="absent"))
    monkeypatch.setattr(catalogue, "catalogue_path", lambda: path)
    for i in range(2):
        for side in ("rainy", "clean"):
            image_files.save_image(home / f"datasets/drop/mine/{side}/{i}.png", np.full((9, 7, 3), i / 2, np.float32))
    code, out, err = run(capsys, "data", "fetch", "absent", "mine")
    assert code == 1 and "absent" in err and "datasets/drop/absent" in err
    assert "Somebody, 2026" in out and "mine: 4 files in" in out
    code, out, _ = run(capsys, "data", "fetch", "mine")
    assert code == 0 and "already" in out and "Somebody" not in out
    assert "* mine" in run(capsys, "data", "list")[1]
    assert run(capsys, "data", "fetch", "mime")[2] == "ttlkit: unknown data set: 'mime'; did you mean 'mine'? " \
        "Known: mine, absent\n"  # fmt: skip


def test_a_fetched_set_is_the_measured_copy(home, capsys, shared_data):
    code, out, _ = run(capsys, "data", "fetch", "yard", "--drop", shared_data / "collection/test/yard")
    assert code == 0 and "yard: 26 files" in out
    assert len(image_files.list_images(home / "datasets/fetched/test/yard/clean")) == 13


def test_data_cache_says_what_it_holds_and_clears_it(home, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("TTLKIT_CACHE", str(tmp_path / "kept"))
    image_files.save_image(tmp_path / "a.png", np.zeros((9, 7, 3), np.float32))
    cache.Shelf([tmp_path / "a.png"])
    assert "kept: 1 entries" in run(capsys, "data", "cache")[1]
    out = run(capsys, "data", "cache", "--clear")[1]
    assert "removed 1" in out and "kept: 0 entries" in out


def test_a_closed_pipe_is_no_error():
    command = f"{sys.executable} -m ttlkit.cli data list | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=os.environ, timeout=60)
    assert done.stderr == "" and done.stdout.count("\n") == 1


def test_help_imports_nothing_heavy():
    code = "import sys\nfrom ttlkit import cli\ntry: cli.main(['--help'])\nexcept SystemExit: pass\n"
    code += "assert not {'torch', 'numpy', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=os.environ)


def test_the_plan_is_in_the_papers_order():
    names = [stage.name for stage in pipeline.plan(profile="laptop")]
    assert [n.split("_")[0] for n in names] == ["01", *["02"] * 3, "03", *["04"] * 5, "05", "01b", "00"]
    for i, stage in enumerate(pipeline.plan(profile="laptop")):
        assert set(stage.settings.needs()) <= set(names[:i])


def test_a_further_task_needs_no_change_in_the_pipeline():
    names = [stage.name for stage in pipeline.plan(profile="smoke", tasks="deblur", inits="scratch,deblur")]
    assert "02_teacher_pretraining-recognition" not in names
    assert "04_fine_tuning-deblur" in names


def test_unknown_parameters_are_refused_before_anything_runs():
    with pytest.raises(SettingsError, match=r"n_pair'.*did you mean 'n_pairs'"):
        pipeline.plan(n_pair=3)


def test_two_processes_do_not_work_on_one_run(home):
    from filelock import FileLock

    stages = pipeline.plan(profile="smoke")
    stages[0].run_folder.mkdir(parents=True)
    with FileLock(stages[0].run_folder / ".lock"), pytest.raises(SettingsError, match="another process"):
        pipeline.run(stages)


@pytest.mark.slow
def test_a_failing_stage_names_notebook_and_cause(home, tmp_path):
    """A truncated photograph must stop the stage that reads it, with its name."""
    from ttlkit.data import collections

    stages = pipeline.plan(profile="smoke")
    root = collections.open_collection(stages[0].collection, 8).root
    broken = root / "real/clean/001.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    with pytest.raises(pipeline.StageError) as caught:
        pipeline.run(stages[1:2])
    assert "02_teacher_pretraining-recognition" in str(caught.value)
    assert "001.jpg: unreadable" in str(caught.value)
    assert not (stages[1].folder / "DONE.json").exists()


@pytest.mark.slow
def test_a_killed_kernel_is_reported_and_does_not_count_as_done(home, monkeypatch):
    """The kernel dies without a word (out of memory, say) while the stage runs."""
    import signal
    import time
    from pathlib import Path

    from ttlkit.data import collections

    stages = pipeline.plan(profile="smoke")
    collections.open_collection(stages[0].collection, 8)
    stage = stages[2]

    def kill_kernel():
        while not (stage.folder / "config.json").is_file():
            time.sleep(0.02)
        for process in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((process / "stat").read_text().rsplit(")", 1)[1].split()[1])
                if parent == os.getpid() and "ipykernel" in (process / "cmdline").read_text():
                    os.kill(int(process.name), signal.SIGKILL)
            except (OSError, ValueError):
                continue

    killer = threading.Thread(target=kill_kernel, daemon=True)
    killer.start()
    with pytest.raises(pipeline.StageError, match="run again"):
        pipeline.run([stage])
    assert not stage.is_done()


def test_progress_says_step_loss_and_time_left(tmp_path):
    rows = [{"step": 10, "steps": 500, "loss": 0.5, "seconds_left": 75.2}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert pipeline._describe(tmp_path / "metrics.jsonl", 0) == "step 10/500, loss 0.5000, 1:15 left"
    (tmp_path / "metrics.jsonl").write_text("")
    assert pipeline._describe(tmp_path / "metrics.jsonl", 0) == ""
