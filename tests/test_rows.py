"""Rows of the comparison: each trains, is saved as a plain network, and where it remembers something it resumes."""

import copy
import math
from pathlib import Path

import nbformat
import pytest
import torch

from ttlkit.data import collections
from ttlkit.lesson import live
from ttlkit.method import adaptation, losses, networks, recipes, semi_supervised, weights
from ttlkit.method.connected_tasks import TASKS
from ttlkit.method.starts import STARTS, start_of
from ttlkit.runs import pipeline, settings, stages, training
from ttlkit.words import SettingsError

REPO = Path(__file__).resolve().parents[1]
STUDENTS = ({}, {"tasks": "recognition,deblur", "guide": ""})
SEMI = ("mixture", "gaussian-process", "mean-teacher")
STATEFUL = (*SEMI, "paper-head-first", "paper-near", "paper-low-rank")
GPU = pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")])


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def made(tmp_path_factory, small_pocket):
    """The collection, and a run with untrained teachers and two untrained students, all of width 8."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TTLKIT_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("TTLKIT_PRECISION", "no")
        patch.setenv("ACCELERATE_USE_CPU", "1")
        for task in TASKS:
            stage = open_stage("02_teacher_pretraining", small_pocket, task=task).begin()
            weights.save_weights(TASKS[task].build(8), stage.folder / "teacher.safetensors")
            stage.finish()
        for given in STUDENTS:
            stage = open_stage("03_distillation", small_pocket, **given).begin()
            weights.save_weights(networks.Restorer(8), stage.folder / "student.safetensors")
            stage.finish()
        yield small_pocket


def open_stage(kind, collection, **given):
    small = {"profile": "release", "batch": 2, "patch": 32, "width": 8, "n_pairs": 2, "guidance": 0.5, "workers": 0}
    known = settings.STAGES[kind].__dataclass_fields__
    given = {"steps": 3, "collection": str(collection), **small, **given, "run": "rows"}
    return stages.StageRun(settings.resolve(settings.STAGES[kind], {k: v for k, v in given.items() if k in known}))


def ready(init, collection, **given):
    """The recipe of a row, and its trainer."""
    stage = open_stage("04_fine_tuning", collection, init=init, **given).begin()
    recipe = training.fine_tuning(stage, collections.open_collection(collection))
    fit = training.trainer_for(stage, recipe)
    fit.log_every = 1
    return recipe, fit


def images(count, seed=0, side=32):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def restorer(seed=0):
    torch.manual_seed(seed)
    model = networks.Restorer(8)
    torch.nn.init.normal_(model.head.weight, std=0.1)
    return model


@pytest.mark.parametrize("init", [*STARTS, "deblur"])
def test_every_row_trains_and_is_saved_as_a_plain_network(made, init, tmp_path):
    start = start_of(init, "streaks")
    recipe, fit = ready(init, made, **({"width": 24} if init == "released" else {}))  # no less than its own 16
    history = fit.fit()
    assert [row["step"] for row in history] == [1, 2, 3] and all(math.isfinite(row["loss"]) for row in history)
    sample = recipe.samples[0]
    assert ("photograph" in sample) == (start.unlabelled or start.guided)
    assert not start.unlabelled or all(recipe.samples[n]["dry"] == 0 for n in range(4))
    assert bool(recipe.teachers) == start.guided and bool(recipe.samples.rendered) == start.rendered
    pairs = len(recipe.samples.pairs.images) // 2
    assert pairs == (len(collections.open_collection(made).pairs) if start.every_pair else 2)
    found = recipe.restorer()
    weights.save_weights(found, tmp_path / "restorer.safetensors")
    again = weights.load_weights(tmp_path / "restorer.safetensors")
    assert isinstance(again, networks.Ensemble if init == "all" else networks.Restorer)
    with torch.no_grad():
        torch.testing.assert_close(again(images(1)), found(images(1)))
    assert recipe.start.keys() == again.state_dict().keys()
    moved = {name for name, weight in again.state_dict().items() if not torch.equal(weight, recipe.start[name])}
    assert any(name.startswith("head") for name in moved)


@pytest.mark.parametrize("init", STATEFUL)
def test_what_a_row_remembers_survives_an_interruption(made, init):
    """Killed in the third of four steps, it ends with the bits of an undisturbed one; head first changes after one."""
    whole, fit = ready(init, made, steps=4)
    fit.fit()
    expected, rows = weights.checksum(whole.model), fit.history
    fit.checkpoint.unlink()
    _, fit = ready(init, made, steps=4)
    fit.checkpoint_seconds, step = 0, fit.objective

    def killed(model, batch):
        if fit.done == 2:
            raise Killed
        return step(model, batch)

    fit.objective = killed
    with pytest.raises(Killed):
        fit.fit()
    again, fit = ready(init, made, steps=4)
    fit.fit()
    fit.checkpoint.unlink()
    assert weights.checksum(again.model) == expected
    assert [row["loss"] for row in fit.history] == [row["loss"] for row in rows]


def training_cell():
    cells = nbformat.read(REPO / "notebooks/04_fine_tuning.ipynb", 4).cells
    (found,) = [cell.source for cell in cells if "trainer_for(" in cell.source and cell.cell_type == "code"]
    return found


@pytest.mark.parametrize("init", ["student", "paper-low-rank", "mean-teacher"])
def test_the_training_cell_may_be_run_again(made, init):
    """Twice, and after a stop before the first checkpoint: the same weights, though `blend` mixes the start in."""
    stage = open_stage("04_fine_tuning", made, init=init, blend=0.2).begin()

    def scope():
        recipe = training.fine_tuning(stage.begin(), collections.open_collection(made))
        names = {"live": live, "training": training, "weights": weights, "init": init}
        return {**names, "stage": stage, "settings": stage.settings, "recipe": recipe}

    def restorer_of(scope):
        exec(training_cell(), scope)  # noqa: S102 - our own notebook
        return weights.checksum(scope["restorer"])

    first = scope()
    expected = restorer_of(first)
    assert stage.settings.blend == (0.2 if start_of(init).blends else 0)
    assert restorer_of(first) == expected  # run again in the same kernel
    checkpoint = stage.folder / "checkpoint.pt"
    checkpoint.unlink()
    assert restorer_of(first) == expected  # and without the checkpoint
    checkpoint.unlink()

    stopped, calls = scope(), []
    step = stopped["recipe"].objective

    def killed(model, batch):
        calls.append(1)
        if len(calls) == 3:
            raise Killed
        return step(model, batch)

    object.__setattr__(stopped["recipe"], "objective", killed)
    with pytest.raises(Killed):
        restorer_of(stopped)
    assert not checkpoint.exists()
    assert restorer_of(stopped) == expected
    checkpoint.unlink()


def test_another_start_is_trained_beside_and_its_own_notebook_finds_it(made, monkeypatch, capsys):
    stage, collection = open_stage("04_fine_tuning", made, init="student").begin(), collections.open_collection(made)
    assert training.beside(stage, "scratch", collection) == ([], None)
    assert "run this notebook with init = 'scratch' first" in capsys.readouterr().out
    monkeypatch.setattr(training, "SIDE_BY_SIDE", (stage.settings.profile,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages.StageRun, "under_pipeline", lambda stage: True)
        rows, found = training.beside(stage, "scratch", collection)
    assert not open_stage("04_fine_tuning", made, init="scratch").done()  # its own notebook is still to come
    assert training.beside(stage, "scratch", collection)[0] == rows  # by hand that stage is finished, for notebook 05
    assert open_stage("04_fine_tuning", made, init="scratch").is_done()
    recipe, fit = ready("scratch", made)  # what the notebook of that start does
    assert fit.fit() == rows and "going on from step 3 of 3" in capsys.readouterr().out
    assert weights.checksum(recipe.restorer()) == weights.checksum(found)
    own = open_stage("04_fine_tuning", made, init="scratch").begin()
    weights.save_weights(found, own.folder / "restorer.safetensors")
    own.finish()
    monkeypatch.setattr(training, "fine_tuning", None)  # it is done, so nothing is trained
    again, loaded = training.beside(stage, "scratch", collection)
    assert again == rows and weights.checksum(loaded) == weights.checksum(found)
    other = open_stage("04_fine_tuning", made, init="student", steps=5)
    assert training.beside(other, "scratch", collection) == ([], None)
    assert "its settings have changed (steps 3 -> 5)" in capsys.readouterr().out
    (own.folder / "checkpoint.pt").unlink()
    (own.folder / "DONE.json").unlink()


# ---- the table -----------------------------------------------------------------------------------------------------


def test_the_table_decides_what_a_row_takes_of_the_profile():
    def takes(init):
        found = settings.resolve(settings.FineTuning, {"profile": "release", "init": init, "guidance": 0.5})
        return found.rendered, found.guidance, found.blend, found.student

    blend = settings.PROFILES["release"].blend
    ours, paper = "03_distillation", "03_distillation-recognition+deblur"
    assert takes("student") == (0.85, 0.5, blend, ours)
    assert takes("unguided") == (0.85, 0, blend, ours)
    assert takes("no-rendered") == (0, 0.5, blend, ours)
    assert takes("no-streaks") == (0.85, 0, blend, paper)
    assert takes("scratch-rendered") == (0.85, 0, 0, "")
    for init in ("scratch", "scratch-total", "all-pairs", *SEMI):
        assert takes(init) == (0, 0, 0, "")
    for init in SEMI:
        assert takes(f"{init}-rendered") == (0.85, 0, 0, "")
    for init in ("paper", "paper-frozen", "paper-head-first", "paper-near", "paper-low-rank"):
        assert takes(init) == (0, 0, 0, paper)
    assert {start.way for start in STARTS.values()} == {"", *recipes.WAYS}


def test_a_student_of_its_own_is_distilled_where_a_row_needs_it():
    def names(**given):
        found = [stage.name for stage in pipeline.plan(profile="smoke", **given)]
        return [name for name in found if name[:2] in ("02", "03")]

    teachers = [f"02_teacher_pretraining-{task}" for task in TASKS]
    assert names(inits="scratch,student") == [*teachers, "03_distillation"]
    both = [*teachers, "03_distillation", "03_distillation-recognition+deblur"]
    assert names(inits="student,paper,paper-near,no-streaks") == both
    streaks = ["02_teacher_pretraining-streaks", *teachers[:2], *both[3:]]
    assert names(tasks="streaks", inits="paper") == streaks  # which the run itself would not have trained
    assert names(tasks="recognition,deblur", inits="student,paper") == [*teachers[:2], both[4]]  # the same one
    for stage in pipeline.plan(profile="smoke", inits="paper"):
        if stage.name == both[4]:
            assert (stage.settings.tasks, stage.settings.guide) == ("recognition,deblur", "")


def test_a_missing_student_of_its_own_is_named_with_its_parameters(home, small_pocket):
    words = r"03_distillation\.ipynb with tasks = 'recognition,deblur' and guide = '' first"
    with pytest.raises(SettingsError, match=words):
        open_stage("04_fine_tuning", small_pocket, init="paper").begin()


# ---- ways ----------------------------------------------------------------------------------------------------------


def one_step(model, step, **batch):
    """The loss, and which weights it reaches."""
    model.zero_grad()
    loss = step(model.train(), batch)[0].mean()
    loss.backward()
    found = {name: weight.grad for name, weight in model.named_parameters()}
    return loss, {name for name, gradient in found.items() if gradient is not None and gradient.any()}


def pair():
    return {"rainy": images(2), "clean": images(2, 1)}


def test_a_frozen_encoder_stays_as_it_was(made):
    recipe, fit = ready("paper-frozen", made)
    fit.fit()
    found = recipe.restorer().state_dict()
    encoder = ("backbone.stem", "backbone.encoders", "backbone.downs")
    for name, weight in found.items():
        assert torch.equal(weight, recipe.start[name]) == name.startswith(encoder), name


def test_the_head_alone_learns_first():
    first, step = adaptation.head_first(restorer(), 3)
    assert one_step(first, step, **pair())[1] == {"restorer.head.weight", "restorer.head.bias"}
    assert all(weight.grad is not None for weight in first.parameters())  # processes wait for each
    assert len(one_step(first, step, **pair())[1]) == len(list(first.parameters()))
    with torch.no_grad():
        torch.testing.assert_close(first.eval()(images(1, side=20)), first.plain()(images(1, side=20)))
    assert int(first.done) == 2  # looking at it is no step


def test_near_the_start_costs_nothing_at_the_start_and_pulls_back_after():
    near, step = adaptation.near_start(restorer(), 3)
    loss, logs = step(near, pair())
    assert logs["distance"] == 0
    torch.testing.assert_close(loss, losses.restoration(near.plain()(images(2)), images(2, 1)))
    with torch.no_grad():
        near.plain().head.bias += 1  # the head is free
        near.plain().backbone.stem.bias += 2
    distance = near(images(1))[1]
    assert float(distance.detach()) == pytest.approx(4 * 8)
    distance.backward()
    torch.testing.assert_close(near.plain().backbone.stem.bias.grad, torch.full((8,), 4.0))


def test_low_rank_changes_start_as_nothing_stay_low_and_merge():
    plain = restorer()
    before = copy.deepcopy(plain)
    low, step = adaptation.low_rank(plain, 3)
    with torch.no_grad():
        torch.testing.assert_close(low(images(1)), before(images(1)))
    reached = one_step(low, step, **pair())[1]
    assert all("restorer.head" in name or name.endswith((".up", ".down")) for name in reached)
    assert {"restorer.head.weight", "restorer.backbone.stem.parametrizations.weight.0.up"} <= reached
    for name, weight in low.named_parameters():
        if name.endswith(".up"):
            torch.nn.init.normal_(weight, std=0.1)
    with torch.no_grad():
        expected = low(images(2))
        merged = low.plain()
        torch.testing.assert_close(merged(images(2)), expected)
        assert not torch.allclose(before(images(2)), expected)
    assert merged.state_dict().keys() == before.state_dict().keys()
    assert weights.checksum(low.plain()) == weights.checksum(merged)  # and nothing has changed meanwhile
    change = merged.backbone.encoders[2].first.weight - before.backbone.encoders[2].first.weight
    assert torch.linalg.matrix_rank(change.detach().flatten(1), rtol=1e-4) == adaptation.RANK


# ---- semi-supervised -----------------------------------------------------------------------------------------------


def test_em_raises_the_likelihood_and_finds_the_variances():
    generator = torch.Generator().manual_seed(0)
    deviation = torch.tensor([0.01, 0.05, 0.3])[torch.randint(3, (60_000,), generator=generator)]
    rain = deviation * torch.randn(60_000, generator=generator)
    shares, variances = torch.full((3,), 1 / 3), torch.tensor([0.02, 0.1, 0.2]).square()
    before = -math.inf
    for _ in range(200):
        now = float(semi_supervised.log_density(rain, shares, variances).logsumexp(1).double().mean())
        assert now > before - 1e-5
        before = now
        shares, variances = semi_supervised.em_round(rain, shares, variances)
    torch.testing.assert_close(variances.sqrt(), torch.tensor([0.01, 0.05, 0.3]), rtol=0.06, atol=0)
    torch.testing.assert_close(shares, torch.full((3,), 1 / 3), rtol=0.06, atol=0)
    assert float(shares.sum()) == pytest.approx(1, abs=1e-5)


def test_the_mixture_moves_in_training_alone_and_every_term_reaches_the_student():
    mixture = semi_supervised.Mixture(restorer())
    before = mixture.variances.clone()
    mixture.eval()(images(2), images(2, 1), images(2, 2))
    assert torch.equal(mixture.variances, before)
    terms = mixture.train()(images(2), images(2, 1), images(2, 2))
    assert not torch.equal(mixture.variances, before) and not mixture.variances.requires_grad
    for term in terms:
        gradient = torch.autograd.grad(term.mean(), mixture.student.head.weight, retain_graph=True)[0]
        assert gradient.isfinite().all() and gradient.abs().max() > 0


def test_the_process_says_of_a_labelled_feature_that_feature():
    generator = torch.Generator().manual_seed(0)
    memory = torch.randn(40, 64, generator=generator)
    memory[30:] = 0  # not filled yet
    expected, variance = semi_supervised.process(memory[:4], memory)
    torch.testing.assert_close(expected, memory[:4], rtol=0, atol=0.05)
    assert torch.all(variance < 2.1 * semi_supervised.NOISE)
    far, unsure = semi_supervised.process(torch.randn(4, 64, generator=generator), memory)
    assert torch.all(unsure > 0.3) and torch.all(far.norm(dim=1) < expected.norm(dim=1))


def test_the_process_is_the_textbooks():
    """Over a memory no larger than the neighbours, in float64 and without shortcuts."""
    generator = torch.Generator().manual_seed(0)
    feature, memory = torch.rand(3, 8, generator=generator), torch.rand(10, 8, generator=generator)
    expected, variance = semi_supervised.process(feature, memory)
    one, all_ = (torch.nn.functional.normalize(values.double()) for values in (feature, memory))
    inverse = torch.linalg.inv(all_ @ all_.T + semi_supervised.NOISE * torch.eye(10))
    torch.testing.assert_close(expected.double(), one @ all_.T @ inverse @ memory.double(), rtol=1e-3, atol=1e-4)
    wanted = 1 + semi_supervised.NOISE - ((one @ all_.T) @ inverse * (one @ all_.T)).sum(1)
    torch.testing.assert_close(variance.double(), wanted, rtol=1e-3, atol=1e-4)


def test_the_memory_holds_the_last_labelled_features():
    """Two crops of 2 by 2 places at the coarsest level, then two more before them."""
    learner = semi_supervised.GaussianProcess(restorer())
    learner(images(2), images(2, 1), images(2, 2))
    learner(images(2, 3), images(2, 4), images(2, 5))
    with torch.no_grad():
        features = learner.student.backbone(torch.cat([images(2, 3), images(2)]))[3]
    torch.testing.assert_close(learner.memory[:16], features.permute(0, 2, 3, 1).reshape(16, 64))
    assert learner.memory[16:].count_nonzero() == 0


def test_a_photograph_that_was_a_pair_is_where_the_process_expects_it():
    torch.manual_seed(0)
    learner = semi_supervised.GaussianProcess(restorer())
    learner(images(8), images(8, 1), images(8, 2))
    _, near, sure = learner.eval()(images(8), images(8, 1), images(8))
    _, far, unsure = learner(images(8), images(8, 1), 0.2 * images(8, 2))
    assert near.shape == sure.shape == (8, 4) and near.mean() < 0.02 < far.mean() and sure.mean() < unsure.mean()
    found = semi_supervised.directions(learner.memory[:32], learner.memory)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(32))
    assert semi_supervised.directions(learner.memory, learner.memory)[32:].count_nonzero() == 0


def test_the_teacher_is_the_average_of_the_students():
    learner = semi_supervised.MeanTeacher(restorer(), 9)
    assert learner.plain() is learner.teacher
    expected, ramps = None, []
    for done in range(4):
        with torch.no_grad():
            learner.student.head.weight += done
        share = max(1 / (done + 1), 1 - semi_supervised.DECAY)
        now = learner.student.head.weight.detach().double()
        expected = now if expected is None else (1 - share) * expected + share * now
        ramps.append(float(learner(images(2), images(2, 1), images(2, 2))[2]))
        torch.testing.assert_close(learner.teacher.head.weight.double(), expected, rtol=1e-5, atol=1e-6)
    assert ramps == pytest.approx([math.exp(-5 * (1 - t / 3) ** 2) for t in range(4)])
    assert not any(weight.requires_grad for weight in learner.teacher.parameters())


@pytest.mark.parametrize("device", ["cpu", GPU])
@pytest.mark.parametrize("way", recipes.WAYS)
def test_every_way_takes_a_step_in_half_precision(way, device):
    model, step = recipes.WAYS[way](restorer(), 4)
    batch = {name: value.to(device) for name, value in {**pair(), "photograph": images(2, 2)}.items()}
    with torch.autocast(device, torch.bfloat16):
        loss, logs = step(model.to(device).train(), batch)
    loss.mean().backward()
    assert loss.shape == (2,) and loss.dtype == torch.float32 and loss.isfinite().all()
    assert all(value.isfinite().all() for value in logs.values())
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in model.parameters())
