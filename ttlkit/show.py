"""Show results: figures, live plot, tables, before/after widgets, the offline HTML report."""

from __future__ import annotations

import base64
import copy
import html
import io
import math
import mimetypes
import os
import re
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral, Real
from pathlib import Path
from urllib.parse import unquote

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from . import images as im

# Okabe and Ito's colours, safe for the colour-blind; their yellow is left out, it is too pale on white.
BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, BLACK, GREY = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#767676",
)  # fmt: skip
PALETTE = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, BLACK)
MARKERS = "osD^vPX"
UNTOUCHED = ("input", "untouched input")  # names of the rainy image as it is
FIXED = {
    "real rainy": VERMILLION, "synthetic rainy": BLUE, "clean": GREEN, "real clean": GREEN,
    "synthetic clean": SKY, "student": BLUE, "scratch": ORANGE, "prenet": PURPLE,
    **dict.fromkeys(UNTOUCHED, GREY),
}  # fmt: skip
VIEW_SIDE = 900  # longest side, in pixels, of a picture in the slider: each move sends it as a PNG


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


def _number(value) -> float:
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
    points = {row["step"]: _number(row.get(key)) for row in rows if math.isfinite(_number(row.get(key)))}
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
        x, value, model = sets.index(row["set"]), _number(row.get(metric)), row["model"]
        if not math.isfinite(value):
            continue
        name = "" if model in labelled else model  # one legend entry a model
        labelled.add(model)
        if model not in models:
            ax.hlines(value, x - 0.42, x + 0.42, color=GREY, linestyle="--", label=name)
            continue
        place = models.index(model)
        x_model = x + (place - (len(models) - 1) / 2) * 0.7 / max(1, len(models))
        low, high = _number(row.get(f"{metric}_low")), _number(row.get(f"{metric}_high"))
        if math.isfinite(low) and math.isfinite(high):
            ax.vlines(x_model, low, high, color=tint[model], linewidth=2)
        ax.plot(x_model, value, MARKERS[place % len(MARKERS)], color=tint[model], markersize=7, label=name)
    ax.set_xticks(range(len(sets)), [s.replace("_", " ") for s in sets])
    ax.set_xlim(-0.6, len(sets) - 0.4)
    ax.set_ylabel(metric.replace("_", " "))
    ax.grid(axis="y", alpha=0.3)
    if labelled:
        figure.legend(loc="outside right upper", fontsize=9)
    return figure


def plot_distances(rows: Sequence[dict]) -> Figure:
    """Wasserstein distance per feature as bars, largest on top; a line marks the null (stats.compare)."""
    rows = sorted(rows, key=lambda row: _number(row["wasserstein"]))
    figure = _figure(8, 1.2 + 0.42 * max(1, len(rows)), None)
    ax = figure.subplots()
    ax.barh(range(len(rows)), [_number(r["wasserstein"]) for r in rows], color=BLUE, height=0.6)
    ends = [v for r in rows for v in (_number(r["wasserstein"]), _number(r.get("null"))) if math.isfinite(v)]
    reach = max(ends, default=0) or 1
    for y, row in enumerate(rows):
        null, p = _number(row.get("null")), _number(row.get("p_value"))
        if math.isfinite(null):
            label = "" if ax.get_legend_handles_labels()[0] else "null: 95 % of random splits stay below"
            ax.vlines(null, y - 0.42, y + 0.42, color=VERMILLION, linewidth=2.5, label=label)
        end = max(v for v in (_number(row["wasserstein"]), null, 0) if math.isfinite(v))
        chance = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
        note = f"δ = {_number(row.get('cliffs_delta')):+.2f}, {chance}"
        ax.text(end + 0.02 * reach, y, note, va="center", fontsize=8.5)
    ax.set_yticks(range(len(rows)), [row.get("label") or row["feature"] for row in rows])
    ax.set(xlabel="Wasserstein distance / standard deviation within the sets", xlim=(0, reach * 1.4))
    ax.grid(axis="x", alpha=0.3)
    if ax.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower right", fontsize=9)
    return figure


def in_notebook() -> bool:
    """Whether this runs in a Jupyter kernel (not in plain Python, not in IPython's terminal)."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return hasattr(shell, "kernel")


def duration(seconds: float) -> str:
    """Seconds in words: `45 s`, `3 min 20 s`, `2 h 05 min`."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


