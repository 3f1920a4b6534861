"""Score restorers on every test set of a collection: paired, masked and unpaired, with intervals over images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ttlkit import files
from ttlkit.data import image_files, tensors
from ttlkit.data.collections import Collection, CollectionError, Pair, TestSet, load_pair
from ttlkit.evaluate import metrics

Row = dict[str, Any]
Restore = Callable[[np.ndarray], np.ndarray]
HIGHER_IS_BETTER = ("psnr_rgb", "ssim_rgb", "psnr_y", "ssim_y", "psnr_dry")
MEAN = "mean of sets"
UNTOUCHED = "input"  # the row of the rainy image as it is: what a model must beat
TEXTS = ("set", "kind", "image", "model")  # columns of a row that are names
RUN = ("seed", "n_pairs")  # columns of rows of several runs; all others are metrics
MEASURES = {  # kind of a test set -> its metrics, from tensors (1, 3, H, W)
    "paired": lambda restored, rainy, clean: metrics.scores(restored, clean),
    "masked": lambda restored, rainy, mask: metrics.masked_change(restored, rainy, mask[:, :1]),
    "unpaired": lambda restored, rainy, _: {"change": (restored - rainy).abs().mean() * 255},
    "dry": lambda restored, rainy, _: {"psnr_dry": metrics.psnr(restored, rainy)},
}


def untouched(image: np.ndarray) -> np.ndarray:
    """The rainy image as it is."""
    return image_files.to_float(image)


def cases(collection: Collection, most: int) -> list[tuple[TestSet, Pair]]:
    """Every (test set, image) to score, at most `most` per set, evenly spread; CollectionError where there is none.

    The set `dry` holds the rain-free photographs that no stage trains on.
    """
    if not collection.tests:
        raise CollectionError(f"{collection.root}/test: no test sets; layout in datasets/README.md")
    dry = TestSet("dry", "dry", tuple(Pair(path, path) for path in collection.real("clean", held_out=True)))
    return [(test, pair) for test in (*collection.tests, dry) for pair in test.spread(most)]


def score(models: dict[str, Restore], work: Iterable[tuple[TestSet, Pair]]) -> list[Row]:
    """One row for each model and image: {'set', 'kind', 'image', 'model', and its metrics}.

    Paired: psnr_rgb, ssim_rgb, psnr_y, ssim_y of the restored image rounded to 8 bits. Masked: mean absolute change in
    8-bit levels inside and outside the streak mask, where it has such pixels. Unpaired: `change`, over the whole image.
    Dry: psnr_dry, of the restored image against what it was given (100 dB: unchanged). Raises ValueError for a restored
    image that holds NaN.
    """
    rows = []
    for test, pair in work:
        alone = test.kind in ("unpaired", "dry")
        rainy, truth = (image_files.load_image_u8(pair.rainy),) * 2 if alone else load_pair(pair)
        for name, model in models.items():
            restored = model(rainy)
            if np.isnan(restored).any():  # a mean over the other images would hide it
                raise ValueError(f"{pair.rainy}: {name} restores it to NaN; its weights are damaged, leave it out")
            found = MEASURES[test.kind](*map(tensors.to_tensor, (restored, rainy, truth)))
            row = {"set": test.name, "kind": test.kind, "image": pair.rainy.name, "model": name}
            rows.append({**row, **{metric: float(value) for metric, value in found.items() if not value.isnan().any()}})
    return rows


def metric_names(rows: list[Row]) -> list[str]:
    """The metrics that occur in rows, in their order."""
    return [name for name in dict.fromkeys(name for row in rows for name in row) if name not in (*TEXTS, *RUN)]


def _frame(rows: list[Row], metric: str) -> pd.DataFrame:
    """Those rows that have the metric, in their order; RUN is 0 where rows do not say it."""
    columns = dict.fromkeys([*TEXTS, *RUN, metric, *(name for row in rows for name in row)])
    return pd.DataFrame([{**dict.fromkeys(RUN, 0), **row} for row in rows if metric in row], columns=list(columns))


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
    """One row per model, one column per set that has the metric: 'mean ± half the interval', and the sets' mean."""
    frame, digits, table = _frame(summary, metric), 3 if metric.startswith("ssim") else 2, []
    for model, own in frame.groupby("model", sort=False):
        halves = (own[f"{metric}_high"] - own[f"{metric}_low"]) / 2
        texts = [f"{mean:.{digits}f} ± {half:.{digits}f}" for mean, half in zip(own[metric], halves, strict=True)]
        row = {"model": model, **dict(zip(own["set"], texts, strict=True))}
        if len(own) == frame["set"].nunique() > 1:
            row[MEAN] = f"{own[metric].to_numpy().mean():.{digits}f}"
        table.append(row)
    return table


