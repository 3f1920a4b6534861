"""Figures of the gap: what features see, how far sets are apart, what follows when rain is turned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from ttlkit.data import image_files
from ttlkit.gap import features
from ttlkit.lesson.figures import BLACK, BLUE, GREY, MARKERS, VERMILLION, colours, finite_number, new_figure


def plot_distributions(values: dict[str, np.ndarray], label: str, unit: str = "") -> Figure:
    """One feature over several image sets: violin, points (at most 300), median; n in the tick labels."""
    figure = new_figure(1.2 + 1.7 * max(1, len(values)), 3.6, None)
    ax = figure.subplots()
    rng = np.random.default_rng(0)  # only the sideways spread of the points
    ticks = []
    for x, (name, colour) in enumerate(colours(values).items()):
        data = np.asarray(values[name], dtype=float).ravel()
        data = data[np.isfinite(data)]
        ticks.append(f"{name}\nn = {len(data)}")
        if not len(data):
            continue
        if len(data) >= 5 and np.ptp(data) > 1e-9 * np.abs(data).max():
            body = ax.violinplot([data], positions=[x], widths=0.8, showextrema=False)["bodies"][0]  # type: ignore[index]
            body.set(facecolor=colour, alpha=0.3)
        shown = rng.choice(data, 300, replace=False) if len(data) > 300 else data
        spread = x + rng.uniform(-0.12, 0.12, len(shown))
        ax.scatter(spread, shown, s=8, color=colour, alpha=0.6, linewidths=0)
        middle = float(np.median(data))
        ax.hlines(middle, x - 0.3, x + 0.3, color=BLACK, linewidth=2)
        ax.annotate(f"{middle:.3g}", (x + 0.3, middle), xytext=(2, 3), textcoords="offset points", fontsize=9)
    ax.set_xticks(range(len(ticks)), ticks)
    ax.set_ylabel(f"{label} ({unit})" if unit else label)
    ax.grid(axis="y", alpha=0.3)
    return figure


def plot_feature(feature: features.Feature, *pictures: np.ndarray) -> Figure:
    """What a feature sees: each image (H, W, 3), the map that the number is taken from, and the number."""
    from scipy.ndimage import maximum_filter

    prepared = [features.prepare(image_files.to_float(p) if p.dtype == np.uint8 else p) for p in pictures]
    maps = [feature.see(seen) for seen in prepared]
    top = max((float(np.quantile(m, 0.995)) for m in maps), default=0) or 1.0  # one scale, so that maps compare
    figure = new_figure(6.4 * len(pictures), 2.9, f"{feature.label} [{feature.unit}]")
    axes = figure.subplots(1, 2 * len(pictures), squeeze=False)[0]
    for i, (seen, shown) in enumerate(zip(prepared, maps, strict=True)):
        axes[2 * i].imshow(image_files.to_u8(seen.image))
        if np.mean(shown > 0) < 0.2:  # single lines of pixels would vanish when the map is drawn smaller
            shown = maximum_filter(shown, 4)
        axes[2 * i + 1].imshow(shown, cmap="magma", vmin=0, vmax=top, aspect="equal")
        axes[2 * i + 1].set_title(f"{feature.measure(seen):.3g}", fontsize=11)
    for ax in axes:
        ax.set(xticks=[], yticks=[])
    return figure


def plot_knobs(curves: dict[str, dict[str, tuple[Sequence[float], Sequence[float]]]]) -> Figure:
    """How numbers follow what is turned: {knob: {feature: (knob's values, feature's values)}}, a panel for each."""
    names = list(dict.fromkeys(name for found in curves.values() for name in found))
    figure = new_figure(2.9 * len(names) + 0.6, 2.1 * len(curves) + 0.4, None)
    axes = figure.subplots(len(curves), len(names), squeeze=False)
    for row, (knob, found) in zip(axes, curves.items(), strict=True):
        for ax, name in zip(row, names, strict=True):
            ax.plot(*found[name], "o-", color=BLUE, markersize=4)
            ax.grid(alpha=0.3)
            ax.set_xlabel(knob, fontsize=9)
    for ax, name in zip(axes[0], names, strict=True):
        ax.set_title(name, fontsize=10)
    return figure


def plot_relation(points: Sequence[dict], x: str, y: str, labels: tuple[str, str], title: str | None = None) -> Figure:
    """A scatter of rows {x, y, "model", "set"}: a colour a model; above the highest of a set its name."""
    figure = new_figure(7.2, 4.2, title)
    ax = figure.subplots()
    for place, (model, colour) in enumerate(colours(row["model"] for row in points).items()):
        own = [row for row in points if row["model"] == model]
        marker = MARKERS[place % len(MARKERS)]
        ax.scatter([r[x] for r in own], [r[y] for r in own], color=colour, marker=marker, label=model)
    for name, place in {row["set"]: row[x] for row in points}.items():  # all models have a set at one place
        top = max(row[y] for row in points if row["set"] == name)
        ax.annotate(name, (place, top), xytext=(0, 7), textcoords="offset points", fontsize=8, ha="center")
    ax.axhline(0, color=GREY, linestyle="--")
    ax.margins(0.1)
    ax.set(xlabel=labels[0], ylabel=labels[1])
    ax.grid(alpha=0.3)
    figure.legend(loc="outside right center", fontsize=9)
    return figure


def plot_distances(rows: Sequence[dict]) -> Figure:
    """Wasserstein distance per feature as bars, largest on top; a line marks the null (stats.compare)."""
    rows = sorted(rows, key=lambda row: finite_number(row["wasserstein"]))
    far, null = (np.array([finite_number(row.get(key)) for row in rows]) for key in ("wasserstein", "null"))
    ends = np.fmax(np.fmax(far, null), 0)  # where a bar and its line end; NaN does not count
    reach = max(ends, default=0) or 1
    figure = new_figure(8, 1.2 + 0.42 * max(1, len(rows)), None)
    ax = figure.subplots()
    ax.barh(range(len(rows)), far, color=BLUE, height=0.6)
    for y, row in enumerate(rows):
        if np.isfinite(null[y]):
            ax.vlines(null[y], y - 0.42, y + 0.42, color=VERMILLION, linewidth=2.5)
        p = finite_number(row.get("p_value"))
        note = f"δ = {finite_number(row.get('cliffs_delta')):+.2f}, {'p < 0.001' if p < 0.001 else f'p = {p:.3f}'}"
        ax.text(ends[y] + 0.02 * reach, y, note, va="center", fontsize=8.5)
    ax.set_yticks(range(len(rows)), [row.get("label") or row["feature"] for row in rows])
    ax.set(xlabel="Wasserstein distance / standard deviation within the sets", xlim=(0, reach * 1.4))
    ax.grid(axis="x", alpha=0.3)
    if ax.collections:
        figure.legend(
            ax.collections[:1], ["null: 95 % of random splits stay below"], loc="outside lower right", fontsize=9
        )
    return figure
