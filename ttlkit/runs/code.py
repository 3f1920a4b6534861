"""Which code a stage runs: the modules of ttlkit that its notebook imports, and theirs, each with a hash."""

import ast
import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from ttlkit import files, machine

PACKAGE = machine.PACKAGE  # tests point it at a copy
# What these decide stands in a stage's settings, so that a number of another profile makes nothing stale.
SETTINGS = ("runs/settings.py", "runs/profiles.py")
TRAINING = "import ttlkit.runs.training"  # what decides on the weights that a training ends with


def of_notebook(stage: str) -> dict[str, str]:
    """Path below ttlkit/ to hash, for every module that the stage's notebook runs."""
    return of_source("\n".join(_cells(stage, "code")))


def of_source(source: str) -> dict[str, str]:
    """Path below ttlkit/ to hash, for every module that `source` imports, at whatever depth.

    Comments, docstrings and layout do not count: only what runs.
    """
    found: dict[str, str] = {}
    waiting = _imported(source)
    while waiting:
        path = waiting.pop()
        name = path.relative_to(PACKAGE).as_posix()
        if name not in found and name not in SETTINGS:
            found[name], needs = _read(path, path.stat().st_mtime_ns, path.stat().st_size)
            # The face of the package imports everything when it is asked to; that is no part of other modules.
            waiting |= needs if name != "__init__.py" else set()
    return dict(sorted(found.items()))


def notebook_path(stage: str) -> Path:
    """The stage's notebook, in the checkout or in the installed package."""
    return machine.shipped("notebooks") / f"{stage}.ipynb"


def notebook_hash(stage: str) -> str:
    """Hash of all cells of a stage's notebook, its text too."""
    return files.sha256_of(_cells(stage, "code"), _cells(stage, "markdown"))[:16]


def _cells(stage: str, kind: str) -> list[str]:
    cells = json.loads(notebook_path(stage).read_text(encoding="utf-8"))["cells"]
    tags = [cell["metadata"].get("tags", []) for cell in cells]
    sources = ["".join(cell["source"]) for cell in cells]
    kinds = [cell["cell_type"] for cell in cells]
    return [s for s, k, t in zip(sources, kinds, tags, strict=True) if k == kind and "bootstrap" not in t]


@lru_cache(maxsize=512)
def _read(path: Path, changed: int, size: int) -> tuple[str, frozenset[Path]]:
    """(hash of what runs, the modules that it imports) of a file, read again when it has changed."""
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body: Any = getattr(node, "body", None)
        first = body[0].value if isinstance(body, list) and body and isinstance(body[0], ast.Expr) else None
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            body[0] = ast.Pass()  # a docstring
    return files.sha256_of(ast.unparse(tree))[:16], frozenset(_imported(source))


def _imported(source: str) -> set[Path]:
    """Files of ttlkit that a source imports itself, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {path for name in names for path in _files_of(name.split("."))}


def _files_of(parts: list[str]) -> Iterable[Path]:
    """ttlkit.method.losses: the file itself, and the __init__.py of the packages above it."""
    if parts[0] != "ttlkit":
        return
    for depth in range(1, len(parts) + 1):
        place = PACKAGE.joinpath(*parts[1:depth])
        for path in (place / "__init__.py", place.with_suffix(".py") if depth > 1 else place / "__init__.py"):
            if path.is_file():
                yield path
