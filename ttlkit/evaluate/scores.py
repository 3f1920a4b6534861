"""Score restorers on every test set of a collection: paired, masked and unpaired, with intervals over images."""

from collections.abc import Callable, Iterable
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
    """One row per model, one column per set that has the metric: 'mean ± half the interval', and the sets' mean."""
    frame, digits, table = _frame(summary, metric), 3 if metric.startswith("ssim") else 2, []
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
    """The one of `models` with the highest mean over sets, of the mean over images, seeds and numbers of pairs."""
    means = _frame(rows, metric).groupby(["model", "set"], sort=False)[metric].mean().groupby("model").mean()
    return str(means.reindex(models).idxmax())


def verdicts(gains: list[Row]) -> list[str]:
    """Rows of `differences` or `gains_over_seeds` as sentences, one for each pair of models and number of pairs.

    A difference counts where its interval does not hold zero.
    """
    found: dict[tuple, dict[str, list[str]]] = {}
    for row in gains:
        lines = found.setdefault((row["model"], row["against"], row.get("n_pairs")), {})
        kind = "ahead on" if row["low"] > 0 else "behind on" if row["high"] < 0 else "undecided on"
        numbers = f" ({row['difference']:+.2f} dB [{row['low']:+.2f}, {row['high']:+.2f}])"
        lines.setdefault(kind, []).append(row["set"] + numbers)
    sentences = []
    for (model, against, n_pairs), lines in found.items():
        kinds = (kind for kind in ("ahead on", "behind on", "undecided on") if kind in lines)
        parts = "; ".join(f"{kind} {', '.join(lines[kind])}" for kind in kinds)
        sentences.append(f"{f'{n_pairs} pairs: ' if n_pairs else ''}{model} against {against}: {parts}.")
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
