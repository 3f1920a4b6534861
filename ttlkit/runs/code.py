"""Which code a stage runs: the modules of ttlkit that its notebook imports, and theirs, each with a hash."""

import ast
import json
import sys
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from ttlkit import files, machine
from ttlkit.words import SettingsError

PACKAGE = machine.PACKAGE  # tests point it at a copy
# What these decide stands in a stage's settings, so that a number of another profile makes nothing stale.
SETTINGS = ("runs/settings.py", "runs/profiles.py")
# What a reader of a notebook answers is no part of a stage: neither these modules nor cells with one of these tags.
EXERCISES, NO_STAGE = ("lesson/check.py", "lesson/exercises/"), {"bootstrap", "exercise"}
# Files and folders that decide on the weights that a training ends with.
TRAINING = ("method/", "data/", "rain/", "evaluate/metrics.py", "machine.py", "runs/training.py")
_loaded: dict[Path, str] = {}  # modules of this process, and the hash that their files had when it was first seen


def of_notebook(stage: str) -> dict[str, str]:
    """Path below ttlkit/ to hash, for every module that the stage's notebook runs."""
    return of_source("\n".join(_cells(stage, "code")))


def of_source(source: str) -> dict[str, str]:
    """Path below ttlkit/ to hash, for every module that `source` imports, at whatever depth.

    Comments, docstrings and layout do not count: only what runs.
    """
    found: dict[str, str] = {}
    waiting = _imported(_parsed(source, "a notebook's code"))
    while waiting:
        path = waiting.pop()
        name = path.relative_to(PACKAGE).as_posix()
        if name not in found and not name.startswith((*SETTINGS, *EXERCISES)):
            found[name], needs = _read(path)
            page = path.with_suffix(".html")  # a template that the module fills in
            found[name] += files.sha256(page)[:8] if page.is_file() else ""
            # The face of the package imports everything when it is asked to; that is no part of other modules.
            waiting |= needs if name != "__init__.py" else set()
    return dict(sorted(found.items()))


def notebook_path(stage: str) -> Path:
    """The stage's notebook, in the checkout or in the installed package."""
    return machine.shipped("notebooks") / f"{stage}.ipynb"


def notebook_hash(stage: str) -> str:
    """Hash of all cells of a stage's notebook, its text too."""
    return files.sha256_of(_cells(stage, "code"), _cells(stage, "markdown"))[:16]


def training_cells(stage: str) -> list[str]:
    """The code cells of a notebook up to the one that trains: an edit there is one of the training."""
    cells = _cells(stage, "code")
    last = max((i for i, cell in enumerate(cells) if "trainer_for(" in cell), default=-1)
    return cells[: last + 1]


def assigned_names(source: str) -> list[str]:
    """Names that a cell assigns at top level."""
    return [
        target.id
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]


def changed_since_loaded() -> list[str]:
    """Modules of ttlkit in this process whose files are no longer what it runs: a kernel must then be restarted."""
    changed = []
    for name, module in sorted(sys.modules.items()):
        if name.startswith("ttlkit.") and getattr(module, "__file__", None):
            path = Path(str(module.__file__))
            now = _read(path)[0]
            if _loaded.setdefault(path, now) != now:
                changed.append(path.name)
    return changed


def _cells(stage: str, kind: str) -> list[str]:
    path = notebook_path(stage)
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"{path}: not a notebook that can be read ({error}); restore it") from None
    tags = [cell["metadata"].get("tags", []) for cell in cells]
    sources = ["".join(cell["source"]) for cell in cells]
    kinds = [cell["cell_type"] for cell in cells]
    return [s for s, k, t in zip(sources, kinds, tags, strict=True) if k == kind and not NO_STAGE & set(t)]


def _read(path: Path) -> tuple[str, frozenset[Path]]:
    """(hash of what runs, the modules that it imports) of a file, read again when it has changed."""
    return _read_once(path, path.stat().st_mtime_ns, path.stat().st_size, PACKAGE)


@lru_cache(maxsize=512)
def _read_once(path: Path, changed: int, size: int, package: Path) -> tuple[str, frozenset[Path]]:
    try:
        tree = _parsed(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: not text in UTF-8; restore it") from None
    needs = frozenset(_imported(tree, path.relative_to(package).parts[:-1] if path.is_relative_to(package) else ()))
    for node in ast.walk(tree):
        body: Any = getattr(node, "body", None)
        first = body[0].value if isinstance(body, list) and body and isinstance(body[0], ast.Expr) else None
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            body[0] = ast.Pass()  # a docstring
    return files.sha256_of(ast.unparse(tree))[:16], needs


def _parsed(source: str, where: str) -> ast.Module:
    """The syntax tree of Python, or of a notebook's Python with Jupyter's own lines (%, !, ?) in it."""
    try:
        return ast.parse(source)
    except SyntaxError:
        from IPython.core.inputtransformer2 import TransformerManager  # only notebooks need it

        try:
            return ast.parse(TransformerManager().transform_cell(source))
        except SyntaxError as error:
            raise SettingsError(f"{where}: line {error.lineno} is no Python ({error.msg}); mend it") from None


def _imported(tree: ast.Module, package: tuple[str, ...] = ()) -> set[Path]:
    """Files of ttlkit that code imports itself, inside functions too; `package`: the folders that it lies in."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = ("ttlkit", *package[: len(package) - node.level + 1]) if node.level else ()
            base = ".".join((*above, *([node.module] if node.module else [])))
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
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
