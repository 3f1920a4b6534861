"""Networks: shapes, reach, weights that survive the disk, the published baseline."""

import pickle
import subprocess
import sys
import time

import numpy as np
import pytest
import safetensors.torch
import torch

from ttlkit import machine
from ttlkit.data import image_files, tensors
from ttlkit.evaluate import baselines, metrics
from ttlkit.method import networks, weights
from ttlkit.method.networks import Distiller, Recogniser, Restorer, UNet
from ttlkit.method.weights import WeightsError


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (5, 7), (33, 18)])
def test_any_size_goes_in_and_comes_out(size):
    image = torch.rand(2, 3, *size)
    assert Restorer(8)(image).shape == image.shape
    assert Recogniser(8)(image).shape == (2,)
    assert Recogniser(8).rain_map(image).shape == (2, 1, *size)


def test_restorer_starts_near_the_identity():
    for seed in range(5):
        torch.manual_seed(seed)
        image = torch.rand(1, 3, 32, 32)
        change = (Restorer(16)(image) - image).abs().mean()
        assert 0 < change < 0.06, seed


def test_radius_bounds_what_an_output_pixel_sees():
    model = Restorer(8)
    for p in model.parameters():
        torch.nn.init.uniform_(p, 0.01, 0.02)  # positive: no path cancels, no ReLU closes
    for place in (160, 165, 175):  # places within a cell of the coarsest level
        image = torch.ones(1, 3, 336, 336, requires_grad=True)
        model(image)[0, :, place, place].sum().backward()
        seen = image.grad.abs().sum((0, 1)).nonzero()
        reach = max(int((seen - place).abs().max()), 0)
        assert 120 <= reach <= UNet.radius


def test_weights_survive_the_disk(tmp_path):
    for model in (Restorer(8), Recogniser(8)):
        model = model.to(memory_format=torch.channels_last)  # safetensors refuses such tensors as they are
        path = weights.save_weights(model, tmp_path / "a.safetensors", task="x")
        again = weights.load_weights(path)
        assert type(again) is type(model)
        assert weights.checksum(again) == weights.checksum(model)


def test_half_precision_is_rounded_first_and_loaded_as_float32(tmp_path):
    model = Restorer(8)
    path = weights.save_weights(model, tmp_path / "a.safetensors", half=True, task="x")
    whole = weights.save_weights(model, tmp_path / "b.safetensors").stat().st_size
    again = weights.load_weights(path)  # its checksum fits
    assert path.stat().st_size < 0.55 * whole and {p.dtype for p in again.parameters()} == {torch.float32}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    for mine, theirs in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(mine.half().float(), theirs) and not torch.equal(mine, theirs) or mine.numel() < 100
    path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 64]))
    with pytest.raises(weights.WeightsError, match=r"checksum is wrong|not finite"):
        weights.load_weights(path)
    with torch.no_grad():
        model.head.weight += 1e6
    with pytest.raises(weights.WeightsError, match=r"head.weight is not finite"):
        weights.save_weights(model, path, half=True)


def test_one_changed_bit_of_the_weights_is_seen(tmp_path):
    """Still finite, it would restore to black; the weights of before, without a checksum, are read as ever."""
    path = weights.save_weights(Restorer(8), tmp_path / "a.safetensors")
    whole = path.read_bytes()
    for place in np.linspace(len(whole) // 2, len(whole) - 1, 9, dtype=int):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 64]) + whole[place + 1 :])
        with pytest.raises(weights.WeightsError, match=r"a\.safetensors: .*(checksum is wrong|not finite)"):
            weights.load_weights(path)
    path.write_bytes(whole.replace(b"checksum", b"checksun"))
    assert weights.load_weights(path).width == 8


def test_equal_weights_give_equal_files(tmp_path):
    """Stages are compared by the hash of their weights' files."""
    model = Restorer(8)
    files = {weights.save_weights(model, tmp_path / f"{i}", task="x", pairs="3").read_bytes() for i in range(8)}
    assert len(files) == 1


WEIGHTS = Restorer(8).state_dict()
DEEP = "[" * 100_000


@pytest.mark.parametrize(
    "header",
    [None, "no JSON", "[]", "{}", "7", DEEP, '{"kind": []}', '{"kind": "Other", "arguments": {}}']
    + [f'{{"kind": "Restorer", "arguments": {a}}}' for a in ("[]", '{"x": 1}', '{"width": "8"}', '{"width": -8}')]
    + ['{"kind": "Restorer", "arguments": {"width": 3000}}', '{"kind": "Restorer", "arguments": {"width": 1e300}}']
    + [f'{{"kind": "Ensemble", "arguments": {{"widths": {[8] * 5000}}}}}'],
)
def test_an_odd_header_is_one_line_and_takes_no_memory(header, tmp_path):
    path = tmp_path / "odd.safetensors"
    safetensors.torch.save_file(WEIGHTS, path, metadata=None if header is None else {"ttlkit": header})
    began = time.process_time()
    with pytest.raises(
        WeightsError, match=r"odd\.safetensors: not weights written by ttlkit .*train them again"
    ) as said:
        weights.load_weights(path)
    assert "\n" not in str(said.value) and len(str(said.value)) < 500 and time.process_time() - began < 2


@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04", pickle.dumps([1]), pickle.dumps({"a": 1})])
def test_bad_weights_give_one_line(content, tmp_path):
    for load, suffix in ((weights.load_weights, ".safetensors"), (baselines.load_prenet, ".pth")):
        path = tmp_path / f"bad{suffix}"
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=rf"bad\{suffix}: not .*; take other weights, or train") as said:
            load(path)
        assert "\n" not in str(said.value)


