"""Inference: tiles equal the whole, any size works, files keep their names, bad files cost nothing."""

import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ttlkit import cli, machine
from ttlkit.apply import bulk, restore
from ttlkit.data import image_files, photos
from ttlkit.evaluate import baselines
from ttlkit.method import networks, weights
from ttlkit.words import SettingsError


@pytest.fixture(scope="module")
def model():
    machine.seed_everything(0)
    model = networks.Restorer(8)
    for p in model.parameters():  # far from the identity, or a seam could not show
        torch.nn.init.normal_(p, std=0.15)
    return model.eval()


def picture(height, width):
    return np.random.default_rng(0).random((height, width, 3)).astype(np.float32)


def test_the_network_under_test_changes_the_image(model):
    image = picture(40, 40)
    assert np.abs(restore.restore(model, image) - image).mean() > 0.05


@pytest.mark.parametrize(("height", "width"), [(97, 131), (64, 64), (1, 200), (130, 3)])
@pytest.mark.parametrize("tile", [16, 64])
def test_tiles_equal_the_whole(model, height, width, tile):
    image = picture(height, width)
    whole = restore.restore(model, image)
    assert np.abs(restore.restore(model, image, tile=tile) - whole).max() < 1e-5


@settings(max_examples=20, deadline=None)
@given(height=st.integers(1, 70), width=st.integers(1, 70), tile=st.sampled_from([16, 32, 48]))
def test_tiles_equal_the_whole_at_any_size(model, height, width, tile):
    image = picture(height, width)
    assert np.abs(restore.restore(model, image, tile=tile) - restore.restore(model, image)).max() < 1e-5


def test_half_precision_is_close(model):
    image = picture(48, 48)
    assert np.abs(restore.restore(model, image, precision="bf16") - restore.restore(model, image)).mean() < 0.02


def test_bad_arguments(model):
    with pytest.raises(image_files.ImageError, match="shape"):
        restore.restore(model, np.zeros((4, 4), np.float32))
    with pytest.raises(ValueError, match="tile = 30"):
        restore.restore(model, picture(8, 8), tile=30)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_shape_and_type_come_back(model, dtype):
    image = picture(37, 51)
    if np.dtype(dtype).kind == "u":
        image = np.round(image * np.iinfo(dtype).max)
    image = image.astype(dtype)
    restored = restore.apply(restore.torch_engine(model), image)
    assert (restored.shape, restored.dtype) == (image.shape, image.dtype)
    scale = np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 1
    expected = restore.restore(model, image.astype(np.float32) / scale)
    assert np.abs(restored / scale - expected).max() <= 0.51 / 255
    assert np.abs(restored.astype(float) - image).max() / scale > 0.05


def test_strength_goes_from_the_input_past_the_restored(model):
    engine, image = restore.torch_engine(model), picture(40, 70)
    whole = restore.apply(engine, image)
    assert np.array_equal(restore.apply(engine, image, strength=0), image)
    for strength in (0.5, 1.5):
        expected = np.clip(image + strength * (whole - image), 0, 1)
        assert np.abs(restore.apply(engine, image, strength=strength, tile=32) - expected).max() < 1e-5
    image_u8 = image_files.to_u8(image)
    assert np.array_equal(restore.apply(engine, image_u8, strength=0), image_u8)
    for wrong in (-0.1, 1.6, float("nan")):
        with pytest.raises(SettingsError, match="0 to 1.5"):
            restore.apply(engine, image, strength=wrong)


def test_memory_stays_that_of_image_and_result_and_one_tile():
    def half(rainy):
        assert rainy.dtype == np.float32 and rainy.shape[:2] == (1, 3)
        return rainy / 2

    image = np.full((3000, 4000, 3), 200, np.uint8)
    engine = restore.Engine(half, radius=20, multiple=16)
    tracemalloc.start()  # NumPy reports to it
    try:
        restored = restore.apply(engine, image, tile=256, strength=0.5)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert restored.min() == restored.max() == 150
    assert peak < restored.nbytes + 20 * 320**2 * 3 * 4 < 2 * restored.nbytes


class SmallDevice(networks.Restorer):
    """A restorer on a device that holds no more than `most` pixels."""

    most, sizes = 0, []

    def forward(self, image):
        self.sizes.append(tuple(image.shape[-2:]))
        if image.shape[-2] * image.shape[-1] > self.most:
            self.fail()
        return super().forward(image)

    def fail(self):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


class SmallMachine(SmallDevice):
    """A restorer on a processor whose memory is too small: torch's own error, which has no kind of its own."""

    def fail(self):
        torch.empty(1 << 50)


class SmallForNumpy(SmallDevice):
    """The same, where NumPy is the one that asks for memory."""

    def fail(self):
        np.empty(1 << 50)


