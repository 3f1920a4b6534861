"""pyproject.toml, environment.yml, constraints.txt and the Makefile say the same; tests have no network."""

import os
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPO = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA_NAMES = {"pytorch": "torch"}

needs_make = pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")


def _bounds(lines):
    found = {}
    for line in lines:
        requirement = Requirement(line)
        name = canonicalize_name(CONDA_NAMES.get(requirement.name, requirement.name))
        assert name not in found, f"{name} is named twice"
        found[name] = requirement.specifier
    return found


def _pins():
    lines = (REPO / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("#") and "make lock" in lines[0]
    return dict(re.fullmatch(r"([\w.-]+)==([\w.]+)", line).groups() for line in lines[1:])


def _make(*arguments):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=REPO, env=clean, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_conda_users_get_the_same_packages():
    conda = yaml.safe_load((REPO / "environment.yml").read_text(encoding="utf-8"))
    assert conda["channels"] == ["conda-forge"]
    lines = [line for line in conda["dependencies"] if isinstance(line, str) and line != "pip"]
    bounds = _bounds(lines)
    assert bounds.pop("python") == PROJECT["requires-python"]
    assert bounds == _bounds(PROJECT["dependencies"])


def test_every_dependency_has_a_lower_bound_and_a_pin_that_fits():
    extras = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
    pins = {canonicalize_name(name): version for name, version in _pins().items()}
    for name, specifier in _bounds([*PROJECT["dependencies"], *extras]).items():
        if name == PROJECT["name"]:
            continue
        assert any(part.operator == ">=" for part in specifier), f"{name} has no lower bound"
        assert name in pins, f"{name} is not pinned in constraints.txt: run make lock"
        assert specifier.contains(pins[name]), f"{name} is pinned to {pins[name]}, outside {specifier}"


@pytest.mark.parametrize(
    "has",
    [  # late 2026; what the hosted machines bring must satisfy us, so that a notebook reinstalls none of it
        "torch==2.10.0", "torch==2.11.0", "numpy==2.1.0", "ipywidgets==7.7.1", "gdown==5.2.2",
        "accelerate==1.14.0",
    ],
)  # fmt: skip
def test_colab_and_kaggle_keep_what_they_have(has):
    name, version = has.split("==")
    assert _bounds(PROJECT["dependencies"])[name].contains(version)


def test_torchvision_is_not_a_dependency():
    assert "torchvision" not in {*_bounds(PROJECT["dependencies"]), *_pins()}


def test_ci_runs_tests_checks_and_the_chain():
    script = REPO / ".ci" / "run"
    assert os.access(script, os.X_OK)
    steps = re.findall(r"^timed (.+)$", script.read_text(encoding="utf-8"), re.MULTILINE)
    assert steps == ["make test", "make check", "make reproduce PROFILE=smoke"]


@needs_make
def test_make_alone_lists_the_targets():
    done = _make()
    assert done.returncode == 0, done.stderr
    for target in ("reproduce", "test", "check", "format", "lock", "clean", "notebook"):
        assert re.search(rf"^  {target} +\w", done.stdout, re.MULTILINE)


@needs_make
@pytest.mark.parametrize(
    ("given", "passed"),
    [
        ([], ""),
        (["PROFILE=smoke"], "--profile 'smoke'"),
        (["COLLECTION=my rain", "SEED=0"], "--collection 'my rain' --seed '0'"),
        (["RUN=001", "PROFILE=colab"], "--profile 'colab' --run '001'"),
    ],
)
def test_make_reproduce_passes_on_only_what_is_set(given, passed, monkeypatch):
    for name in ("COLLECTION", "PROFILE", "RUN", "SEED"):
        monkeypatch.delenv(name, raising=False)
    done = _make("-n", "reproduce", *given)
    assert done.stdout.splitlines()[-1] == f".venv/bin/ttlkit reproduce {passed}"


def _script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


@needs_make
def test_make_refuses_an_old_python_in_one_line(tmp_path):
    old = _script(tmp_path / "python", '[ "$1" = --version ] && echo Python 3.9.2 || exit 1')
    done = _make(".venv", f"VENV={tmp_path}/venv", f"PYTHON={old}")
    assert done.returncode != 0
    assert "needs Python 3.11 or newer" in done.stderr.splitlines()[0]
    assert "Python 3.9.2" in done.stderr.splitlines()[0]
    assert not (tmp_path / "venv").exists()


@needs_make
def test_a_failed_install_says_why_and_is_taken_up_again(tmp_path):
    """The venv's python is a shell script here, so that nothing is installed; make itself is the real one."""
    venv = tmp_path / "venv"
    says = "echo WARNING: Location x is ignored; echo ERROR: no space left; exit 1"
    _script(venv / "bin" / "python", f'case "$*" in *install*) {says};; esac')
    done = _make(".venv", f"VENV={venv}", f"PYTHON={sys.executable}")
    assert done.returncode != 0
    assert "ERROR: no space left" in done.stderr and "install.log" in done.stderr
    assert "Location" not in done.stdout + done.stderr
    assert not (venv / ".installed").exists()

    _script(venv / "bin" / "python", 'echo "$*"')
    assert _make(".venv", f"VENV={venv}", f"PYTHON={sys.executable}").returncode == 0
    assert "install" in (venv / "install.log").read_text() and (venv / ".installed").exists()
    assert "installing" not in _make(".venv", f"VENV={venv}").stdout


@needs_make
def test_make_clean_does_not_touch_data_or_results():
    recipe = _make("-n", "clean").stdout
    assert "rm" in recipe
    assert "outputs" not in recipe and "datasets" not in recipe


def test_sockets_of_a_test_reach_loopback_only():
    with pytest.raises(RuntimeError, match=r"without network.*192\.0\.2\.1"), socket.socket() as client:
        client.connect(("192.0.2.1", 80))
    with pytest.raises(RuntimeError, match="without network.*ttlkit.invalid"):
        socket.create_connection(("ttlkit.invalid", 80))
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=5).close()


def test_commands_that_tests_start_find_the_proxy_closed():
    code = "import urllib.request; urllib.request.urlopen('http://ttlkit.invalid/', timeout=5)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "refused" in done.stderr  # by the closed proxy; without it the name would not resolve
