"""Released networks of others: what spandrel builds is a row; what it cannot use is named in one line."""

import sys

import numpy as np
import pytest
import safetensors.torch
import torch

from ttlkit import machine
from ttlkit.apply import restore
from ttlkit.evaluate import baselines
from ttlkit.method import networks, weights
from ttlkit.method.weights import WeightsError

IMAGE = np.random.default_rng(0).random((37, 51, 3), dtype=np.float32)  # no side is a multiple of anything


def spandrel_or_skip():
    try:
        import spandrel
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"needs the extra peers ({error})")
    return spandrel


def nafnet(channels=3):
    spandrel_or_skip()
    from spandrel.architectures.NAFNet import NAFNet

    machine.seed_everything(0)
    sizes = {"width": 8, "middle_blk_num": 1, "enc_blk_nums": [1, 1], "dec_blk_nums": [1, 1]}
    return NAFNet(img_channel=channels, **sizes).eval()


def test_a_network_of_others_is_a_row(tmp_path):
    model = nafnet()
    torch.save({"params": model.state_dict()}, tmp_path / "nafnet.pth")
    safetensors.torch.save_file(model.state_dict(), tmp_path / "nafnet.safetensors")
    for path in baselines.find_peers([str(tmp_path)]):
        peer = baselines.load_peer(path)
        restored = restore.restore(peer, IMAGE, precision="bf16")  # it runs in float32 all the same
        with torch.inference_mode():
            wanted = model(torch.from_numpy(IMAGE.transpose(2, 0, 1)[None]))[0].clamp(0, 1).numpy().transpose(1, 2, 0)
        assert restored.shape == IMAGE.shape and np.abs(restored - wanted).max() < 1e-5
        tiles = restore.restore(peer, IMAGE, tile=16)
        assert tiles.shape == IMAGE.shape and np.isfinite(tiles).all()


def test_restormer_is_padded_as_it_needs_it(tmp_path):
    spandrel_or_skip()
    pytest.importorskip("spandrel_extra_arches", reason="needs the extra peers-licensed")
    from spandrel_extra_arches.architectures.Restormer import Restormer

    machine.seed_everything(0)
    model = Restormer(dim=8, num_blocks=[1] * 4, num_refinement_blocks=1, heads=[1, 2, 2, 4]).eval()
    torch.save({"params": model.state_dict()}, tmp_path / "restormer.pth")
    peer = baselines.load_peer(tmp_path / "restormer.pth")
    assert restore.restore(peer, IMAGE).shape == IMAGE.shape  # the network itself takes multiples of 8 alone
    with torch.inference_mode():
        wanted = model(torch.from_numpy(IMAGE.transpose(2, 0, 1)[None, :, :32, :48])).clamp(0, 1)[0].numpy()
    assert np.abs(restore.restore(peer, IMAGE[:32, :48]) - wanted.transpose(1, 2, 0)).max() < 1e-5


def test_what_is_no_restorer_of_rgb_images_is_named(tmp_path):
    spandrel_or_skip()
    from spandrel.architectures.Compact import Compact

    files = {"grey": nafnet(channels=1), "twice": Compact(num_feat=8, num_conv=2, upscale=2)}
    for name, model in files.items():
        torch.save({"params": model.state_dict()}, tmp_path / f"{name}.pth")
    torch.save({"params": {"what.weight": torch.zeros(2)}}, tmp_path / "unknown.pth")
    broken = nafnet().state_dict()
    broken["intro.bias"][0] = torch.nan
    torch.save(broken, tmp_path / "broken.pth")
    for name, words in {
        "grey": r"grey\.pth: NAFNet \(Restoration, scale 1, 1 to 1 channels\); restorers of RGB",
        "twice": r"twice\.pth: .*\(SR, scale 2, 3 to 3 channels\); restorers of RGB",
        "unknown": r"unknown\.pth: no network that spandrel knows; .*peers-licensed",
        "broken": r"broken\.pth: intro\.bias is not finite",
    }.items():
        with pytest.raises(WeightsError, match=words) as said:
            baselines.load_peer(tmp_path / f"{name}.pth")
        assert "\n" not in str(said.value)


def test_without_spandrel_the_extra_is_named_and_ours_and_prenet_load(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "spandrel", None)
    tensors = {"intro.weight": torch.zeros(2)}
    torch.save(tensors, tmp_path / "a.pth")
    safetensors.torch.save_file(tensors, tmp_path / "b.safetensors")
    for path in (tmp_path / "a.pth", tmp_path / "b.safetensors"):
        with pytest.raises(WeightsError, match=rf"{path.name}: neither ours nor PReNet's; .*'ttlkit\[peers\]'"):
            baselines.load_peer(path)
    torch.save(baselines.PReNet().state_dict(), tmp_path / "prenet.pth")
    assert isinstance(baselines.load_peer(tmp_path / "prenet.pth"), baselines.PReNet)
    ours = weights.save_weights(networks.Restorer(8), tmp_path / "ours.safetensors")
    assert isinstance(baselines.load_peer(ours), networks.Restorer)


class Evil:
    def __reduce__(self):
        return (sys.exit, ("code of a pickle was run",))


@pytest.mark.parametrize("content", ["pickle", b"", b"not weights", [1], 3.0])
def test_a_file_that_is_no_weights_runs_nothing_and_gives_one_line(content, tmp_path):
    path = tmp_path / "bad.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(Evil() if content == "pickle" else content, path)
    with pytest.raises(WeightsError, match=r"bad\.pth: ") as said:
        baselines.load_peer(path)
    assert "\n" not in str(said.value)
    (tmp_path / "bad.safetensors").write_bytes(b"x")
    with pytest.raises(WeightsError, match=r"bad\.safetensors: not weights written by ttlkit"):
        baselines.load_peer(tmp_path / "bad.safetensors")
