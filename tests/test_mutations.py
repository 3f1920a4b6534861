"""A hundred damaged images and archives; tests/benchmarks/mutations.py makes a thousand, with any seed."""

import os
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).with_name("benchmarks")))
import mutations  # noqa: E402


def test_damaged_files_are_read_or_refused_in_one_line():
    failed, outcomes = mutations.search(20, range(100))
    assert failed == {}, "python tests/benchmarks/mutations.py --seed 20 --count 100 keeps the files"
    counts = {how: sum(n for (_, one), n in outcomes.items() if one == how) for how in ("read", "refused")}
    assert counts["read"] > 10 and counts["refused"] > 50
    assert {suffix for suffix, _ in outcomes} == {"png", "jpg", "tif", "webp", "bmp", "gif", "tar", "zip"}


def test_every_sound_file_is_read(tmp_path):
    for number, (name, content) in enumerate(mutations.sound_files().items()):
        assert mutations.attempt(name, content, tmp_path, number) == "read", name


def test_no_file_that_ends_too_early_is_read_as_another_picture(tmp_path):
    images = {name: data for name, data in mutations.sound_files().items() if not name.endswith((".zip", ".tar"))}
    for name, content in images.items():
        path = tmp_path / name
        path.write_bytes(content)
        pixels = mutations.photos.load_photo(path).pixels
        for share in (0.3, 0.5, 0.7, 0.9, 0.97):
            path.write_bytes(content[: int(share * len(content))])
            with suppress(mutations.image_files.ImageError):
                assert np.array_equal(mutations.photos.load_photo(path).pixels, pixels), (name, share)


def hang_at_the_second(pipe, seed):
    pipe.recv()
    pipe.send(("", "read"))
    time.sleep(60)


def die(pipe, seed):
    os._exit(1)


def test_a_reader_that_hangs_or_dies_is_a_failure(monkeypatch):
    monkeypatch.setattr(mutations, "SECONDS", 0.1)
    for reader, expected in ((hang_at_the_second, {1: "more than 0.1 s"}), (die, {0: "the process died"})):
        monkeypatch.setattr(mutations, "work", reader)
        assert mutations.search(20, range(len(expected) + min(expected)))[0] == expected


def test_a_reader_that_raises_is_a_failure(tmp_path, monkeypatch):
    def broken(*_):
        raise mutations.image_files.ImageError("two\nlines")

    for raised, says in ((broken, "not one line"), (lambda *_: 1 / 0, "division by zero")):
        monkeypatch.setattr(mutations.photos, "load_photo", raised)
        with pytest.raises((AssertionError, ZeroDivisionError), match=says):
            mutations.attempt("x.png", b"", tmp_path, 0)
