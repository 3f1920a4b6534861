"""Figures and tables: one look, the same colour for a model or a set everywhere."""

from __future__ import annotations

import html
import io
import math
import zlib
from collections.abc import Iterable, Sequence
from numbers import Integral, Real

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ttlkit import images as im

# Okabe and Ito's colours, safe for the colour-blind; their yellow is left out, it is too pale on white.
BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, BLACK, GREY = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#767676",
)  # fmt: skip
PALETTE = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, BLACK)
MARKERS = "osD^vPX"
UNTOUCHED = ("input", "untouched input")  # names of the rainy image as it is
FIXED = {
    "real rainy": VERMILLION, "simulated rainy": VERMILLION, "synthetic rainy": BLUE,
    "clean": GREEN, "real clean": GREEN, "synthetic clean": SKY, "student": BLUE, "scratch": ORANGE, "prenet": PURPLE,
    **dict.fromkeys(UNTOUCHED, GREY),
}  # fmt: skip


class Picture(Figure):
    """A Figure that a notebook shows as PNG although pyplot does not know it (so it never shows twice)."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", facecolor="white")
        return buffer.getvalue()


def _figure(width: float, height: float, title: str | None) -> Picture:
    figure = Picture(figsize=(width, height), dpi=110, layout="constrained")
    if title:
        figure.suptitle(title, fontsize=12)
    return figure


def colours(names: Iterable[str]) -> dict[str, str]:
    """A colour for each name: fixed for known words, else by a hash of the name, distinct within one call."""
    names = list(dict.fromkeys(names))
    chosen = {n: FIXED[n.lower().replace("_", " ")] for n in names if n.lower().replace("_", " ") in FIXED}
    for name in names:
        if name not in chosen:
            start = zlib.crc32(name.encode()) % len(PALETTE)
            wheel = PALETTE[start:] + PALETTE[:start]
            chosen[name] = next((c for c in wheel if c not in chosen.values()), wheel[0])
    return chosen


def finite_number(value) -> float:
    """A float, NaN for what is missing or no number (JSON null, text)."""
    return float(value) if isinstance(value, Real) else math.nan


def plot_images(
    images: Sequence[Sequence],
    columns: Sequence[str],
    rows: Sequence[str] | None = None,
    title: str | None = None,
    zoom: tuple[float, float, float, float] | None = None,
) -> Figure:
    """A grid of pictures, one inner list a row.

    A cell is an array (H, W, 3) or (H, W), float in [0, 1] or uint8, or (array, caption), or None (blank).
    `zoom` = (top, left, height, width), fractions of the picture in [0, 1]: a box repeated enlarged as inset.
    """
    pairs = [[cell if isinstance(cell, tuple) else (cell, "") for cell in row] for row in images]
    if any(len(row) != len(columns) for row in pairs) or (rows is not None and len(rows) != len(pairs)):
        raise ValueError(f"{len(columns)} column names or {len(rows or pairs)} row names do not fit the grid")
    ratios = [max((p.shape[0] / p.shape[1] for p, _ in row if p is not None), default=1.0) for row in pairs]
    side = min(3.2, 13 / max(1, len(columns)))
    figure = _figure(side * len(columns) + 0.3, side * sum(ratios) + 0.35 * len(pairs) + 0.4, title)
    axes = figure.subplots(len(pairs), len(columns), squeeze=False, gridspec_kw={"height_ratios": ratios})
    for r, row in enumerate(pairs):
        for c, (picture, caption) in enumerate(row):
            ax = axes[r, c]
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            if r == 0:
                ax.set_title(columns[c], fontsize=11)
            if c == 0 and rows is not None:
                ax.set_ylabel(rows[r], fontsize=11)
            if caption:
                ax.set_xlabel(caption, fontsize=9)
            if picture is not None:
                _draw_picture(ax, im.to_u8(picture), zoom)
    return figure


def _draw_picture(ax, picture_u8: np.ndarray, zoom) -> None:
    grey = {"cmap": "gray", "vmin": 0, "vmax": 255} if picture_u8.ndim == 2 else {}
    ax.imshow(picture_u8, **grey)
    if zoom is None:
        return
    height, width = picture_u8.shape[:2]
    top, left, box_height, box_width = zoom
    y, x = round(top * height), round(left * width)
    crop = picture_u8[y : y + max(1, round(box_height * height)), x : x + max(1, round(box_width * width))]
    # The inset sits in the corner away from the box, so that it does not hide what it enlarges.
    corner = (0.0 if left + box_width / 2 > 0.5 else 0.55, 0.55 if top + box_height / 2 > 0.5 else 0.0)
    inset = ax.inset_axes((*corner, 0.45, 0.45))
    inset.imshow(crop, interpolation="nearest", **grey)
    inset.set(xticks=[], yticks=[])
    inset.spines[:].set(color=ORANGE, linewidth=2)
    ax.add_patch(Rectangle((x - 0.5, y - 0.5), crop.shape[1], crop.shape[0], fill=False, ec=ORANGE, lw=1.5))


def _curve(rows: Sequence[dict], key: str) -> tuple[np.ndarray, np.ndarray]:
    """(steps, values), finite, by step; of two rows for one step (a resumed run) the later counts."""
    points = {row["step"]: finite_number(row.get(key)) for row in rows if math.isfinite(finite_number(row.get(key)))}
    steps = np.array(sorted(points), dtype=float)
    return steps, np.array([points[s] for s in sorted(points)], dtype=float)


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Centred running mean of (N,) over `window` points, at the ends over those that exist."""
    ones = np.ones(min(window, len(values)))
    return np.convolve(values, ones, "same") / np.convolve(np.ones(len(values)), ones, "same")


