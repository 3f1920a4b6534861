"""A sweep: runs over seeds and pairs share what they can, go on where they stopped, and end in one table."""

import json
import shutil

import numpy as np
import pytest

from ttlkit import cli, files
from ttlkit.evaluate import scores
from ttlkit.lesson import figures
from ttlkit.runs import code, released, sweep
from ttlkit.runs.settings import Distillation, TeacherPretraining, resolve
from ttlkit.runs.stages import VOTES, StageRun
from ttlkit.words import SettingsError


def test_a_run_for_each_seed_and_number_of_pairs(home):
    runs = sweep.plan("s", [0, 7], [2, 4], profile="smoke")
    assert [[stages[0].run_folder.name for stages in of_seed] for of_seed in runs] == [
        ["s-seed0-pairs2", "s-seed0-pairs4"],
        ["s-seed7-pairs2", "s-seed7-pairs4"],
    ]
    for of_seed in runs:
        assert len({s.settings.seed for stages in of_seed for s in stages}) == 1
        for one in of_seed:
            assert {s.settings.n_pairs for s in one if s.settings.stage.startswith("04")} == {
                int(one[0].run_folder.name.split("pairs")[1])
            }
    table = sweep.table("s", runs, profile="smoke", inits="scratch")
    assert table.folder == home / "outputs/s/06_ablation"
    assert len(table.settings.needs()) == 4


@pytest.mark.parametrize(("seeds", "pairs"), [([], [1]), ([0], []), ([0, 0], [1]), ([0], [5, 5])])
def test_empty_and_repeated_lists_are_refused(seeds, pairs):
    with pytest.raises(SettingsError, match="give at least one, and none twice"):
        sweep.plan("s", seeds, pairs)


def finished(run, **given):
    stage = StageRun(resolve(TeacherPretraining, {"profile": "smoke", "run": run, **given}))
    (stage.folder / "figures").mkdir(parents=True)
    (stage.folder / "teacher.safetensors").write_bytes(b"weights")
    stage.finish(loss=1.0)
    return stage


def test_a_stage_is_taken_from_another_run_only_with_the_same_inputs(home):
    done = finished("a")
    same = StageRun(resolve(TeacherPretraining, {"profile": "smoke", "run": "b"}))
    assert sweep.take_finished(same, [home / "outputs/absent", done.run_folder]) and same.is_done()
    assert (same.folder / "teacher.safetensors").read_bytes() == b"weights"
    other_seed = StageRun(resolve(TeacherPretraining, {"profile": "smoke", "run": "c", "seed": 1}))
    assert not sweep.take_finished(other_seed, [done.run_folder]) and not other_seed.folder.exists()
    distilled = StageRun(resolve(Distillation, {"profile": "smoke", "run": "b"}))
    assert not sweep.take_finished(distilled, [done.run_folder])


def test_votes_of_one_run_are_never_copied_into_another(home):
    done = finished("a")
    same = StageRun(resolve(TeacherPretraining, {"profile": "smoke", "run": "b"}))
    for stage, vote in ((done, "theirs"), (same, "own")):
        stage.folder.mkdir(parents=True, exist_ok=True)
        (stage.folder / VOTES).write_text(vote)
    assert sweep.take_finished(same, [done.run_folder])
    assert (same.folder / VOTES).read_text() == "own"


def test_a_copy_that_was_cut_short_is_made_again(home):
    done = finished("a")
    same = StageRun(resolve(TeacherPretraining, {"profile": "smoke", "run": "b"}))
    partial = files.partial_of(same.folder, process=99999999)  # one that is gone
    shutil.copytree(done.folder, partial)
    (partial / "teacher.safetensors").write_bytes(b"half")
    assert sweep.take_finished(same, [done.run_folder])
    assert (same.folder / "teacher.safetensors").read_bytes() == b"weights" and not partial.exists()


def test_rows_of_two_code_versions_are_never_in_one_table_without_a_word(home, monkeypatch):
    """Two runs made by the same code say nothing; after an edit of a module, its name stands above the table."""
    one, two = finished("a"), finished("b")
    folders = [one.run_folder, two.run_folder]
    assert sweep.mixed_code(folders) == ""
    now = code.of_notebook
    monkeypatch.setattr(code, "of_notebook", lambda stage: {**now(stage), "method/losses.py": "edited"})
    finished("c")
    assert sweep.mixed_code(folders) == ""
    said = sweep.mixed_code([*folders, home / "outputs/c"])
    assert said.startswith("MADE BY DIFFERENT CODE") and "02_teacher_pretraining (method/losses.py)" in said


