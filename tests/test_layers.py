"""Imports run one way, as the contracts in pyproject.toml say; what must start quickly loads nothing heavy."""

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import grimp
import pytest
from importlinter.cli import lint_imports
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import ttlkit
from ttlkit.runs.settings import HELP

REPO = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))
CONTRACTS = {contract["id"]: contract for contract in PYPROJECT["tool"]["importlinter"]["contracts"]}


@pytest.fixture(scope="module")
def graph():
    """Who imports whom, read from the source, inside functions and for type checkers too."""
    return grimp.build_graph("ttlkit", include_external_packages=True, cache_dir=None)


def _python(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *arguments], cwd=REPO, env=environment or None, capture_output=True, text=True, timeout=120
    )


def test_the_contracts_are_kept(capsys):
    code = lint_imports(str(REPO / "pyproject.toml"), no_cache=True, no_logo=True)
    assert code == 0, capsys.readouterr().out


def test_every_module_stands_in_a_layer(graph):
    rows = [f"ttlkit.{name}" for row in CONTRACTS["layers"]["layers"] for name in row.split(" | ")]
    assert len(CONTRACTS["layers"]["layers"]) <= 14, "a table that one can keep in mind"
    for module in (name for name in graph.modules if name.startswith("ttlkit.")):
        found = [row for row in rows if f"{module}.".startswith(f"{row}.")]
        above = any(row.startswith(f"{module}.") for row in rows)  # a room whose modules stand in several rows
        assert len(found) + above == 1, f"{module}: say in pyproject.toml in which layer it stands"


def test_no_import_hides_from_the_contracts():
    """Nor a room that stands in several rows: its __init__ is in none of them and imports nothing."""
    for path in (REPO / "ttlkit").rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        assert not re.search(r"\bimport_module\(|\b__import__\(", source), f"{path}: import it by its name"
    for room in ("data", "evaluate"):
        assert "import" not in (REPO / "ttlkit" / room / "__init__.py").read_text(encoding="utf-8")


def test_third_party_packages_are_declared(graph):
    """Each is a dependency in pyproject.toml, what one of those itself requires, or of an extra."""
    project = PYPROJECT["project"]
    extras = [
        line for name in ("report", "cluster", "export", "site") for line in project["optional-dependencies"][name]
    ]
    declared = {canonicalize_name(Requirement(line).name) for line in [*project["dependencies"], *extras]}
    for name in list(declared):
        for line in metadata.requires(name) or []:
            if "extra ==" not in line:
                declared.add(canonicalize_name(Requirement(line).name))
    absent = [line for name in ("peers", "peers-licensed") for line in project["optional-dependencies"][name]]
    declared |= {canonicalize_name(Requirement(line).name) for line in absent}  # not installed where tests run
    providers = metadata.packages_distributions()
    for package in (name for name in graph.modules if graph.is_module_squashed(name)):
        if package not in sys.stdlib_module_names:
            found = {canonicalize_name(name) for name in providers.get(package, [package])}
            assert found & declared, f"{package} is imported: add it to pyproject.toml"


def test_no_module_is_called_as_a_parameter_of_a_notebook(graph):
    """`from ttlkit.gap import images` would hide a notebook's `images = 8`, or the other way round."""
    names = {part for module in graph.modules if module.startswith("ttlkit.") for part in module.split(".")[1:]}
    assert not names & set(HELP)


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        ("import ttlkit", {"torch", "numpy", "matplotlib", "PIL", "pydantic"}),
        ("from ttlkit.cli import build_parser; build_parser().format_help()", {"torch", "numpy", "pydantic"}),
        ("import ttlkit.apply.restore", {"torch", "pydantic"}),  # enough to restore with an exported network
        ("import ttlkit.data.samples, ttlkit.rain", {"torch", "pydantic"}),  # what loader processes import
    ],
)
def test_what_must_start_quickly_loads_nothing_heavy(code, heavy):
    done = _python("-W", "error", "-c", f"import sys\n{code}\nprint(sorted({heavy} & set(sys.modules)))")
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_import_ttlkit_sets_one_variable_and_imports_nothing_of_its_own():
    code = (
        "import os, sys; before = dict(os.environ)\n"
        "import ttlkit\n"
        "print({k: v for k, v in os.environ.items() if before.get(k) != v}, ttlkit.__version__,\n"
        "      *(name for name in sys.modules if name.startswith('ttlkit.')))"
    )
    done = _python("-c", code, PATH="")
    assert done.stdout == f"{{'OMP_WAIT_POLICY': 'PASSIVE'}} {ttlkit.__version__}\n", done.stderr
