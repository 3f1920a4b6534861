"""The blind vote: order and sides, what lies on disk, the widget, and the ranking that the votes give."""

import io
from itertools import combinations

import numpy as np
import pytest

from ttlkit.data import image_files
from ttlkit.evaluate import votes
from ttlkit.lesson import votes as voting

MODELS = ("input", "scratch", "student")
PHOTOGRAPHS = [f"{i}, rainy.jpg" for i in range(8)]


def show(photograph, model):
    return np.full((4, 6, 3), 0.1 * ((*MODELS, None).index(model) + 1), np.float32)


def press(box, vote):
    box.children[3].children[list(voting.BUTTONS).index(vote)].click()


def saw(box, side):
    image = box.children[2].children[side]
    return image_files.decode_u8(io.BytesIO(image.value), "a.png")[0, 0, 0]


def simulate(strengths, count, rng, tie=0.0):
    """Votes as Bradley and Terry say that they come about, each pair once on each of `count` photographs."""
    rows = []
    for i in range(count):
        for left, right in combinations(strengths, 2):
            better = rng.random() < 1 / (1 + np.exp(strengths[right] - strengths[left]))
            vote = "none" if rng.random() < tie else "left" if better else "right"
            rows.append({"photograph": str(i), "left": left, "right": right, "vote": vote})
    return rows


# ---- what is asked, and what lies on disk


def test_every_pair_is_asked_once_in_a_reproducible_order_on_random_sides():
    asked = votes.questions(PHOTOGRAPHS, MODELS, seed=1)
    assert asked == votes.questions(PHOTOGRAPHS, MODELS, seed=1) != votes.questions(PHOTOGRAPHS, MODELS, seed=2)
    assert len({q.same for q in asked}) == len(asked) == 8 * 3
    assert [q.photograph for q in asked] != sorted(q.photograph for q in asked)
    assert 4 < sum(MODELS.index(q.left) < MODELS.index(q.right) for q in asked) < 20
    assert votes.questions(PHOTOGRAPHS, ["input"]) == []


def test_votes_are_on_disk_at_once_and_can_be_taken_back(tmp_path):
    path, (first, second, *_) = tmp_path / "votes.csv", votes.questions(PHOTOGRAPHS, MODELS)
    assert votes.load_votes(path) == []
    votes.save_vote(path, first, "left", seed=3)
    votes.save_vote(path, second, "none")
    assert [(v["photograph"], v["left"], v["right"], v["vote"]) for v in votes.load_votes(path)] == [
        (*first, "left"),
        (*second, "none"),
    ]
    assert votes.load_votes(path)[0]["seed"] == "3" and "T" in votes.load_votes(path)[0]["time"]
    votes.save_vote(path, first, votes.UNDO)
    assert [v["vote"] for v in votes.load_votes(path)] == ["none"]
    votes.save_vote(path, first, votes.UNDO)  # nothing left of it to take back
    assert [v["vote"] for v in votes.load_votes(path)] == ["none"]


def test_a_vote_cut_short_by_a_kill_spoils_no_other(tmp_path):
    path, (first, second, *_) = tmp_path / "votes.csv", votes.questions(PHOTOGRAPHS, MODELS)
    votes.save_vote(path, first, "left")
    whole = path.read_bytes()
    votes.save_vote(path, second, "right")
    for end in range(len(whole), len(path.read_bytes())):
        cut = tmp_path / "cut.csv"
        cut.write_bytes(path.read_bytes()[:end])
        votes.save_vote(cut, second, "none")
        kept = votes.load_votes(cut)
        assert (kept[0]["vote"], kept[-1]["vote"]) == ("left", "none"), end


def test_votes_on_other_weights_do_not_count(tmp_path):
    path, marks = tmp_path / "votes.csv", {"input": "", "student": "aa"}
    for question in (votes.Question("x", "input", "student"), votes.Question("x", "scratch", "student")):
        votes.save_vote(path, question, "left", weights={**marks, "scratch": "cc"})
    assert len(votes.load_votes(path)) == 2
    assert len(votes.load_votes(path, marks)) == 1
    assert votes.load_votes(path, {"input": "", "student": "bb"}) == []


# ---- the widget