@pytest.mark.parametrize("kind", [SmallDevice, SmallMachine, SmallForNumpy])
def test_tiles_are_halved_until_they_fit_into_memory(kind):
    torch.manual_seed(0)
    device = kind(8).eval()
    torch.nn.init.normal_(device.head.weight, std=0.3)
    image = picture(401, 501)
    device.most, device.sizes = 10**9, []
    whole = restore.restore(device, image)
    assert device.sizes == [(401, 501)] and np.abs(whole - image).mean() > 0.02
    device.most, device.sizes = 420 * 420, []
    assert np.abs(restore.restore(device, image) - whole).max() < 1e-5
    assert device.sizes[0] == (401, 501) and len(device.sizes) > 5


@pytest.mark.parametrize(("kind", "way"), [(SmallDevice, "use --device cpu"), (SmallMachine, "scale it down")])
def test_memory_too_small_for_any_tile_is_said(tmp_path, kind, way):
    device = kind(8).eval()
    device.most = 40 * 40
    with pytest.raises(restore.TooLargeError, match=f"does not fit into memory .*{way}"):
        restore.restore(device, picture(300, 300))
    for name, side in (("a.png", 300), ("b.png", 30)):  # the next file may be small enough
        image_files.save_image(tmp_path / "in" / name, picture(side, side))
    done = bulk.restore_files(restore.torch_engine(device), bulk.plan_files(tmp_path / "in"))
    problems = [file.problem for file in done]
    assert "a.png: a piece of" in problems[0] and problems[1] == ""


def test_the_package_restores_with_one_call(tmp_path):
    import ttlkit

    image = image_files.to_u8(picture(40, 52))
    restored = ttlkit.derain(image)
    assert restored.dtype == np.uint8 and restored.shape == image.shape
    image_files.save_image(tmp_path / "a.png", image)
    assert np.array_equal(ttlkit.derain(tmp_path / "a.png"), restored)
    assert np.array_equal(ttlkit.derain(image, strength=0), image)
    with pytest.raises(image_files.ImageError, match="shape"):
        ttlkit.derain(image[..., 0])
    with pytest.raises(image_files.ImageError, match="int64"):
        ttlkit.derain(image.astype(int))


def test_new_weights_in_the_same_place_are_read_again(tmp_path, model):
    path, image = tmp_path / "w.safetensors", picture(20, 20)
    weights.save_weights(model, path)
    first = restore.derain(image, weights=path, device="cpu")
    weights.save_weights(networks.Restorer(8), path)
    assert np.abs(restore.derain(image, weights=path, device="cpu") - first).max() > 0.05


def test_a_folder_keeps_names_and_outlives_a_bad_file(model, tmp_path):
    for name in ("a.png", "c.jpg"):
        image_files.save_image(tmp_path / "in" / name, picture(20, 30))
    (tmp_path / "in/b.png").write_bytes(b"not an image")
    files = bulk.plan_files(tmp_path / "in", tmp_path / "out")
    problems = [file.problem for file in bulk.restore_files(restore.torch_engine(model), files)]
    assert [bool(problem) for problem in problems] == [False, True, False]
    assert "b.png" in problems[1]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.png", "c.jpg"]
    assert image_files.load_image(tmp_path / "out/a.png").shape == (20, 30, 3)


def test_whatever_goes_wrong_with_a_file_is_one_line_and_the_next_follows(tmp_path):
    """Errors of a network, of torch and of Python itself; what the user asked for wrongly ends it all."""
    wrong = [ValueError("two\nlines"), KeyError("a"), MemoryError(), AssertionError(), RuntimeError("no kernel")]
    errors = iter(wrong)

    def run(rainy):
        if rainy.shape[2] == 20:
            raise next(errors)
        return rainy

    for number in range(len(wrong)):
        image_files.save_image(tmp_path / "in" / f"{number}.png", picture(20, 30))
    image_files.save_image(tmp_path / "in/last.png", picture(8, 8))
    done = list(bulk.restore_files(restore.Engine(run), bulk.plan_files(tmp_path / "in")))
    assert [bool(file.problem) for file in done] == [True] * len(wrong) + [False]
    for number, file in enumerate(done[:-1]):
        assert file.problem.startswith(f"{tmp_path}/in/{number}.png: ") and len(file.problem.splitlines()) == 1
    assert "two lines" in done[0].problem and "AssertionError" in done[3].problem
    assert [path.name for path in (tmp_path / "in-derained").iterdir()] == ["last.png"]
    with pytest.raises(SettingsError, match="strength"):
        list(bulk.restore_files(restore.Engine(run), bulk.plan_files(tmp_path / "in"), strength=7))


