"""Names that people type: lists of them, and what they may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SettingsError(ValueError):
    """A name, a parameter or the order of stages is wrong; the message says how to put it right."""


def unknown(name: str, known: Iterable[str], what: str) -> str:
    """The line that says so: the nearest known name, then all of them."""
    known = list(known)
    near = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return f"unknown {what}: '{name}'{hint} Known: {', '.join(known)}"


def check_name(name: str, known: Iterable[str], what: str) -> None:
    """Raise SettingsError unless `name` is one of `known`; `what` it is stands in the message."""
    known = list(known)
    if name not in known:
        raise SettingsError(unknown(name, known, what))


def split_names(text: str) -> list[str]:
    """'a, b' to ['a', 'b']."""
    return [name.strip() for name in text.split(",") if name.strip()]
