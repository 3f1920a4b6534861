"""The pocket collection: whole, honest about itself, quick, and the same bytes on every machine."""

import hashlib
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from ttlkit import rain
from ttlkit.data import collections, image_files, pocket

REPO = Path(__file__).resolve().parents[1]
SCENES = 3
GOLDEN_PIXELS = "b244630e6fb4a9f1007b998219991a21"
GOLDEN_BYTES = "37bb831e1c79da118d57e55eb268144f"


def digest(root, read):
    """Hash over the name and `read(path)` of every file."""
    found = hashlib.sha256()
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        found.update(path.relative_to(root).as_posix().encode() + b"\0" + read(path))
    return found.hexdigest()[:32]


def pixels(path):
    return image_files.load_image_u8(path).tobytes() if path.suffix in (".png", ".jpg") else b""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return pocket.build(tmp_path_factory.mktemp("made") / "pocket-3", SCENES)


def test_every_part_is_there_and_nothing_else(built):
    count = {}
    for path in built.rglob("*.*"):
        if path.is_file():
            part = path.parent.relative_to(built).as_posix()
            count[part] = count.get(part, 0) + 1
    pairs = ("synthetic/photoshop", SCENES), ("test/photoshop", 2), ("test/traced", 2), ("val/traced", 2)
    expected = {f"{name}/{side}": n for name, n in pairs for side in ("rainy", "clean")}
    expected |= {"real/rainy": SCENES, "real/clean": SCENES, "test/scenes/rainy": 2, ".": 1}
    assert count == expected | {"test/masked/rainy": 2, "test/masked/mask": 2}
    assert [p.name for p in built.parent.iterdir()] == [built.name]  # no partial folder is left


def test_it_says_that_its_real_rain_is_simulated_and_by_what(built):
    text = (built / "SIMULATED.txt").read_text()
    for word in ("SIMULATED", "ttlkit.rain.traced", "no training uses", "ttlkit.rain.photoshop", "real/rainy"):
        assert word in text
    assert max(map(len, text.splitlines())) <= 120


def test_pairs_are_the_stated_rain_and_what_it_fell_on(built):
    for i in range(SCENES):
        clean = image_files.load_image_u8(built / f"synthetic/photoshop/clean/{i:03d}.png") / 255
        again = image_files.to_u8(rain.photoshop(clean, i).rainy)
        assert np.array_equal(image_files.load_image_u8(built / f"synthetic/photoshop/rainy/{i:03d}.png"), again)
    scene = image_files.load_image_u8(built / "test/photoshop/clean/001.png") / 255
    drops = rain.traced(scene, 10_001)
    for side, picture in (("rainy", drops.rainy), ("clean", drops.background)):  # the veil is not the streaks' doing
        assert np.array_equal(
            image_files.load_image_u8(built / f"test/traced/{side}/001.png"), image_files.to_u8(picture)
        )


def test_masks_show_streaks(built):
    for i in range(2):
        mask = image_files.load_image_u8(built / f"test/masked/mask/{i:03d}.png")
        assert set(np.unique(mask)) == {0, 255} and 0.0005 < (mask > 0).mean() < 0.4


def test_tests_show_scenes_that_training_does_not(built):
    parts = [pocket.PHOTOGRAPHS, pocket.TEXTURES, pocket.VAL_PHOTOGRAPHS, pocket.TEST_PHOTOGRAPHS]
    assert sum(map(len, parts)) == len(set().union(*parts))
    seen = [pixels(p) for part in ("synthetic", "real", "val", "test") for p in sorted((built / part).rglob("*.png"))]
    assert len(set(seen)) == len(seen)


def test_a_scene_is_float64_in_steps_of_a_grey_level():
    for i in range(4):
        scene = pocket.scene(i)
        assert scene.shape == (192, 256, 3) and scene.dtype == np.float64
        assert np.array_equal(image_files.to_u8(scene) / 255, scene)


