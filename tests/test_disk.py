"""A full disk and a folder that may not be written: one line names the file and the way out, and nothing half is left.

A limit on the size of a file stands for the disk: `write` fails in the same way.
"""

import errno
import os
import resource
import signal
from contextlib import contextmanager

import numpy as np
import pytest

from ttlkit import files
from ttlkit.apply import export
from ttlkit.data import image_files
from ttlkit.lesson import figures
from ttlkit.method import networks, weights
from ttlkit.runs import pipeline, sweep
from ttlkit.runs.settings import TeacherPretraining, resolve
from ttlkit.runs.stages import StageRun
from ttlkit.words import as_command

OUT = ("onnx", "xml")


@contextmanager
def small_disk(size=10_000):
    """No file of this process grows beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def said(capsys, call):
    """The line that a command ends with which does `call()`."""
    capsys.readouterr()
    assert as_command(lambda: call() and 0) == 1
    line = capsys.readouterr().err
    assert line.startswith("ttlkit: ") and line.count("\n") == 1, line
    return line.removeprefix("ttlkit: ").strip()


def writers(folder):
    """{file: what writes it}"""
    model = networks.Restorer(8).eval()
    return {
        folder / "a.safetensors": lambda: weights.save_weights(model, folder / "a.safetensors"),
        folder / "a.json": lambda: files.write_json(folder / "a.json", ["x" * 20_000]),
        **{folder / f"a.{kind}": lambda kind=kind: export.export(model, folder / f"a.{kind}") for kind in OUT},
    }


@pytest.mark.parametrize("place", range(4))
def test_a_full_disk_names_the_file_and_keeps_what_was_there(place, tmp_path, capsys):
    if place > 1:
        pytest.importorskip("openvino")
    path, write = list(writers(tmp_path).items())[place]
    path.write_bytes(b"before")
    with small_disk():
        line = said(capsys, write)
    assert line.startswith(f"{path}: ") and "free space there, or choose another folder" in line
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"before"]


@pytest.mark.parametrize("place", range(4))
def test_a_folder_that_may_not_be_written_is_named(place, ordinary_user, capsys):
    if place > 1:
        pytest.importorskip("openvino")
    folder = ordinary_user / "closed"
    folder.mkdir(mode=0o500)
    path, write = list(writers(folder).items())[place]
    line = said(capsys, write)
    assert line.startswith(f"{path}: Permission denied; allow it, or choose another folder")


def a_stage(run="a"):
    """A stage that is not done."""
    return StageRun(resolve(TeacherPretraining, {"profile": "smoke", "run": run}))


def test_a_run_on_a_full_disk_names_the_notebook(home, capsys):
    stage = a_stage()
    with small_disk(2_000):
        line = said(capsys, lambda: pipeline.run([stage]))
    assert line.startswith(f"{stage.folder}/notebook.ipynb: ") and "free space there" in line


def test_a_run_that_may_not_write_names_the_folder(ordinary_user, capsys, monkeypatch):
    monkeypatch.setenv("TTLKIT_HOME", str(ordinary_user))
    (ordinary_user / "outputs").mkdir(mode=0o500)
    line = said(capsys, lambda: pipeline.run([a_stage()]))
    assert line == f"{ordinary_user}/outputs/a: Permission denied; allow it, or choose another folder"


def test_rows_and_figures_of_a_stage_are_named_on_a_full_disk(home, capsys):
    stage = a_stage().begin()
    figure = figures.plot_images([[np.random.default_rng(0).random((99, 99, 3))]], ["a"])
    with small_disk():
        assert said(capsys, lambda: stage.log({"x": "x" * 20_000})).startswith(f"{stage.folder}/metrics.jsonl: ")
        assert said(capsys, lambda: stage.figure("a", figure)).startswith(f"{stage.folder}/figures/a.png: ")
    assert not list((stage.folder / "figures").iterdir())


def test_a_stage_of_a_sweep_that_cannot_be_copied_is_named(home, capsys):
    done, same = a_stage().begin(), a_stage("b")
    (done.folder / "teacher.safetensors").write_bytes(b"x" * 20_000)
    done.finish()
    with small_disk():
        line = said(capsys, lambda: sweep.take_finished(same, [done.run_folder]))
    assert line.startswith(f"{same.folder}: cannot be copied here") and line.endswith("free space")
    assert not list(same.run_folder.iterdir())


def test_what_is_printed_to_a_full_disk_is_said(capsys):
    def call():
        with open("/dev/full", "w") as file:
            file.write("x" * 100_000)

    assert (
        said(capsys, call)
        == "what is printed here: No space left on device; free space there, or choose another folder"
    )


def test_a_disk_that_may_only_be_read_names_the_file(tmp_path, capsys, monkeypatch):
    """It refuses even to remove what is not there."""

    def refuse(partial):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(partial))

    monkeypatch.setattr(files, "remove", refuse)
    for error in (None, OSError(errno.EROFS, "no", str(files.partial_of(tmp_path / "a")))):

        def call(error=error):
            with files.whole(tmp_path / "a") as partial:
                partial.write_bytes(b"")
                if error:
                    raise error

        assert said(capsys, call) == f"{tmp_path}/a: Read-only file system; allow it, or choose another folder"


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a place where no folder can be made")
def test_a_place_to_write_is_not_said_to_be_missing(capsys):
    line = said(capsys, lambda: files.write_text("/proc/none/a", "text"))
    assert line == "/proc/none: No folder can be made there; allow it, or choose another folder"
    with pytest.raises(image_files.ImageError, match="a.png: cannot be written .No folder can be made there.; free"):
        image_files.save_image("/proc/none/a.png", np.zeros((4, 4, 3), np.float32))


def test_a_working_directory_that_is_gone_is_said(tmp_path, capsys, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert said(capsys, os.getcwd) == "the working directory is gone; change to one that exists"


def test_a_connection_is_no_file(capsys):
    def call():
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")

    assert said(capsys, call) == "[Errno 111] Connection refused"


def test_errors_of_other_things_keep_their_words(tmp_path):
    """Only what the disk says of no file gets the name of the file that is being written."""
    reset = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
    missing = FileNotFoundError(errno.ENOENT, "No such file or directory", "source.png")
    for error in (reset, missing):
        with pytest.raises(type(error)) as found, files.whole(tmp_path / "a"):
            raise error
        assert found.value is error


def test_what_a_killed_process_left_is_cleared_though_its_number_is_taken(tmp_path):
    """In a container that is started again, processes have the numbers that they had before."""
    old, new = (files.partial_of(tmp_path / name, process=os.getppid()) for name in ("old", "new"))
    for partial in (old, new):
        partial.write_bytes(b"half")
    os.utime(old, (1, 1))  # long before that process began
    files.write_text(tmp_path / "a", "whole")
    assert not old.exists() and new.exists()
