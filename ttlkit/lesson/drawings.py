"""Drawn pictures of the method: the network, the scale of features, the starts of fine-tuning. Ours."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from matplotlib.ticker import LogLocator

from ttlkit.lesson.figures import BLUE, GREEN, GREY, ORANGE, SKY, VERMILLION, colours, new_figure, panels
from ttlkit.method.networks import CELL, LEVELS
from ttlkit.method.starts import start_of

SHAPE: dict[str, Any] = {"fontsize": 8, "ha": "center", "color": "#333333"}


def plot_network(backbone: Any, side: int = 64, gives: str = "", title: str | None = None) -> Figure:
    """The U-Net as boxes: as tall as its maps, as wide as it has channels; the shapes for an image of `side` pixels.

    `gives`: what its head makes of the features; else the residual, which is added to the image.
    """
    channels = backbone.channels
    depth = len(channels) // 2  # the level of the coarsest place; levels count from 0
    levels = [depth - abs(depth - i) for i in range(len(channels))]
    figure = new_figure(12, 5.4, title)
    ax = figure.subplots()
    ax.set(xlim=(-0.9, len(channels) + 1.4), ylim=(-depth - 0.5, 0.6))
    ax.axis("off")
    boxes = [
        (i + 0.5, -level, count, f"{count} × {_size(side, level)}") for i, (level, count) in _counted(levels, channels)
    ]
    for (x, y, count, shape), place, level in zip(boxes, LEVELS, levels, strict=True):
        encodes = place.startswith("encoder")
        _box(ax, x, y, count / max(channels), level, BLUE if encodes else GREEN)
        ax.text(x, y - 0.36 / 2**level - 0.05, place, fontsize=9, ha="center", va="top", fontweight="bold")
        ax.text(x, y - 0.36 / 2**level - 0.2, shape, va="top", **SHAPE)
    for (x, y, *_), (next_x, next_y, *_) in zip(boxes, boxes[1:], strict=False):
        _arrow(ax, (x + 0.27, y), (next_x - 0.25, next_y), BLUE if next_y < y else GREEN)
    for level in range(depth):  # what the encoder saw goes straight to the decoder
        x, other = boxes[level][0], boxes[-1 - level][0]
        _arrow(ax, (x + 0.25, -level), (other - 0.25, -level), GREY, style="--")
        ax.text((x + other) / 2, -level + 0.06, "added", fontsize=8, ha="center", color=GREY)
    ends = [(-0.5, f"image\n3 × {side} × {side}"), (len(channels) + 0.7, gives or f"to be added\n3 × {side} × {side}")]
    for x, words in ends:
        _box(ax, x, 0, 0.1, 0, ORANGE)
        ax.text(x, -0.41, words, va="top", **SHAPE)
    _arrow(ax, (-0.4, 0), (0.3, 0), ORANGE)
    _arrow(ax, (len(channels) - 0.3, 0), (len(channels) + 0.55, 0), ORANGE)
    ax.text(-0.02, 0.08, f"stem, on cells\nof {CELL}×{CELL}", **SHAPE)
    ax.text(len(channels) + 0.15, 0.08, "head", **SHAPE)
    ax.text(0.2, -depth + 0.2, "down: half the size,\ntwice the channels", fontsize=9, color=BLUE)
    ax.text(len(channels) - 1.4, -depth + 0.2, "up: twice the size,\nhalf the channels", fontsize=9, color=GREEN)
    return figure


def _counted(levels: Sequence[int], channels: Sequence[int]) -> Iterable[tuple[int, tuple[int, int]]]:
    return enumerate(zip(levels, channels, strict=True))


def _size(side: int, level: int) -> str:
    cells = side // CELL // 2**level
    return f"{cells} × {cells}"


def _box(ax, x: float, y: float, share: float, level: int, colour: str) -> None:
    wide, high = 0.1 + 0.3 * share, 0.68 / 2**level
    ax.add_patch(Rectangle((x - wide / 2, y - high / 2), wide, high, facecolor=colour, edgecolor="white", zorder=3))


def _arrow(ax, start: tuple[float, float], end: tuple[float, float], colour: str, style: str = "-") -> None:
    look: dict[str, Any] = {
        "arrowstyle": "-|>",
        "mutation_scale": 12,
        "linewidth": 1.4,
        "linestyle": style,
        "color": colour,
    }
    ax.add_patch(FancyArrowPatch(start, end, zorder=2, **look))


def as_grey(channel: Any, of: Any) -> np.ndarray:
    """A channel (H, W) as a picture: grey at the mean of `of`, black and white two standard deviations away."""
    channel, of = np.asarray(channel, np.float32), np.asarray(of, np.float32)
    return np.clip(0.5 + (channel - of.mean()) / (4 * of.std() + 1e-8), 0, 1)


def loudest(features: Any) -> np.ndarray:
    """The channel with the largest spread of features (B, C, H, W), of the first image, as a picture (H, W)."""
    values = features.float().cpu().numpy()
    channel = values.std(axis=(0, 2, 3)).argmax()
    return as_grey(values[0, channel], values[:, channel])


def side_by_side(student: Any, teacher: Any) -> tuple[np.ndarray, np.ndarray]:
    """The loudest channel of the teacher's features and the student's adapted one, as pictures (H, W).

    Features (B, C, H, W), of which the first image is shown. Each picture has its own scale: a teacher's features may
    be far stronger in other images, and the student follows them after they were standardised over all.
    """
    told, said = (values[0].float().cpu().numpy() for values in (teacher, student))
    channel = told.std(axis=(1, 2)).argmax()
    return as_grey(told[channel], told[channel]), as_grey(said[channel], said[channel])


def plot_scales(features: Mapping[str, Any], title: str | None = None) -> Figure:
    """How strong each channel is, from the loudest to the faintest; `features`: name to an array (B, C, H, W)."""
    figure, (ax,) = panels(7, 3.2, title, yscale="log", xlabel="channel, from the loudest", ylabel="standard deviation")
    for name, colour in colours(features).items():
        spread = np.sort(np.asarray(features[name]).std(axis=(0, 2, 3)))[::-1]
        ax.plot(np.arange(1, len(spread) + 1), np.maximum(spread, 1e-6), "o-", color=colour, markersize=3, label=name)
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter("")
    ax.legend(fontsize=9)
    return figure


STATIONS = (
    "untrained", "teachers", "student", "few pairs", "all pairs", "rendered rain", "real rain", "the guide", "blend",
)  # fmt: skip
STOPS = {"untrained": GREY, "teachers": SKY, "student": SKY, "the guide": GREEN, "real rain": VERMILLION}


def plot_starts(
    inits: Sequence[str], chosen: str = "", guide: str = "", without: Sequence[str] = (), title: str | None = None
) -> Figure:
    """Rows of the comparison as lines through what each of them gets, read from the table STARTS; `chosen` is thick.

    `without`: the STATIONS that a profile leaves out; they are drawn hollow.
    """
    rows = {init: _stops(init, guide) for init in inits}
    stations = [name for name in STATIONS if any(name in stops for stops in rows.values())]
    figure = new_figure(12, 1.3 + 0.42 * len(inits), title)
    ax = figure.subplots()
    ax.set(xlim=(-0.6, len(stations) - 0.4), ylim=(len(inits) - 0.5, -0.6))
    ax.xaxis.tick_top()
    ax.set_xticks(range(len(stations)), [f"({name})" if name in without else name for name in stations])
    ax.set_yticks(range(len(inits)), inits)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.grid(axis="x", alpha=0.3)
    for label in ax.get_yticklabels():
        label.set_fontweight("bold" if label.get_text() == chosen else "normal")
    for y, (init, stops) in enumerate(rows.items()):
        colour, thick = (BLUE, 4) if init == chosen else (GREY, 1.5)
        given = [stations.index(name) for name in stops if name not in without]
        ax.plot(given, [y] * len(given), color=colour, linewidth=thick, zorder=1)
        for name, words in stops.items():
            x, tint = stations.index(name), STOPS.get(name, ORANGE)
            ax.plot(x, y, "o", markersize=11, color="white" if name in without else tint, markeredgecolor=tint)
            ax.text(x + 0.1, y - 0.22, words, fontsize=8, va="center")
    return figure


def _stops(init: str, guide: str) -> dict[str, str]:
    """The stations of a row, in order, each with a word on it."""
    start = start_of(init, guide)
    begun = start.student or start.every_teacher or start.build.__name__ == "taught"
    own = f"{start.tasks.count(',') + 1} tasks" if start.tasks else ""
    grown = start.build.__name__ == "released"
    found = {"student": "released"} if grown else {} if begun else {"untrained": "more steps" if start.long else ""}
    found |= {"teachers": own or ("all" if start.student or start.every_teacher else init)} if begun else {}
    found |= {"student": "distilled"} if start.student else {}
    found |= {"all pairs" if start.every_pair else "few pairs": start.way}
    flags = {"rendered rain": start.rendered, "real rain": start.unlabelled, "the guide": start.guided}
    return found | {name: "" for name, given in {**flags, "blend": start.blends}.items() if given}
