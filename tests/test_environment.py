"""pyproject.toml, environment.yml, constraints.txt, Makefile and README say the same; the wheel is whole; threads
that wait sleep; tests have no network.
"""

import argparse
import importlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tomllib
import zipfile
from dataclasses import fields
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ttlkit import machine
from ttlkit.cli import build_parser
from ttlkit.runs.profiles import PROFILES
from ttlkit.runs.settings import HELP, STAGES

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
    extras = PROJECT["optional-dependencies"]
    assert bounds == _bounds([*PROJECT["dependencies"], *extras["report"], *extras["desktop"]])


def test_every_dependency_has_a_lower_bound_and_a_pin_that_fits():
    unpinned = ("peers", "peers-licensed")  # not in dev: they need the torchvision that was made for the torch there
    groups = PROJECT["optional-dependencies"].items()
    extras = [line for name, lines in groups if name not in unpinned for line in lines]
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
        "accelerate==1.14.0", "ipykernel==6.17.1", "ipywidgets==8.1.5", "pandas==2.2.2",
    ],
)  # fmt: skip
def test_colab_and_kaggle_keep_what_they_have(has):
    name, version = has.split("==")
    assert _bounds(PROJECT["dependencies"])[name].contains(version)


def test_torchvision_is_not_a_dependency():
    assert "torchvision" not in {*_bounds(PROJECT["dependencies"]), *_pins()}


def test_the_core_brings_no_jupyterlab_and_no_nbconvert():
    """Kaggle pins nbconvert 6.4.5, and a notebook that runs there needs none."""
    core = _bounds(PROJECT["dependencies"])
    assert not {"jupyter", "jupyterlab", "notebook", "nbconvert"} & set(core)
    assert {"ipykernel", "papermill", "ipywidgets", "pandas"} <= set(core)


def test_ci_runs_tests_checks_and_the_chain():
    script = REPO / ".ci" / "run"
    assert os.access(script, os.X_OK)
    steps = re.findall(r"^(?:\w+=\S+ )?timed (.+?)(?: \| .+)?$", script.read_text(encoding="utf-8"), re.MULTILINE)
    assert steps == ["make reproduce PROFILE=smoke", "make site RUN=smoke", "make test", "make check"]


@needs_make
def test_make_alone_lists_the_targets():
    done = _make()
    assert done.returncode == 0, done.stderr
    for target in ("reproduce", "test", "check", "format", "lock", "clean", "notebook"):
        assert re.search(rf"^  {target} +\w", done.stdout, re.MULTILINE)


