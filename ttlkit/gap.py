"""Two folders of images against each other: measure, cache, test, and write the report."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ttlkit import cache, features, images, stats

FEW = 16  # images for which starting processes costs more than it saves


class GapError(ValueError):
    """Two sets cannot be compared; the message names the folder or file and the way out."""


@dataclass(frozen=True)
class Measured:
    """A set of images: each feature of each image (n,), the files, and what could not be read."""

    name: str
    paths: tuple[Path, ...]
    values: dict[str, np.ndarray]
    skipped: tuple[str, ...] = ()

    def about_rain(self) -> dict[str, np.ndarray]:
        """The features without those of the camera."""
        return {name: found for name, found in self.values.items() if name not in features.CAMERA}

    def part(self, name: str, chosen: Sequence[int]) -> Measured:
        """Some of the images as a set of their own."""
        values = {feature: found[list(chosen)] for feature, found in self.values.items()}
        return Measured(name, tuple(self.paths[i] for i in chosen), values)


def measure_files(paths: Sequence[Path], name: str = "", equalised: bool = False) -> Measured:
    """Every feature of every file, on all cores, with a progress bar; a file that was measured before is looked up.

    What is known of a file goes by its content, so a moved or renamed file is not measured again. A file that cannot
    be read is left out and listed. Only numbers stay in memory. Raises GapError when no file can be read.
    """
    from tqdm import tqdm

    known = _Known(equalised)
    keys = [known.key(path) for path in paths]
    missing = [i for i, key in enumerate(keys) if key not in known.rows]
    failed: dict[int, str] = {}
    bar = tqdm(total=len(missing), desc=f"measuring {name}".strip(), delay=1, mininterval=1, file=sys.stdout)
    with bar:
        for i, (found, problem) in zip(missing, _measure_all([paths[i] for i in missing], equalised), strict=True):
            if problem:
                failed[i] = problem
            else:
                known.add(keys[i], found)
            bar.update()
    kept = [i for i in range(len(paths)) if i not in failed]
    if not kept:
        first = f" ({failed[0]})" if failed else ""
        raise GapError(f"{name or 'set'}: no image that can be read{first}")
    rows = np.array([known.rows[keys[i]] for i in kept], np.float64)
    values = {feature: rows[:, j] for j, feature in enumerate(features.NAMES)}
    return Measured(name, tuple(paths[i] for i in kept), values, tuple(failed.values()))


def _measure_all(paths: Sequence[Path], equalised: bool) -> Iterator[tuple[list[float], str]]:
    jobs = [(path, equalised) for path in paths]
    workers = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, len(paths))
    if workers < 2 or len(paths) < FEW:
        yield from map(_measure_file, jobs)
        return
    # Not fork: the parent may have started threads of torch, and a fork of those can hang.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_measure_file, jobs, chunksize=4)


def _measure_file(job: tuple[Path, bool]) -> tuple[list[float], str]:
    """(features, '') or ([], what is wrong with the file)."""
    path, equalised = job
    try:
        image = images.load_image(path)
    except (images.ImageError, OSError) as error:
        return [], str(error)
    return features.measure_one(features.equalise(image) if equalised else image), ""


class _Known:
    """What was measured before: one text file below the cache, a line an image; a damaged line is measured again."""

    def __init__(self, equalised: bool):
        root = cache.folder()
        name = f"features-{features.VERSION}{'-equalised' if equalised else ''}-{len(features.NAMES)}.jsonl"
        self.path = root / name if root else None
        self.rows: dict[str, list[float]] = {}
        if self.path and self.path.is_file():
            for line in self.path.read_text(errors="replace").splitlines():
                try:
                    key, row = json.loads(line)
                    self.rows[key] = [float(v) for v in row]
                except (ValueError, TypeError):
                    continue

    def key(self, path: Path) -> str:
        try:
            with open(path, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return str(path)  # unreadable: it will be listed

    def add(self, key: str, row: list[float]) -> None:
        self.rows[key] = row
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a") as file:  # one short write: lines of two processes do not mix
                file.write(json.dumps([key, row]) + "\n")
        except OSError:  # full or read-only: it is measured again next time
            self.path = None


def compare(a: Measured, b: Measured, seed: int = 0, rounds: int = 2000) -> dict[str, Any]:
    """Everything that says whether two sets differ.

    'features': rows of `stats.compare` with 'label', 'group', and 'a_a', 'b_b': mean distance between random halves of
    one set. 'overall': MMD, Fréchet distance and classifier on the features of rain, not of the camera.
    """
    rows = stats.compare(a.values, b.values, seed, rounds)
    within = [stats.halves(side.values, seed) for side in (a, b)]
    for row, feature in zip(rows, features.FEATURES, strict=True):
        row |= {"label": feature.label, "unit": feature.unit, "group": feature.group}
        row |= {"a_a": within[0][feature.name], "b_b": within[1][feature.name]}
    x, y = stats.standardised(a.about_rain(), b.about_rain())
    return {"features": rows, "overall": stats.overall(x, y, list(a.about_rain()), seed)}


def deep_features(paths: Sequence[Path], teacher: Path, name: str = "") -> np.ndarray:
    """What a recognition teacher sees in each file (n, channels): its coarsest features, averaged over the picture."""
    import torch
    from tqdm import tqdm

    from ttlkit import config, models

    model = models.load_weights(teacher)
    if not isinstance(model, models.Recogniser):
        raise GapError(f"{teacher}: holds a {type(model).__name__}; give the teacher of the task recognition")
    model.to(config.device())
    place = model.backbone.channels.index(max(model.backbone.channels))
    rows = []
    for path in tqdm(paths, f"recognition {name}".strip(), delay=1, mininterval=1, file=sys.stdout):
        image = features.equalise(images.load_image(path))
        with torch.inference_mode():
            tensor = models.pad_to_multiple(images.to_tensor(image), models.UNet.multiple).to(config.device())
            rows.append(model.backbone(tensor)[place].float().mean((0, 2, 3)).cpu().numpy())
    return np.array(rows, np.float64)


def compare_deep(x: np.ndarray, y: np.ndarray, seed: int = 0) -> list[dict[str, Any]]:
    """`stats.overall` on the main directions (at most 16) of what the teacher sees in two sets, (n, channels) each."""
    both = np.concatenate([x, y])
    spread = both.std(0)
    both = (both - both.mean(0)) / np.where(spread > 0, spread, 1)
    _, _, axes = np.linalg.svd(both, full_matrices=False)
    main = both @ axes[:16].T
    main /= np.maximum(main.std(0), 1e-9)
    names = [f"direction {i + 1}" for i in range(main.shape[1])]
    return stats.overall(main[: len(x)], main[len(x) :], names, seed)


def against_truth(rainy: Sequence[np.ndarray], streaks: Sequence[np.ndarray]) -> list[dict[str, Any]]:
    """How well single-image estimates of streaks agree with the streaks themselves, one row a feature of streaks.

    rainy: images (H, W, 3) in [0, 1]; streaks: what rain has added to each, (H, W) or (H, W, 3), measured as a picture
    of its own. Rows {"feature", "truth", "estimate": medians, "bias": mean of estimate - truth, "correlation": Pearson,
    "n"}.
    """
    if len(rainy) != len(streaks) or len(rainy) < 3:
        raise GapError(f"{len(rainy)} rainy images and {len(streaks)} streak layers: give as many, and at least 3")
    layers = [np.clip(s if s.ndim == 3 else np.repeat(s[..., None], 3, axis=2), 0, 1) for s in streaks]
    seen, known = features.measure(rainy), features.measure(layers)
    rows = []
    for name in OF_STREAKS:
        x, y = known[name], seen[name]
        related = float(np.corrcoef(x, y)[0, 1]) if min(x.std(), y.std()) > 0 else 0.0
        row = {"feature": features.FEATURES[features.NAMES.index(name)].label, "truth": float(np.median(x))}
        rows.append({**row, "estimate": float(np.median(y)), "bias": float((y - x).mean()), "correlation": related})
    return [{**row, "n": len(rainy)} for row in rows]


OF_STREAKS = (
    "streak_direction",
    "streak_direction_spread",
    "streak_length",
    "streak_width",
    "streak_density",
    "streak_contrast",
)
COLUMNS = {
    "label": "feature",
    "median_a": "A",
    "median_b": "B",
    "distance": "distance",
    "null": "null",
    "a_a": "A | A",
    "b_b": "B | B",
    "delta": "Cliff's delta",
    "p_holm": "p (Holm)",
}


def as_table(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of `compare` with the intervals as text, the largest distance first."""
    ordered = sorted(rows, key=lambda row: -row["wasserstein"])
    return [
        {
            **row,
            "distance": f"{row['wasserstein']:.2f} [{row['wasserstein_low']:.2f}, {row['wasserstein_high']:.2f}]",
            "delta": f"{row['cliffs_delta']:+.2f} [{row['cliffs_delta_low']:+.2f}, {row['cliffs_delta_high']:+.2f}]",
            "p_holm": f"{row['p_holm']:.4f}" if row["p_holm"] >= 5e-4 else "< 0.0005",
        }
        for row in ordered
    ]