class LivePlot:
    """Curves of a running training in a notebook, called with each log row; elsewhere it does nothing.

    Drawn at most every `every` seconds, and for at most a twentieth of the time; `close()`, or leaving the
    `with`, draws the last state. A saved notebook keeps exactly one picture.
    """

    def __init__(self, keys: Sequence[str] = ("loss",), title: str | None = None, every: float = 2.0):
        self.keys, self.title, self.every = tuple(keys), title, every
        self.rows: list[dict] = []
        self._active, self._handle, self._due = in_notebook(), None, 0.0

    def __call__(self, row: dict) -> None:
        """Take one log row: {"step", "steps", "loss", "seconds_left", ...}."""
        if self._active:
            self.rows.append(dict(row))
            if time.monotonic() >= self._due:
                self._draw(running=True)

    def _draw(self, running: bool) -> None:
        from IPython.display import display

        start, row = time.monotonic(), self.rows[-1]
        step, steps, left = row["step"], row.get("steps"), _number(row.get("seconds_left"))
        title = f"{self.title + ': ' if self.title else ''}step {step}" + (f"/{steps}" if steps else "")
        if running and math.isfinite(left):
            title += f", {duration(left)} left"
        figure = plot_history(self.rows, self.keys, title)
        if self._handle is None:
            self._handle = display(figure, display_id=True)
        else:
            self._handle.update(figure)
        self._due = time.monotonic() + max(self.every, 19 * (time.monotonic() - start))

    def close(self) -> None:
        """Draw the last state, once."""
        if self._active and self.rows:
            self._draw(running=False)
        self._active = False

    def __enter__(self) -> LivePlot:
        return self

    def __exit__(self, *_) -> None:
        self.close()


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


def split_view(before: np.ndarray, after: np.ndarray, position: float) -> np.ndarray:
    """Mix two pictures (H, W, 3) to uint8: `before` left of `position` in [0, 1], `after` right of it.

    At 0 it is all after, at 1 all before; in between a white line marks the divider.
    """
    if before.shape != after.shape:
        raise ValueError(f"before {before.shape} and after {after.shape} must have the same size")
    mixed, width = im.to_u8(after).copy(), before.shape[1]
    edge = round(min(max(position, 0.0), 1.0) * width)
    mixed[:, :edge] = im.to_u8(before)[:, :edge]
    if 0 < edge < width:
        mixed[:, edge - 1 : edge + 1] = 255
    return mixed


def png_bytes(picture_u8: np.ndarray) -> bytes:
    """Encode uint8 (H, W, 3) as PNG in memory, fast rather than small."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture_u8).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _view(picture: np.ndarray) -> np.ndarray:
    """uint8, scaled down to at most VIEW_SIDE pixels a side."""
    height, width = picture.shape[:2]
    scale = VIEW_SIDE / max(height, width)
    if scale < 1:
        picture = im.resize(picture, max(1, round(height * scale)), max(1, round(width * scale)))
    return im.to_u8(picture)


def compare_slider(before: np.ndarray, after: np.ndarray):
    """A widget: drag the slider to see `before` on the left and `after` on the right of the divider.

    Images (H, W, 3), float in [0, 1] or uint8, of one size (else ValueError); works with ipywidgets 7 and 8.
    """
    import ipywidgets as widgets

    left, right = _view(before), _view(after)
    picture = widgets.Image(value=png_bytes(split_view(left, right, 0.5)), format="png")
    slider = widgets.FloatSlider(
        value=0.5,
        min=0,
        max=1,
        step=0.01,
        readout_format=".0%",
        description="Share shown as before",
        style={"description_width": "initial"},
        layout={"width": "100%", "max_width": f"{max(300, left.shape[1])}px"},
    )

    def on_move(change) -> None:
        picture.value = png_bytes(split_view(left, right, change["new"]))

    slider.observe(on_move, "value")
    return widgets.VBox([widgets.HTML("Left of the line: before. Right of it: after."), picture, slider])


def read_upload(value) -> tuple[str, bytes] | None:
    """(name, bytes) of the last file, or None; ipywidgets 7 gives {name: {...}}, 8 ({"name": ...}, ...)."""
    if isinstance(value, dict):
        value = [{**entry, "name": name} for name, entry in value.items()]
    files = list(value)
    return (str(files[-1]["name"]), bytes(files[-1]["content"])) if files else None


def decode_upload(name: str, data: bytes) -> np.ndarray:
    """Bytes of an image file to float32 (H, W, 3) in [0, 1]; ImageError names the uploaded file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "upload"
        path.write_bytes(data)
        try:
            return im.load_image(path)
        except im.ImageError as error:
            raise im.ImageError(str(error).replace(str(path), name)) from None


