"""A network prepared for inference gives what the plain one gives, and the plain one stays as it is."""

import pytest
import torch
import torch.nn.functional as F

from ttlkit import machine
from ttlkit.apply import prepare
from ttlkit.method import networks, weights

BUILD = {
    "restorer": lambda: networks.Restorer(8),
    "ensemble": lambda: networks.Ensemble([8, 16]),
    "recogniser": lambda: networks.Recogniser(8),
}


@pytest.fixture
def plain(request, monkeypatch):
    """A network far from the identity, every scale another one, whose blocks compute the equation."""

    def equation(block, x):
        return x + block.scale * block.second(F.relu(block.first(x)))

    monkeypatch.setattr(networks.ResidualBlock, "forward", equation)
    machine.seed_everything(0)
    model = BUILD[request.param]()
    for values in model.parameters():
        torch.nn.init.normal_(values, std=0.15)
    return model.train()


@pytest.mark.parametrize("plain", BUILD, indirect=True)
def test_prepared_gives_the_same_on_odd_sizes(plain):
    prepared = prepare.prepared(plain)
    for shape in [(2, 3, 37, 53), (1, 3, 1, 70), (1, 3, 96, 64)]:
        image = torch.rand(shape)
        before = image.clone()
        with torch.no_grad():
            expected, given = plain(image), prepared(image)
        assert (given - expected).abs().max() <= 1e-5 * max(1, expected.abs().max())
        assert expected.numel() <= 2 or expected.std() > 0.05
        assert torch.equal(image, before)


@pytest.mark.parametrize("plain", BUILD, indirect=True)
def test_the_plain_network_is_left_untouched(plain):
    before = weights.checksum(plain)
    prepared = prepare.prepared(plain)
    prepared(torch.rand(1, 3, 16, 16))
    assert weights.checksum(plain) == before != weights.checksum(prepared)
    assert plain.training and all(values.requires_grad for values in plain.parameters())
    assert not prepared.training and not any(values.requires_grad for values in prepared.parameters())
    for block in plain.modules():
        assert type(block) is not prepare._FoldedBlock
    convolutions = [m for m in prepared.modules() if isinstance(m, torch.nn.Conv2d)]
    assert all(m.weight.is_contiguous(memory_format=torch.channels_last) for m in convolutions)
    plain(torch.rand(1, 3, 16, 16)).sum().backward()  # and it goes on learning
    assert all(values.grad is not None for name, values in plain.named_parameters() if name.endswith("scale"))


@pytest.mark.parametrize("plain", BUILD, indirect=True)
def test_a_prepared_network_can_be_saved_and_prepared_again(plain, tmp_path):
    prepared, image = prepare.prepared(plain), torch.rand(1, 3, 33, 20)
    again = weights.load_weights(weights.save_weights(prepared, tmp_path / "w.safetensors"))
    with torch.no_grad():
        expected = prepared(image)
        for other in (again, prepare.prepared(prepared)):
            assert type(other) is type(plain)
            assert (other(image) - expected).abs().max() <= 1e-5 * max(1, expected.abs().max())