def differences(rows: list[Row], model: str, other: str, metric: str = "psnr_rgb") -> list[Row]:
    """model - other on the same images, for each set that has the metric: mean, 95 % interval, images won."""
    table = []
    for name, _, gain in _gains(rows, model, other, metric):
        row = {"set": name, "model": model, "against": other, "n": gain.size}
        mean, low, high = metrics.bootstrap(gain)
        table.append({**row, "difference": mean, "low": low, "high": high, "won": int((gain > 0).sum())})
    return table


def save_rows(path: Path, rows: list[Row]) -> None:
    """Write rows as CSV, every column that occurs."""
    files.write_text(path, pd.DataFrame(rows).to_csv(index=False))


def load_rows(path: Path, **extra: Any) -> list[Row]:
    """Rows that `save_rows` wrote, with `extra` columns such as the seed; CollectionError where there is no file."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False).to_dict("records")  # a set may be called "NA"
    except FileNotFoundError:
        raise CollectionError(f"{path}: no scores; run stage 5 of that run first") from None
    return [{**extra, **{k: v if k in TEXTS else float(v) for k, v in row.items() if v}} for row in table]


def over_seeds(rows: list[Row], metric: str = "psnr_rgb") -> list[Row]:
    """For each set, number of pairs and model: mean over images and seeds, and the seeds' standard deviation.

    `rows` are those of several runs, with the columns `seed` and `n_pairs`. With several sets, the last rows are of
    their mean, the set MEAN, over the seeds that have every set.
    """
    keys = ["n_pairs", "model", "seed"]
    means = _means(_frame(rows, metric), ["set", *keys], metric)
    sets = means["set"].nunique()
    if sets > 1:
        complete = means.groupby(keys, sort=False)["set"].transform("size") == sets
        over_sets = _means(means.assign(**{metric: means[metric].where(complete)}), keys, metric)
        means = pd.concat([means, over_sets.assign(set=MEAN)])
    table = []
    for (name, n_pairs, model), own in means.groupby(["set", "n_pairs", "model"], sort=False):
        values = own[metric].dropna().to_numpy()
        if not len(values):
            continue
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else None  # one seed tells nothing about others
        row = {"set": name, "n_pairs": int(n_pairs), "model": model, "seeds": len(values)}
        table.append({**row, "mean": float(values.mean()), "spread": spread})
    return table


def _means(frame: pd.DataFrame, keys: list[str], metric: str) -> pd.DataFrame:
    """The metric's mean for each combination of keys, in order of appearance, summed as numpy does."""
    means = frame.groupby(keys, sort=False)[metric].agg(lambda values: values.to_numpy().mean())
    return means.reset_index()


def gains_over_seeds(rows: list[Row], model: str, other: str, metric: str = "psnr_rgb") -> list[Row]:
    """model - other on the same images and seeds, for each set and number of pairs, with a 95 % interval.

    The interval covers chance in seeds as well as in images: a result that hangs on one seed has a wide one.
    """
    table = []
    for name, n_pairs, gain in _gains(rows, model, other, metric):
        low, high = np.quantile(metrics.bootstrap_means(gain), [0.025, 0.975])
        row = {"set": name, "n_pairs": n_pairs, "model": model, "against": other, "seeds": len(gain)}
        table.append({**row, "difference": float(gain.mean()), "low": float(low), "high": float(high)})
    return table


def _gains(rows: list[Row], model: str, other: str, metric: str) -> Iterator[tuple[str, int, np.ndarray]]:
    """(set, n_pairs, model - other as (seeds, images)): of the seeds for which both have every image."""
    frame = _frame(rows, metric)
    both = pd.concat([frame[frame["model"] == m] for m in dict.fromkeys((model, other))])
    for (name, n_pairs), own in both.groupby(["set", "n_pairs"], sort=False):
        order = {"index": own["seed"].unique(), "columns": own["image"].unique()}  # a bootstrap draws by place
        first, second = (
            own[own["model"] == m].pivot(index="seed", columns="image", values=metric).reindex(**order)
            for m in (model, other)
        )
        gain = np.ascontiguousarray((first - second).dropna())
        if gain.size:
            yield name, int(n_pairs), gain
