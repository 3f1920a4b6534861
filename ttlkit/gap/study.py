"""Two sets of images against each other: measure, look up what is known, compare, and say it in words."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from ttlkit import files, machine
from ttlkit.data import cache, image_files, tensors
from ttlkit.gap import features, stats
from ttlkit.gap.stats import Row

BAR = {"delay": 1, "mininterval": 1, "file": sys.stdout}
OF_STREAKS = [f"streak_{what}" for what in ("direction", "direction_spread", "length", "width", "density", "contrast")]
COLUMNS = {
    "label": "feature", "median_a": "A", "median_b": "B", "distance": "distance", "null": "null",
    "a_a": "A | A", "b_b": "B | B", "delta": "Cliff's delta", "p_holm": "p (Holm)",
}  # fmt: skip


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

    def part(self, name: str, chosen: Sequence[int]) -> "Measured":
        """Some of the images as a set of their own."""
        values = {feature: found[list(chosen)] for feature, found in self.values.items()}
        return Measured(name, tuple(self.paths[i] for i in chosen), values)


def list_side(folder: Path) -> list[Path]:
    """The images of a folder; GapError where there are none, or no such folder."""
    found = image_files.list_images(folder)
    if not found:
        missing = "is no folder; name the one it lies in" if folder.exists() else "no such folder; is it spelt right?"
        raise GapError(f"{files.shown(folder)}: {'no images in this folder' if folder.is_dir() else missing}")
    return found


def measure_files(paths: Sequence[Path], name: str = "", equalised: bool = False) -> Measured:
    """Every feature of every file, on all cores, with a progress bar; a file that was measured before is looked up.

    What is known of a file goes by its content, wherever it lies. A file that cannot be read is left out and listed.
    Raises GapError when no file can be read.
    """
    keys = [("features", features.VERSION, len(features.NAMES), equalised, _content(path)) for path in paths]
    rows = {i: row for i, key in enumerate(keys) if (row := cache.recall(*key)) is not None}
    missing, skipped = [i for i in range(len(paths)) if i not in rows], []
    found = machine.in_processes(_measure_file, [(paths[i], equalised) for i in missing])
    for i, row in zip(missing, tqdm(found, f"measuring {name}".strip(), len(missing), **BAR), strict=True):
        if isinstance(row, str):
            skipped.append(row)
        else:
            rows[i] = row
            cache.remember(row, *keys[i])
    if not rows:
        raise GapError(f"{name or 'set'}: no image that can be read{f' ({skipped[0]})' if skipped else ''}")
    kept = sorted(rows)
    values = dict(zip(features.NAMES, np.array([rows[i] for i in kept], np.float64).T, strict=True))
    return Measured(name, tuple(paths[i] for i in kept), values, tuple(skipped))


def _content(path: Path) -> str:
    try:
        return cache.content_hash(path)
    except OSError:  # unreadable: it will be listed
        return str(path)


def _measure_file(job: tuple[Path, bool]) -> list[float] | str:
    """Its features, or what is wrong with the file."""
    path, equalised = job
    try:
        image = image_files.load_image(path)
    except (image_files.ImageError, OSError) as error:
        return str(error)
    return features.measure_one(features.equalise(image) if equalised else image)


def compare_features(a: Measured, b: Measured, seed: int = 0, rounds: int = 2000) -> list[Row]:
    """Rows of `stats.compare` with 'label', 'unit', 'group', and `stats.halves` of each set, 'a_a' and 'b_b'."""
    rows = stats.compare(a.values, b.values, seed, rounds)
    a_a, b_b = (stats.halves(side.values, seed) for side in (a, b))
    for row, one in zip(rows, features.FEATURES, strict=True):
        row |= {"label": one.label, "unit": one.unit, "group": one.group, "a_a": a_a[one.name], "b_b": b_b[one.name]}
    return rows


def compare(a: Measured, b: Measured, seed: int = 0, rounds: int = 2000) -> dict[str, list[Row]]:
    """Everything that says whether two sets differ.

    'features': rows of `compare_features`; 'overall': rows of `compare_overall`.
    """
    return {"features": compare_features(a, b, seed, rounds), "overall": compare_overall(a, b, seed)}


def compare_overall(a: Measured, b: Measured, seed: int = 0) -> list[Row]:
    """Rows of `stats.overall` on the features of rain, not of the camera."""
    x, y = (np.stack(list(side.about_rain().values()), axis=1) for side in (a, b))
    return stats.overall(x, y, [features.BY_NAME[name].label for name in a.about_rain()], seed)


def deep_features(paths: Sequence[Path], teacher: Path, name: str = "") -> np.ndarray:
    """What a recognition teacher sees in each file (n, channels): its coarsest features, averaged over the picture."""
    import torch

    from ttlkit.method import networks, weights

    model = weights.load_weights(teacher)
    if not isinstance(model, networks.Recogniser):
        raise GapError(f"{teacher}: holds a {type(model).__name__}; give the teacher of the task recognition")
    model.to(machine.device())
    place = model.backbone.channels.index(max(model.backbone.channels))
    rows = []
    for path in tqdm(paths, f"recognition {name}".strip(), **BAR):
        image = features.equalise(image_files.load_image(path))
        with torch.inference_mode():
            tensor = networks.pad_to_multiple(tensors.to_tensor(image), networks.UNet.multiple).to(machine.device())
            rows.append(model.backbone(tensor)[place].float().mean((0, 2, 3)).cpu().numpy())
    return np.array(rows, np.float64)


def compare_deep(x: np.ndarray, y: np.ndarray, seed: int = 0) -> list[Row]:
    """`stats.overall` on the main directions (at most 16) of what the teacher sees in two sets, (n, channels) each."""
    return stats.overall(x, y, None, seed)


def against_truth(rainy: Sequence[np.ndarray], streaks: Sequence[np.ndarray]) -> list[Row]:
    """How well single-image estimates of streaks agree with the streaks themselves, one row a feature of streaks.

    rainy: images (H, W, 3) in [0, 1]; streaks: what rain has added to each, (H, W) or (H, W, 3), measured as a picture.
    Rows {"feature", "truth", "estimate": medians, "bias": mean of estimate - truth, "correlation": Pearson, "n"}.
    """
    if len(rainy) != len(streaks) or len(rainy) < 3:
        raise GapError(f"{len(rainy)} rainy images and {len(streaks)} streak layers: give as many, and at least 3")
    layers = [np.clip(s if s.ndim == 3 else np.repeat(s[..., None], 3, axis=2), 0, 1) for s in streaks]
    seen, known = (
        pd.DataFrame(
            [{n: features.BY_NAME[n].measure(one) for n in OF_STREAKS} for one in map(features.prepare, images)]
        )
        for images in (rainy, layers)
    )
    with np.errstate(invalid="ignore"):  # of a constant
        correlation = seen.corrwith(known).fillna(0)
    table = pd.DataFrame({"truth": known.median(), "estimate": seen.median(), "bias": (seen - known).mean()})
    table = table.assign(correlation=correlation, n=len(rainy)).rename({f.name: f.label for f in features.FEATURES})
    return table.rename_axis("feature").reset_index().to_dict("records")


def as_table(rows: Sequence[Row]) -> list[Row]:
    """Rows of `compare` with the intervals as text, the largest distance first."""
    return [
        {
            **row,
            "distance": f"{row['wasserstein']:.2f} [{row['wasserstein_low']:.2f}, {row['wasserstein_high']:.2f}]",
            "delta": f"{row['cliffs_delta']:+.2f} [{row['cliffs_delta_low']:+.2f}, {row['cliffs_delta_high']:+.2f}]",
            "p_holm": f"{row['p_holm']:.4f}" if row["p_holm"] >= 5e-4 else "< 0.0005",
        }
        for row in sorted(rows, key=lambda row: -row["wasserstein"])
    ]


def for_json(rows: Sequence[Row]) -> list[Row]:
    """Rows with None for NaN, which JSON does not know."""
    return [{key: None if value != value else value for key, value in row.items()} for row in rows]


def verdict(rows: Sequence[Row], a: str, b: str) -> str:
    """One sentence on rows of `compare_features`: how many features of rain differ, which most, and by how many sigma.

    A feature differs where p_holm < 0.05 and its distance is above the null and those of the halves of either set.
    """
    table = pd.DataFrame(rows).sort_values("wasserstein", ascending=False)
    camera, differs = table["group"] == "camera", table["p_holm"] < 0.05
    apart = differs & (table["wasserstein"] > table[["null", "a_a", "b_b"]].max(axis=1))
    beyond, of_files = table[~camera & apart], table["label"][camera & differs]
    text = f"{a} and {b} differ in {len(beyond)} of {sum(~camera)} features of rain"
    if len(beyond):
        most = zip(beyond["label"][:3], beyond["wasserstein"][:3], strict=True)
        text += f", most in {', '.join(f'{label} ({far:.1f} σ)' for label, far in most)}"
    if len(of_files):
        text += f"; the files differ too, in {', '.join(of_files)}, which has nothing to do with rain"
    return text


def follows(numbers: np.ndarray) -> str:
    """Whether numbers (seeds, values of a knob) rise or fall with every step for every seed; '–' where they do not."""
    steps = np.diff(numbers, axis=1)
    return "rises" if (steps > 0).all() else "falls" if (steps < 0).all() else "–"


def typical(side: Measured, feature: features.Feature) -> np.ndarray:
    """The image of a set whose value is the median, as loaded."""
    order = np.argsort(side.values[feature.name], kind="stable")
    return image_files.load_image(side.paths[order[len(order) // 2]])