def test_the_widget_shows_saves_undoes_and_goes_on(tmp_path):
    path, asked = tmp_path / "votes.csv", votes.questions(PHOTOGRAPHS[:2], MODELS)
    box = voting.ballot(path, asked, show)
    levels = {model: image_files.to_u8(show("", model))[0, 0, 0] for model in (*MODELS, None)}
    assert (saw(box, 0), saw(box, 1)) == (levels[asked[0].left], levels[asked[0].right])
    assert not any(model in box.children[0].value for model in MODELS), "a blind vote shows no name"
    undo, rainy = box.children[3].children[3:]
    assert undo.disabled and not path.exists() and box.children[1].children == ()
    rainy.value = True
    assert box.children[1].children[0].value
    press(box, "left")
    press(box, "none")
    press(box, "undo")
    assert saw(box, 0) == levels[asked[1].left]
    press(box, "right")
    assert [v["vote"] for v in votes.load_votes(path)] == ["left", "right"]
    again = voting.ballot(path, votes.questions(PHOTOGRAPHS[:2], MODELS, seed=7), show, seed=7)  # another session
    assert "4 of 6" in again.children[0].value and again.children[3].children[3].disabled
    for _ in range(4):
        press(again, "left")
    assert "Every pair" in again.children[0].value
    assert all(button.disabled for button in again.children[3].children[:3])
    assert len({votes.Question(v["photograph"], v["left"], v["right"]).same for v in votes.load_votes(path)}) == 6


def test_a_vote_that_cannot_be_saved_stays_open(tmp_path):
    box = voting.ballot(tmp_path / "none" / "votes.csv", votes.questions(PHOTOGRAPHS, MODELS), show)
    press(box, "left")
    assert "could not be saved" in box.children[0].value and box.children[3].children[3].disabled


def test_the_first_pair_as_a_figure_names_no_model():
    figure = voting.plot_question(votes.questions(PHOTOGRAPHS, MODELS)[0], show)
    assert [ax.get_title() for ax in figure.axes] == ["left", "right", "rainy input"]


def test_photographs_are_shown_at_most_so_large(tmp_path):
    image_files.save_image(tmp_path / "a.png", np.zeros((30, 2 * voting.VIEW_SIDE, 3), np.float32))
    made = voting.pictures({"student": lambda rainy: rainy + 0.5}, {"a.png": tmp_path / "a.png"})
    assert made("a.png", None).shape == (15, voting.VIEW_SIDE, 3) and made("a.png", "student").min() == 0.5


# ---- the ranking


@pytest.mark.slow
def test_the_ranking_finds_the_order_and_its_intervals_hold_the_truth():
    strengths = {"input": -1.0, "scratch": -0.2, "peer": 0.2, "student": 1.0}
    rng, held = np.random.default_rng(0), []
    for _ in range(16):
        found = votes.ranking(simulate(strengths, 40, rng), rounds=80)
        assert [row["model"] for row in found][0] == "student" and found[-1]["model"] == "input"
        held += [row["low"] <= strengths[row["model"]] <= row["high"] for row in found]
        assert all(row["votes"] == 120 and row["low"] <= row["strength"] <= row["high"] for row in found)
    assert np.mean(held) > 0.8  # 95 % to be expected, of 64 that hang together


def test_sides_and_ties_count_alike():
    rows = simulate({"a": 1.0, "b": 0.0, "c": -1.0}, 10, np.random.default_rng(1), tie=0.3)
    turned = {"left": "right", "right": "left", "none": "none"}
    other = [{**r, "left": r["right"], "right": r["left"], "vote": turned[r["vote"]]} for r in rows]
    for one, two in zip(votes.ranking(rows), votes.ranking(other), strict=True):
        assert one["model"] == two["model"] and one["strength"] == pytest.approx(two["strength"], abs=1e-5)
    ties = [{"photograph": str(i), "left": "a", "right": "b", "vote": "none"} for i in range(9)]
    for row in votes.ranking(ties):
        assert row["strength"] == pytest.approx(0, abs=1e-6) and row["wins"] == pytest.approx(0.5)


def test_one_that_always_wins_has_a_finite_strength():
    rows = [{"photograph": str(i), "left": "a", "right": "b", "vote": "left"} for i in range(20)]
    first, second = votes.ranking(rows)
    assert first["model"] == "a" and 2 < first["strength"] < 10 and first["wins"] > 0.95
    assert "a is ahead" in votes.verdict(rows) and "overlaps" not in votes.verdict(rows)


def test_few_votes_say_so():
    assert votes.ranking([]) == [] and "too few" in votes.verdict([])
    rows = simulate({"a": 3.0, "b": 0.0, "c": 0.0}, 5, np.random.default_rng(0))
    assert votes.verdict(rows).startswith("15 votes on 5 photographs are too few to say anything")
    even = simulate({"a": 0.0, "b": 0.0}, 12, np.random.default_rng(0))
    assert "not shown to be better" in votes.verdict(even)
