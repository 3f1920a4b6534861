"""Score restorers on every test set of a collection: paired, masked and unpaired, with intervals over images."""

from collections.abc import Callable, Container, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ttlkit import files
from ttlkit.data import image_files, tensors
from ttlkit.data.collections import Collection, CollectionError, Pair, TestSet, load_pair, load_valid
from ttlkit.evaluate import metrics

Row = dict[str, Any]
Restore = Callable[[np.ndarray], np.ndarray]
MEAN = "mean of sets"
UNTOUCHED = "input"  # the row of the rainy image as it is: what a model must beat
TEXTS = ("set", "kind", "image", "model")  # columns of a row that are names
RUN = ("seed", "n_pairs")  # columns of rows of several runs; all others are metrics
# Kind of a set -> its metrics, from tensors (1, 3, H, W), and (1, 1, H, W): where clean can be trusted.
MEASURES: dict[str, Callable[..., dict[str, torch.Tensor]]] = {
    "paired": lambda restored, rainy, clean, valid: metrics.scores(restored, clean, valid),
    "masked": lambda restored, rainy, mask, _: metrics.masked_change(restored, rainy, mask[:, :1]),
    "unpaired": lambda restored, rainy, *_: {"change": (restored - rainy).abs().mean() * 255},
    "dry": lambda restored, rainy, *_: {"psnr_dry": metrics.psnr(restored, rainy)},
}
# Metric -> what it is, with its unit, and the best of several values; None: neither the largest nor the least is.
METRICS: dict[str, tuple[str, Callable | None]] = {
    "psnr_rgb": ("PSNR on RGB in dB, more is better", max),
    "psnr_y": ("PSNR on luma alone in dB, more is better", max),
    "ssim_rgb": ("SSIM on RGB, 1 at most, more is better", max),
    "ssim_y": ("SSIM on luma alone, 1 at most, more is better", max),
    "psnr_dry": (
        "photographs without rain: PSNR of the output against the input in dB, more: it leaves them alone",
        max,
    ),
    "change_inside": ("mean change on streaks, of 255: a network that removes them changes them", None),
    "change_outside": ("mean change beside the streaks, of 255, less is better", min),
    "change": ("mean change of the whole image, of 255", None),
}
AGAINST_INPUT = ("psnr_dry", "change_inside", "change_outside", "change")  # say nothing of the input itself
WHO = {"student": "the transferred student", UNTOUCHED: "the untouched input"}  # models as a sentence names them
OUTCOMES = ("ahead of", "behind", "not surely different from")
RAIN = {None: "", False: ", rain that no pair shows", True: ", the pairs' own rain"}
SETS = {"test": "tests", "val": "val"}  # sets to report with, looked at once; sets to choose recipes with
untouched = image_files.to_float  # the restorer that leaves the rainy image as it is


def cases(collection: Collection, most: int, sets: str = "test") -> list[tuple[TestSet, Pair]]:
    """Every (set, image) to score, at most `most` per set, evenly spread; CollectionError where there is none.

    The set `dry` holds the rain-free photographs that no stage trains on.
    """
    chosen = getattr(collection, SETS[sets])
    if not chosen:
        raise CollectionError(f"{collection.root}/{sets}: no {sets} sets; layout in datasets/README.md")
    dry = TestSet("dry", "dry", tuple(Pair(path, path) for path in collection.real("clean", held_out=True)))
    return [(test, pair) for test in (*chosen, dry) for pair in test.spread(most)]


def score(models: dict[str, Restore], work: Iterable[tuple[TestSet, Pair]]) -> list[Row]:
    """One row for each model and image: {'set', 'kind', 'image', 'model', and its metrics}.

    Paired: psnr_rgb, ssim_rgb, psnr_y, ssim_y of the restored image rounded to 8 bits, of `valid` pixels alone where
    the set has such masks. Masked: mean absolute change in 8-bit levels inside and outside the streak mask, where it
    has such pixels. Unpaired: `change`, over the whole image. Dry: psnr_dry, of the restored image against what it was
    given (100 dB: unchanged). Raises ValueError for a restored image that holds NaN.
    """
    rows = []
    for test, pair in work:
        alone = test.kind in ("unpaired", "dry")
        rainy, truth = (image_files.load_image_u8(pair.rainy),) * 2 if alone else load_pair(pair)
        trusted = load_valid(pair)
        valid = None if trusted is None else torch.from_numpy(trusted)[None, None]
        for name, model in models.items():
            restored = model(rainy)
            if np.isnan(restored).any():  # a mean over the other images would hide it
                raise ValueError(f"{pair.rainy}: {name} restores it to NaN; its weights are damaged, leave it out")
            found = MEASURES[test.kind](*map(tensors.to_tensor, (restored, rainy, truth)), valid)
            row = {"set": test.name, "kind": test.kind, "image": pair.rainy.name, "model": name}
            rows.append({**row, **{metric: float(value) for metric, value in found.items() if not value.isnan().any()}})
    return rows