def upload_box(restore: Callable[[np.ndarray], np.ndarray]):
    """A widget: choose a picture, see it before and after `restore` (float (H, W, 3) to the same)."""
    import ipywidgets as widgets

    chooser = widgets.FileUpload(
        description="Choose a picture", accept="image/*", multiple=False, layout={"width": "auto"}
    )
    message = widgets.HTML("Choose a rainy photograph. It stays on the machine that runs this notebook.")
    result = widgets.VBox([])

    def on_upload(change) -> None:
        upload = read_upload(change["new"])
        if upload is None:
            return
        name, result.children = html.escape(upload[0]), ()
        message.value = f"{name}: restoring …"
        start = time.monotonic()
        try:
            rainy = decode_upload(*upload)
            result.children = (compare_slider(rainy, restore(rainy)),)
            size = f"{rainy.shape[1]} × {rainy.shape[0]} pixels"
            message.value = f"{name}: {size}, restored in {time.monotonic() - start:.1f} s."
        except im.ImageError as error:
            message.value = f"<b>Not usable.</b> {html.escape(str(error))}"
        except Exception as error:  # a callback's traceback would vanish in the server's log
            message.value = f"<b>Restoring {name} failed.</b> {html.escape(repr(error))}"

    chooser.observe(on_upload, "value")
    return widgets.VBox([chooser, message, result])


# What may hold a dollar sign that opens no formula (code, raw HTML, links, escapes), then the formulas.
_CODE = (
    r"^[ \t]*(?P<fence>`{3,}|~{3,})[^\n]*\n.*?(?:^[ \t]*(?P=fence)|\Z)"
    r"|(?P<tick>`+)(?!`).+?(?<!`)(?P=tick)(?!`)"
    r"|<(?P<tag>pre|code|script|style)\b.*?</(?P=tag)>|\]\([^)\s]+\)|https?://\S+"
)
_MATH = (
    r"\$\$(?P<block>[^`]+?)\$\$|(?P<env>\\begin\{(?P<name>[a-z]+\*?)\}.*?\\end\{(?P=name)\})|\\[\\$`]"
    r"|\$(?![\s$])(?P<inline>(?:(?!\n\s*\n)[^`$]|\\\$)+?)(?<![\s\\])\$(?!\d)"
)
_TOKEN = re.compile(f"{_CODE}|{_MATH}", re.MULTILINE | re.DOTALL)
_HELD = re.compile("\ue000(\\d+)\ue001")  # private-use characters: no Markdown rule touches them


# Spellings that latex2mathml draws wrongly or, for < and > inside \text, does not escape.
_TEX = {
    r"\operatorname*": r"\mathrm",
    r"\arg": r"\mathrm{arg}\,",
    "{aligned}": "{align*}",
    "{align}": "{align*}",
    "<": r"\lt ",
    ">": r"\gt ",
}


def mathml(tex: str, display: bool = False) -> str:
    """TeX to MathML, which browsers draw offline; the escaped TeX in <code> where that cannot be done."""
    from latex2mathml.converter import convert

    plain = tex
    for spelling, other in _TEX.items():
        plain = plain.replace(spelling, other)
    try:
        done = convert(plain.strip(), display="block" if display else "inline")
    except Exception:  # its parser raises IndexError, KeyError and others besides its own errors
        done = "\\"
    # It passes unknown commands and stray & through as text instead of raising.
    return f"<code>{html.escape(tex.strip())}</code>" if re.search(r"\\|&(?!#)", done) else done


