"""Figures of the gap: what features see, how far sets are apart, what follows when rain is turned."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.ndimage import maximum_filter

from ttlkit.data import image_files
from ttlkit.gap import features
from ttlkit.lesson.figures import BLACK, BLUE, GREY, MARKERS, VERMILLION, colours, finite_number, new_figure

MAPS = {  # of `Prepared`: what the colour of a map stands for
    "crests": "height over the ground [luma]",
    "heights": "height over the ground [luma]",
    "edges": "size of the gradient\n[luma / px]",
    "saturation": "(max − min) / max\nof R, G, B",
    "darkest": "darkest channel\nwithin 15 × 15 px",
    "detail": "standard deviation within\n15 × 15 px [luma]",
    "spectrum": "log(1 + power / mean);\nmiddle: frequency 0",
}


def _panel(width: float, height: float, grid: Literal["both", "x", "y"] = "both", title: str | None = None, **labels):
    """A figure of one axes with a grid, and the axes; `labels`: properties of the axes."""
    figure = new_figure(width, height, title)
    ax = figure.subplots()
    ax.set(**labels)
    ax.grid(axis=grid, alpha=0.3)
    return figure, ax


def _short(name: str) -> str:
    """No room would be left beside a name of 250 letters."""
    return name if len(name) < 40 else f"{name[:20]} … {name[-18:]}"


def plot_distributions(values: dict[str, np.ndarray], label: str, unit: str = "") -> Figure:
    """One feature over several image sets: violin, points (at most 300), median; n in the tick labels."""
    figure, ax = _panel(1.2 + 1.7 * max(1, len(values)), 3.6, "y", ylabel=f"{label} ({unit})" if unit else label)
    rng = np.random.default_rng(0)  # only the sideways spread of the points
    ticks = []
    for x, (name, colour) in enumerate(colours(values).items()):
        data = np.asarray(values[name], dtype=float).ravel()
        data = data[np.isfinite(data)]
        ticks.append(f"{_short(name)}\nn = {len(data)}")
        if not len(data):
            continue
        if len(data) >= 5 and np.ptp(data) > 1e-9 * np.abs(data).max():
            drawn = ax.violinplot([data], positions=[x], widths=0.8, showextrema=False)
            drawn["bodies"][0].set(facecolor=colour, alpha=0.3)
        shown = rng.permutation(data)[:300]
        ax.scatter(x + rng.uniform(-0.12, 0.12, len(shown)), shown, s=8, color=colour, alpha=0.6, linewidths=0)
        middle = float(np.median(data))
        ax.hlines(middle, x - 0.3, x + 0.3, color=BLACK, linewidth=2)
        ax.annotate(f"{middle:.3g}", (x + 0.3, middle), xytext=(2, 3), textcoords="offset points", fontsize=9)
    ax.set_xticks(range(len(ticks)), ticks)
    return figure


def plot_feature(pictures: Mapping[str, np.ndarray], *seen: features.Feature) -> Figure:
    """What features that share a map see: each picture (H, W, 3) by its name, that map beside it, and the numbers.

    All maps have one colour scale, whose bar says what it measures, and in which unit.
    """
    prepared = [features.prepare(image_files.to_float(p) if p.dtype == np.uint8 else p) for p in pictures.values()]
    maps = [getattr(one, seen[0].shown) for one in prepared]
    top = max((float(np.quantile(m, 0.995)) for m in maps), default=0) or 1.0
    tall = max(one.image.shape[0] / one.image.shape[1] for one in prepared)
    figure = new_figure(5 * len(pictures) + 0.9, 2.4 * tall + 0.8, None)
    axes = figure.subplots(1, 2 * len(pictures), squeeze=False)[0]
    for name, one, shown, picture, drawn in zip(pictures, prepared, maps, axes[::2], axes[1::2], strict=True):
        picture.imshow(image_files.to_u8(one.image))
        picture.set_title(_short(name), fontsize=10)
        if np.mean(shown > 0) < 0.2:  # single lines of pixels would vanish when the map is drawn smaller
            shown = maximum_filter(shown, 4)
        coloured = drawn.imshow(shown, cmap="magma", vmin=0, vmax=top)
        drawn.set_title("\n".join(f"{f.label}: {f.measure(one):.3g} {f.unit.strip('1')}" for f in seen), fontsize=10)
    figure.colorbar(coloured, ax=list(axes), label=MAPS[seen[0].shown], aspect=12, extend="max")
    for ax in axes:
        ax.set(xticks=[], yticks=[])
    return figure


def plot_knobs(
    curves: Mapping[str, tuple[str, Sequence[float], Mapping[str, np.ndarray]]], title: str | None = None
) -> Figure:
    """How numbers follow what is turned: {knob: (unit, its values, {feature: its change (seeds, values)})}.

    A panel for each knob, all on one scale, so that a small change looks small: the change from the knob's first value,
    in standard deviations of the feature over photographs. Lines are means over seeds, shades their whole range.
    """
    names = list(dict.fromkeys(name for _, _, found in curves.values() for name in found))
    figure = new_figure(3 * len(curves) + 2.6, 3.6, title)
    axes = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
    for ax, (knob, (unit, values, found)) in zip(axes, curves.items(), strict=True):
        ax.axhspan(-1, 1, color=GREY, alpha=0.12, label="as photographs differ: ±1 σ")
        for (name, colour), marker in zip(colours(names).items(), itertools.cycle(MARKERS)):
            ax.plot(values, found[name].mean(0), f"{marker}-", color=colour, markersize=5, label=name)
            ax.fill_between(values, found[name].min(0), found[name].max(0), color=colour, alpha=0.2, linewidth=0)
        ax.set(xlabel=f"{knob} [{unit}]", xscale="log" if min(values) > 0 else "linear")
        ax.set_xticks(list(values), [f"{value:.3g}" for value in values])
        ax.minorticks_off()
        ax.tick_params(labelsize=9)
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("change [σ]")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=9)
    return figure


def plot_relation(points: Sequence[dict], x: str, y: str, labels: tuple[str, str], title: str | None = None) -> Figure:
    """A scatter of rows {x, y, "model", "set"}: a colour a model; above the highest of a set its name."""
    figure, ax = _panel(7.2, 4.2, title=title, xlabel=labels[0], ylabel=labels[1])
    table = pd.DataFrame(points)
    for (model, colour), marker in zip(colours(table["model"]).items(), itertools.cycle(MARKERS)):
        own = table[table["model"] == model]
        ax.scatter(own[x], own[y], color=colour, marker=marker, label=model)
    for name, own in table.groupby("set"):  # all models have a set at one place
        place = own[x].iloc[0], own[y].max()
        ax.annotate(name, place, xytext=(0, 7), textcoords="offset points", fontsize=8, ha="center")
    ax.axhline(0, color=GREY, linestyle="--")
    ax.margins(0.1)
    figure.legend(loc="outside right center", fontsize=9)
    return figure


def plot_distances(rows: Sequence[dict], title: str | None = None) -> Figure:
    """Wasserstein distance per feature as bars, largest on top; a line marks the null (stats.compare)."""
    keys = ["wasserstein", "null", "cliffs_delta", "p_value"]
    numbers = pd.DataFrame([[finite_number(row.get(key)) for key in keys] for row in rows], columns=keys)
    numbers = numbers.assign(label=[row.get("label") or row["feature"] for row in rows]).sort_values("wasserstein")
    ends = numbers[["wasserstein", "null"]].max(axis=1).clip(lower=0).fillna(0)  # where a bar and its line end
    reach = max(ends, default=0) or 1
    figure, ax = _panel(8, 1.2 + 0.42 * max(1, len(rows)), "x", title, xlim=(0, reach * 1.4))
    ax.set_xlabel("Wasserstein distance / standard deviation within the sets")
    ax.barh(range(len(rows)), numbers["wasserstein"], tick_label=numbers["label"], color=BLUE, height=0.6)
    for y, (row, end) in enumerate(zip(numbers.itertuples(), ends, strict=True)):
        if np.isfinite(row.null):
            line = ax.vlines(row.null, y - 0.42, y + 0.42, color=VERMILLION, linewidth=2.5)
            line.set_label("null: 95 % of random splits stay below" if len(ax.collections) == 1 else None)
        p = "p < 0.001" if row.p_value < 0.001 else f"p = {row.p_value:.3f}"
        ax.text(end + 0.02 * reach, y, f"δ = {row.cliffs_delta:+.2f}, {p}", va="center", fontsize=8.5)
    if ax.collections:
        figure.legend(loc="outside lower right", fontsize=9)
    return figure