def test_a_file_that_exists_is_out_only_when_named_so(tmp_path, capsys, monkeypatch):
    """The same command twice: the second time b.png is there, and whether it is IN or OUT is asked."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "c.png"):
        image_files.save_image(name, picture(16, 24))
    assert cli.main(["derain", "a.png", "b.png", "--device", "cpu"]) == 0
    assert "OUT: b.png" in capsys.readouterr().out
    first = Path("b.png").read_bytes()
    image_files.save_image("b.png", picture(5, 5))
    Path("d.gif").write_bytes(Path("c.png").read_bytes())
    photographs = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    ways = "Is it OUT? `IN --out OUT --overwrite` replaces it, --out FOLDER restores both"
    for paths in (["a.png", "b.png"], ["b.png", "a.png"], ["a*.png", "b.png"], ["a.png", "d.gif"]):
        for more in ([], ["--overwrite"]):
            assert cli.main(["derain", *paths, "--device", "cpu", *more]) == 1
            assert capsys.readouterr().err == f"ttlkit: {paths[-1]}: exists. {ways}\n"
    assert photographs == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for paths in (["a.png", "b.png", "c.png"], ["a.png", "b.png", "d.gif"]):
        assert cli.main(["derain", *paths, "--device", "cpu", "--overwrite"]) == 0
    assert photographs.items() <= {path.name: path.read_bytes() for path in tmp_path.iterdir()}.items()
    assert cli.main(["derain", "a.png", "--out", "b.png", "--device", "cpu"]) == 1  # left as it is
    assert Path("b.png").read_bytes() == photographs["b.png"]
    assert cli.main(["derain", "a.png", "--out", "b.png", "--device", "cpu", "--overwrite"]) == 0
    assert Path("b.png").read_bytes() == first
    assert cli.main(["derain", "a.png", "c.png", "--device", "cpu", "--out", "both"]) == 0
    assert sorted(path.name for path in Path("both").iterdir()) == ["a.png", "c.png"]


def test_the_command_says_what_it_left_out(tmp_path, capsys):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "b.png").write_bytes(b"\xff\x0a jpeg xl")
    assert cli.main(["derain", str(tmp_path / "*.*"), "--device", "cpu", "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "b.png: JPEG XL" in said and len(said.splitlines()) == 1
    assert cli.main(["derain", str(tmp_path / "a.gif"), "--device", "cpu"]) == 0
    assert f"left out: {tmp_path}/a.gif: all frames or pages but the first\n" in capsys.readouterr().err


def test_the_input_is_never_overwritten(model, tmp_path):
    image_files.save_image(tmp_path / "a.png", picture(8, 8))
    before = (tmp_path / "a.png").read_bytes()
    files = bulk.plan_files(tmp_path / "a.png", tmp_path)
    assert "would overwrite" in next(bulk.restore_files(restore.torch_engine(model), files))[2]
    assert (tmp_path / "a.png").read_bytes() == before


def test_one_file_to_a_file_or_into_a_folder(tmp_path):
    image_files.save_image(tmp_path / "a.png", picture(8, 8))
    assert bulk.plan_files(tmp_path / "a.png", tmp_path / "b.jpg") == [(tmp_path / "a.png", tmp_path / "b.jpg")]
    assert bulk.plan_files(tmp_path / "a.png", tmp_path / "out") == [(tmp_path / "a.png", tmp_path / "out/a.png")]


def test_without_a_target_results_lie_beside_what_was_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("in/a.png", "in/b.jpg", "in/a-derained.png", "c.gif"):
        image_files.save_image(Path(name).with_suffix(".png"), picture(8, 8))
        Path(name).with_suffix(".png").rename(name)
    plan = {str(a): str(b) for a, b in bulk.plan_files("in")}
    assert plan == {f"in/{n}": f"in-derained/{n}" for n in ("a.png", "b.jpg", "a-derained.png")}
    assert bulk.plan_files(Path("in/a.png")) == [(Path("in/a.png"), Path("in/a-derained.png"))]
    assert bulk.plan_files("c.gif") == [(Path("c.gif"), Path("c-derained.png"))]
    assert bulk.plan_files("in/*") == bulk.plan_files(["in/a.png", "in/b.jpg", "in/a-derained.png"])
    assert [str(b) for _, b in bulk.plan_files("in/*")] == ["in/a-derained.png", "in/b-derained.jpg"]
    assert [str(b) for _, b in bulk.plan_files("**/*.jpg", Path("out"))] == ["out/b.jpg"]
    monkeypatch.chdir("in")
    assert bulk.plan_files(".")[0][1] == tmp_path / "in-derained/a-derained.png"


def test_two_files_do_not_become_one(tmp_path):
    for name in ("a/x.png", "b/x.png"):
        image_files.save_image(tmp_path / name, picture(8, 8))
    with pytest.raises(image_files.ImageError, match="would both become"):
        bulk.plan_files([tmp_path / "a", tmp_path / "b"], tmp_path / "out")


def test_no_photograph_is_replaced_by_another_however_its_folder_is_written(tmp_path, monkeypatch):
    for name in ("sub/a.png", "a.png"):
        image_files.save_image(tmp_path / name, np.zeros((4, 4, 3), np.float32))
    monkeypatch.chdir(tmp_path)
    for target in (Path("."), tmp_path, tmp_path / "sub" / ".."):
        with pytest.raises(image_files.ImageError, match="would be replaced|would both become"):
            bulk.plan_files(["sub/a.png", tmp_path / "a.png"], target)
    with pytest.raises(image_files.ImageError, match="would be replaced by sub/a.png"):
        bulk.plan_files(["sub/a.png", "a.png"], tmp_path / "sub" / ".." / "a.png")


def test_bits_and_grey_stay(model, tmp_path):
    values = np.random.default_rng(0).integers(0, 65536, (30, 40, 3), np.uint16)
    photos.save_photo(tmp_path / "in/a.png", photos.Photo(values))
    photos.save_photo(tmp_path / "in/b.png", photos.Photo(values[..., :1].repeat(3, 2), grey=True))
    engine = restore.torch_engine(model)
    done = list(bulk.restore_files(engine, bulk.plan_files(tmp_path / "in"), strength=0))
    assert [file.problem for file in done] == ["", ""]
    assert np.array_equal(photos.load_photo(tmp_path / "in-derained/a.png").pixels, values)
    again = photos.load_photo(tmp_path / "in-derained/b.png")
    assert again.grey and np.array_equal(again.pixels[..., 0], values[..., 0])


def test_an_engine_that_cannot_be_is_said(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'torch'"):
        restore.load_engine(name="troch")
    with pytest.raises(SettingsError, match="--engine onnx, not torch"):
        restore.load_engine(tmp_path / "a.onnx", "torch")
    with pytest.raises(SettingsError, match="processor only"):
        restore.load_engine(name="onnx", device="cuda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_gpu_is_said():
    with pytest.raises(SettingsError, match="no CUDA device.*--device cpu"):
        restore.load_engine(device="cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_restores_as_the_processor_does():
    image = image_files.to_u8(picture(333, 517))
    cpu, gpu = (restore.apply(restore.load_engine(device=d, precision="no"), image) for d in ("cpu", "cuda"))
    assert np.abs(cpu.astype(int) - gpu).max() <= 1


def test_what_is_missing_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(image_files.ImageError, match="no such file"):
        bulk.plan_files(tmp_path / "none", tmp_path)
    with pytest.raises(image_files.ImageError, match="no images"):
        bulk.plan_files(tmp_path / "empty", tmp_path)
    with pytest.raises(weights.WeightsError, match="ttlkit reproduce --run mine"):
        restore.student_of(tmp_path / "mine")
    with pytest.raises(weights.WeightsError, match="no \\*.pth or"):
        baselines.find_peers([str(tmp_path / "empty")])


def test_an_ensemble_restores_like_any_other(tmp_path):
    machine.seed_everything(0)
    teachers = [networks.Recogniser(8), networks.Restorer(16)]
    together = weights.gather(teachers)
    assert weights.checksum(together.backbones[1]) == weights.checksum(teachers[1].backbone)
    again = baselines.load_peer(weights.save_weights(together, tmp_path / "all.safetensors"))
    image = picture(21, 35)
    assert np.abs(restore.restore(again, image) - restore.restore(together.eval(), image)).max() < 1e-5


def test_a_recogniser_does_not_restore(tmp_path):
    path = weights.save_weights(networks.Recogniser(8), tmp_path / "r.safetensors")
    with pytest.raises(weights.WeightsError, match="Recogniser"):
        restore.load_restorer(path)


def test_weights_that_are_not_finite_are_refused_by_name(tmp_path):
    broken, prenet = networks.Restorer(8), baselines.PReNet()
    with torch.no_grad():
        broken.head.bias[3] = float("nan")
        prenet.conv0[0].weight[0, 0, 0, 0] = float("inf")
    path = weights.save_weights(broken, tmp_path / "broken.safetensors")
    torch.save(prenet.state_dict(), tmp_path / "prenet.pth")
    for load in (restore.load_restorer, baselines.load_peer, restore.load_engine):
        with pytest.raises(weights.WeightsError, match=r"broken\.safetensors: .*head\.bias.* not finite"):
            load(path)
    with pytest.raises(weights.WeightsError, match=r"prenet\.pth: .*conv0\.0\.weight.* not finite"):
        baselines.load_peer(tmp_path / "prenet.pth")


def test_importing_takes_neither_torch_nor_pydantic():
    code = "import sys, ttlkit.apply.bulk; print(sorted({'torch', 'pydantic'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]"
