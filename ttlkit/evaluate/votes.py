"""A blind vote: which pairs of restorations to show, the votes as they lie on disk, and the ranking that they give.

Ours; the ranking is Bradley and Terry's (Biometrika 39, 1952).
"""

import csv
import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ttlkit import files

Row = dict[str, Any]
FIELDS = ("photograph", "left", "right", "vote", "time", "seed", "weights")
SCORE = {"left": 1.0, "none": 0.5, "right": 0.0}  # what a vote is worth to the picture on the left: ties count half
UNDO = "undo"  # a row that takes the vote before it back: nothing is ever rewritten
WEAK = 10.0  # scikit-learn's C. Its penalty, a normal prior of 3.2 on strengths, keeps one that always wins finite
FEWEST = 6  # photographs, and votes of each model: the fewest that can all be alike by chance in less than 5 % of cases


class Question(NamedTuple):
    """One photograph, and the names of the models whose restorations are on the left and on the right."""

    photograph: str
    left: str
    right: str

    @property
    def same(self) -> tuple[str, frozenset[str]]:
        """What it asks, whichever side is which."""
        return self.photograph, frozenset((self.left, self.right))


def questions(photographs: Sequence[str], models: Sequence[str], seed: int = 0) -> list[Question]:
    """Every pair of models on every photograph, in an order and on sides that `seed` draws; one may stop anywhere."""
    rng = np.random.default_rng([seed, 29])
    pairs = [(name, *pair) for name in photographs for pair in combinations(models, 2)]
    turned = rng.random(len(pairs)) < 0.5
    asked = [Question(name, *((b, a) if turn else (a, b))) for (name, a, b), turn in zip(pairs, turned, strict=True)]
    return [asked[i] for i in rng.permutation(len(asked))]


def save_vote(path: Path, question: Question, vote: str, seed: int = 0, weights: Mapping[str, str] | None = None):
    """Append a vote, 'left', 'right', 'none' or UNDO, to votes.csv at once; `weights`: a mark of each model's."""
    marks = " ".join((weights or {}).get(model) or "-" for model in question[1:])
    line = io.StringIO()
    write = csv.writer(line, lineterminator="\n").writerow
    before = path.read_bytes()[-1:] if path.exists() else b""
    if not before:
        write(FIELDS)
    elif before != b"\n":  # the end of a row that a kill cut short
        line.write("\n")
    write([*question, vote, datetime.now(UTC).isoformat(timespec="seconds"), seed, marks])
    files.append(path, line.getvalue())


def load_votes(path: Path, weights: Mapping[str, str] | None = None) -> list[Row]:
    """The votes that count, rows of FIELDS; [] without a file. What was undone or cut short is left out.

    `weights`: a mark of each model's weights today; votes on models that are not in it, or on others, do not count.
    """
    if not path.exists():
        return []
    kept: list[Row] = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):  # alone: an open quote ends with it
        row = dict(zip(FIELDS, next(csv.reader([line]), []), strict=False))
        if len(row) < len(FIELDS):
            continue
        if row["vote"] in SCORE:
            kept.append(row)
        elif row["vote"] == UNDO:
            same = [i for i, vote in enumerate(kept) if all(vote[key] == row[key] for key in FIELDS[:3])]
            kept = kept[: same[-1]] + kept[same[-1] + 1 :] if same else kept
    if weights is None:
        return kept
    marks = {name: mark or "-" for name, mark in weights.items()}
    return [v for v in kept if v["weights"] == " ".join(marks.get(v[side], "?") for side in ("left", "right"))]


def left_to_ask(asked: Sequence[Question], votes: Sequence[Row]) -> list[Question]:
    """The questions without a vote, in their order: where another session, with any seed, goes on."""
    answered = {Question(*(vote[key] for key in FIELDS[:3])).same for vote in votes}
    return [question for question in asked if question.same not in answered]


def ranking(votes: Sequence[Row], seed: int = 0, rounds: int = 200) -> list[Row]:
    """Models by strength, best first: {'model', 'votes', 'strength', 'low', 'high', 'wins'}.

    P(a is preferred to b) = 1 / (1 + exp(b's strength - a's)), fitted by a logistic regression with the weak penalty of
    WEAK; a tie counts half a vote for each side. strength: their mean is 0; *low*, *high*: 95 % bootstrap interval over
    photographs, whose votes belong together. wins: the share of votes to expect against the other models. Compared
    are those that votes connect: a model without votes is not in it. [] without votes.
    """
    if not votes:
        return []
    table = pd.DataFrame(votes)
    models = list(dict.fromkeys([*table["left"], *table["right"]]))
    place, score = {name: i for i, name in enumerate(models)}, table["vote"].map(SCORE).to_numpy(float)
    one = np.eye(len(models))
    difference = one[table["left"].map(place)] - one[table["right"].map(place)]
    photograph, names = pd.factorize(table["photograph"])
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), rounds)
    fits = [_fit(difference, score, times[photograph]) for times in (np.ones(len(names)), *drawn)]
    strengths, spread = fits[0], np.quantile(fits[1:], (0.025, 0.975), axis=0)
    beats = 1 / (1 + np.exp(strengths - strengths[:, None]))  # [a, b]: a is preferred to b
    wins = (beats.sum(1) - 0.5) / (len(models) - 1)
    count = np.abs(difference).sum(0).astype(int)
    found = [
        {"model": m, "votes": int(n), "strength": float(s), "low": float(low), "high": float(high), "wins": float(w)}
        for m, n, s, low, high, w in zip(models, count, strengths, *spread, wins, strict=True)
    ]
    return sorted(found, key=lambda row: -row["strength"])


def verdict(votes: Sequence[Row]) -> str:
    """One sentence: who is ahead, or that there are too few votes to say anything."""
    places = len({vote["photograph"] for vote in votes})
    table = ranking(votes)
    fewest = min((row["votes"] for row in table), default=0)
    if min(places, fewest) < FEWEST:
        heading = f"{len(votes)} votes on {places} photographs are too few to say anything"
        return f"{heading}: at least {FEWEST} photographs, and {FEWEST} votes of each model, are needed"
    best, second = table[:2]
    text = f"{len(votes)} votes on {places} photographs: {best['model']} is ahead"
    sure = best["low"] > second["high"]
    return text if sure else f"{text}, but its interval overlaps with that of {second['model']}: not shown to be better"


def _fit(difference: np.ndarray, score: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Strengths (models,), mean 0, from what each vote compares (votes, models), its score, and how often it counts."""
    from sklearn import config_context
    from sklearn.linear_model import LogisticRegression

    x, truth = np.concatenate([difference, difference]), np.repeat([1, 0], len(score))
    weight = np.concatenate([score, 1 - score]) * np.tile(times, 2)
    model = LogisticRegression(C=WEAK, fit_intercept=False, solver="newton-cholesky")
    with config_context(assume_finite=True, skip_parameter_validation=True):
        found = model.fit(x, truth, sample_weight=weight).coef_[0]
    return found - found.mean()
