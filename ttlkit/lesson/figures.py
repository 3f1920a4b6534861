"""Figures and tables: one look, the same colour for a model or a set everywhere."""

from __future__ import annotations

import html
import io
import math
import zlib
from collections.abc import Iterable, Sequence
from numbers import Integral, Real

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from ttlkit.data import image_files

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
    """A Figure that a notebook shows as PNG although pyplot does not know it (so it never shows twice).

    Its texts are drawn as written: a set called `rain_$\\foo$` is a name, not a formula.
    """

    def draw(self, renderer) -> None:
        for text in self.findobj(Text):
            text.set_parse_math(False)
        super().draw(renderer)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", facecolor="white")
        return buffer.getvalue()


def new_figure(width: float, height: float, title: str | None) -> Picture:
    figure = Picture(figsize=(width, height), dpi=110, layout="constrained")
    if title:
        figure.suptitle(title, fontsize=12)
    return figure


def _plain(name: str) -> str:
    return name.lower().replace("_", " ")


def colours(names: Iterable[str]) -> dict[str, str]:
    """A colour for each name: fixed for known words, else by a hash of the name, distinct within one call."""
    names = list(dict.fromkeys(names))
    chosen = {name: FIXED[_plain(name)] for name in names if _plain(name) in FIXED}
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
    figure = new_figure(side * len(columns) + 0.3, side * sum(ratios) + 0.35 * len(pairs) + 0.4, title)
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
                _draw_picture(ax, image_files.to_u8(picture), zoom)
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


def _curve(rows: Sequence[dict], key: str) -> pd.Series:
    """Finite values by step; of two rows for one step (a resumed run) the later counts."""
    points = {row["step"]: value for row in rows if math.isfinite(value := finite_number(row.get(key)))}
    return pd.Series(points, dtype=float).sort_index()


def plot_history(rows: Sequence[dict], keys: Sequence[str], title: str | None = None) -> Figure:
    """Curves from metrics.jsonl rows ({"step": ..., key: ...}): an axes a key, running mean over raw."""
    figure = new_figure(4.2 * max(1, len(keys)), 3.2, title)
    axes = figure.subplots(1, len(keys), squeeze=False)[0]
    for place, (ax, key) in enumerate(zip(axes, keys, strict=True)):
        values = _curve(rows, key)
        colour, window = PALETTE[place % len(PALETTE)], len(values) // 20
        ax.set(xlabel="step", ylabel=key.replace("_", " "))
        ax.grid(alpha=0.3)
        if values.empty:
            ax.text(0.5, 0.5, "no values yet", ha="center", transform=ax.transAxes)
        elif window < 2:
            ax.plot(values, color=colour, marker="o", markersize=3)
        else:
            ax.plot(values, color=colour, alpha=0.3, linewidth=0.8, label="each row")
            mean = values.rolling(window, center=True, min_periods=1).mean()
            ax.plot(mean, color=colour, linewidth=2, label=f"mean of {window} rows")
            ax.legend(fontsize=8)
    return figure


def plot_scores(rows: Sequence[dict], metric: str, title: str | None = None) -> Figure:
    """Mean and confidence interval of each model on each test set; the untouched input as a line per set.

    Rows: {"model", "set", metric, f"{metric}_low", f"{metric}_high"}; the untouched input is a model named
    as in UNTOUCHED. Missing or non-finite values are left out.
    """
    sets = list(dict.fromkeys(row["set"] for row in rows))
    tint = colours(row["model"] for row in rows)
    models = [model for model in tint if _plain(model) not in UNTOUCHED]
    figure = new_figure(2.5 + max(2.5, len(sets) * (0.8 + 0.3 * len(models))), 3.8, title)
    ax = figure.subplots()
    for model in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == model and math.isfinite(finite_number(row.get(metric)))]
        x = np.array([sets.index(row["set"]) for row in own], dtype=float)
        mean, low, high = ([finite_number(row.get(metric + end)) for row in own] for end in ("", "_low", "_high"))
        if model not in models:
            ax.hlines(mean, x - 0.42, x + 0.42, color=GREY, linestyle="--", label=model)
        else:
            place = models.index(model)
            x += (place - (len(models) - 1) / 2) * 0.7 / len(models)
            ax.vlines(x, low, high, color=tint[model], linewidth=2)
            ax.plot(x, mean, MARKERS[place % len(MARKERS)], color=tint[model], markersize=7, label=model)
    ax.set_xticks(range(len(sets)), [s.replace("_", " ") for s in sets])
    ax.set_xlim(-0.6, len(sets) - 0.4)
    ax.set_ylabel(metric.replace("_", " "))
    ax.grid(axis="y", alpha=0.3)
    if rows:
        figure.legend(loc="outside right center", fontsize=9)
    return figure