def _inline_image(src: str, folder: str) -> str:
    """A data address for an image file relative to `folder`; anything else as it is."""
    path = Path(folder) / unquote(src)
    kind = mimetypes.guess_type(path.name)[0] or ""
    if ":" in src or not kind.startswith("image/") or not path.is_file():
        return src
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def markdown_html(source: str, folder: str = "", attachments: dict | None = None) -> str:
    """Markdown to HTML with formulas as MathML and images below `folder` inline; code stays as written."""
    import mistune
    from bs4 import BeautifulSoup
    from nbconvert.filters.markdown_mistune import IPythonRenderer

    held: list[tuple[str, str]] = []  # (as written, MathML)

    def hold(match: re.Match) -> str:
        tex = match["block"] or match["env"] or match["inline"]
        if tex is None:
            return match[0]
        held.append((match[0], mathml(tex, display=not match["inline"])))
        return f"\ue000{len(held) - 1}\ue001"

    # Not embed_images: nbconvert then closes every inline tag at once, and <b>word</b> loses its word.
    renderer = IPythonRenderer(escape=False, exclude_anchor_links=True, attachments=attachments or {})
    plugins = ["strikethrough", "table", "url", "task_lists", "def_list"]
    rendered = mistune.create_markdown(renderer=renderer, plugins=plugins)(_TOKEN.sub(hold, source))
    soup = BeautifulSoup(str(rendered), "html.parser")
    for tag in soup.find_all(True):
        for name, value in tag.attrs.items():
            if isinstance(value, str):
                tag[name] = _HELD.sub(lambda m: held[int(m[1])][0], value)
    for image in soup("img"):
        image["src"] = _inline_image(str(image.get("src", "")), folder)
    for text in soup.find_all(string=_HELD):
        as_code = text.find_parent(["code", "pre"]) is not None
        written = html.escape(text, quote=False)
        shown = [html.escape(raw) if as_code else formula for raw, formula in held]
        filled = _HELD.sub(lambda m: shown[int(m[1])], written)  # noqa: B023
        text.replace_with(BeautifulSoup(filled, "html.parser"))
    return str(soup)