def plot_history(rows: Sequence[dict], keys: Sequence[str], title: str | None = None) -> Figure:
    """Curves from metrics.jsonl rows ({"step": ..., key: ...}): an axes a key, running mean over raw."""
    figure = _figure(4.2 * max(1, len(keys)), 3.2, title)
    axes = figure.subplots(1, len(keys), squeeze=False)[0]
    for place, (ax, key) in enumerate(zip(axes, keys, strict=True)):
        steps, values = _curve(rows, key)
        colour, window = PALETTE[place % len(PALETTE)], len(values) // 20
        ax.set(xlabel="step", ylabel=key.replace("_", " "))
        ax.grid(alpha=0.3)
        if not len(values):
            ax.text(0.5, 0.5, "no values yet", ha="center", transform=ax.transAxes)
        elif window < 2:
            ax.plot(steps, values, color=colour, marker="o", markersize=3)
        else:
            ax.plot(steps, values, color=colour, alpha=0.3, linewidth=0.8, label="each row")
            ax.plot(steps, smooth(values, window), color=colour, linewidth=2, label=f"mean of {window} rows")
            ax.legend(fontsize=8)
    return figure


def plot_distributions(values: dict[str, np.ndarray], label: str, unit: str = "") -> Figure:
    """One feature over several image sets: violin, points (at most 300), median; n in the tick labels."""
    figure = _figure(1.2 + 1.7 * max(1, len(values)), 3.6, None)
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


def plot_scores(rows: Sequence[dict], metric: str, title: str | None = None) -> Figure:
    """Mean and confidence interval of each model on each test set; the untouched input as a line per set.

    Rows: {"model", "set", metric, f"{metric}_low", f"{metric}_high"}; the untouched input is a model named
    as in UNTOUCHED. Missing or non-finite values are left out.
    """
    sets = list(dict.fromkeys(row["set"] for row in rows))
    tint = colours(row["model"] for row in rows)
    models = [m for m in tint if m.lower().replace("_", " ") not in UNTOUCHED]
    figure = _figure(2.5 + max(2.5, len(sets) * (0.8 + 0.3 * len(models))), 3.8, title)
    ax = figure.subplots()
    labelled: set[str] = set()
    for row in rows:
        x, value, model = sets.index(row["set"]), finite_number(row.get(metric)), row["model"]
        if not math.isfinite(value):
            continue
        name = "" if model in labelled else model  # one legend entry a model
        labelled.add(model)
        if model not in models:
            ax.hlines(value, x - 0.42, x + 0.42, color=GREY, linestyle="--", label=name)
            continue
        place = models.index(model)
        x_model = x + (place - (len(models) - 1) / 2) * 0.7 / max(1, len(models))
        low, high = finite_number(row.get(f"{metric}_low")), finite_number(row.get(f"{metric}_high"))
        if math.isfinite(low) and math.isfinite(high):
            ax.vlines(x_model, low, high, color=tint[model], linewidth=2)
        ax.plot(x_model, value, MARKERS[place % len(MARKERS)], color=tint[model], markersize=7, label=name)
    ax.set_xticks(range(len(sets)), [s.replace("_", " ") for s in sets])
    ax.set_xlim(-0.6, len(sets) - 0.4)
    ax.set_ylabel(metric.replace("_", " "))
    ax.grid(axis="y", alpha=0.3)
    if labelled:
        figure.legend(loc="outside right center", fontsize=9)
    return figure