def test_a_failed_build_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(rain, "traced", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        pocket.build(tmp_path / "pocket-3", SCENES)
    assert list(tmp_path.iterdir()) == []


def test_a_photograph_that_is_not_bundled_names_the_folder():
    with pytest.raises(FileNotFoundError, match="no such_a_cat; install scikit-image"):
        pocket.bundled("such_a_cat")


def test_only_builds_that_take_a_while_show_a_progress_bar(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(pocket, "PATIENCE", 60.0)
    pocket.build(tmp_path / "pocket-1", 1)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(pocket, "PATIENCE", 0.0)
    pocket.build(tmp_path / "pocket-2", 1)
    assert "making pocket-2: 100%" in capsys.readouterr().err


# ---- the same bytes everywhere -------------------------------------------------------------------------------


def other_versions():
    """Packages whose version is not the one in constraints.txt: they may draw or pack images otherwise."""
    pinned = dict(re.findall(r"(?m)^([\w-]+)==(\S+)$", (REPO / "constraints.txt").read_text()))
    names = ("numpy", "scipy", "pillow", "scikit-image")
    return [f"{name} {version(name)}" for name in names if version(name) != pinned[name]]


def test_pixels_and_bytes_are_the_known_ones(built):
    if other_versions():
        pytest.skip(f"the hashes are for the versions in constraints.txt, here is {', '.join(other_versions())}")
    assert digest(built, pixels) == GOLDEN_PIXELS
    assert digest(built, Path.read_bytes) == GOLDEN_BYTES


BUILD = """
import sys, numpy as np
from pathlib import Path
from ttlkit.data import pocket
features = np._core._multiarray_umath.__cpu_features__
assert not any(features[name] for name in sys.argv[3:]), "still enabled"
pocket.build(Path(sys.argv[1]), int(sys.argv[2]))
"""


@pytest.mark.slow
def test_a_processor_without_vector_units_makes_the_same_bytes(built, tmp_path):
    """NumPy, OpenBLAS and libjpeg are told to do without what this processor has beyond the most basic one."""
    core = np._core._multiarray_umath
    disabled = [name for name in core.__cpu_dispatch__ if core.__cpu_features__.get(name)]
    environment = {
        **os.environ,
        "NPY_DISABLE_CPU_FEATURES": " ".join(disabled),
        "OPENBLAS_CORETYPE": "Nehalem",
        "OMP_NUM_THREADS": "1",
        "JSIMD_FORCENONE": "1",
        "PYTHONPATH": str(REPO),
    }
    root = tmp_path / "pocket-3"
    command = [sys.executable, "-c", BUILD, str(root), str(SCENES), *disabled]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert digest(root, Path.read_bytes) == digest(built, Path.read_bytes)


def test_of_two_first_runs_at_once_the_later_one_takes_what_the_other_has_made(tmp_path, monkeypatch):
    root, make = tmp_path / "pocket-2", pocket.build

    def overtaken(place, scenes):
        make(root, scenes)  # another process
        return make(place, scenes)

    monkeypatch.setattr(pocket, "build", overtaken)
    assert collections.open_collection(root, 2).simulated
    assert [path.name for path in tmp_path.iterdir()] == ["pocket-2"]


def test_no_training_draws_the_rain_that_stands_in_for_real(built):
    """The stand-in would be circular if a teacher, the student or a pair were shown it with its truth."""
    for path in sorted((REPO / "ttlkit").rglob("*.py")):
        used = "rain.traced(" in path.read_text() or "rain.traced," in path.read_text()
        assert not used or path.name == "pocket.py", path


def test_a_collection_of_another_version_is_not_taken_for_todays(tmp_path):
    root = pocket.build(tmp_path / "pocket-2", 2)
    assert collections.open_collection(root, 2).simulated
    (root / "SIMULATED.txt").write_text("Generated by ttlkit, long ago.")
    with pytest.raises(collections.CollectionError, match="not that of this version; remove the folder"):
        collections.open_collection(root, 2)
    assert collections.open_collection(root).simulated  # named by its path it is a collection like others
    (root / "SIMULATED.txt").unlink()  # without it, simulated rain would be called real
    with pytest.raises(collections.CollectionError, match="not that of this version; remove the folder"):
        collections.open_collection(root, 2)