def metric_names(rows: list[Row]) -> list[str]:
    """The metrics that occur in rows, in their order."""
    return [name for name in dict.fromkeys(name for row in rows for name in row) if name not in (*TEXTS, *RUN)]


def _frame(rows: list[Row], metric: str) -> pd.DataFrame:
    """Those rows that have the metric, in their order; RUN is 0 where rows do not say it."""
    frame = pd.DataFrame([{"seed": 0, "n_pairs": 0, **row} for row in rows if metric in row])
    return frame if len(frame) else pd.DataFrame(columns=list(dict.fromkeys([*TEXTS, *RUN, metric])))


def summarise(rows: list[Row]) -> list[Row]:
    """For each set and model: the mean of each metric over images, with a 95 % bootstrap interval and n."""
    table = []
    for (name, model), own in _frame(rows, "model").groupby(["set", "model"], sort=False):
        row: Row = {"set": name, "model": model, "n": len(own)}
        for metric in metric_names(rows):
            if len(values := own[metric].dropna()):
                row[metric], row[f"{metric}_low"], row[f"{metric}_high"] = metrics.bootstrap(values)
        table.append(row)
    return table


def pivot(summary: list[Row], metric: str) -> list[Row]:
    """One row per model, one column per set that has the metric: 'mean ± half the interval', and the sets' mean.

    The untouched input has no row where the metric compares with it.
    """
    frame, digits, table = _frame(summary, metric), 3 if metric.startswith("ssim") else 2, []
    frame = frame[(frame["model"] != UNTOUCHED) | (metric not in AGAINST_INPUT)]
    for model, own in frame.groupby("model", sort=False):
        row = {"model": model}
        for name, mean, low, high in own[["set", metric, f"{metric}_low", f"{metric}_high"]].itertuples(index=False):
            row[name] = f"{mean:.{digits}f} ± {(high - low) / 2:.{digits}f}"
        if len(own) == frame["set"].nunique() > 1:
            row[MEAN] = f"{own[metric].mean():.{digits}f}"
        table.append(row)
    return table


def over_seeds(rows: list[Row], metric: str = "psnr_rgb") -> list[Row]:
    """For each set, number of pairs and model: mean over images and seeds, and the seeds' standard deviation.

    `rows` are those of several runs, with the columns `seed` and `n_pairs`. With several sets, the last rows are of
    their mean, the set MEAN, over the seeds that have every set. One seed has the deviation None.
    """
    keys = ["n_pairs", "model", "seed"]
    means = _frame(rows, metric).groupby(["set", *keys], sort=False)[metric].mean().reset_index()
    if (sets := means["set"].nunique()) > 1:
        complete = means.groupby(keys, sort=False)["set"].transform("size") == sets
        of_sets = means[metric].where(complete).groupby([means[key] for key in keys], sort=False).mean()
        means = pd.concat([means, of_sets.reset_index().assign(set=MEAN)])
    found = means.groupby(["set", "n_pairs", "model"], sort=False)[metric].agg(seeds="count", mean="mean", spread="std")
    found = found[found["seeds"] > 0].reset_index().astype({"n_pairs": int}).astype(object)
    return found.where(found.notna(), None).to_dict("records")


def by_pairs(means: list[Row]) -> dict[int, list[Row]]:
    """`over_seeds` as one table for each number of pairs: a row a model, a column a set, 'mean ± spread'."""
    tables: dict[int, dict[str, Row]] = {}
    for row in means:
        own = tables.setdefault(row["n_pairs"], {}).setdefault(row["model"], {"row": row["model"]})
        own[row["set"]] = f"{row['mean']:.2f}" + (f" ± {row['spread']:.2f}" if row["spread"] is not None else "")
        own["seeds"] = own.pop("seeds", row["seeds"])  # the last column
    return {n_pairs: list(own.values()) for n_pairs, own in sorted(tables.items())}


def best(rows: list[Row], models: list[str], metric: str = "psnr_rgb") -> str:
    """The one of `models` with the highest mean over runs and sets, of the mean over images.

    Only runs and sets in which all of them have scores count: more pairs would flatter a model that others lack there.
    CollectionError where there is none.
    """
    means = _frame(rows, metric).groupby([*RUN, "set", "model"])[metric].mean().unstack("model")
    common = means.reindex(columns=models).dropna()
    if not len(common):
        raise CollectionError(f"{', '.join(models)}: no run and set for which all of them have {metric}")
    return str(common.mean().idxmax())


