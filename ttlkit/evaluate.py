"""Score restorers on every test set of a collection: paired, masked and unpaired, with intervals over images."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ttlkit import images, metrics
from ttlkit.data import Collection, CollectionError, Pair, TestSet, load_pair

Row = dict[str, Any]
Restore = Callable[[np.ndarray], np.ndarray]
HIGHER_IS_BETTER = ("psnr_rgb", "ssim_rgb", "psnr_y", "ssim_y", "psnr_dry")
MEAN = "mean of sets"
UNTOUCHED = "input"  # the row of the rainy image as it is: what a model must beat


def untouched(image: np.ndarray) -> np.ndarray:
    """The rainy image as it is."""
    return images.to_float(image)


def cases(collection: Collection, most: int) -> list[tuple[TestSet, Pair]]:
    """Every (test set, image) to score, at most `most` per set, evenly spread; CollectionError where there is none.

    The set `dry` holds the rain-free photographs that no stage trains on.
    """
    if not collection.tests:
        raise CollectionError(f"{collection.root}/test: no test sets; layout in datasets/README.md")
    dry = TestSet("dry", "dry", tuple(Pair(path, path) for path in collection.photographs(["clean"], True)["clean"]))
    return [(test, pair) for test in (*collection.tests, dry) for pair in test.spread(most)]


def score(models: dict[str, Restore], work: Iterable[tuple[TestSet, Pair]]) -> list[Row]:
    """One row for each model and image: {'set', 'kind', 'image', 'model', and its metrics}.

    Paired: psnr_rgb, ssim_rgb, psnr_y, ssim_y of the restored image rounded to 8 bits. Masked: mean absolute
    change in 8-bit levels inside and outside the streak mask. Unpaired: `change`, over the whole image. Dry: psnr_dry,
    of the restored image against what it was given (100 dB: unchanged).
    """
    rows = []
    for test, pair in work:
        if test.kind in ("unpaired", "dry"):
            rainy, truth = images.load_image_u8(pair.rainy), None
        else:
            rainy, truth = load_pair(pair)
        for name, model in models.items():
            restored = images.to_tensor(model(rainy))
            row = {"set": test.name, "kind": test.kind, "image": pair.rainy.name, "model": name}
            rows.append({**row, **_metrics(test.kind, restored, images.to_tensor(rainy), truth)})
    return rows


def _metrics(kind: str, restored: torch.Tensor, rainy: torch.Tensor, truth: np.ndarray | None) -> dict[str, float]:
    if kind == "paired" and truth is not None:
        found = metrics.scores(restored, images.to_tensor(truth))
        return {name: float(value) for name, value in found.items()}
    if kind == "masked" and truth is not None:
        mask = (images.to_tensor(truth)[:, :1] > 0.5).float()
        inside, outside = metrics.masked_change(restored, rainy, mask)
        found = {"change_inside": inside, "change_outside": outside}  # NaN where the mask is empty, or full
        return {name: float(value) for name, value in found.items() if bool(value.isfinite().all())}
    if kind == "dry":
        return {"psnr_dry": float(metrics.psnr(restored, rainy))}
    return {"change": float((restored - rainy).abs().mean() * 255)}


def metric_names(rows: list[Row]) -> list[str]:
    """The metrics that occur in rows, in their order."""
    names = [name for row in rows for name in row if name not in ("set", "kind", "image", "model")]
    return list(dict.fromkeys(names))


def summarise(rows: list[Row]) -> list[Row]:
    """For each set and model: the mean of each metric over images, with a 95 % bootstrap interval and n."""
    table = []
    for group, members in _grouped(rows).items():
        row: Row = {"set": group[0], "model": group[1], "n": len(members)}
        for name in metric_names(members):
            mean, low, high = metrics.bootstrap(np.array([m[name] for m in members if name in m]))
            row.update({name: mean, f"{name}_low": low, f"{name}_high": high})
        table.append(row)
    return table


def pivot(summary: list[Row], metric: str) -> list[Row]:
    """One row per model, one column per set that has the metric: 'mean ± half the interval', and the sets' mean."""
    sets = list(dict.fromkeys(row["set"] for row in summary if metric in row))
    table: dict[str, Row] = {}
    for row in summary:
        if row["set"] in sets:
            half = (row[f"{metric}_high"] - row[f"{metric}_low"]) / 2
            digits = 3 if metric.startswith("ssim") else 2
            text = f"{row[metric]:.{digits}f} ± {half:.{digits}f}"
            table.setdefault(row["model"], {"model": row["model"]})[row["set"]] = text
    for name, cells in table.items():
        values = [row[metric] for row in summary if row["model"] == name and row["set"] in sets]
        if len(sets) > 1 and len(values) == len(sets):
            cells[MEAN] = f"{np.mean(values):.{3 if metric.startswith('ssim') else 2}f}"
    return list(table.values())