def test_missing_weights_say_how_to_make_them(tmp_path):
    with pytest.raises(WeightsError, match=r"no such weights.*make reproduce"):
        weights.load_weights(tmp_path / "none.safetensors")


def test_weights_that_may_not_be_read_are_not_called_bad(ordinary_user):
    for load, name in ((weights.load_weights, "a.safetensors"), (baselines.load_prenet, "a.pth")):
        (ordinary_user / name).write_bytes(b"x")
        (ordinary_user / name).chmod(0)
        with pytest.raises(WeightsError, match=rf"{name}: cannot be read \(Permission denied\); make it readable"):
            load(ordinary_user / name)


LITTLE = """
import resource, sys
from ttlkit.method import weights
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 10_000_000, -1))
try:
    weights.load_weights(sys.argv[1])
except weights.WeightsError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_short_memory_is_not_blamed_on_the_weights(tmp_path):
    path = weights.save_weights(Restorer(80), tmp_path / "large.safetensors")
    done = subprocess.run([sys.executable, "-c", LITTLE, str(path)], capture_output=True, text=True, timeout=60)
    assert done.stdout == f"{path}: too little memory is free to load it; close other programs\n", done.stderr


def test_released_weights_are_installed_again_and_never_deleted(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "PACKAGE", tmp_path)
    (tmp_path / "student.safetensors").write_bytes(b"damaged")
    with pytest.raises(WeightsError, match=r"not weights written by ttlkit .*; install ttlkit again$"):
        weights.load_weights(tmp_path / "student.safetensors")


def test_transfer_copies_what_there_is():
    recogniser, teacher = Recogniser(8), Restorer(8)
    from_recogniser = weights.transfer(recogniser, Restorer(8))
    assert weights.checksum(from_recogniser.backbone) == weights.checksum(recogniser.backbone)
    assert weights.checksum(weights.transfer(teacher, Restorer(8))) == weights.checksum(teacher)
    with pytest.raises(WeightsError, match="width 16"):
        weights.transfer(Restorer(16), Restorer(8))


@pytest.mark.parametrize("width", [8, 12, 24])
def test_a_widened_network_restores_as_before_and_learns_with_all_that_it_has(width):
    torch.manual_seed(0)
    source = Restorer(8)
    torch.nn.init.normal_(source.head.weight, std=0.1)
    wider = weights.widen(source, width)
    image = torch.rand(1, 3, 33, 50)
    assert wider.width == width and networks.count_parameters(wider) == networks.count_parameters(Restorer(width))
    torch.testing.assert_close(wider(image), source(image), atol=1e-5, rtol=0)
    assert (wider(image) - image).abs().mean() > 0.01  # it does something that could be lost
    optimiser = torch.optim.SGD(wider.parameters(), lr=1e-2)
    before = {name: weight.clone() for name, weight in wider.state_dict().items()}
    for _ in range(3):  # at first no gradient reaches what nothing reads
        optimiser.zero_grad()
        (wider(image) - image).square().mean().backward()
        optimiser.step()
    assert not any(torch.equal(weight, before[name]) for name, weight in wider.state_dict().items())
    assert weights.checksum(weights.widen(source, 8)) == weights.checksum(source)
    with pytest.raises(WeightsError, match="width = 8: a network of width 12 .* raise width"):
        weights.widen(Restorer(12), 8)


def test_distiller_speaks_every_teachers_width():
    teachers = {"a": Recogniser(16), "b": Restorer(24)}
    _, adapted = Distiller(Restorer(8), teachers)(torch.rand(1, 3, 16, 16))
    for name, teacher in teachers.items():
        assert [f.shape[1] for f in adapted[name]] == teacher.backbone.channels


def test_flops_of_a_known_network():
    class Convolution(torch.nn.Conv2d):
        pass

    assert networks.count_flops(Convolution(3, 5, 3, padding=1), 8, 8) == 2 * 3 * 5 * 9 * 64


def test_prenet_is_the_published_network():
    assert networks.count_parameters(baselines.PReNet()) == 168_963


def test_prenet_reaches_its_published_quality(shared_data):
    model = baselines.load_prenet(shared_data / "peers/prenet-rain100l.pth")
    found = []
    for name in ("002", "060"):
        rainy, clean = (
            tensors.to_tensor(image_files.load_image(shared_data / f"collection/test/rain100l/{side}/{name}.png"))
            for side in ("rainy", "clean")
        )
        with torch.inference_mode():
            found.append(float(metrics.psnr(model(rainy), clean)))
    assert 39 < sum(found) / 2 < 40.2  # the four images 002, 030, 060, 090 give 38.0 dB (RGB) together


def test_blending_goes_back_towards_the_start():
    torch.manual_seed(0)
    start, tuned = networks.Restorer(8), networks.Restorer(8)
    before = {name: weight.clone() for name, weight in tuned.state_dict().items()}
    for share in (0.0, 0.25, 1.0):
        tuned.load_state_dict(before)
        weights.blend(tuned, start.state_dict(), share)
        for name, weight in tuned.state_dict().items():
            torch.testing.assert_close(weight, (1 - share) * before[name] + share * start.state_dict()[name])
    with pytest.raises(weights.WeightsError, match=r"share = 1.5"):
        weights.blend(tuned, start.state_dict(), 1.5)
