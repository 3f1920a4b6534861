"""The check of a collection: every kind of fault is planted and must be found, and nothing else."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from ttlkit import cli
from ttlkit.data import check, collections, image_files, pocket
from ttlkit.rain import scenes

PHOTOGRAPHS = ("coffee", "rocket", "chelsea", "astronaut")


def photograph(i, side=(72, 96)):
    """A crop of a bundled photograph; other i, other scene."""
    picture = pocket.bundled(PHOTOGRAPHS[i % len(PHOTOGRAPHS)])
    return picture[40 : 40 + 2 * side[0] : 2, 20 : 20 + 2 * side[1] : 2]


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A small clean collection: real photographs, pairs and a test set, each image of another scene."""
    root = tmp_path_factory.mktemp("template") / "mine"
    for i in range(2):
        image_files.save_image(root / f"real/rainy/{i}.png", drawn(i))
        image_files.save_image(root / f"real/clean/{i}.png", drawn(10 + i))
        image_files.save_image(root / f"test/yard/clean/{i}.png", photograph(i))
        image_files.save_image(root / f"test/yard/rainy/{i}.png", photograph(i) * 0.9)
    for i in range(3):
        image_files.save_image(root / f"synthetic/own/clean/{i}.png", drawn(20 + i))
        image_files.save_image(root / f"synthetic/own/rainy/{i}.jpg", drawn(20 + i) * 0.9)
    return root


@pytest.fixture
def collection(template, tmp_path):
    return shutil.copytree(template, tmp_path / "mine")


@pytest.fixture
def untested(collection):
    """The same without a test set: no scenes are compared, which is what takes long."""
    shutil.rmtree(collection / "test")
    return collection


def drawn(i, side=(72, 96)):
    return scenes.dead_leaves(i, *side)


def kinds(report):
    return [(finding.kind, finding.file) for finding in report.findings]


def test_a_clean_collection_is_clean(collection):
    report = check.check(collection)
    assert report.findings == ()
    assert report.counts == {
        "files": 14, "readable": 14, "failed": 0, "training scenes": 7, "test scenes": 2, "distinct test scenes": 2
    }  # fmt: skip
    assert report.table().endswith("none of 7 training scenes shows one of the 2 test scenes\nclean")


@pytest.mark.slow
def test_the_pocket_collection_is_clean(tmp_path):
    root = pocket.build(tmp_path / "pocket-2", 2)
    report = check.check(root).without(["grey"])  # brick, grass and gravel are grey photographs
    assert report.findings == (), report.table()


PLANTS = {
    "unreadable": lambda p: p.write_text("no image"),
    "truncated": lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]),
    "truncated webp": lambda p: _truncated_webp(p),
    "16-bit": lambda p: Image.fromarray(
        (image_files.to_grey(image_files.load_image(p)) * 65535).astype(np.uint16)
    ).save(p),
    "CMYK": lambda p: Image.open(p).convert("CMYK").save(p.with_suffix(".jpg")) or p.unlink(),
    "EXIF-rotated": lambda p: _rotated(p),
    "grey": lambda p: Image.open(p).convert("L").convert("RGB").save(p),
    "partly": lambda p: Image.open(p).save(p, save_all=True, append_images=[Image.new("RGB", Image.open(p).size)]),
    "tiny": lambda p: Image.open(p).resize((63, 200)).save(p),
}


def _truncated_webp(path):
    image_files.save_image(path.with_suffix(".webp"), image_files.load_image(path))
    whole = path.with_suffix(".webp").read_bytes()
    path.write_bytes(whole[: len(whole) - 50])
    path.with_suffix(".webp").unlink()


def _rotated(path):
    image = Image.open(path)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(path, exif=exif)


@pytest.mark.parametrize("kind", PLANTS)
def test_a_planted_fault_is_found(kind, untested):
    path = untested / "real/rainy/1.png"
    PLANTS[kind](path)
    kind = kind.split()[0]
    found = kinds(check.check(untested))
    expected = {kind, "grey"} if kind == "16-bit" else {kind}
    assert {(k, f.removesuffix("png").removesuffix("jpg")) for k, f in found} == {
        (k, "real/rainy/1.") for k in expected
    }


def test_a_huge_file_is_reported(untested, monkeypatch):
    monkeypatch.setattr(check, "HUGE", 72 * 96 - 1)
    assert {k for k, _ in kinds(check.check(untested))} == {"huge"}


