"""The commands, with the network off and names that would take over a terminal: all but `data fetch` do their work."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from conftest import REPO, environment
from nbformat.v4 import new_code_cell, new_notebook, new_output

EVIL = "\udcff\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\rfine\nfine"  # no UTF-8; title, clear, bidi
UNSHARE = ["unshare", "--net"]
# One process for all commands: each has torch to import. What asks for the network, and hides that it failed, is told.
CHILD = """
import json, sys
from ttlkit.cli import main
asked, codes, (commands, code) = [], [], json.loads(sys.stdin.read())
sys.addaudithook(lambda event, values: event in ("socket.connect", "socket.getaddrinfo") and asked.append(str(values)))
for sys.argv in commands:
    try:
        codes.append(main())
    except SystemExit as stopped:
        codes.append(stopped.code)
exec(code)
print()
print(json.dumps([codes, asked]))
"""


def run(home, commands, code=""):
    """Codes, what of the network was asked for, and all that the terminal would have got."""
    commands = [["ttlkit", *map(str, command)] for command in commands]
    done = subprocess.run(
        [*UNSHARE, sys.executable, "-c", CHILD], input=json.dumps([commands, code]), capture_output=True, text=True,
        cwd=home, env=environment(home), timeout=100, check=False, errors="surrogateescape",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    printed, _, last = done.stdout.rstrip("\n").rpartition("\n")
    return *json.loads(last), printed + done.stderr


@pytest.fixture(scope="module", autouse=True)
def unshared():
    if not shutil.which("unshare") or subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs the rights to cut a process from the network (unshare --net)")


def make_evil(home, small_pocket):
    """A collection, a set in it, files and a run, all of them badly named; one picture of each kind cannot be read."""
    collection = Path(shutil.copytree(small_pocket, home / f"own{EVIL}"))
    test = next((collection / "test").iterdir())
    test.rename(test.with_name(f"rain{EVIL}"))
    (collection / "real" / "rainy" / f"bad{EVIL}.png").write_bytes(b"no picture")
    for side, source in (("a", "rainy"), ("b", "clean")):
        folder = home / f"{side}{EVIL}"
        folder.mkdir()
        for number, path in enumerate(sorted((collection / "real" / source).glob("*.*g"))[:3]):
            shutil.copy(path, folder / f"{number}{EVIL}{path.suffix}")
        (folder / f"bad{EVIL}.png").write_bytes(b"no picture")
    stage = home / "outputs" / f"run{EVIL}" / f"05_x{EVIL}"
    stage.mkdir(parents=True)
    cell = new_code_cell("x", outputs=[new_output("stream", text=EVIL)])
    (stage / "notebook.ipynb").write_text(json.dumps(new_notebook(cells=[cell])))
    return collection


@pytest.mark.slow
def test_everything_but_fetching_works_without_a_network_and_no_name_reaches_the_terminal(home, small_pocket):
    collection = make_evil(home, small_pocket)
    named = shutil.copytree(small_pocket, home / f"own{EVIL[1:]}")
    a, b, run_name = home / f"a{EVIL}", home / f"b{EVIL}", f"run{EVIL}"
    commands = [
        ("data", "list", 0),
        ("data", "show", collection, 0),
        ("data", "check", a, 1),
        ("data", "cache", 0),
        ("gap", a, b, "--images", 3, "--out", home / f"out{EVIL}", 0),
        ("derain", a, 1),  # of four pictures one cannot be read
        ("derain", a, 1),  # three are there already
        ("export", home / f"student{EVIL[1:]}.onnx", 0),
        ("reproduce", "--dry-run", "--collection", named, "--run", "fine", "--profile", "smoke", 0),
        ("reproduce", "--dry-run", "--collection", collection, 1),  # no notebook could hold a name that is no UTF-8
        ("report", run_name, 0),
        ("report", f"none{EVIL}", 1),
        ("data", "show", home / f"none{EVIL}", 1),
        ("data", "check", home / f"none{EVIL}", 1),
        ("derain", home / f"none{EVIL}.png", 1),
        ("derain", a, "--weights", home / f"none{EVIL}.safetensors", "--overwrite", 1),
        ("reproduce", "--dry-run", "--\x1b]0;owned\x07", 2),
        ("reproduce", "--dry-run", "--tasks", EVIL, 1),
    ]  # fmt: skip
    imports = [
        line
        for path in sorted((REPO / "notebooks").glob("*.ipynb"))
        for cell in nbformat.read(path, 4).cells
        if cell.cell_type == "code" and "bootstrap" not in cell.metadata.get("tags", [])
        for line in cell.source.splitlines()
        if re.match(r"(from|import) ", line)
    ]
    codes, asked, printed = run(home, [command for *command, _ in commands], "\n".join(dict.fromkeys(imports)))
    assert asked == []
    assert codes == [code for *_, code in commands], printed
    assert {c for c in printed if not c.isprintable()} <= {"\n", "\r"}
    assert [line for line in printed.replace("\r", "\n").split("\n") if line.startswith("fine")] == []
    assert printed.count(r"\x1b]0;owned\x07") > 20, "the names are told"
    assert (home / f"a{EVIL}-derained").is_dir() and (home / f"out{EVIL}" / "gap.html").is_file()
