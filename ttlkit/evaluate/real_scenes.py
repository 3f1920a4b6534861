"""Real rain without ground truth, in numbers: how much of the gap a restorer closes, and what it changes elsewhere.

Ours. Neither number is a proof: they ask what one would look for in the pictures, of every photograph alike.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import norm

from ttlkit.data import image_files, tensors
from ttlkit.data.collections import spread
from ttlkit.evaluate import metrics, scores
from ttlkit.gap import features, stats, study
from ttlkit.gap.stats import Values
from ttlkit.method.networks import Recogniser

Row = dict[str, Any]
SIDE = 480  # px, long side of the photographs: that of the features too
CLEAN = 160  # rain-free photographs to measure, and always twice as many as rainy ones where there are so many
SPLITS, ROUNDS = 100, 500  # random halves of the rain-free photographs; rounds of the bootstrap
RAIN_FREE = "rain-free photographs"  # the row that says how far rain-free photographs are from others
BLURRED = "blurred input"  # the row of a control
ABOUT_RAIN = tuple(name for name in features.NAMES if name not in features.CAMERA)
WHERE = {"change_inside": "the recogniser sees rain", "change_outside": "it sees none"}
COLUMNS = {
    "model": "model", "distance": "distance from rain-free photographs", "closed": "share of the gap that it closes",
    "change_inside": "change where the recogniser sees rain, 255ths", "change_outside": "where it sees none, 255ths",
}  # fmt: skip


def blurred(image: np.ndarray) -> np.ndarray:
    """A control that knows nothing of rain: a Gaussian blur of 1.5 px. What it scores, smoothing alone scores."""
    return gaussian_filter(image_files.to_float(image), (1.5, 1.5, 0))


def measure(
    restorers: Mapping[str, scores.Restore], paths: Iterable[Path], recogniser: Recogniser | None = None
) -> list[Row]:
    """One row for each photograph and restorer: {'image', 'model', every feature of rain of its output, changes}.

    Photographs are scaled to at most SIDE px first. `change_inside`, `change_outside`: mean absolute change in 8-bit
    levels where the recogniser's rain map speaks for rain and against it (`metrics.masked_change`); left out without
    a recogniser, or where there is no such place. `restorers` must hold `scores.UNTOUCHED`.
    """
    rows = []
    for path in paths:
        rainy = features.scale_down(image_files.load_image(path), SIDE)
        seen, mask = tensors.to_tensor(rainy), None
        if recogniser is not None:
            with torch.inference_mode():
                mask = recogniser.rain_map(seen.to(next(recogniser.parameters()).device)).cpu() > 0
        for name, restore in restorers.items():
            restored = restore(rainy)
            numbers = dict(zip(features.NAMES, features.measure_one(restored), strict=True))
            row = {"image": path.name, "model": name, **{feature: numbers[feature] for feature in ABOUT_RAIN}}
            if mask is not None:
                found = metrics.masked_change(tensors.to_tensor(restored), seen, mask.float())
                row |= {where: float(change) for where, change in found.items() if not change.isnan()}
            rows.append(row)
    return rows


def measure_rain_free(paths: Sequence[Path], rainy: int) -> Values:
    """Features of rain of rain-free photographs, evenly chosen: enough for a comparison with `rainy` rainy ones."""
    return study.measure_files(spread(paths, max(CLEAN, 2 * rainy)), RAIN_FREE).about_rain()


def summarise(rows: Sequence[Row], clean: Values, seed: int = 0) -> list[Row]:
    """One row a restorer: `closing`, and the mean changes with 95 % bootstrap intervals over photographs."""
    table = pd.DataFrame(rows)
    outputs = {
        str(name): {f: own[f].to_numpy(float) for f in ABOUT_RAIN} for name, own in table.groupby("model", sort=False)
    }
    found = closing(outputs.pop(scores.UNTOUCHED), outputs, clean, seed)
    for row in found:
        for where in WHERE:
            values = table.loc[table["model"] == row["model"], where].dropna() if where in table else ()
            if len(values):
                row[where], row[f"{where}_low"], row[f"{where}_high"] = metrics.bootstrap(values, seed=seed)
    return found


def closing(inputs: Values, outputs: Mapping[str, Values], clean: Values, seed: int = 0) -> list[Row]:
    """How much of the gap between rainy and rain-free photographs each restorer closes.

    Distance: the mean over features of `stats.distance`, as in notebook 01, from one random half of the rain-free
    photographs; of the other half, as many as there are rainy ones give the floor. Both are means over SPLITS halves.
    closed: (distance of the input - that of the output) / (distance of the input - floor). 1: as near as rain-free
    photographs; 0: nothing changed; below 0: farther away; None where the input is not beyond 95 % of the floors, or
    few photographs leave the gap itself unsure: then there is no gap to close. The floor is what chance alone gives:
    of few photographs it is high, and the share with it, so shares compare for one set of photographs. *_low, *_high:
    95 % bootstrap intervals over photographs, rainy and rain-free; of the floor, what 95 % of the halves give.

    inputs, outputs: features of the same photographs in one order, (n,) each; clean: (m,) each, m at least 4. Rows
    {'model', 'n', 'distance', 'closed', ...}: the input, each restorer, and RAIN_FREE, whose distance is the floor.
    """
    count, total = (len(next(iter(values.values()))) for values in (inputs, clean))
    if count < 2 or total < 4:
        raise ValueError(f"{count} rainy and {total} rain-free photographs: at least 2 and 4 are needed")
    sides = {scores.UNTOUCHED: inputs, **outputs}
    rng = np.random.default_rng(seed)
    means, rounds = (_distances(sides, clean, count, total, *how, rng) for how in ((SPLITS, False), (ROUNDS, True)))
    floors = means[RAIN_FREE]
    beyond = means[scores.UNTOUCHED].mean() > np.quantile(floors, 0.95)
    gap, gaps = (d[scores.UNTOUCHED] - d[RAIN_FREE].mean() for d in (means, rounds))
    beyond &= np.quantile(gaps, 0.025) > gap.mean() / 10  # else a round divides by next to nothing
    gaps = np.where(gaps > 0, gaps, np.nan)
    table = []
    for name in (*sides, RAIN_FREE):
        drawn, nearer = (d[scores.UNTOUCHED] - d[name] for d in (rounds, means))
        floor = name == RAIN_FREE
        row: Row = {
            "model": name,
            "n": count,
            **_interval("distance", means[name], means[name] if floor else rounds[name]),
        }
        row |= dict.fromkeys(("closed", "closed_low", "closed_high"))
        if beyond and not floor:
            row |= _interval("closed", nearer / gap.mean(), drawn / gaps)
        table.append(row)
    return table


def _interval(key: str, values: np.ndarray, drawn: np.ndarray) -> Row:
    """The mean of values, and a 95 % interval from bootstrap rounds, bias-corrected: Efron, JASA 82, 1987.

    A sample that holds some photographs twice lies farther from any other set, so the plain percentiles are too high.
    """
    value, drawn = values.mean(), drawn[np.isfinite(drawn)]
    below = np.mean(drawn < value) + np.mean(drawn == value) / 2
    shift = norm.ppf(np.clip(below, 1 / len(drawn), 1 - 1 / len(drawn)))
    low, high = np.quantile(drawn, norm.cdf(2 * shift + norm.ppf((0.025, 0.975))))
    return {key: float(value), f"{key}_low": float(low), f"{key}_high": float(high)}


def _distances(
    sides: Mapping[str, Values], clean: Values, count: int, total: int, rounds: int, drawn: bool, rng
) -> dict[str, np.ndarray]:
    """Distance (rounds,) of each side, and of RAIN_FREE, from random halves; `drawn`: photographs with replacement."""

    def draw(size: int) -> np.ndarray:
        return rng.multinomial(size, np.full(size, 1 / size)) if drawn else np.ones(size, int)

    half, other = np.zeros((2, rounds, total), int)
    for one, rest in zip(half, other, strict=True):
        order = rng.permutation(total)
        chosen = order[total // 2 :][:count]
        one[order[: total // 2]], rest[chosen] = 1, draw(len(chosen))
    rainy = np.array([draw(count) for _ in range(rounds)])
    pairs = {**{name: (values, rainy) for name, values in sides.items()}, RAIN_FREE: (clean, other)}
    return {
        name: np.mean([stats.resampled(values[f], clean[f], counts, half) for f in clean], axis=0)
        for name, (values, counts) in pairs.items()
    }


def as_table(summary: Sequence[Row]) -> list[Row]:
    """Rows of `summarise` with their intervals as text, for COLUMNS."""

    def cell(row: Row, key: str) -> str | None:
        value, low, high = (row.get(key + end) for end in ("", "_low", "_high"))
        if value is None:
            return None
        if key == "closed":
            return f"{value:.0%} [{low:.0%}, {high:.0%}]"
        return f"{value:.2f} [{low:.2f}, {high:.2f}]"

    return [{"model": row["model"], **{key: cell(row, key) for key in list(COLUMNS)[1:]}} for row in summary]


def in_words(summary: Sequence[Row]) -> list[str]:
    """One sentence a restorer: what it closes, whether that is more than chance, and what it changes where."""
    sentences = []
    for row in summary:
        if row["model"] in (scores.UNTOUCHED, RAIN_FREE):
            continue
        if row["closed"] is None:
            text = (
                "no gap to close: the rainy photographs are no farther from rain-free ones than these from each other"
            )
        else:
            low, high = row["closed_low"], row["closed_high"]
            sure = "closer" if low > 0 else "farther away" if high < 0 else "not shown to be closer or farther away"
            text = f"{row['closed']:.0%} of the gap [{low:.0%}, {high:.0%}]: {sure}"
        if all(where in row for where in WHERE):
            where = [f"{row[name]:.1f} where {what}" for name, what in WHERE.items()]
            text += f"; mean change {' and '.join(where)}, of 255"
        sentences.append(f"{row['model']}: {text}")
    return sentences