def test_pairs_without_partner_of_other_size_or_of_other_scenes(untested):
    own = untested / "synthetic/own"
    (own / "clean/0.png").unlink()
    image_files.save_image(own / "rainy/1.jpg", drawn(21, (73, 96)))
    image_files.save_image(own / "rainy/2.jpg", photograph(3))
    (untested / "synthetic/half/rainy").mkdir(parents=True)
    image_files.save_image(untested / "synthetic/half/rainy/a.png", drawn(99))
    found = check.check(untested)
    assert kinds(found) == [
        ("unpaired", "synthetic/half/rainy"),
        ("unpaired", "synthetic/own/rainy/0.jpg"),
        ("pair-size", "synthetic/own/rainy/1.jpg"),
        ("pair-content", "synthetic/own/rainy/2.jpg"),
    ]
    assert "is 96x73, but 96x72 is synthetic/own/clean/1.png" in found.table().replace("  ", " ")


def test_duplicates_are_named_with_their_twin(untested):
    shutil.copy(untested / "real/rainy/0.png", untested / "real/rainy/9.png")
    shutil.copy(untested / "synthetic/own/clean/0.png", untested / "synthetic/own/clean/5.png")  # another rain
    image_files.save_image(untested / "synthetic/own/rainy/5.png", drawn(20) * 0.7)
    report = check.check(untested)
    assert kinds(report) == [("duplicate", "real/rainy/9.png")]
    assert report.findings[0].other == "real/rainy/0.png"


@pytest.mark.parametrize("place", ["real/rainy", "real/clean", "synthetic/own/clean"])
def test_a_leak_names_both_files_on_its_line(place, collection):
    image_files.save_image(collection / place / "1.png", photograph(1)[:, ::-1])
    if "own" in place:
        image_files.save_image(collection / "synthetic/own/rainy/1.jpg", photograph(1)[:, ::-1] * 0.9)
    report = check.check(collection)
    assert kinds(report) == [("leak", f"{place}/1.png")]
    line = report.table().splitlines()[0]
    assert line.startswith("leak") and f"{place}/1.png" in line and "test/yard/clean/1.png" in line
    assert "SHOW A TEST SCENE" in report.leak_verdict()
    opened = collections.open_collection(collection)
    assert [(f.file, f.other) for f in check.check_leaks(opened).findings] == [
        (f"{place}/1.png", "test/yard/clean/1.png")
    ]


def test_scenes_to_choose_with_are_kept_out_of_training_and_of_the_test(collection):
    for i in range(2):
        for side in ("rainy", "clean"):  # two frames of one scene, which `val` may hold
            image_files.save_image(collection / f"val/roof/{side}/{i}.png", photograph(2) * (1 - 0.1 * i))
        image_files.save_image(collection / f"val/roof/valid/{i}.png", np.ones((72, 96, 3), np.float32))
    assert kinds(check.check(collection)) == []
    image_files.save_image(collection / "real/clean/1.png", photograph(2)[:, ::-1])
    image_files.save_image(collection / "test/yard/clean/1.png", photograph(2))
    image_files.save_image(collection / "test/yard/rainy/1.png", photograph(2) * 0.9)
    leaking = ["real/clean/1.png", "val/roof/clean/0.png", "val/roof/clean/1.png"]
    for findings in (check.check(collection), check.check_leaks(collections.open_collection(collection))):
        assert sorted({f.file for f in findings.findings if f.kind == "leak"}) == leaking
    (collection / "val/roof/valid/1.png").unlink()
    assert ("unpaired", "val/roof/rainy/1.png") in kinds(check.check(collection))


def test_any_folder_against_any_other(tmp_path):
    for name, i in (("mine/a.png", 0), ("mine/deep/b.jpg", 1), ("theirs/x.png", 1), ("theirs/y.png", 2)):
        image_files.save_image(tmp_path / name, photograph(i))
    report = check.check(tmp_path / "mine", tmp_path / "theirs")
    assert [(f.kind, f.file, f.other) for f in report.findings] == [
        ("leak", "deep/b.jpg", str(tmp_path / "theirs/x.png"))
    ]
    assert check.check(tmp_path / "mine").leak_verdict() == "leak check: nothing to compare"


def test_a_part_of_a_folder_against_the_rest_of_it(collection):
    shutil.copy(collection / "real/clean/0.png", collection / "real/rainy/twin.png")
    report = check.check(collection, collection / "real/clean")
    leaks = [(f.file, f.other) for f in report.findings if f.kind == "leak"]
    assert leaks == [("real/rainy/twin.png", "real/clean/0.png")]
    assert report.counts["test scenes"] == 4


