"""What is started ends with what started it, though that is killed and a subreaper adopts the orphans."""

import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from jupyter_client.manager import KernelManager

from ttlkit.runs import pipeline

REPO = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a kernel's own watch must do")

KERNEL = """
import time
from jupyter_client.manager import KernelManager
from ttlkit.runs import pipeline
manager = KernelManager(kernel_name="python3")
manager.start_kernel(extra_arguments=pipeline.kernel_options())
print("started", flush=True)
time.sleep(100)
"""
POOL = """
import time
from ttlkit import machine
if __name__ == "__main__":
    list(machine.in_processes(time.sleep, [10] * 8, workers=2, fewest=2))
"""
GDOWN = """
import sys
from pathlib import Path
from ttlkit.data.public import download
Path(sys.argv[1], "gdown.py").write_text('''
import time
def download(**given):
    open("up", "w").close()
    time.sleep(100)
''')
list(download._gdown(f"{download.DRIVE_FILE}x", Path(sys.argv[1], "file")))
"""
WORKER = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-m", "ttlkit.runs.worker", "02_teacher_pretraining", "--profile", "smoke", "--steps",
                  "1000000", "--width", "8", "--collection", sys.argv[2]])
time.sleep(100)
"""


@pytest.fixture
def adopting():
    """This process adopts orphans, as `systemd --user` does: their parent is then not process 1."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    yield
    ctypes.CDLL(None).prctl(36, 0, 0, 0, 0)


def started_by(home, script, until, *arguments):
    """(what runs the script, what that has started) as soon as `until(parent, children)`."""
    environment = {**os.environ, "PYTHONPATH": f"{REPO}:{home}", "TTLKIT_HOME": str(home), "TORCHELASTIC_RUN_ID": "x"}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    parent = subprocess.Popen(
        command, cwd=home, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    children = []
    while not until(parent, children):
        time.sleep(0.02)
        assert parent.poll() is None
        children = psutil.Process(parent.pid).children(recursive=True)
    return parent, psutil.Process(parent.pid).children(recursive=True)


CASES = {
    "kernel that starts": (KERNEL, lambda parent, children: parent.stdout.readline()),
    "pool": (POOL, lambda parent, children: len(children) > 2),  # and one that keeps count of shared memory
    "gdown": (GDOWN, lambda parent, children: Path(parent.args[-2], "up").exists()),
    "worker of torchrun": (WORKER, lambda parent, children: list(Path(parent.args[-2]).rglob("metrics.jsonl"))),
}


@pytest.mark.parametrize("case", CASES)
def test_what_a_killed_process_has_started_ends(case, adopting, home, small_pocket):
    script, until = CASES[case]
    parent, children = started_by(home, script, until, home, small_pocket)
    assert children
    parent.kill()  # it alone
    parent.wait()
    _, there = psutil.wait_procs(children, timeout=8)
    alive = [process for process in there if process.status() != psutil.STATUS_ZOMBIE]
    for process in alive:
        process.kill()
    assert not alive


def test_a_kernel_that_is_interrupted_as_it_ends_says_nothing(tmp_path):
    """jupyter_client interrupts a kernel before it asks it to leave; now and then that meets it within a message."""
    with open(tmp_path / "said", "w") as said:
        manager = KernelManager(kernel_name="python3")
        manager.start_kernel(extra_arguments=pipeline.kernel_options(), stderr=said, stdout=said)
        client = manager.blocking_client()
        client.start_channels()
        try:
            client.wait_for_ready(timeout=30)
            client.execute_interactive("""
def interrupted(*_):
    raise KeyboardInterrupt
get_ipython().kernel.shell_handlers["comm_info_request"] = interrupted
""")
            client.comm_info()
            client.execute_interactive("1", timeout=20)  # comes after it
        finally:
            client.stop_channels()
            manager.shutdown_kernel()
    assert (tmp_path / "said").read_text() == ""