def plot_ablation(rows: Sequence[dict], label: str, title: str | None = None) -> Figure:
    """Mean over the number of pairs, a line a model, with the spread over seeds; one panel a set.

    Rows: {"set", "n_pairs", "model", "mean", "spread"}. The untouched input is dashed.
    """
    sets = list(dict.fromkeys(row["set"] for row in rows))
    tint = colours(row["model"] for row in rows)
    figure = new_figure(3.1 * len(sets) + 1.2, 3.4, title)
    panels = figure.subplots(1, len(sets), squeeze=False)[0]
    for ax, name in zip(panels, sets, strict=True):
        for place, model in enumerate(tint):
            own = sorted((r for r in rows if (r["set"], r["model"]) == (name, model)), key=lambda r: r["n_pairs"])
            style = "--" if _plain(model) in UNTOUCHED else f"-{MARKERS[place % len(MARKERS)]}"
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


def _cell(value, digits: int) -> str:
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if value is None or (isinstance(value, Real) and not math.isfinite(value)):
        return "–"
    if isinstance(value, Real) and not isinstance(value, Integral):
        return f"{float(value):.{digits}f}"
    return str(value)


def _is_number(value) -> bool:
    return value is None or (isinstance(value, Real) and not isinstance(value, bool))


def _markdown_cell(text: str) -> str:
    """Text that is safe in a Markdown table: no cell border, no tag, no formula, one line."""
    return html.escape(" ".join(text.split()), quote=False).replace("|", "&#124;").replace("$", "&#36;")


class Table:
    """Rows (dicts) as a table; `columns` maps key to heading, None takes every key; shown by a notebook."""

    def __init__(self, rows: Sequence[dict], columns: dict[str, str] | None = None, digits: int = 2):
        columns = columns or {key: key for row in rows for key in row}
        self.head = list(columns.values())
        self.body = [[_cell(row.get(key), digits) for key in columns] for row in rows]
        self.right = [bool(rows) and all(_is_number(row.get(key)) for row in rows) for key in columns]

    def _repr_markdown_(self) -> str:
        ruler = ["---:" if right else "---" for right in self.right]
        head, *body = ([_markdown_cell(cell) for cell in line] for line in (self.head, *self.body))
        return "\n".join(f"| {' | '.join(line)} |" for line in (head, ruler, *body))

    def _repr_html_(self) -> str:
        def line(tag: str, cells: list[str]) -> str:
            sides = zip(cells, ["right" if right else "left" for right in self.right], strict=True)
            inner = (f'<{tag} style="text-align:{side}">{html.escape(cell)}</{tag}>' for cell, side in sides)
            return f"<tr>{''.join(inner)}</tr>"

        body = "".join(line("td", cells) for cells in self.body)
        plain = 'class="tex2jax_ignore mathjax_ignore"'  # the dollars of a name are no formula for MathJax either
        return f"<table {plain}><thead>{line('th', self.head)}</thead><tbody>{body}</tbody></table>"


def table(rows: Sequence[dict], columns: dict[str, str] | None = None, digits: int = 2) -> Table:
    """A table for display in a notebook: HTML and Markdown."""
    return Table(rows, columns, digits)


def markdown_table(rows: Sequence[dict], columns: dict[str, str] | None = None, digits: int = 2) -> str:
    """A Markdown table; floats with `digits` decimals, missing and non-finite values as a dash."""
    return Table(rows, columns, digits)._repr_markdown_()
