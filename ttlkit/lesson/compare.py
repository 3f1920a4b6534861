"""Two pictures of one scene, compared: a slider that needs no running notebook, and a plain figure."""

import base64
import hashlib
import html
import io
import itertools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from ttlkit.data import image_files
from ttlkit.lesson import figures
from ttlkit.lesson.live import VIEW_SIDE

STOPS = 41  # places of the divider: each is a radio button, so that keyboard, mouse and touch work without a script
_counted = itertools.count()


class Slider(str):
    """HTML that a notebook shows and an ipywidgets HTML takes."""

    def _repr_html_(self) -> str:
        return str(self)

    def __repr__(self) -> str:
        return "a before/after slider"


def slider(before: np.ndarray, after: np.ndarray, alt: str, names: Sequence[str] = ("before", "after")) -> Slider:
    """A slider as HTML and CSS alone: `before` on the left of the divider, `after` on the right.

    The divider follows the pointer; a click or a touch holds it; Tab and the arrow keys move it. Works in saved pages
    and where no script may run; where styles are taken away too, both pictures stand one after the other. Images
    (H, W, 3), float in [0, 1] or uint8, of one size (else ValueError), are scaled down to VIEW_SIDE. `alt`: what they
    show, for who does not see them; `names`: what they are.
    """
    if before.shape != after.shape:
        raise ValueError(f"before {before.shape} and after {after.shape} must have the same size")
    sources = [
        f"data:image/jpeg;base64,{base64.b64encode(jpeg_bytes(picture)).decode()}" for picture in (before, after)
    ]
    return Slider(f"<style>{STYLE}</style>{_page(sources, alt, names, _size(before)[0], _new_group(sources))}")


def without_style(page: str) -> str:
    """The slider that this HTML is, without its style sheet; '' where it is anything else, or more than that.

    It is written anew from its pictures and words, so that nothing else of the HTML comes along.
    """
    page = re.sub(r"^<style>[^<]*</style>", "", page)
    sources = re.findall(r' src="(data:image/jpeg;base64,[A-Za-z0-9+/=]+)"', page)
    words = re.match(r'<div class="ttlkit-slider"[^>]* aria-label="([^"]*): [^"]*" style="max-width:(\d+)px">', page)
    names = re.search(r"<small>([^<]*) · ([^<]*)</small></p>$", page)
    group = re.search(r' name="(ttlkit-[\w-]+)"', page)
    if len(sources) != 2 or not words or not names or not group:
        return ""
    told = [html.unescape(text) for text in (words[1], *names.groups())]
    parts = sources, told[0], told[1:], int(words[2])
    return _page(*parts, _new_group(sources)) if page == _page(*parts, group[1]) else ""


def _new_group(sources: Sequence[str]) -> str:
    """Radio buttons of one name exclude each other, in the whole page: a name that no other slider has."""
    return f"ttlkit-{hashlib.sha256(''.join(sources).encode()).hexdigest()[:8]}-{next(_counted)}"


def _page(sources: Sequence[str], alt: str, names: Sequence[str], width: int, group: str) -> str:
    shown, left, right = (html.escape(text) for text in (alt, *names))
    buttons = "".join(
        f'<input type="radio" name="{group}"{" checked" if place == STOPS // 2 else ""}'
        f' aria-label="{_percent(place)} {left}"'
        ' data-lm-suppress-shortcuts="true" style="display:none">'  # JupyterLab leaves it the arrows; shown by _style
        for place in range(STOPS)
    )
    return (
        f'<div class="ttlkit-slider" role="group" aria-label="{shown}: {left} and {right}"'
        f' style="max-width:{width}px">'
        f'<img src="{sources[0]}" alt="{shown}: {left}">{buttons}'
        f'<img class="ttlkit-after" src="{sources[1]}" alt="{shown}: {right}"><i></i></div>'
        f'<p class="ttlkit-note"><small>{left} · {right}</small></p>'
    )


def plot_before_after(rows: Sequence[Sequence[Any]], rows_named: Sequence[str], title: str | None = None):
    """The plain figure beside a slider: each row before, after, and five times what was taken away or added."""
    grid = [[before, after, 5 * np.abs(_float(before) - _float(after)).clip(0, 0.2)] for before, after in rows]
    return figures.plot_images(grid, ["before", "after", "difference × 5"], rows=rows_named, title=title)


def jpeg_bytes(picture: np.ndarray) -> bytes:
    """A picture, at most VIEW_SIDE on its longest side, as JPEG in memory."""
    view = Image.fromarray(image_files.to_u8(picture))
    view.thumbnail((VIEW_SIDE, VIEW_SIDE))
    buffer = io.BytesIO()
    view.save(buffer, "JPEG", quality=88, subsampling=0)
    return buffer.getvalue()


def _float(picture: np.ndarray) -> np.ndarray:
    return image_files.to_float(picture) if picture.dtype.kind == "u" else picture


def _size(picture: np.ndarray) -> tuple[int, int]:
    """Width and height in the slider."""
    height, width = picture.shape[:2]
    scale = min(1.0, VIEW_SIDE / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _percent(place: int) -> str:
    return f"{100 * place / (STOPS - 1):g}%"


def _style() -> str:
    """The style sheet: where each button lies, and where it puts the divider, checked or under the pointer."""
    step = 100 / (STOPS - 1)
    box, at = ".ttlkit-slider", "--ttlkit-at"
    rules = [
        f"{box}{{position:relative;{at}:50%;line-height:0;margin:0;overflow:hidden}}",
        f"{box}>img{{display:block;width:100%;max-width:100%;height:auto;margin:0;padding:0}}",
        f"{box}>img.ttlkit-after{{position:absolute;left:0;top:0;height:100%;clip-path:inset(0 0 0 var({at}))}}",
        f"{box}>i{{position:absolute;top:0;bottom:0;left:var({at});width:2px;margin-left:-1px;background:#fff;"
        "box-shadow:0 0 4px #000;pointer-events:none}",
        f"{box}>i::after{{content:'\\2194';position:absolute;top:50%;left:-15px;width:32px;height:32px;"
        "margin-top:-16px;border-radius:50%;background:#fff;color:#000;font:20px/32px sans-serif;text-align:center;"
        "box-shadow:0 0 4px #000}",
        f"{box}>input{{display:block!important;position:absolute;z-index:1;top:0;width:{step:g}%;height:100%;"
        f"margin:0 0 0 -{step / 2:g}%;"
        "opacity:0;cursor:ew-resize}",
        ".ttlkit-note{margin:4px 0}.ttlkit-note>small::after{content:': left and right of the line, which follows the "
        "pointer. A click or a touch holds it, Tab and the arrow keys move it.'}",
        f"{box}:focus-within{{outline:3px solid {figures.BLUE};outline-offset:2px}}",
    ]
    for place in range(STOPS):
        button = f"{box}>input:nth-of-type({place + 1})"
        rules += [f"{button}{{left:{_percent(place)}}}", f"{button}:checked~*{{{at}:{_percent(place)}}}"]
    for place in range(STOPS):  # after those above; who uses the keyboard is not held by a pointer that rests there
        rules.append(
            f"{box}:not(:has(:focus-visible))>input:nth-of-type({place + 1}):hover~*{{{at}:{_percent(place)}}}"
        )
    return "".join(rules)


STYLE = _style()