_TEMPLATE = """{% extends 'basic/index.html.j2' %}
{% block input_group %}<details class="code"><summary>{{ 'Parameters of this run' if 'injected-parameters' in
cell.metadata.get('tags', []) else 'Code' }}</summary>{{ super() }}</details>{% endblock %}"""
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 60rem; margin: 0 auto; padding: 1rem }
section { border-top: 3px solid #0072B2; margin-top: 3rem } img, svg { max-width: 100%; height: auto }
pre { overflow-x: auto; background: #f5f5f5; padding: .6rem; font-size: .85rem; margin: .4rem 0 }
table { border-collapse: collapse; margin: .6rem 0 }
th, td { padding: .2rem .7rem; border-bottom: 1px solid #ccc }
summary { color: #005a8e; cursor: pointer; font-size: .85rem } .output_html { overflow-x: auto }
.output_stderr pre, .output_error pre { background: #fdecea }
math[display=block] { margin: .8rem 0; overflow-x: auto }
"""


def _slug(text: str) -> str:
    return re.sub(r"[^\w]+", "-", text.lower()).strip("-") or "section"


def _trimmed(notebook):
    """A copy without what a page on paper cannot use: widgets, scripts, the bootstrap cell."""
    notebook = copy.deepcopy(notebook)
    notebook.metadata.pop("widgets", None)
    failed = [any(o.output_type == "error" for o in c.get("outputs", [])) for c in notebook.cells]
    notebook.cells = [
        c
        for c, bad in zip(notebook.cells, failed, strict=True)
        if bad or "bootstrap" not in c.metadata.get("tags", [])
    ]
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            lost = [data.pop(kind) for kind in list(data) if "widget" in kind or "javascript" in kind]
            if lost and not any(kind.startswith("image/") or kind == "text/html" for kind in data):
                data.clear()  # a widget's text is only its constructor call
            for kind in [k for k in data if k.startswith("image/")]:
                output.metadata.setdefault(kind, {}).setdefault("alt", "Figure drawn by the code above")
            if "text/latex" in data and "text/html" not in data:
                data["text/markdown"] = data.pop("text/latex")
        if "outputs" in cell:
            cell.outputs = [o for o in cell.outputs if o.get("data", True)]
    return notebook


def _seal(soup, prefix: str, sections: dict[str, str]) -> None:
    """Make a section stand alone: no script, nothing from the network, ids that start with `prefix`."""
    from bs4 import Comment

    for tag in soup(["script", "iframe", "object", "embed", "link", "meta", "base", "form"]):
        tag.decompose()
    for comment in soup.find_all(string=lambda s: isinstance(s, Comment)):
        comment.extract()
    for tag in soup("style"):
        tag.string = _offline_css(tag.get_text())
    for image in soup("img"):
        if not image.get("src", "").startswith("data:image/"):
            image.replace_with(image.get("alt") or "")
    used: set[str] = set()
    for heading in soup(re.compile("^h[1-6]$")):
        slug = f"{prefix}-{_slug(heading.get_text())}"
        heading["id"] = next(s for n in range(1000) if (s := f"{slug}-{n}" if n else slug) not in used)
        used.add(heading["id"])
        heading.name = f"h{min(6, int(heading.name[1]) + 1)}"  # the report's own title is the only h1
    for tag in soup.find_all(True):
        if tag.get("id", "").startswith("cell-id="):
            del tag["id"]  # a notebook run twice, once a teacher, has the same cells
        if "style" in tag.attrs:
            tag["style"] = _offline_css(tag["style"])
        for name in [n for n in tag.attrs if n.startswith("on") or n in _LOADING]:
            value = tag[name]
            if not (value.startswith("#") or (tag.name == "img" and value.startswith("data:image/"))):
                del tag[name]
                if tag.name == "a":
                    _relink(tag, value, sections)
            elif tag.name == "a" and (anchor := f"{prefix}-{_slug(value[1:])}") in used:
                tag["href"] = f"#{anchor}"


_LOADING = ("src", "srcset", "href", "xlink:href", "poster", "data", "action", "formaction", "background")


def _relink(tag, target: str, sections: dict[str, str]) -> None:
    """Point a link at a notebook of this report to its section; spell out a web address."""
    name = target.split("#")[0].split("?")[0].rsplit("/", 1)[-1]
    if target.startswith(("http://", "https://")):
        if tag.get_text() != target:
            tag.append(f" ({target})")
    elif name in sections:
        tag["href"] = f"#{sections[name]}"


def _offline_css(css: str) -> str:
    return re.sub(r"@import[^;]*;?|url\((?!\s*['\"]?(?:data:|#))[^)]*\)", "", css, flags=re.IGNORECASE)


def write_report(notebooks: Sequence[Path], out: Path, title: str, intro_markdown: str = "") -> Path:
    """Write executed notebooks as one HTML file that needs no network; whole or not at all; returns `out`.

    Code is collapsed, outputs are visible, images inline, formulas MathML. Cells tagged `bootstrap` and
    widgets are left out. Errors: nbformat's for a file that is no notebook, FileNotFoundError.
    """
    import nbformat
    from bs4 import BeautifulSoup
    from jinja2 import pass_context
    from nbconvert import HTMLExporter
    from pygments.formatters import HtmlFormatter

    notebooks, out = [Path(n) for n in notebooks], Path(out)
    loaded = [nbformat.read(path, as_version=4) for path in notebooks]
    ids = [f"nb{i}" for i in range(1, len(loaded) + 1)]
    sections: dict[str, str] = {}
    for path, notebook, section in zip(notebooks, loaded, ids, strict=True):
        source = notebook.metadata.get("papermill", {}).get("input_path") or path.name
        sections.setdefault(Path(source).name, section)

    parts, entries = [], []
    for path, notebook, section in zip(notebooks, loaded, ids, strict=True):
        folder = str(path.parent)

        @pass_context
        def render(context, source, folder=folder):
            return markdown_html(source, folder, context.get("cell", {}).get("attachments"))

        exporter = HTMLExporter(
            raw_template=_TEMPLATE,
            filters={"markdown2html": render},
            exclude_input_prompt=True,
            exclude_output_prompt=True,
        )
        soup = BeautifulSoup(exporter.from_notebook_node(_trimmed(notebook))[0], "html.parser")
        _seal(soup, section, sections)
        first = soup.find(re.compile("^h[1-6]$"))
        place = path.parent.name if path.stem == "notebook" else path.stem
        label = f"{first.get_text()} ({place})" if first else place
        entries.append(f'<li><a href="#{section}">{html.escape(label)}</a></li>')
        parts.append(f'<section id="{section}" aria-label="{html.escape(label)}">{soup}</section>')

    intro = BeautifulSoup(markdown_html(intro_markdown), "html.parser")
    _seal(intro, "intro", sections)
    page = f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{html.escape(title)}</title><style>{_STYLE}{HtmlFormatter().get_style_defs(".highlight")}</style></head>
<body><h1>{html.escape(title)}</h1>{intro}<nav aria-label="Notebooks"><ol>{"".join(entries)}</ol></nav>
{"".join(parts)}</body></html>
"""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        partial.write_text(page, encoding="utf-8")
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)
    return out