def rows(gain, seeds=3, images=5):
    """Scores of 'scratch' and of 'student', which is `gain[seed]` better; every image and seed with its own level."""
    rng = np.random.default_rng(1)
    table = []
    for seed in range(seeds):
        for n in (10, 50):
            for i in range(images):
                level = 25 + rng.normal()
                for model, value in (("input", 24.0), ("scratch", level), ("student", level + gain[seed])):
                    table.append({"set": "yard", "kind": "paired", "image": f"{i}.png", "model": model,
                                  "seed": seed, "n_pairs": n, "psnr_rgb": value})  # fmt: skip
    return table


def test_mean_and_spread_are_over_seeds():
    found = scores.over_seeds(rows([1, 2, 3]))
    assert len(found) == 6 and all(row["seeds"] == 3 for row in found)
    untouched = next(row for row in found if row["model"] == "input")
    assert (untouched["mean"], untouched["spread"]) == (24.0, 0.0)
    per_seed = [np.mean([r["psnr_rgb"] for r in rows([1, 2, 3]) if (r["seed"], r["n_pairs"], r["model"]) ==
                         (s, 10, "student")]) for s in range(3)]  # fmt: skip
    student = next(row for row in found if (row["model"], row["n_pairs"]) == ("student", 10))
    assert student["mean"] == pytest.approx(np.mean(per_seed))
    assert student["spread"] == pytest.approx(np.std(per_seed, ddof=1))


def test_the_mean_of_sets_counts_every_set_alike_and_only_complete_seeds():
    both = rows([1, 2, 3]) + [{**row, "set": "other", "psnr_rgb": row["psnr_rgb"] + 4} for row in rows([1, 2, 3])]
    incomplete = [row for row in both if (row["set"], row["seed"], row["model"]) != ("other", 2, "student")]
    found = {(r["set"], r["n_pairs"], r["model"]): r for r in scores.over_seeds(incomplete)}
    assert found[scores.MEAN, 10, "input"]["mean"] == pytest.approx(found["yard", 10, "input"]["mean"] + 2)
    assert found[scores.MEAN, 10, "scratch"]["seeds"] == 3 and found[scores.MEAN, 10, "student"]["seeds"] == 2
    assert scores.MEAN not in {row["set"] for row in scores.over_seeds(rows([1], seeds=1))}


def test_one_seed_has_no_spread():
    found = scores.over_seeds(rows([1], seeds=1))
    assert {row["spread"] for row in found} == {None}
    assert "–" in figures.markdown_table(found)
    figures.plot_ablation(found, "PSNR")


def test_a_gain_of_every_seed_is_certain_and_one_that_hangs_on_a_seed_is_not():
    steady = scores.gains_over_seeds(rows([1.0, 1.0, 1.0]), "student", "scratch")
    assert [row["n_pairs"] for row in steady] == [10, 50]
    assert all(row[key] == pytest.approx(1.0) for row in steady for key in ("difference", "low", "high"))
    lucky = scores.gains_over_seeds(rows([3.0, 0.0, 0.0]), "student", "scratch")[0]
    assert lucky["difference"] == pytest.approx(1.0) and lucky["low"] <= 0 and lucky["high"] > 2
    assert scores.gains_over_seeds(rows([1, 1, 1]), "absent", "scratch") == []


def test_rows_come_back_from_the_file_as_they_were(tmp_path):
    written = [{"set": "a", "kind": "paired", "image": "1.png", "model": "input", "psnr_rgb": 30.25},
               {"set": "b", "kind": "unpaired", "image": "2.png", "model": "input", "change": 0.5}]  # fmt: skip
    scores.save_rows(tmp_path / "scores.csv", written)
    assert scores.load_rows(tmp_path / "scores.csv", seed=4) == [{"seed": 4, **row} for row in written]
    with pytest.raises(scores.CollectionError, match=r"none.csv: no scores; run stage 5"):
        scores.load_rows(tmp_path / "none.csv")
    for content in ("", "seed,n_pairs,set,image,model,psnr_rgb\n0,10,ddn-val,01.png,inp\n0,10,dd"):
        (tmp_path / "cut.csv").write_text(content)
        with pytest.raises(scores.CollectionError, match=r"cut.csv: no whole table of scores; run stage 5 again"):
            scores.load_rows(tmp_path / "cut.csv")


def test_the_released_scores_are_those_of_several_seeds_on_the_same_images_and_small():
    found = scores.load_rows(released.SWEEP)
    assert released.SWEEP.stat().st_size < 500_000
    assert scores.essence(found) == found and all(type(row["seed"]) is int for row in found)
    runs = {}
    for row in found:
        runs.setdefault((row["seed"], row["n_pairs"]), set()).add((row["set"], row["image"], row["model"]))
    assert len({seed for seed, _ in runs}) > 1 and {"input", "scratch", "student"} <= {row["model"] for row in found}
    images = [{(name, image) for name, image, model in run if model == "student"} for run in runs.values()]
    assert all(one == images[0] for one in images) and len(images[0]) > 30