@pytest.mark.slow
def test_several_processes_find_the_same(collection):
    image_files.save_image(collection / "real/clean/1.png", photograph(0))
    for i in range(2, 5):  # fewer than 16 files are read by one process
        image_files.save_image(collection / f"real/clean/{i}.png", drawn(30 + i, (64, 64)))
    alone = check.check(collection, workers=1)
    assert check.check(collection, workers=2) == alone and "leak" in dict(kinds(alone))


@pytest.mark.parametrize("missing", [["test"], ["test", "synthetic"], ["real", "synthetic"], []])
def test_every_file_is_looked_at_whatever_there_is_to_compare(missing, collection):
    """A check that reads nothing finds nothing, and must not call that clean."""
    for name in missing:
        shutil.rmtree(collection / name)
    left = sorted(path for path in collection.rglob("*") if path.is_file())
    left[0].write_text("no image")
    left[-1].write_bytes(left[-1].read_bytes()[:300])
    report = check.check(collection)
    counts = report.counts
    assert counts["files"] == len(left) and counts["readable"] + counts["failed"] == counts["files"]
    assert counts["failed"] == 2 == sum(kind in ("unreadable", "truncated") for kind, _ in kinds(report))
    assert cli.main(["data", "check", str(collection)]) == 1


def test_hidden_folders_streaks_and_masks_are_not_scenes(collection):
    image_files.save_image(collection / ".fetched/old/1.png", photograph(0))
    (collection / "streaks").mkdir()
    Image.fromarray(np.eye(100, dtype=np.uint8) * 255).save(collection / "streaks/1.png")
    (collection / "test/yard/clean").rename(collection / "test/yard/mask")
    for path in image_files.list_images(collection / "test/yard/mask"):
        Image.open(path).convert("L").save(path)
    report = check.check(collection)
    assert report.findings == () and report.counts["test scenes"] == 2  # the rainy ones


def test_the_command_has_exit_code_0_only_when_clean(untested, capsys, tmp_path):
    assert cli.main(["data", "check", str(untested)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "clean"
    Image.open(untested / "real/clean/0.png").convert("L").save(untested / "real/clean/0.png")
    assert cli.main(["data", "check", str(untested), "--json", str(tmp_path / "r.json")]) == 1
    assert "grey          real/clean/0.png  mode L" in capsys.readouterr().out
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["clean"] is False and found["findings"][0]["kind"] == "grey" and found["counts"]["files"] == 10
    assert cli.main(["data", "check", str(untested), "--ignore", "grey", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["clean"] is True


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["data", "check", "/no/such"], "no such folder to check"),
        (["data", "check", ".", "--ignore", "gray"], "unknown kind of finding: 'gray'; did you mean 'grey'?"),
        (["data", "check", "{empty}"], "no images below it"),
        (["data", "check", "{untested}", "--against", "/no/such"], "/no/such: no such folder"),
        (["data", "check", "{untested}", "--json", "{untested}/real/rainy/0.png/x.json"], "Not a directory"),
    ],
)
def test_what_a_user_can_solve_is_one_line(arguments, words, untested, tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    filled = [a.format(empty=empty, untested=untested) for a in arguments]
    filled = [str(untested) if a == "." else a for a in filled]
    assert cli.main(filled) == 1
    assert words in capsys.readouterr().err


def test_a_file_that_cannot_be_opened_is_a_finding(untested):
    path = untested / "real/clean/0.png"
    path.unlink()
    path.symlink_to(untested / "gone.png")
    assert kinds(check.check(untested)) == [("unreadable", "real/clean/0.png")]
    path.unlink()
    os.mkfifo(path)  # who opened it would wait for ever
    assert kinds(check.check(untested)) == [("unreadable", "real/clean/0.png")]


@pytest.mark.slow
def test_the_answer_about_leaks_is_kept_until_a_file_changes(collection, tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("TTLKIT_CACHE", str(folder))
    opened = collections.open_collection(collection)
    first = check.check_leaks(opened)
    with monkeypatch.context() as patch:
        patch.setattr(check, "_look", lambda *_: pytest.fail("asked again"))
        assert check.check_leaks(opened) == first
    for entry in folder.glob("*/*.entry"):
        entry.write_text("damaged")
    assert check.check_leaks(opened) == first
    leak = collection / "real/rainy/leak.png"
    leak.write_bytes(opened.tests[0].pairs[0].truth.read_bytes())
    assert [f.file for f in check.check_leaks(collections.open_collection(collection)).findings] == [
        "real/rainy/leak.png"
    ]
