"""A full disk and a folder that may not be written: one line names the file and the way out, and nothing half is left.

A limit on the size of a file stands for the disk: `write` fails in the same way.
"""

import errno
import os
import resource
import signal
from contextlib import contextmanager

import pytest

from ttlkit import files
from ttlkit.apply import export
from ttlkit.method import networks, weights
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


def test_what_is_printed_to_a_full_disk_is_said(capsys):
    def call():
        with open("/dev/full", "w") as file:
            file.write("x" * 100_000)

    assert (
        said(capsys, call)
        == "what is printed here: No space left on device; free space there, or choose another folder"
    )


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
