"""What moves in a notebook by itself: the live plot of a training, and how far a restoration is."""

import html
import io
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager

import numpy as np
from PIL import Image
from tqdm import tqdm

from ttlkit.lesson.figures import plot_history

VIEW_SIDE = 900  # longest side, in pixels, of a picture to look at: it is part of the page, or sent as a PNG

STANDS_STILL = "Does it stand still? If the page was closed, training goes on: run this cell again to see it."


def in_notebook() -> bool:
    """Whether this runs in a Jupyter kernel (not in plain Python, not in IPython's terminal)."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return hasattr(shell, "kernel")


class LivePlot(AbstractContextManager):
    """Curves of a running training in a notebook, called with each log row; elsewhere it does nothing.

    Drawn at most every `every` seconds, and for at most a twentieth of the time; leaving the `with` draws the
    last state. Rows without seconds_left are those of an earlier session, and begin the curve. A saved notebook
    keeps exactly one picture; while the training runs, it says what to do where the picture no longer moves.
    """

    def __init__(self, keys: Sequence[str] = ("loss",), title: str | None = None, every: float = 2.0):
        self.keys, self.title, self.every = keys, title, every
        self.rows: list[dict] = []
        self._active, self._handle, self._due = in_notebook(), None, 0.0

    def __call__(self, row: dict) -> None:
        """Take one log row: {"step", "steps", "loss", "seconds_left", ...}."""
        if self._active:
            self.rows.append(dict(row))
            if "seconds_left" in row and time.monotonic() >= self._due:
                self._draw(row["seconds_left"])

    def __exit__(self, *_) -> None:
        if self.rows:
            self._draw()

    def _draw(self, seconds_left: float | None = None) -> None:
        from IPython.display import display

        start, row = time.monotonic(), self.rows[-1]
        title = f"{self.title + ': ' if self.title else ''}step {row['step']}/{row['steps']}"
        if seconds_left is not None:
            title += f", {tqdm.format_interval(seconds_left)} left"
        figure = plot_history(self.rows, self.keys, title)
        if seconds_left is not None:  # what is drawn after a tab was closed reaches nobody
            figure.supxlabel(f"Drawn at {time.strftime('%H:%M:%S')}. {STANDS_STILL}", fontsize=7, wrap=True)
        if self._handle:
            self._handle.update(figure)
        else:
            self._handle = display(figure, display_id=True)
        self._due = time.monotonic() + max(self.every, 19 * (time.monotonic() - start))


class Progress:
    """How far something is, in a notebook, called with the share that is done; elsewhere it does nothing.

    A saved notebook keeps one line.
    """

    def __init__(self, what: str, every: float = 0.3):
        self.what, self.every = what, every
        self._began = self._drawn = time.monotonic()
        self._active, self._handle, self.share = in_notebook(), None, 0.0

    def __call__(self, share: float) -> None:
        """Take a share from 0 to 1."""
        self.share, now = share, time.monotonic()
        if self._active and (share >= 1 or now >= self._drawn + self.every):
            from IPython.display import display

            self._drawn = now
            if self._handle:
                self._handle.update(self)
            else:
                self._handle = display(self, display_id=True)

    def __repr__(self) -> str:
        return f"{self.what}: " + (f"{self.share:.0%}" if self.share < 1 else f"{self._drawn - self._began:.1f} s")

    def _repr_html_(self) -> str:
        return f"{bar(self.share) if self.share < 1 else ''}{html.escape(repr(self))}"


def bar(share: float) -> str:
    """A progress bar as HTML."""
    return f'<progress value="{share:.2f}" aria-label="{share:.0%} done"></progress> '


def png_bytes(picture_u8: np.ndarray) -> bytes:
    """Encode uint8 (H, W, 3) as PNG in memory, fast rather than small."""
    buffer = io.BytesIO()
    Image.fromarray(picture_u8).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