def plot_ablation(rows: Sequence[dict], label: str, title: str | None = None) -> Figure:
    """Mean over the number of pairs, a line a model, with the spread over seeds; one panel a set.

    Rows: {"set", "n_pairs", "model", "mean", "spread"}. The untouched input is dashed.
    """
    sets = list(dict.fromkeys(row["set"] for row in rows))
    tint = colours(row["model"] for row in rows)
    figure = _figure(3.1 * len(sets) + 1.2, 3.4, title)
    panels = figure.subplots(1, len(sets), squeeze=False)[0]
    for ax, name in zip(panels, sets, strict=True):
        for place, model in enumerate(tint):
            own = sorted((r for r in rows if (r["set"], r["model"]) == (name, model)), key=lambda r: r["n_pairs"])
            style = "--" if model.lower() in UNTOUCHED else f"-{MARKERS[place % len(MARKERS)]}"
            x, mean, spread = ([r[key] for r in own] for key in ("n_pairs", "mean", "spread"))
            ax.errorbar(x, mean, [s or 0 for s in spread], fmt=style, color=tint[model], capsize=3, label=model)
        ax.set_xscale("log")
        ticks = sorted({row["n_pairs"] for row in rows})
        ax.set_xticks(ticks, [str(n) for n in ticks])
        ax.minorticks_off()
        ax.set(title=name, xlabel="synthetic pairs")
        ax.grid(alpha=0.3)
    panels[0].set_ylabel(label)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", fontsize=9)
    return figure


def plot_feature(feature, *pictures: np.ndarray) -> Figure:
    """What a feature sees: each image (H, W, 3), the map that the number is taken from, and the number."""
    from scipy.ndimage import maximum_filter

    from ttlkit import features

    prepared = [features.prepare(im.to_float(p) if p.dtype == np.uint8 else p) for p in pictures]
    maps = [feature.see(seen) for seen in prepared]
    top = max((float(np.quantile(m, 0.995)) for m in maps), default=0) or 1.0  # one scale, so that maps compare
    figure = _figure(6.4 * len(pictures), 2.9, f"{feature.label} [{feature.unit}]")
    axes = figure.subplots(1, 2 * len(pictures), squeeze=False)[0]
    for i, (seen, shown) in enumerate(zip(prepared, maps, strict=True)):
        axes[2 * i].imshow(im.to_u8(seen.image))
        if np.mean(shown > 0) < 0.2:  # single lines of pixels would vanish when the map is drawn smaller
            shown = maximum_filter(shown, 4)
        axes[2 * i + 1].imshow(shown, cmap="magma", vmin=0, vmax=top, aspect="equal")
        axes[2 * i + 1].set_title(f"{feature.measure(seen):.3g}", fontsize=11)
    for ax in axes:
        ax.set(xticks=[], yticks=[])
    return figure


def plot_knobs(curves: dict[str, dict[str, tuple[Sequence[float], Sequence[float]]]]) -> Figure:
    """How numbers follow what is turned: {knob: {feature: (knob's values, feature's values)}}, a panel for each."""
    knobs, names = list(curves), list(dict.fromkeys(name for found in curves.values() for name in found))
    figure = _figure(2.9 * len(names) + 0.6, 2.1 * len(knobs) + 0.4, None)
    axes = figure.subplots(len(knobs), len(names), squeeze=False)
    for r, knob in enumerate(knobs):
        for c, name in enumerate(names):
            axes[r, c].plot(*curves[knob][name], "o-", color=BLUE, markersize=4)
            axes[r, c].grid(alpha=0.3)
            axes[r, c].set_xlabel(knob, fontsize=9)
            if r == 0:
                axes[r, c].set_title(name, fontsize=10)
    return figure