def differences(rows: list[Row], model: str, other: str, metric: str = "psnr_rgb") -> list[Row]:
    """model - other on the same images, for each set that has the metric: mean, 95 % interval, images won."""
    grouped = _grouped(rows)
    table = []
    for name in dict.fromkeys(row["set"] for row in rows):
        first, second = grouped.get((name, model), []), grouped.get((name, other), [])
        if not first or not second or metric not in first[0]:
            continue
        assert [r["image"] for r in first] == [r["image"] for r in second]
        gain = np.array([a[metric] - b[metric] for a, b in zip(first, second, strict=True)])
        mean, low, high = metrics.bootstrap(gain)
        row = {"set": name, "model": model, "against": other, "n": len(gain), "difference": mean}
        table.append({**row, "low": low, "high": high, "won": int((gain > 0).sum())})
    return table


def _grouped(rows: list[Row]) -> dict[tuple[str, str], list[Row]]:
    grouped: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        grouped.setdefault((row["set"], row["model"]), []).append(row)
    return grouped


def save_rows(path: Path, rows: list[Row]) -> None:
    """Write rows as CSV, every column that occurs."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def load_rows(path: Path, **extra: Any) -> list[Row]:
    """Rows that `save_rows` wrote, with `extra` columns such as the seed; CollectionError where there is no file."""
    texts = ("set", "kind", "image", "model")
    try:
        with open(path, newline="") as file:
            read = list(csv.DictReader(file))
    except FileNotFoundError:
        raise CollectionError(f"{path}: no scores; run stage 5 of that run first") from None
    return [{**extra, **{k: v if k in texts else float(v) for k, v in row.items() if v}} for row in read]


def over_seeds(rows: list[Row], metric: str = "psnr_rgb") -> list[Row]:
    """For each set, number of pairs and model: mean over images and seeds, and the seeds' standard deviation.

    `rows` are those of several runs, with the columns `seed` and `n_pairs`. With several sets, the last rows are of
    their mean, the set MEAN.
    """
    found: dict[tuple[str, int, str], dict[int, float]] = {}
    over_sets: dict[tuple[str, int, str], dict[int, list[float]]] = {}
    for (name, n_pairs, model), members in _cells(rows, metric).items():
        means = {seed: float(np.mean(list(images.values()))) for seed, images in members.items()}
        found[name, n_pairs, model] = means
        for seed, mean in means.items():
            over_sets.setdefault((MEAN, n_pairs, model), {}).setdefault(seed, []).append(mean)
    sets = len({name for name, _, _ in found})
    for key, seeds in over_sets.items() if sets > 1 else ():
        complete = {seed: float(np.mean(means)) for seed, means in seeds.items() if len(means) == sets}
        found |= {key: complete} if complete else {}
    table = []
    for (name, n_pairs, model), means in found.items():
        values = list(means.values())
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else None  # one seed tells nothing about others
        row = {"set": name, "n_pairs": n_pairs, "model": model, "seeds": len(values)}
        table.append({**row, "mean": float(np.mean(values)), "spread": spread})
    return table


def gains_over_seeds(
    rows: list[Row], model: str, other: str, metric: str = "psnr_rgb", rounds: int = 2000
) -> list[Row]:
    """model - other on the same images and seeds, for each set and number of pairs, with a 95 % interval.

    The bootstrap draws seeds, and images within them: a result that hangs on one seed has a wide interval.
    """
    cells = _cells(rows, metric)
    table = []
    for (name, n_pairs, found), members in cells.items():
        against = cells.get((name, n_pairs, other), {})
        seeds = [seed for seed in members if seed in against and members[seed].keys() == against[seed].keys()]
        if found != model or not seeds:
            continue
        gain = np.array([[members[s][i] - against[s][i] for i in members[s]] for s in seeds])
        rng = np.random.default_rng(0)
        by_seed = rng.integers(len(seeds), size=(rounds, len(seeds)))
        by_image = rng.integers(gain.shape[1], size=(rounds, gain.shape[1]))
        drawn = gain[by_seed[:, :, None], by_image[:, None, :]].mean((1, 2))
        low, high = np.quantile(drawn, [0.025, 0.975])
        row = {"set": name, "n_pairs": n_pairs, "model": model, "against": other, "seeds": len(seeds)}
        table.append({**row, "difference": float(gain.mean()), "low": float(low), "high": float(high)})
    return table


def _cells(rows: list[Row], metric: str) -> dict[tuple[str, int, str], dict[int, dict[str, float]]]:
    """(set, n_pairs, model) to seed to image to the metric."""
    cells: dict[tuple[str, int, str], dict[int, dict[str, float]]] = {}
    for row in rows:
        if metric in row:
            seeds = cells.setdefault((row["set"], row["n_pairs"], row["model"]), {})
            seeds.setdefault(row["seed"], {})[row["image"]] = row[metric]
    return cells