def verdict(found: dict[str, Any], a: str, b: str) -> str:
    """One sentence: how many features of rain differ, and which most."""
    rain = [row for row in found["features"] if row["group"] != "camera"]
    beyond = [r for r in rain if r["p_holm"] < 0.05 and r["wasserstein"] > max(r["null"], r["a_a"], r["b_b"])]
    most = ", ".join(r["label"] for r in sorted(beyond, key=lambda r: -r["wasserstein"])[:3])
    camera = [r["label"] for r in found["features"] if r["group"] == "camera" and r["p_holm"] < 0.05]
    text = f"{a} and {b} differ in {len(beyond)} of {len(rain)} features of rain{', most in ' if most else ''}{most}"
    if camera:
        text += f"; the files differ in {', '.join(camera)} too, which has nothing to do with rain (see --equalise)"
    return text


HOW_TO_READ = """
- **distance**: Wasserstein distance of the two sets over the standard deviation within them, with a 95 % bootstrap
  interval over images. **null**: 95 % of random splits of all images together lie below it.
- **A | A**, **B | B**: mean distance between random halves of one set (half as many images, so a little more chance).
- **Cliff's delta**: chance that an image of A has more of it than one of B, less the chance of the opposite.
- **p (Holm)**: share of random splits that are as far apart, corrected for the number of features.
- Scenes differ between sets too: a difference is one of image sets, not of rain alone.
- Size, noise, blocks of JPEG and watermarks on the margin belong to the files. When they differ, use `--equalise`.
"""