def plot_relation(points: Sequence[dict], x: str, y: str, labels: tuple[str, str], title: str | None = None) -> Figure:
    """A scatter of rows {x, y, "model", "set"}: a colour a model; above the highest of a set its name."""
    figure = _figure(7.2, 4.2, title)
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
    figure = _figure(8, 1.2 + 0.42 * max(1, len(rows)), None)
    ax = figure.subplots()
    ax.barh(range(len(rows)), [finite_number(r["wasserstein"]) for r in rows], color=BLUE, height=0.6)
    ends = [
        v for r in rows for v in (finite_number(r["wasserstein"]), finite_number(r.get("null"))) if math.isfinite(v)
    ]
    reach = max(ends, default=0) or 1
    for y, row in enumerate(rows):
        null, p = finite_number(row.get("null")), finite_number(row.get("p_value"))
        if math.isfinite(null):
            label = "" if ax.get_legend_handles_labels()[0] else "null: 95 % of random splits stay below"
            ax.vlines(null, y - 0.42, y + 0.42, color=VERMILLION, linewidth=2.5, label=label)
        end = max(v for v in (finite_number(row["wasserstein"]), null, 0) if math.isfinite(v))
        chance = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
        note = f"δ = {finite_number(row.get('cliffs_delta')):+.2f}, {chance}"
        ax.text(end + 0.02 * reach, y, note, va="center", fontsize=8.5)
    ax.set_yticks(range(len(rows)), [row.get("label") or row["feature"] for row in rows])
    ax.set(xlabel="Wasserstein distance / standard deviation within the sets", xlim=(0, reach * 1.4))
    ax.grid(axis="x", alpha=0.3)
    if ax.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower right", fontsize=9)
    return figure


def _cell(value, digits: int) -> str:
    if value is None or (isinstance(value, Real) and not math.isfinite(value)):
        return "–"
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, Real) and not isinstance(value, Integral):
        return f"{float(value):.{digits}f}"
    return str(value)


class Table:
    """Rows (dicts) as a table; `columns` maps key to heading, None takes every key; shown by a notebook."""

    def __init__(self, rows: Sequence[dict], columns: dict[str, str] | None = None, digits: int = 2):
        columns = columns or {key: key for row in rows for key in row}
        self.head = list(columns.values())
        self.body = [[_cell(row.get(key), digits) for key in columns] for row in rows]
        self.right = [bool(rows) and all(_is_number(row.get(k)) for row in rows) for k in columns]

    def _repr_markdown_(self) -> str:
        lines = [self.head, ["---:" if r else "---" for r in self.right], *self.body]
        clean = [[_markdown_cell(c) for c in line] if i != 1 else line for i, line in enumerate(lines)]
        return "\n".join("| " + " | ".join(line) + " |" for line in clean)

    def _repr_html_(self) -> str:
        def line(tag: str, cells: list[str]) -> str:
            styled = zip(cells, ["right" if r else "left" for r in self.right], strict=True)
            return "".join(f'<{tag} style="text-align:{s}">{html.escape(c)}</{tag}>' for c, s in styled)

        body = "".join(f"<tr>{line('td', cells)}</tr>" for cells in self.body)
        return f"<table><thead><tr>{line('th', self.head)}</tr></thead><tbody>{body}</tbody></table>"


def _is_number(value) -> bool:
    return value is None or (isinstance(value, Real) and not isinstance(value, (bool, np.bool_)))


def _markdown_cell(text: str) -> str:
    """Text that is safe in a Markdown table: no cell border, no tag, no formula, one line."""
    return html.escape(" ".join(text.split()), quote=False).replace("|", "&#124;").replace("$", "&#36;")


def table(rows: Sequence[dict], columns: dict[str, str] | None = None, digits: int = 2) -> Table:
    """A table for display in a notebook: HTML and Markdown."""
    return Table(rows, columns, digits)


def markdown_table(rows: Sequence[dict], columns: dict[str, str] | None = None, digits: int = 2) -> str:
    """A Markdown table; floats with `digits` decimals, missing and non-finite values as a dash."""
    return Table(rows, columns, digits)._repr_markdown_()