@pytest.fixture
def given_on(tmp_path):
    """What `ttlkit` gets from make: (arguments of make) -> list. It is a script here that shows its own arguments."""
    venv = tmp_path / "venv"
    _script(venv / "bin" / "ttlkit", "printf '%s\\0' \"$@\"")
    (venv / ".installed").touch()  # newer than what it was made from

    def call(*arguments):
        done = _make("-s", f"VENV={venv}", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.split("\0")[:-1]

    return call


@needs_make
@pytest.mark.parametrize(
    "folder",
    ["/data/Wang's rain", "a$b $HOME", "two  blanks ", "x'; touch {here}; '", '"$(touch {here})"',
     "$(shell touch {here})", "a\\b#c,d)%*", "--dry-run", "two\nlines"],
)  # fmt: skip
def test_make_passes_a_value_on_as_it_was_typed(folder, given_on, tmp_path):
    folder = folder.format(here=tmp_path / "touched")
    expected = ["reproduce", f"--collection={folder}", "--run=001", f"--peers={folder}"]
    assert given_on("reproduce", f"COLLECTION={folder}", f"PEERS={folder}", "RUN=001", "SEED=") == expected
    assert not (tmp_path / "touched").exists()


@needs_make
@pytest.mark.parametrize("flag", ["-s", "-e"])  # -e: the environment wins over the Makefile, but was not meant for us
def test_make_takes_nothing_from_the_surrounding_environment(flag, given_on, monkeypatch):
    for name in ("COLLECTION", "PROFILE", "RUN", "SEED", "PEERS", "N_PAIRS", "PYTHON", "ARGS"):
        monkeypatch.setenv(name, "foreign")
    assert given_on(flag, "reproduce", "N_PAIRS=3") == ["reproduce", "--n-pairs=3"]
    assert "foreign" not in _make("-n", flag, "test").stdout


@needs_make
def test_make_leaves_the_arguments_of_pytest_to_the_shell():
    assert (
        _make("-n", "test", "ARGS=-k 'a$b' -m \"not slow\"")
        .stdout.splitlines()[-1]
        .endswith(" -k 'a$b' -m \"not slow\"")
    )


# ---- a parameter's help and default stand once: in ttlkit/runs/settings.py ----------------------------------------


def _options_of(command):
    """{option: action} of a command of `ttlkit`, such as `reproduce`."""
    subparsers = next(a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return {option: action for action in subparsers.choices[command]._actions for option in action.option_strings}


def _makefile_options():
    """{NAME: option} that `make reproduce` passes on."""
    lines = re.findall(r'\$\(if \$\((\w+)\),(--[\w-]+)="\$\$(\w+)"\)', (REPO / "Makefile").read_text(encoding="utf-8"))
    assert lines and all(name == value for name, _, value in lines)
    return {name: option for name, option, _ in lines}


def _defaults():
    return {f.name: f.default for kind in STAGES.values() for f in fields(kind)}


def test_options_of_reproduce_are_parameters_with_their_help():
    options = _options_of("reproduce")
    own = {"-h", "--help", "--dry-run", "--accept-code"}
    for option in set(options) - own:
        name = option.removeprefix("--").replace("-", "_")
        assert options[option].help.startswith(HELP[name].split("; None")[0]), option
        assert options[option].default is None, f"{option}: the default stands in ttlkit/runs/settings.py"


def test_make_offers_options_of_reproduce_and_says_their_defaults():
    passed = _makefile_options()
    assert all(option == f"--{name.lower().replace('_', '-')}" for name, option in passed.items())
    assert set(passed.values()) <= set(_options_of("reproduce"))
    said = re.search(r"^reproduce: .*\[(.+)\]$", (REPO / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[1]
    said = dict(word.split("=") for word in said.split())
    assert set(said) == set(passed)
    for name, default in _defaults().items():
        if name.upper() in said and default not in (None, ""):
            assert said[name.upper()] == str(default)


def test_the_readme_uses_what_there_is():
    text = (REPO / "README.md").read_text(encoding="utf-8")
    for line in re.findall(r"make reproduce((?: [A-Z_]+=[^\s`]+)+)", text):
        given = dict(word.split("=", 1) for word in line.split())
        assert set(given) <= set(_makefile_options()), line
        assert given.get("PROFILE", "smoke") in PROFILES, line
    for command, rest in re.findall(r"ttlkit (reproduce|sweep|gap|derain|export|report)\b([^`\n]*)", text):
        assert set(re.findall(r"--[a-z-]+", rest)) <= set(_options_of(command)), rest


def _script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


@needs_make
def test_make_refuses_an_old_python_in_one_line(tmp_path):
    old = _script(tmp_path / "an old" / "python", '[ "$1" = --version ] && echo Python 3.9.2 || exit 1')
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


# ---- the wheel ----------------------------------------------------------------------------------------------------


def _shipped():
    """What the wheel must hold, as paths below ttlkit/, and where it lies in the checkout."""
    code = {path.relative_to(REPO / "ttlkit"): path for path in (REPO / "ttlkit").rglob("*.py")}
    folders = {"weights": "ttlkit/weights/*", "notebooks": "notebooks/*.ipynb", "lesson": "ttlkit/lesson/*.html"}
    folders |= {"datasets": "datasets/catalogue.toml", "datasets/hashes": "datasets/hashes/*.sha256"}
    return code | {Path(at, path.name): path for at, pattern in folders.items() for path in REPO.glob(pattern)}


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """A folder with the unpacked wheel, built from nothing but what it must hold."""
    folder = tmp_path_factory.mktemp("wheel")
    for path in [*_shipped().values(), *(REPO / name for name in ("pyproject.toml", "README.md", "LICENSE"))]:
        copy = folder / "source" / path.relative_to(REPO)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    command = [sys.executable, "-c", build, str(folder)]
    done = subprocess.run(command, cwd=folder / "source", capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def test_the_wheel_works_without_a_checkout(unpacked, tmp_path):
    """Code, notebooks, catalogue, hashes and weights are in it, and are found where it is unpacked; nothing else."""
    site = unpacked / "ttlkit"
    found = {path.relative_to(site) for path in site.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert found == set(_shipped())
    assert sum(path.stat().st_size for path in (site / "weights").iterdir()) <= 20e6

    code = """
from ttlkit import machine, runs
from ttlkit.apply import restore
from ttlkit.data.public import catalogue
from ttlkit.runs import code, settings
assert machine.checkout() is None and machine.home() == machine.Path.cwd()
assert all(code.notebook_path(stage).is_file() for stage in settings.STAGES)
assert catalogue.load_catalogue()
print(runs.__file__)
"""
    environment = {**os.environ, "PYTHONPATH": str(site.parent)}
    environment.pop("TTLKIT_HOME", None)
    command, options = [sys.executable, "-c", code], {"capture_output": True, "text": True, "timeout": 60}
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=False, **options)
    assert (done.stdout.strip(), done.stderr) == (str(site / "runs/__init__.py"), "")


@pytest.mark.slow
def test_the_first_notebook_runs_from_the_wheel_in_an_empty_folder(unpacked, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    environment.pop("TTLKIT_HOME", None)
    notebook = unpacked / "ttlkit/notebooks/00_start_here.ipynb"
    command = [sys.executable, "-m", "papermill", str(notebook), "out.ipynb", "-k", "python3"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert {path.name for path in tmp_path.iterdir()} == {"out.ipynb", "outputs"}  # no collection is made for it
    written = {path.name for path in (tmp_path / "outputs/pocket/00_start_here").rglob("*") if path.is_file()}
    assert written == {"DONE.json", "config.json", "restored.png", "before_after.png", "failure.png"}
    page = (tmp_path / "out.ipynb").read_text()
    before, after = (float(re.search(rf"{name}: ([0-9.]+) dB", page)[1]) for name in ("rainy", "released"))
    assert 20 < before < 25 and after > before + 3  # rain that one sees, and sees go
    assert "ttlkit-slider" in page and len(page) < 3e6


# ---- threads ------------------------------------------------------------------------------------------------------

SAY = "import os, ttlkit; print(os.environ['OMP_WAIT_POLICY'])"
# torchrun says how many threads a worker has, but not how they wait
UNDER_TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--no-python", sys.executable, "-c"]


@pytest.fixture
def no_policy(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)


@pytest.mark.slow
@pytest.mark.parametrize("command", [["-c"], UNDER_TORCHRUN], ids=["command", "worker"])
def test_waiting_threads_sleep(command, no_policy):
    done = subprocess.run([sys.executable, *command, SAY], cwd=REPO, capture_output=True, text=True, timeout=100)
    assert done.stdout == "PASSIVE\n", done.stderr


def test_what_the_user_has_set_wins(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert subprocess.run([sys.executable, "-c", SAY], capture_output=True, text=True).stdout == "ACTIVE\n"


def test_waiting_threads_of_a_notebook_sleep(no_policy, tmp_path):
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SAY)]), tmp_path / "in.ipynb")
    done = papermill.execute_notebook(tmp_path / "in.ipynb", None, kernel_name="python3", cwd=REPO, progress_bar=False)
    assert done.cells[-1].outputs[0].text == "PASSIVE\n"


@pytest.mark.skipif(sys.platform != "linux", reason="asks GNU's OpenMP")
def test_torch_is_told_how_to_wait(no_policy, monkeypatch):
    """OpenMP reads the variable once, when torch is loaded."""
    monkeypatch.setenv("OMP_DISPLAY_ENV", "TRUE")
    done = subprocess.run([sys.executable, "-c", "import ttlkit, torch"], capture_output=True, text=True, timeout=100)
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr


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


def test_an_optional_package_can_be_left_out_of_an_import():
    with machine.leaving_out("json"), pytest.raises(ImportError):
        importlib.import_module("json")
    assert sys.modules["json"] is json
    with pytest.raises(RuntimeError), machine.leaving_out("no_such_package"):
        raise RuntimeError
    assert "no_such_package" not in sys.modules
