"""Imports run one way: read from the source, inside functions too, and held against one table."""

import ast
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPO = Path(__file__).resolve().parents[1]
PACKAGE = REPO / "ttlkit"
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")

# module -> the modules of ttlkit that it may import
TABLE = {
    "images": set(),
    "photos": {"images"},
    "config": set(),
    "models": set(),
    "stages": {"config"},
    "metrics": {"images"},
    "features": {"images"},
    "stats": set(),
    "gap": {"cache", "config", "features", "images", "models", "report", "show", "stats"},
    "rain": {"images"},
    "scenes": {"images"},
    "show": {"features", "images"},
    "live": {"features", "images", "rain", "show"},
    "report": set(),
    "pocket": {"images", "rain", "scenes"},
    "catalogue": {"config"},
    "download": set(),
    "unpack": {"catalogue", "images"},
    "fetch": {"catalogue", "config", "download", "unpack"},
    "cache": {"config", "images"},
    "leaks": {"images"},
    "check": {"cache", "data", "images", "leaks"},
    "losses": {"metrics"},
    "steps": {"losses", "tasks"},
    "data": {"cache", "images", "pocket", "rain"},
    "tasks": {"images", "rain", "models", "losses", "metrics"},
    "trainer": {"config"},
    "export": {"models"},
    "train": {"config", "data", "models", "stages", "steps", "tasks", "trainer"},
    "restore": {"config", "export", "images", "models", "photos"},
    "evaluate": {"images", "metrics", "restore", "data"},
    "pipeline": {"config", "stages"},
    "sweep": {"config", "pipeline", "stages"},
}
TABLE["cli"] = set(TABLE)

# third-party package -> the modules that may import it
FENCES = {
    "gdown": {"download"},
    "requests": {"download"},
    "matplotlib": {"show"},
    "ipywidgets": {"live"},
    "IPython": {"live"},
    "nbconvert": {"report"},
    "nbformat": {"report"},
    "sklearn": {"stats"},
    "papermill": {"pipeline"},
    "submitit": {"sweep"},
    "accelerate": {"trainer"},
    "onnx": {"export"},
    "onnxruntime": {"export"},
    "openvino": {"export"},
    "torchvision": set(),
}


def imports(source):
    """Dotted names that a module of ttlkit imports anywhere; relative ones made absolute."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(filter(None, ("ttlkit" if node.level else "", node.module)))
            found.update(f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in ("import_module", "__import__"):
                literal = node.args and isinstance(node.args[0], ast.Constant)
                found.add(str(node.args[0].value) if literal else "ttlkit.<computed name>")
    return found


def _source(module):
    return (PACKAGE / f"{module}.py").read_text(encoding="utf-8")


def _siblings(source):
    """Modules of ttlkit that a source imports; names of the package itself (`__version__`) do not count."""
    names = {name.split(".")[1] for name in imports(source) if name.startswith("ttlkit.")}
    return {name for name in names if not name.startswith("__")}


def _third_party(source):
    return {name.split(".")[0] for name in imports(source)} - sys.stdlib_module_names - {"ttlkit"}


def _python(*arguments):
    return subprocess.run(
        [sys.executable, *arguments], cwd=REPO, capture_output=True, text=True, timeout=120, check=False
    )


def test_the_reader_sees_every_form_of_import():
    source = """
from . import a
from .b import name
from ttlkit import c, __version__
import ttlkit.d as d
def function():
    from ttlkit.e import name
    import matplotlib.pyplot as plt
    importlib.import_module("ttlkit.f")
    importlib.import_module(name)
"""
    assert _siblings(source) == {"a", "b", "c", "d", "e", "f", "<computed name>"}
    assert "matplotlib.pyplot" in imports(source)


def test_there_are_modules_and_each_stands_in_the_table():
    assert {"images", "metrics", "losses"} <= set(MODULES)
    missing = set(MODULES) - set(TABLE)
    assert not missing, f"say in tests/test_layers.py what {sorted(missing)} may import"


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module):
    used = _siblings(_source(module))
    assert used <= TABLE[module], f"{module} must not import {sorted(used - TABLE[module])}"


@pytest.mark.parametrize("module", MODULES)
def test_third_party_packages_stay_behind_their_fence(module):
    used = _third_party(_source(module))
    outside = {package for package in used if package in FENCES and module not in FENCES[package]}
    assert not outside, f"{module} must not import {sorted(outside)}"


def test_third_party_packages_are_declared():
    """Each is a dependency in pyproject.toml, what one of those itself requires, or of an extra for its module."""
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]["cluster"] + project["optional-dependencies"]["export"]
    declared = {canonicalize_name(Requirement(line).name) for line in [*project["dependencies"], *extras]}
    for name in list(declared):
        for line in metadata.requires(name) or []:
            if "extra ==" not in line:
                declared.add(canonicalize_name(Requirement(line).name))
    providers = metadata.packages_distributions()
    for module in MODULES:
        for package in _third_party(_source(module)):
            found = {canonicalize_name(name) for name in providers.get(package, [package])}
            assert found & declared, f"{module} imports {package}: add it to pyproject.toml"


def test_the_table_has_no_circle():
    left = dict(TABLE)
    while left:
        free = [module for module, needs in left.items() if not needs & (left.keys() - {module})]
        assert free, f"these import each other: {sorted(left)}"
        for module in free:
            del left[module]


def test_restoring_with_an_exported_network_needs_no_torch():
    done = _python("-c", "import sys, ttlkit.restore; print(sorted({'torch', 'pydantic'} & set(sys.modules)))")
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


def test_import_ttlkit_has_no_side_effect():
    code = (
        "import os, sys; before = dict(os.environ)\n"
        "import ttlkit\n"
        "assert dict(os.environ) == before\n"
        "print(*sorted({n.split('.')[0] for n in sys.modules} & {'torch', 'numpy', 'matplotlib', 'PIL'}),\n"
        "      *(n for n in sys.modules if n.startswith('ttlkit.')), ttlkit.__version__)"
    )
    done = _python("-W", "error", "-c", code)
    assert done.returncode == 0, done.stderr
    import ttlkit

    assert done.stdout.split() == [ttlkit.__version__], "import ttlkit must import nothing heavy"
    assert done.stderr == ""


@pytest.mark.skipif("cli" not in MODULES, reason="ttlkit/cli.py is not written yet")
def test_help_answers_without_importing_torch():
    done = _python("-X", "importtime", "-m", "ttlkit.cli", "--help")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "reproduce" in done.stdout
    loaded = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "ttlkit" in loaded
    assert not loaded & {"torch", "matplotlib", "papermill"}
