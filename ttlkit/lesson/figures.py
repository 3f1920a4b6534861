"""Figures and tables: one look, the same colour for a model or a set everywhere."""

import base64
import html
import io
import math
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, cycle
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.text import Text
from scipy.ndimage import uniform_filter

from ttlkit.data import image_files

# Okabe and Ito's colours, safe for the colour-blind; their yellow is left out, it is too pale on white.
BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, BLACK, GREY = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#767676",
)  # fmt: skip
Best = Callable[[Iterable[float]], float] | None
PALETTE = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, BLACK)
MARKERS = "osD^vPX"
FIXED = {
    "real rainy": VERMILLION, "simulated rainy": VERMILLION, "synthetic rainy": BLUE,
    "clean": GREEN, "real clean": GREEN, "synthetic clean": SKY, "student": BLUE, "scratch": ORANGE, "prenet": PURPLE,
    "input": GREY, "untouched input": GREY,  # the rainy image as it is; nothing else is grey
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

    def _repr_mimebundle_(self, **_) -> tuple[dict, dict]:
        png = base64.b64encode(self._repr_png_()).decode()
        return {"image/png": png}, {"image/png": {"alt": describe(self)}}


def describe(figure: Figure) -> str:
    """What a figure shows, for who does not see it: its title, and what stands at its axes."""
    axes = [text for ax in figure.axes for text in (ax.get_title(), ax.get_ylabel(), ax.get_xlabel())]
    return "; ".join(" ".join(text.split()) for text in dict.fromkeys([figure.get_suptitle(), *axes]) if text)[:300]


def new_figure(width: float, height: float, title: str | None) -> Picture:
    figure = Picture(figsize=(width, height), dpi=110, layout="constrained")
    if title:
        figure.suptitle(title, fontsize=12, wrap=True)
    return figure


def panels(width: float, height: float, title: str | None = None, count: int = 1, grid: Any = "both", **look):
    """A figure of `count` axes in a row with grid lines, and these axes; `look`: properties of each."""
    figure = new_figure(width, height, title)
    axes = list(figure.subplots(1, count, squeeze=False)[0])
    for ax in axes:
        ax.set(**look)
        ax.grid(axis=grid, alpha=0.3)
    return figure, axes


def colours(names: Iterable[str]) -> dict[str, str]:
    """A colour for each name: fixed for known words, else by a hash of the name, distinct within one call."""
    chosen = {name: FIXED.get(name.lower().replace("_", " "), "") for name in names}
    for name in [name for name, colour in chosen.items() if not colour]:
        start = zlib.crc32(name.encode()) % len(PALETTE)
        wheel = PALETTE[start:] + PALETTE[:start]
        chosen[name] = next((colour for colour in wheel if colour not in chosen.values()), wheel[0])
    return chosen


def finite_number(value) -> float:
    """A float, NaN for what is missing or no number (JSON null, text)."""
    return float(value) if isinstance(value, Real) else math.nan


def plot_images(
    images: Sequence[Sequence], columns: Sequence[str], rows: Sequence[str] | None = None, title: str | None = None
) -> Figure:
    """A grid of pictures, one inner list a row.

    A cell is an array (H, W, 3) or (H, W), float in [0, 1] or uint8, or (array, caption), or None (blank).
    """
    pairs = [[cell if isinstance(cell, tuple) else (cell, "") for cell in row] for row in images]
    if {len(row) for row in pairs} != {len(columns)} or len(rows or pairs) != len(pairs):
        raise ValueError(f"{len(columns)} column names or {len(rows or pairs)} row names do not fit the grid")
    ratios = [max((p.shape[0] / p.shape[1] for p, _ in row if p is not None), default=1.0) for row in pairs]
    side = min(3.2, 13 / max(1, len(columns)))
    figure = new_figure(side * len(columns) + 0.3, side * sum(ratios) + 0.35 * len(pairs) + 0.4, title)
    axes = figure.subplots(len(pairs), len(columns), squeeze=False, gridspec_kw={"height_ratios": ratios})
    for ax, (picture, caption) in zip(axes.flat, chain.from_iterable(pairs), strict=True):
        ax.set(xticks=[], yticks=[])
        ax.set_xlabel(caption, fontsize=9)
        ax.spines[:].set_visible(False)
        if picture is not None:
            ax.imshow(image_files.to_u8(picture), cmap="gray", vmin=0, vmax=255)  # these count for grey alone
    for ax, name in zip(axes[0], columns, strict=True):
        ax.set_title(name, fontsize=11)
    for ax, name in zip(axes[:, 0], rows or [""] * len(pairs), strict=True):
        ax.set_ylabel(name, fontsize=11)
    return figure


def where_different(one: np.ndarray, other: np.ndarray, side: int = 96) -> tuple[slice, slice]:
    """The square of `side` pixels, as slices, in which two images (H, W, 3) differ most: where to look closely."""
    change = np.abs(image_files.to_float(one) - image_files.to_float(other)).mean(axis=2)
    sides = [min(side, n) for n in change.shape]
    sums = uniform_filter(change, sides, mode="constant")
    inside = sums[tuple(slice(n // 2, m - (n - 1) // 2) for n, m in zip(sides, change.shape, strict=True))]
    top, left = np.unravel_index(inside.argmax(), inside.shape)
    return slice(top, top + sides[0]), slice(left, left + sides[1])


def plot_history(rows: Sequence[dict], keys: Sequence[str], title: str | None = None) -> Figure:
    """Curves from metrics.jsonl rows ({"step": ..., key: ...}): an axes a key, running mean over raw.

    Of two rows for one step (a resumed run) the later counts; missing and non-finite values are left out.
    """
    figure, axes = panels(4.2 * max(1, len(keys)), 3.2, title, len(keys), xlabel="step")
    for ax, key, colour in zip(axes, keys, cycle(PALETTE), strict=False):
        points = {row["step"]: value for row in rows if math.isfinite(value := finite_number(row.get(key)))}
        values = pd.Series(points, dtype=float).sort_index()
        window = len(values) // 20
        ax.set_ylabel(key.replace("_", " "))
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


def plot_curves(
    histories: Mapping[str, Sequence[dict]], keys: Sequence[str], label: str = "loss", title: str | None = None
) -> Figure:
    """Several trainings in one axes: of each row the first of `keys` that it has, over the step; running means."""
    figure, (ax,) = panels(7, 3.4, title, xlabel="step", ylabel=label)
    for name, colour in colours(histories).items():
        own = {row["step"]: next((row[key] for key in keys if key in row), None) for row in histories[name]}
        values = pd.Series({step: finite_number(value) for step, value in own.items()}, dtype=float).sort_index()
        window = max(1, len(values) // 10)
        ax.plot(values, color=colour, alpha=0.25, linewidth=0.8)
        ax.plot(values.rolling(window, center=True, min_periods=1).mean(), color=colour, linewidth=2, label=name)
    ax.set_ylim(0, None)
    ax.legend(fontsize=9)
    return figure


def plot_scores(rows: Sequence[dict], metric: str, title: str | None = None) -> Figure:
    """Mean and confidence interval of each model on each test set; the untouched input as a line per set.

    Rows: {"model", "set", metric, f"{metric}_low", f"{metric}_high"}; the untouched input is a model that is
    grey in FIXED. Missing or non-finite values are left out.
    """
    sets = list(dict.fromkeys(row["set"] for row in rows))
    tint = colours(row["model"] for row in rows)
    models = [model for model, colour in tint.items() if colour != GREY]
    width = 2.5 + max(2.5, len(sets) * (0.8 + 0.3 * len(models)))
    figure, (ax,) = panels(width, 3.8, title, grid="y", ylabel=metric.replace("_", " "), xlim=(-0.6, len(sets) - 0.4))
    for model, colour in tint.items():
        own = [row for row in rows if row["model"] == model and math.isfinite(finite_number(row.get(metric)))]
        x = np.array([sets.index(row["set"]) for row in own], dtype=float)
        mean, low, high = ([finite_number(row.get(metric + end)) for row in own] for end in ("", "_low", "_high"))
        if model not in models:
            ax.hlines(mean, x - 0.42, x + 0.42, color=GREY, linestyle="--", label=model)
        else:
            place = models.index(model)
            x += (place - (len(models) - 1) / 2) * 0.7 / len(models)
            ax.vlines(x, low, high, color=colour, linewidth=2)
            ax.plot(x, mean, MARKERS[place % len(MARKERS)], color=colour, markersize=7, label=model)
    ax.set_xticks(range(len(sets)), [s.replace("_", " ") for s in sets])
    if rows:
        figure.legend(loc="outside right center", fontsize=9)
    return figure


def plot_ablation(rows: Sequence[dict], label: str, title: str | None = None) -> Figure:
    """Mean over the number of pairs, a line a model, with the spread over seeds; one panel a set.

    Rows: {"set", "n_pairs", "model", "mean", "spread"}. The untouched input is dashed.
    """
    sets = list(dict.fromkeys(row["set"] for row in rows))
    tint = colours(row["model"] for row in rows)
    ticks = sorted({row["n_pairs"] for row in rows})
    figure, axes = panels(3.1 * len(sets) + 1.2, 3.4, title, len(sets), xlabel="synthetic pairs", xscale="log")
    for ax, name in zip(axes, sets, strict=True):
        for place, (model, colour) in enumerate(tint.items()):
            own = sorted((r for r in rows if (r["set"], r["model"]) == (name, model)), key=lambda r: r["n_pairs"])
            style = "--" if colour == GREY else f"-{MARKERS[place % len(MARKERS)]}"
            x, mean, spread = ([r[key] for r in own] for key in ("n_pairs", "mean", "spread"))
            x = [n * 1.03 ** (place - len(tint) / 2) for n in x]  # side by side, so that bars do not hide each other
            ax.errorbar(x, mean, [s or 0 for s in spread], fmt=style, color=colour, capsize=3, label=model)
        ax.set_title(name)
        ax.set(xticks=ticks, xticklabels=ticks, xlim=(0.6 * ticks[0], 1.6 * ticks[-1]))
        ax.minorticks_off()
    axes[0].set_ylabel(label)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=9)
    return figure


def plot_differences(rows: Sequence[dict], label: str, title: str | None = None) -> Figure:
    """Differences with their intervals, a line a set, and in it one below the other what `of` says; zero is dashed.

    Rows: {"set", "of", "difference", "low", "high"}, in what `label` says.
    """
    sets, tint = list(dict.fromkeys(row["set"] for row in rows)), colours(row["of"] for row in rows)
    step = 0.7 / max(1, len(tint))
    figure, (ax,) = panels(8.5, 1.6 + len(sets) * (0.2 + 0.16 * len(tint)), title, grid="x", xlabel=label)
    ax.axvline(0, color=GREY, linestyle="--")
    for place, (name, colour) in enumerate(tint.items()):
        own = [row for row in rows if row["of"] == name]
        y = np.array([sets.index(row["set"]) for row in own]) + (place - (len(tint) - 1) / 2) * step
        value, low, high = ([row[key] for row in own] for key in ("difference", "low", "high"))
        ax.hlines(y, low, high, color=colour, linewidth=2)
        ax.plot(value, y, MARKERS[place % len(MARKERS)], color=colour, markersize=6, label=name)
    ax.set_yticks(range(len(sets)), sets)
    ax.set_ylim(len(sets) - 0.5, -0.5)
    figure.legend(loc="outside right center", fontsize=9)
    return figure


def plot_real_scenes(rows: Sequence[dict], title: str | None = None) -> Figure:
    """Each restorer on real rain: the share of the gap that it closes, and what it changes with rain and without.

    Rows of `real_scenes.summarise`. The second panel is left out where nothing is known of changes.
    """
    changes = {"change_inside": ("o", "the recogniser sees rain"), "change_outside": ("s", "it sees none")}
    known = [row for row in rows if row.get("closed") is not None or any(key in row for key in changes)]
    tint = {name: colour for name, colour in colours(row["model"] for row in known).items() if colour != GREY}
    names = list(tint)[::-1]
    both = any(key in row for row in known for key in changes)
    figure, axes = panels(12.5 if both else 6.5, 1.5 + 0.4 * len(names), title, 1 + both, "x")
    for row in (row for row in known if row["model"] in names):
        y = names.index(row["model"])
        drawn = [(axes[0], "closed", "o", 0.0)]
        drawn += [(axes[-1], key, marker, 0.12 - 0.24 * i) for i, (key, (marker, _)) in enumerate(changes.items())]
        for ax, key, marker, lift in drawn:
            if row.get(key) is not None:
                ax.hlines(y + lift, row[f"{key}_low"], row[f"{key}_high"], color=tint[row["model"]], linewidth=2)
                face = tint[row["model"]] if key != "change_outside" else "white"
                ax.plot(row[key], y + lift, marker, color=tint[row["model"]], markerfacecolor=face)
    axes[0].axvline(0, color=GREY, linestyle="--")
    axes[0].axvline(1, color=GREEN, linestyle="--")
    axes[0].set_xlabel("share of the gap closed; 0: the input, 1: rain-free photographs")
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(-0.5, max(0.5, len(names) - 0.5))
    if all(row.get("closed") is None for row in known):
        axes[0].set_xlim(-0.2, 1.2)
        axes[0].text(0.5, 0.5, "no gap to close beyond chance", ha="center", va="center", transform=axes[0].transAxes)
    if both:
        axes[1].set(yticks=[], ylim=axes[0].get_ylim(), xlabel="mean change where …, of 255", xlim=(0, None))
        for i, (marker, label) in enumerate(changes.values()):
            axes[1].plot([], [], marker, color=BLACK, markerfacecolor="white" if i else BLACK, label=label)
        figure.legend(*axes[1].get_legend_handles_labels(), loc="outside right center", fontsize=9)
    return figure


def _cell(value, digits: int) -> str:
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if value is None or (isinstance(value, Real) and not math.isfinite(value)):
        return "–"
    return f"{float(value):.{digits}f}" if isinstance(value, Real) and not isinstance(value, Integral) else str(value)


_NUMBER = re.compile(r"-?\d+\.?\d*")  # that a cell begins with, such as "22.69 ± 2.89"
# What makes markup of a name within a line of Markdown; `[`, `_` and `~` only where they could, for numbers and words.
_MARKUP = re.compile(r"[&<>|$*`\\]|(?<=\])[(\[]|(?<![^\W_])_|_(?![^\W_])|~(?=~)|(?<=~)~")


def in_markdown(text: str) -> str:
    """A name as text of Markdown, in one line: no part of it is a tag, a link, a formula or the end of a cell."""
    return _MARKUP.sub(
        lambda found: html.escape(found[0]) if found[0] in "&<>" else f"&#{ord(found[0])};", " ".join(text.split())
    )


class table:
    """Rows (dicts) as a table that a notebook shows, written as `markdown_table` does; numbers stand right.

    `best`: max or min; it is bold in each column but the first, as far as cells begin with numbers.
    """

    def __init__(self, rows: Sequence[dict], columns: dict[str, str] | None = None, digits: int = 2, best: Best = None):
        columns = columns or {key: key for row in rows for key in row}
        self.lines = [list(columns.values()), *([_cell(row.get(key), digits) for key in columns] for row in rows)]
        kinds = [{type(row.get(key)) for row in rows} or {str} for key in columns]
        numbers = (all(issubclass(kind, Real | None) and kind is not bool for kind in found) for found in kinds)
        self.sides = ["right" if number else "left" for number in numbers]
        self.bold = set()  # (place of the line, place in it)
        for j in range(1, len(columns) if best else 0):
            found = {i: _NUMBER.match(line[j]) for i, line in enumerate(self.lines) if i}
            values = {i: float(number[0]) for i, number in found.items() if number}
            if best and len(set(values.values())) > 1:
                self.bold |= {(i, j) for i, value in values.items() if value == best(values.values())}

    def _texts(self, escape: Callable[[str], str], mark: str) -> list[list[str]]:
        texts = [[escape(cell) for cell in line] for line in self.lines]
        for i, j in self.bold:
            texts[i][j] = f"{mark}{texts[i][j]}{mark.replace('<', '</')}"
        return texts

    def _repr_markdown_(self) -> str:
        head, *body = self._texts(in_markdown, "**")
        ruler = ["---:" if side == "right" else "---" for side in self.sides]
        return "\n".join(f"| {' | '.join(line)} |" for line in (head, ruler, *body))

    def _repr_html_(self) -> str:
        page = ""
        for place, line in enumerate(self._texts(html.escape, "<b>")):
            tag = "td" if place else "th"
            drawn = [f'<{tag} style="text-align:{side}">{c}</{tag}>' for c, side in zip(line, self.sides, strict=True)]
            page += f"<tr>{''.join(drawn)}</tr>"
        # The dollars of a name are no formula for MathJax either.
        return f'<table class="tex2jax_ignore mathjax_ignore">{page}</table>'


def markdown_table(
    rows: Sequence[dict], columns: dict[str, str] | None = None, digits: int = 2, best: Best = None
) -> str:
    """A Markdown table; `columns` maps key to heading, None takes every key; `best` as in `table`.

    Floats have `digits` decimals; missing and non-finite values are a dash.
    """
    return table(rows, columns, digits, best)._repr_markdown_()
