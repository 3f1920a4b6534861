"""The content cache: the same pixels and answers whatever happens to it, and training never stops for it."""

import hashlib
import multiprocessing
import os
import pickle
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ttlkit.data import cache, image_files
from ttlkit.data.cache import Shelf

REPO = Path(__file__).resolve().parents[1]


def picture(seed, height=30, width=40):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def inverted(image):
    return 255 - image


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    """An empty cache, and a process that knows nothing of it yet."""
    monkeypatch.setenv("TTLKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "FRESH", float("inf"))  # however slow the machine, no hash becomes an entry too
    forget()
    yield tmp_path / "cache"
    forget()


def forget():
    """What a new process knows."""
    cache._events.clear()
    cache._memory.clear()


@pytest.fixture
def paths(tmp_path):
    for i in range(3):
        image_files.save_image(tmp_path / f"{i}.png", picture(i))
    return [tmp_path / f"{i}.png" for i in range(3)]


@pytest.fixture
def decoded(monkeypatch):
    """Names of the files decoded from here on."""
    names, decode = [], image_files.decode_u8

    def listen(file, path):
        names.append(Path(path).name)
        return decode(file, path)

    monkeypatch.setattr(image_files, "decode_u8", listen)
    return names


def entries(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def entry(shelf, index):
    return cache._entry(cache.folder(), shelf.names[index])


def held():
    return sum(map(len, cache._memory.values()))


def holds(shelf, paths):
    return all(np.array_equal(shelf[i], image_files.load_image_u8(path)) for i, path in enumerate(paths))


def test_images_are_decoded_once(paths, decoded, fresh, capsys):
    first = Shelf(paths)
    assert decoded == ["0.png", "1.png", "2.png"]
    assert len(entries(fresh)) == 3
    forget()
    second = Shelf(paths)
    assert decoded == ["0.png", "1.png", "2.png"]
    assert first.shapes == second.shapes == [(30, 40, 3)] * 3
    assert len(second) == 3 and len(list(second)) == 3
    assert holds(first, paths) and holds(second, paths)
    assert capsys.readouterr() == ("", ""), "no bar for what takes no time"


@pytest.mark.parametrize("off", [False, True])
def test_images_are_read_only(paths, monkeypatch, off):
    if off:
        monkeypatch.setenv("TTLKIT_CACHE", "off")
    image = Shelf(paths)[0]
    assert image.dtype == np.uint8
    with pytest.raises(ValueError, match="read-only"):
        image += 1


def test_content_decides_not_the_name_or_the_date(paths, decoded):
    Shelf(paths)
    shutil.copy(paths[0], paths[0].with_name("copy.png"))
    os.utime(paths[1], (1, 1))
    assert np.array_equal(Shelf([paths[0].with_name("copy.png"), paths[1]])[0], picture(0))
    assert len(decoded) == 3
    before = paths[2].stat()
    image_files.save_image(paths[2], picture(9))
    os.utime(paths[2], ns=(before.st_atime_ns, before.st_mtime_ns))
    assert np.array_equal(Shelf(paths)[2], picture(9))


def test_preparations_are_kept_apart(paths, monkeypatch):
    assert np.array_equal(Shelf(paths, "inverted 1", inverted)[0], 255 - picture(0))
    assert np.array_equal(Shelf(paths)[0], picture(0))
    assert np.array_equal(Shelf(paths, "inverted 1", inverted)[0], 255 - picture(0))
    files = cache.usage().files
    monkeypatch.setattr(image_files, "DECODER", image_files.DECODER + 1)
    Shelf(paths)
    assert cache.usage().files == files + 3, "another decoder shares no entry"


KINDS = ["flip", "cut", "longer", "empty", "foreign", "text", "folder"]


def damage(entry, other, kind, part):
    data = bytearray(entry.read_bytes())
    place = int(part * len(data))
    if kind == "flip":
        data[place] ^= 1 + place % 255
    data = {"cut": data[:place], "longer": data + b"\0", "empty": b"", "text": b"text " * 99}.get(kind, data)
    entry.write_bytes(other.read_bytes() if kind == "foreign" else data)
    if kind == "folder":
        entry.unlink()
        entry.mkdir()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(KINDS), part=st.floats(0, 0.999), in_use=st.booleans())
def test_a_damaged_entry_is_made_anew(paths, fresh, capsys, kind, part, in_use):
    shelf = Shelf(paths)
    assert holds(shelf, paths)
    spoilt = entry(shelf, 0)
    damage(spoilt, entry(shelf, 1), kind, part)
    cache._events.clear()
    capsys.readouterr()
    assert holds(shelf if in_use else Shelf(paths), paths)
    said = capsys.readouterr().out.splitlines()
    if kind == "folder":
        spoilt.rmdir()
    else:
        assert len(said) == 1 and str(spoilt) in said[0] and "made anew" in said[0]
    forget()
    assert holds(Shelf(paths), paths)
    assert capsys.readouterr().out == "", "it was put right"


def test_one_line_for_any_number_of_damaged_entries(paths, fresh, capsys):
    shelf = Shelf(paths)
    for path in entries(fresh):
        path.write_bytes(b"damaged")
    assert holds(shelf, paths) and holds(Shelf(paths), paths)
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_file_cut_short_under_a_picture_in_use_does_no_harm(paths):
    """A mapped file would kill the process here, by SIGBUS."""
    shelf = Shelf(paths)
    image = shelf[0]
    os.truncate(entry(shelf, 0), 0)
    assert np.array_equal(image, picture(0)) and np.array_equal(shelf[0], picture(0))


def test_a_shelf_in_use_survives_a_cleared_or_damaged_cache(paths, fresh, decoded):
    shelf = Shelf(paths)
    assert cache.prune(gigabytes=0).files == 3
    decoded.clear()
    assert np.array_equal(shelf[1], picture(1)) and np.array_equal(shelf[1], picture(1))
    assert decoded == ["1.png"]
    drawn = shelf[1]
    shutil.rmtree(fresh)
    assert np.array_equal(drawn, picture(1))
    assert np.array_equal(shelf[2], picture(2))


def test_a_source_that_changes_while_in_use_is_named(paths):
    shelf = Shelf(paths)
    image_files.save_image(paths[0], picture(7))
    assert np.array_equal(shelf[0], picture(0)), "the entry still holds what the shelf was made of"
    cache.prune(gigabytes=0)
    with pytest.raises(image_files.ImageError, match=r"0\.png: has changed"):
        shelf[0]
    assert not entry(shelf, 0).exists(), "other pixels must not go under the old name"
    paths[0].unlink()
    with pytest.raises(image_files.ImageError, match=r"0\.png: no such file"):
        shelf[0]


def test_a_bad_image_is_named_and_costs_none_of_the_others(paths, fresh, decoded):
    paths[1].write_bytes(paths[1].read_bytes()[:200])
    with pytest.raises(image_files.ImageError, match=r"1\.png"):
        Shelf(paths)
    image_files.save_image(paths[1], picture(1))
    decoded.clear()
    assert Shelf(paths)[1].shape == (30, 40, 3)
    assert decoded == ["1.png", "2.png"]


@pytest.mark.parametrize("off", ["", "off", " OFF "])
def test_switched_off_nothing_is_written(paths, fresh, monkeypatch, tmp_path, off, decoded):
    monkeypatch.setenv("TTLKIT_CACHE", off)
    monkeypatch.setenv("TTLKIT_HOME", str(tmp_path / "home"))
    shelf = Shelf(paths)
    decoded.clear()
    assert all(np.array_equal(shelf[i], picture(i)) for i in (0, 1, 2))
    assert decoded == [], "they are held in memory"
    assert not fresh.exists() and not (tmp_path / "home").exists()
    assert cache.usage() == (0, 0) and cache.prune(gigabytes=0) == (0, 0)


def test_memory_is_bounded_without_a_cache_and_goes_to_what_is_drawn(paths, monkeypatch, decoded):
    monkeypatch.setenv("TTLKIT_CACHE", "off")
    monkeypatch.setattr(cache, "MEMORY", 2 * picture(0).nbytes + 100)
    shelf = Shelf(paths)
    decoded.clear()
    assert all(np.array_equal(shelf[i], picture(i)) for i in (1, 2, 1, 2, 0, 2, 1, 0))
    assert decoded == ["0.png", "1.png", "0.png"], "two fit; what was drawn last stays"
    assert held() <= cache.MEMORY
    monkeypatch.setattr(cache, "MEMORY", 0)
    assert holds(shelf, paths) and held() <= 2 * picture(0).nbytes + 100
    forget()
    assert holds(shelf, paths) and held() == 0


def test_where_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("TTLKIT_HOME", str(tmp_path))
    monkeypatch.delenv("TTLKIT_CACHE")
    assert cache.folder() == tmp_path / "datasets/.cache"
    monkeypatch.setenv("TTLKIT_CACHE", "~/elsewhere")
    assert cache.folder() == Path.home() / "elsewhere"
    monkeypatch.setenv("TTLKIT_CACHE", "off")
    assert cache.folder() is None


def _one_line_and_the_pixels(paths, capsys, folder, words):
    first = Shelf(paths)
    out, err = capsys.readouterr()
    assert err == "" and len(out.splitlines()) == 1, out
    assert str(folder) in out and words in out and "TTLKIT_CACHE" in out
    assert holds(first, paths) and holds(Shelf(paths), paths)
    assert capsys.readouterr().out == "", "once is enough"


def test_a_full_disk_costs_one_line(paths, fresh, capsys):
    """A real write cut short half-way: no file may grow past 2000 bytes, and an entry has 3628."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limit[1]))
    try:
        _one_line_and_the_pixels(paths, capsys, fresh, "File too large")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert entries(fresh) == []


def test_the_last_gigabyte_of_the_disk_is_left_alone(paths, fresh, capsys, monkeypatch):
    monkeypatch.setattr(cache, "SPARE", 1 << 60)
    _one_line_and_the_pixels(paths, capsys, fresh, "left on the disk")
    assert entries(fresh) == []


def test_a_path_below_a_file_costs_one_line(paths, monkeypatch, capsys):
    monkeypatch.setenv("TTLKIT_CACHE", str(paths[0] / "cache"))
    _one_line_and_the_pixels(paths, capsys, paths[0] / "cache", "Not a directory")


def test_a_read_only_cache_is_read_and_costs_one_line_for_the_rest(ordinary_user, monkeypatch, capsys, decoded):
    monkeypatch.setenv("TTLKIT_CACHE", str(ordinary_user / "cache"))
    for i in range(3):
        image_files.save_image(ordinary_user / f"{i}.png", picture(i))
    old, new = [ordinary_user / "0.png", ordinary_user / "1.png"], [ordinary_user / "2.png"]
    Shelf(old)
    for path in (ordinary_user / "cache").rglob("*"):
        os.utime(path, (time.time() - 2e5,) * 2)
        path.chmod(0o500 if path.is_dir() else 0o400)
    (ordinary_user / "cache").chmod(0o500)
    decoded.clear()
    assert holds(Shelf(old), [])
    assert decoded == [] and capsys.readouterr().out == ""
    _one_line_and_the_pixels(new, capsys, ordinary_user / "cache", "Permission denied")


CODE = """
import hashlib, sys
from pathlib import Path
from ttlkit.data.cache import Shelf
shelf = Shelf(sorted(Path(sys.argv[1]).glob("*.png")))
print(hashlib.sha256(b"".join(image.tobytes() for image in shelf)).hexdigest())
"""


def test_several_processes_at_once_agree_and_leave_nothing_behind(tmp_path, fresh):
    for i in range(40):
        image_files.save_image(tmp_path / f"many/{i:02d}.png", picture(i, 120, 90))
    command = [sys.executable, "-c", CODE, str(tmp_path / "many")]

    def together(count):
        started = [subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, text=True) for _ in range(count)]
        return [process.communicate(timeout=60)[0].splitlines() for process in started]

    def images():
        found = entries(fresh)
        assert all(path.suffix == ".entry" for path in found)
        return [path for path in found if path.stat().st_size > 30_000]  # the others are hashes

    first = together(3)
    complaints = [line for lines in first for line in lines if "made anew" in line or "kept" in line]
    assert complaints == [] and len({lines[-1] for lines in first}) == 1
    assert len(images()) == 40
    for path in images()[::3]:
        path.write_bytes(path.read_bytes()[:-1])
    again = together(3)
    assert {lines[-1] for lines in again} == {first[0][-1]}, "a damaged cache is mended by several at once too"
    assert len(images()) == 40


def _draw(shelf):
    return [np.array(image) for image in shelf]


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("off", [False, True])
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_workers_draw_the_same_pixels(paths, method, off, monkeypatch):
    if off:
        monkeypatch.setenv("TTLKIT_CACHE", "off")
    shelf = Shelf(paths, "inverted 1", inverted)
    with multiprocessing.get_context(method).Pool(2) as pool:
        for drawn in pool.map(_draw, [shelf] * 4):
            assert all(np.array_equal(image, 255 - picture(i)) for i, image in enumerate(drawn))


def test_pickled_without_its_pixels(paths, monkeypatch):
    monkeypatch.setenv("TTLKIT_CACHE", "off")
    shelf = Shelf(paths)
    packed = pickle.dumps(shelf)
    assert len(packed) < 2000 < held()
    forget()
    assert holds(pickle.loads(packed), paths)


def test_any_number_of_images_with_few_file_descriptors(tmp_path):
    for i in range(80):
        image_files.save_image(tmp_path / f"{i}.png", picture(i, 8, 8))
    paths = [tmp_path / f"{i}.png" for i in range(80)]
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_use = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (in_use + 10, limit[1]))
    try:
        shelf = Shelf(paths)
        assert all(np.array_equal(shelf[i], picture(i, 8, 8)) for i in range(80))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)


def test_prune_removes_what_is_old_then_what_is_too_much(paths, fresh):
    shelf = Shelf(paths)
    now = time.time()
    for index, days in enumerate((40, 10, 5)):
        os.utime(entry(shelf, index), (now - days * 86400,) * 2)
    assert cache.usage() == (3, 3 * 3628)
    assert cache.prune() == (1, 3628)
    assert cache.prune(gigabytes=4000 / 1e9) == (1, 3628)
    assert entries(fresh) == [entry(shelf, 2)], "what was used last is kept"
    assert cache.prune(gigabytes=0) == (1, 3628)
    assert entries(fresh) == []


def test_prune_touches_nothing_but_entries_and_old_leftovers(paths, fresh):
    shelf = Shelf(paths)
    folder = entry(shelf, 0).parent
    old, new = (folder / f".{digit * 60}.99999999.part" for digit in "ab")
    foreign = [fresh / "thesis.tex", folder / "thesis.u8", fresh / "results" / "a.u8"]
    foreign[2].parent.mkdir()
    for path in (old, new, *foreign):
        path.write_text("x")
        os.utime(path, (1, 1))
    os.utime(new)
    cache.prune(days=0, gigabytes=0)
    assert entries(fresh) == sorted([new, *foreign])


def test_use_is_noted_and_new_entries_tidy_up_old_ones(paths, fresh):
    shelf = Shelf(paths[:2])
    for index in (0, 1):
        os.utime(entry(shelf, index), (1, 1))
    Shelf(paths[:1])
    assert time.time() - entry(shelf, 0).stat().st_mtime < 100
    forget()
    Shelf(paths[2:])
    assert entry(shelf, 0).exists() and not entry(shelf, 1).exists()


def test_a_progress_bar_shows_when_it_takes_long(paths, capsys):
    def slow(image):
        time.sleep(0.4)
        return image

    Shelf(paths, "slow", slow)
    out, err = capsys.readouterr()
    assert "reading images" in out and "3/3" in out and err == ""


# ---- answers -------------------------------------------------------------------------------------------------------


def test_answers_are_found_again_under_their_key_alone(fresh):
    value = [1, 2.5, "three", {"four": None}]
    cache.remember(value, "sums", 1, "a")
    assert cache.recall("sums", 1, "a") == value
    assert cache.recall("sums", 2, "a") is None and cache.recall("sums", 1) is None and cache.recall() is None
    cache.remember("other", "sums", 1, "a")
    assert cache.recall("sums", 1, "a") == "other"
    assert cache.usage().files == 1 and cache.prune(gigabytes=0).files == 1
    assert cache.recall("sums", 1, "a") is None


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(KINDS), part=st.floats(0, 0.999))
def test_a_damaged_answer_is_no_answer(fresh, capsys, kind, part):
    cache.remember([1], "a", 1)
    cache.remember([2], "b", 1)
    both = [cache._entry(fresh, cache.files.sha256_of(name, 1)) for name in "ab"]
    damage(*both, kind, part)
    cache._events.clear()
    assert cache.recall("a", 1) is None and cache.recall("b", 1) == [2]
    if kind == "folder":
        both[0].rmdir()
    cache.remember([3], "a", 1)
    assert cache.recall("a", 1) == [3]


def test_where_nothing_can_be_written_answers_last_for_the_process(fresh, monkeypatch, capsys):
    monkeypatch.setattr(cache, "SPARE", 1 << 60)
    cache.remember([1], "a", 1)
    assert cache.recall("a", 1) == [1] and entries(fresh) == []
    assert "left on the disk" in capsys.readouterr().out
    monkeypatch.setenv("TTLKIT_CACHE", "off")
    cache.remember([2], "b", 1)
    assert cache.recall("b", 1) == [2] and capsys.readouterr().out == ""


@pytest.fixture
def hashed(monkeypatch):
    """Names of the files that are read to be hashed from here on; files that are a moment old count as settled."""
    names, sha256 = [], cache.files.sha256
    monkeypatch.setattr(cache, "FRESH", -1)
    monkeypatch.setattr(cache.files, "sha256", lambda path: names.append(Path(path).name) or sha256(path))
    return names


def test_a_file_is_hashed_once_until_it_changes(tmp_path, hashed):
    path, link = tmp_path / "a.png", tmp_path / "link.png"
    link.symlink_to(path)
    path.write_bytes(b"first")
    first = cache.content_hash(path)
    assert first == hashlib.sha256(b"first").hexdigest() == cache.content_hash(link) == cache.content_hash(str(path))
    assert hashed == ["a.png"]
    before = path.stat()
    path.write_bytes(b"other")  # as long, in the same inode
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert cache.content_hash(link) == hashlib.sha256(b"other").hexdigest()
    spare = tmp_path / "spare"
    spare.write_bytes(b"third")
    os.utime(spare, ns=(before.st_atime_ns, before.st_mtime_ns))
    spare.replace(path)
    assert cache.content_hash(path) == hashlib.sha256(b"third").hexdigest()
    assert hashed == ["a.png"] * 3 and cache.usage().files == 1, "an old hash is not kept"


def test_the_hash_of_a_file_that_has_just_changed_is_not_remembered(tmp_path, hashed, monkeypatch):
    """Two changes within one tick of the clock leave the same times."""
    monkeypatch.setattr(cache, "FRESH", 3)
    (tmp_path / "a").write_bytes(b"x")
    assert cache.content_hash(tmp_path / "a") == cache.content_hash(tmp_path / "a")
    assert hashed == ["a", "a"]


def test_what_is_no_file_cannot_be_hashed(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "nothing", "."):
        with pytest.raises(OSError):
            cache.content_hash(tmp_path / name)


def test_a_file_whose_bytes_rotted_unseen_is_named_once(paths, hashed):
    """Its times say that it is the same; once it has been read, it is known by what it holds now."""
    shelf = Shelf(paths)
    facts = paths[0].stat()
    cache.prune(gigabytes=0)
    known = [facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino]
    cache.remember({"facts": known, "sha256": "0" * 64}, "content", 1, str(paths[0].resolve()))
    with pytest.raises(image_files.ImageError, match=r"0\.png: has changed"):
        Shelf(paths)
    assert holds(Shelf(paths), paths) and holds(shelf, paths)
