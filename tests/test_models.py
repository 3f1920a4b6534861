"""Networks: shapes, reach, weights that survive the disk, the published baseline."""

import pytest
import torch

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


def test_equal_weights_give_equal_files(tmp_path):
    """Stages are compared by the hash of their weights' files."""
    model = Restorer(8)
    files = {weights.save_weights(model, tmp_path / f"{i}", task="x", pairs="3").read_bytes() for i in range(8)}
    assert len(files) == 1


def test_bad_weights_give_one_line(tmp_path):
    with pytest.raises(WeightsError, match=r"no such weights.*make reproduce"):
        weights.load_weights(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"not weights")
    with pytest.raises(WeightsError, match=r"bad.safetensors.*train again"):
        weights.load_weights(tmp_path / "bad.safetensors")
    (tmp_path / "bad.pth").write_bytes(b"not weights")
    with pytest.raises(WeightsError, match=r"bad.pth.*PReNet"):
        baselines.load_prenet(tmp_path / "bad.pth")


def test_transfer_copies_what_there_is():
    recogniser, teacher = Recogniser(8), Restorer(8)
    from_recogniser = weights.transfer(recogniser, Restorer(8))
    assert weights.checksum(from_recogniser.backbone) == weights.checksum(recogniser.backbone)
    assert weights.checksum(weights.transfer(teacher, Restorer(8))) == weights.checksum(teacher)
    with pytest.raises(WeightsError, match="width 16"):
        weights.transfer(Restorer(16), Restorer(8))


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