def write(
    folder: Path,
    a: Measured,
    b: Measured,
    found: dict[str, Any],
    deep: Sequence[dict[str, Any]] = (),
    note: str = "",
) -> Path:
    """Write gap.json, values.csv, figures and gap.html, which needs no network, into `folder`; returns gap.html."""
    import csv

    from ttlkit import report, show

    (folder / "figures").mkdir(parents=True, exist_ok=True)
    tables = {"a": a.name, "b": b.name, **found, "deep": list(deep), "skipped": [*a.skipped, *b.skipped], "note": note}
    (folder / "gap.json").write_text(json.dumps(tables, indent=1))
    with open(folder / "values.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["set", "file", *features.NAMES])
        for side in (a, b):
            for path, row in zip(side.paths, zip(*side.values.values(), strict=True), strict=True):
                writer.writerow([side.name, path, *(f"{v:.6g}" for v in row)])

    def figure(name: str, drawn) -> str:
        path = (folder / "figures" / f"{name}.png").resolve()
        drawn.savefig(path, dpi=110, bbox_inches="tight")
        return f"\n![{name}]({path})\n"

    rows = sorted(found["features"], key=lambda row: -row["wasserstein"])
    text = [
        f"{verdict(found, a.name, b.name)}.\n",
        f"A = {a.name}, {len(a.paths)} images; B = {b.name}, {len(b.paths)} images. {note}\n",
        figure("distances", show.plot_distances(rows)),
        show.markdown_table(as_table(rows), COLUMNS, 3),
        f"\n## How to read it\n{HOW_TO_READ}",
    ]
    for title, tests in (("All features of rain at once", found["overall"]), ("What the teacher sees", deep)):
        if tests:
            text += [f"\n## {title}\n", show.markdown_table(list(tests), digits=3), "\n"]
    text.append("\n## The features that differ most, and what they see\n")
    for row in [row for row in rows if row["group"] != "camera"][:4]:
        feature = features.FEATURES[features.NAMES.index(row["feature"])]
        sides = {side.name: side.values[feature.name] for side in (a, b)}
        text += [
            f"\n### {feature.label}\n",
            f"{(feature.measure.__doc__ or '').strip().splitlines()[0]}\n",
            figure(feature.name, show.plot_distributions(sides, feature.label, feature.unit)),
            figure(f"{feature.name}-seen", show.plot_feature(feature, typical(a, feature), typical(b, feature))),
        ]
    if tables["skipped"]:
        text.append("\n## Left out\n\n" + "\n".join(f"- {problem}" for problem in tables["skipped"]))
    return report.write_report([], folder / "gap.html", f"{a.name} against {b.name}", "\n".join(text))


def typical(side: Measured, feature: features.Feature) -> np.ndarray:
    """The image of a set whose value is the median, as loaded."""
    order = np.argsort(side.values[feature.name], kind="stable")
    return images.load_image(side.paths[order[len(order) // 2]])