def verdicts(gains: list[Row], own_rain: Container[str] | None = None) -> list[str]:
    """Rows of `differences` or `gains_over_seeds` in words: a sentence for each two models and number of pairs.

    A difference counts where its interval does not hold zero. `own_rain`: the sets with the rain of the training pairs;
    given, each set is said to show that rain, or other rain.
    """
    found: dict[tuple, dict[tuple, list[str]]] = {}
    for row in gains:
        parts = found.setdefault((row["model"], row["against"], row.get("n_pairs")), {})
        own = None if own_rain is None else row["set"] in own_rain
        outcome = 0 if row["low"] > 0 else 1 if row["high"] < 0 else 2
        numbers = f"({row['difference']:+.2f} dB [{row['low']:+.2f}, {row['high']:+.2f}])"
        parts.setdefault((own, outcome), []).append(f"{row['set']} {numbers}")
    sentences = []
    for (model, against, n_pairs), parts in found.items():
        said = [
            f"{OUTCOMES[outcome]} {WHO.get(against, against)} on {', '.join(sets)}{RAIN[own]}"
            for (own, outcome), sets in sorted(parts.items())
        ]
        sentence = f"{f'with {n_pairs} pairs, ' if n_pairs else ''}{WHO.get(model, model)} is {'; '.join(said)}."
        sentences.append(sentence[0].upper() + sentence[1:])
    return sentences


def differences(rows: list[Row], model: str, other: str, metric: str = "psnr_rgb") -> list[Row]:
    """model - other on the same images, for each set that has the metric: mean, 95 % interval, images won."""
    return _gains(rows, model, other, metric, without=("n_pairs", "seeds"))


def gains_over_seeds(rows: list[Row], model: str, other: str, metric: str = "psnr_rgb") -> list[Row]:
    """model - other on the same images and seeds, for each set and number of pairs, with a 95 % interval.

    The interval covers chance in seeds as well as in images: a result that hangs on one seed has a wide one.
    """
    return _gains(rows, model, other, metric, without=("n", "won"))


def _gains(rows: list[Row], model: str, other: str, metric: str, without: tuple[str, ...]) -> list[Row]:
    """One row for each set and number of pairs, of the seeds for which both models have every image."""
    frame, table = _frame(rows, metric), []
    both = pd.concat([frame[frame["model"] == name] for name in dict.fromkeys((model, other))])
    for (name, n_pairs), own in both.groupby(["set", "n_pairs"], sort=False):
        order = {"index": own["seed"].unique(), "columns": own["image"].unique()}  # a bootstrap draws by place
        first, second = (
            own[own["model"] == m].pivot(index="seed", columns="image", values=metric).reindex(**order)
            for m in (model, other)
        )
        gain = np.ascontiguousarray((first - second).dropna())
        if gain.size:
            row = {"set": name, "n_pairs": int(n_pairs), "model": model, "against": other, "seeds": len(gain)}
            interval = zip(("difference", "low", "high"), metrics.bootstrap(gain), strict=True)
            row |= {"n": gain.size, **dict(interval), "won": int((gain > 0).sum())}
            table.append({key: value for key, value in row.items() if key not in without})
    return table


def essence(rows: list[Row], metric: str = "psnr_rgb") -> list[Row]:
    """What a sweep is published by: of rows that have the metric, RUN, set, image, model, and it to two digits."""
    keys = ("set", "image", "model")
    return [{key: row[key] for key in (*RUN, *keys)} | {metric: round(row[metric], 2)} for row in rows if metric in row]


def save_rows(path: Path, rows: list[Row]) -> None:
    """Write rows as CSV, every column that occurs."""
    files.write_text(path, pd.DataFrame(rows).to_csv(index=False))


def load_rows(path: Path, **extra: Any) -> list[Row]:
    """Rows that `save_rows` wrote, with `extra` columns such as the seed; CollectionError where there is no file."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False).to_dict("records")  # a set may be called "NA"
    except FileNotFoundError:
        raise CollectionError(f"{path}: no scores; run stage 5 of that run first") from None
    except (pd.errors.EmptyDataError, pd.errors.ParserError):
        table = [{}]
    if not all(row.get("set") and row.get("image") and row.get("model") for row in table):
        raise CollectionError(
            f"{path}: no whole table of scores; run stage 5 again (of ttlkit's own: install it again)"
        )
    kinds = {**dict.fromkeys(TEXTS, str), **dict.fromkeys(RUN, int)}
    return [{**extra, **{k: kinds.get(k, float)(v) for k, v in row.items() if v}} for row in table]