def test_published_scores_come_back_and_say_nearly_the_same(tmp_path):
    whole = [{**row, "ssim_y": 0.9} for row in rows([1.0, 2.0, 3.0])] + [{"set": "dry", "image": "1.png", "seed": 0}]
    scores.save_rows(tmp_path / "sweep.csv", scores.essence(whole))
    found = scores.load_rows(tmp_path / "sweep.csv")
    assert len(found) == len(whole) - 1 and set(found[0]) == {"seed", "n_pairs", "set", "image", "model", "psnr_rgb"}
    for one, other in zip(*(scores.gains_over_seeds(r, "student", "scratch") for r in (found, whole)), strict=True):
        assert all(one[key] == pytest.approx(other[key], abs=0.01) for key in ("difference", "low", "high"))


def test_differences_are_drawn_with_their_intervals():
    middle = {"seed 0": 1.0, "seed 1": 2.0}
    gains = [{"set": "a", "of": of, "difference": d, "low": d - 1, "high": d + 2} for of, d in middle.items()]
    (ax,) = figures.plot_differences(gains, "dB").get_axes()
    zero, *drawn = ax.lines
    assert list(zero.get_xdata()) == [0, 0]
    assert {line.get_label(): line.get_xdata()[0] for line in drawn} == middle
    assert len({line.get_ydata()[0] for line in drawn}) == 2  # one below the other
    ends = [segment[:, 0].tolist() for lines in ax.collections for segment in lines.get_segments()]
    assert ends == [[0, 3], [1, 4]]


def test_one_number_of_pairs_is_drawn_too():
    figure = figures.plot_ablation([row for row in scores.over_seeds(rows([1, 2, 3])) if row["n_pairs"] == 10], "PSNR")
    low, high = figure.get_axes()[0].get_xlim()
    assert low < 10 < high < 20


def test_the_figure_has_a_panel_a_set_and_a_line_a_row():
    figure = figures.plot_ablation(scores.over_seeds(rows([1, 2, 3])), "PSNR")
    assert [ax.get_title() for ax in figure.get_axes()] == ["yard"]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["input", "scratch", "student"]


def test_too_many_pairs_and_bad_numbers_are_said_before_anything_is_trained(home, capsys):
    arguments = ["sweep", "s", "--profile", "smoke", "--seeds", "0"]
    assert cli.main([*arguments, "--n-pairs", "2,900"]) == 1
    assert "n_pairs = 900" in capsys.readouterr().err
    assert cli.main([*arguments, "--n-pairs", "2,x"]) == 1
    assert "give whole numbers" in capsys.readouterr().err
    assert not (home / "outputs").exists()


@pytest.mark.slow
def test_a_cluster_gets_a_job_for_each_seed(home):
    pytest.importorskip("submitit")
    runs = sweep.plan("s", [0, 1], [2], profile="smoke", inits="scratch")
    for of_seed in runs:
        for stage in of_seed[0]:  # done already: what is tested is the way there and back
            (stage.folder / "figures").mkdir(parents=True)
            stage.finish()
    jobs = sweep.submit(runs, "s", "local", 1)
    assert [job.result() for job in jobs] == [None, None]
    assert "done before" in jobs[1].stdout() and "s-seed1-pairs2" in jobs[1].stdout()


@pytest.mark.slow
def test_a_sweep_from_end_to_end(chain, home, capsys):
    """One of its two runs stands there already; the other takes from it what sees no pairs, and trains the rest."""
    shutil.copytree(chain[0] / "datasets", home / "datasets")
    shutil.copytree(chain[0] / "outputs/smoke", home / "outputs/tiny-seed0-pairs4")
    arguments = ["sweep", "tiny", "--profile", "smoke", "--seeds", "0", "--n-pairs", "4,2"]
    assert cli.main(arguments) == 0
    printed = capsys.readouterr().out
    assert printed.count("done before") == 8
    assert printed.count("taken from another run") == 5  # gap statistics, the teachers, the student
    assert printed.count("finished in") == 4  # two trainings with two pairs, their evaluation, the ablation
    assert "student" in printed and "SIMULATED" in printed
    summary = json.loads((home / "outputs/tiny/06_ablation/summary.json").read_text())
    assert {(row["n_pairs"], row["model"]) for row in summary["means"]} == {
        (n, model) for n in (2, 4) for model in ("input", "scratch", "student")
    }
    weights = [home / f"outputs/tiny-seed0-pairs{n}/03_distillation/student.safetensors" for n in (2, 4)]
    assert files.sha256(weights[0]) == files.sha256(weights[1])
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out.count("done before") == 17
