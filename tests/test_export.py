"""Exported networks restore as torch does, at any size, and carry their card; a bad file leaves nothing behind."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from ttlkit import cli, files, machine
from ttlkit.apply import export, restore
from ttlkit.data import image_files
from ttlkit.method import networks, weights

KINDS = [("onnx", "a.onnx"), ("openvino", "a.xml")]


@pytest.fixture(scope="module")
def model():
    machine.seed_everything(0)
    model = networks.Restorer(8)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.15)
    return model.eval()


@pytest.fixture
def packages():
    """The `export` extra; skips where it is not installed."""
    for name in ("onnx", "onnxruntime", "openvino"):
        pytest.importorskip(name, reason=f"{name} is not installed: pip install 'ttlkit[export]'")


@pytest.mark.parametrize(("kind", "name"), KINDS)
def test_an_exported_network_equals_torch_at_any_size(packages, model, tmp_path, kind, name):
    path = export.export(model, tmp_path / "new" / name, {"card": '# Card\n<b>&"', "weights": {"kind": "Restorer"}})
    session = export.load(path, exact=True)
    assert session.facts["card"] == '# Card\n<b>&"' and session.facts["radius"] == networks.UNet.radius
    for shape in [(1, 3, 1, 1), (2, 3, 17, 131), (1, 3, 64, 48), (3, 3, 99, 5)]:
        rainy = np.random.default_rng(1).random(shape, np.float32)
        with torch.inference_mode():
            expected = model(torch.from_numpy(rainy)).clamp(0, 1).numpy()
        assert session.run(rainy).shape == shape
        assert np.abs(session.run(rainy) - expected).max() < 1e-5
        assert np.abs(expected - rainy).mean() > 0.05
    names = {name, "a.bin"} if kind == "openvino" else {name}
    assert {file.name for file in path.parent.iterdir()} == names


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_an_ensemble_is_exported_too(packages, kind, tmp_path):
    machine.seed_everything(0)
    together = weights.gather([networks.Restorer(8), networks.Restorer(8)]).eval()
    session = export.load(export.to_onnx(together), kind, exact=True)
    rainy = np.random.default_rng(1).random((1, 3, 33, 50), np.float32)
    with torch.inference_mode():
        expected = together(torch.from_numpy(rainy)).clamp(0, 1).numpy()
    assert np.abs(session.run(rainy) - expected).max() < 1e-5


def test_the_onnx_file_says_what_it_is(packages, model, tmp_path):
    import onnx

    graph = onnx.load(export.export(model, tmp_path / "a.onnx", {"card": "Card"}))
    onnx.checker.check_model(graph)
    assert [entry.version for entry in graph.opset_import] == [export.OPSET]
    assert (graph.producer_name, graph.doc_string) == ("ttlkit", "Card")
    for value, name in ((graph.graph.input[0], "rainy"), (graph.graph.output[0], "restored")):
        sizes = [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        assert (value.name, sizes) == (name, ["batch", 3, "height", "width"])


@pytest.mark.parametrize(("kind", "name"), KINDS)
def test_what_differs_from_torch_is_not_kept(packages, model, tmp_path, monkeypatch, kind, name):
    (tmp_path / name).write_bytes(b"before")
    other = export.to_onnx(networks.Restorer(8).eval())
    monkeypatch.setattr(export, "to_onnx", lambda model, card: other)
    with pytest.raises(export.ExportError, match="differs from torch by"):
        export.export(model, tmp_path / name)
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"before"


@pytest.mark.parametrize("kind", restore.ENGINES)
@pytest.mark.parametrize("tile", [None, 48])
def test_every_engine_restores_the_same(packages, tmp_path, model, kind, tile):
    path = weights.save_weights(model, tmp_path / "w.safetensors")
    image = np.random.default_rng(0).integers(0, 256, (97, 131, 3), np.uint8)
    engine = restore.load_engine(path, kind, precision="no" if kind == "torch" else None)
    restored = restore.apply(engine, image, tile=tile).astype(int)
    expected = image_files.to_u8(restore.restore(model, image)).astype(int)
    # OpenVINO takes bfloat16 where the processor has it, and this network, far from the identity, shows it.
    assert np.abs(restored - expected).max() <= 1 or (kind == "openvino" and np.abs(restored - expected).mean() < 2)


@pytest.mark.parametrize(("kind", "name"), KINDS)
def test_the_command_line_exports_and_restores_without_torch(packages, home, capsys, tmp_path, kind, name):
    assert cli.main(["export", str(tmp_path / name)]) == 0
    image = np.random.default_rng(0).integers(0, 256, (40, 52, 3), np.uint8)
    image_files.save_image(tmp_path / "in.png", image)
    arguments = ["derain", str(tmp_path / "in.png"), str(tmp_path / "out.png"), "--weights", str(tmp_path / name)]
    code = f"import sys; from ttlkit import cli; code = cli.main({arguments}); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", f"{code}; sys.exit(code)"], check=True, timeout=120)
    expected = restore.apply(restore.load_engine(precision="no", device="cpu"), image)
    assert np.abs(image_files.load_image_u8(tmp_path / "out.png").astype(int) - expected).max() <= 2  # bfloat16
    assert "released student" in export.load(tmp_path / name).facts["card"]


def test_bad_files_are_named(packages, tmp_path):
    with pytest.raises(export.ExportError, match=r"b\.onnx: no such file; `ttlkit export"):
        export.load(tmp_path / "b.onnx")
    for name in ("a.onnx", "a.xml"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(export.ExportError, match=f"{name}: not a network that"):
            export.load(tmp_path / name)


@pytest.mark.parametrize("name", ["a.onnx", "a.xml", "a.bin"])
def test_one_changed_bit_is_seen(packages, model, tmp_path, name):
    made = export.export(model, (tmp_path / name).with_suffix(".onnx" if name == "a.onnx" else ".xml"))
    export.load(made)
    whole = (tmp_path / name).read_bytes()
    for place in np.linspace(0, len(whole) - 100, 9, dtype=int):
        (tmp_path / name).write_bytes(whole[:place] + bytes([whole[place] ^ 2]) + whole[place + 1 :])
        with pytest.raises(export.ExportError, match=r"damaged \(its checksum is wrong\); export it again"):
            export.load(made)


FACTS = [None, "", "no JSON", "[]", '"text"', "7", "[" * 100_000, '{"radius": 154}']
FACTS += [f'{{"radius": 154, "multiple": {odd}}}' for odd in ("0", "-16", '"16"', "1.5", "true", "null", "NaN")]
FACTS += [f'{{"radius": {odd}, "multiple": 16}}' for odd in ("-1", '"far"', "[154]", "1e3", "false")]


def test_facts_that_ttlkit_does_not_write_are_one_line(packages, tmp_path):
    import onnx

    graph = onnx.load_from_string(export.to_onnx(networks.Restorer(8).eval()))
    path = tmp_path / "other.onnx"
    for facts in FACTS:
        del graph.metadata_props[:]
        if facts is not None:
            onnx.helper.set_model_props(graph, {"ttlkit": facts})
        onnx.save(graph, path)
        with pytest.raises(export.ExportError, match=r"other\.onnx: not written by ttlkit; make it with"):
            export.load(path)


def test_what_a_killed_export_left_is_cleared(packages, model, tmp_path):
    left = files.partial_of(tmp_path / "a.onnx", process=99999999)  # one that is gone
    left.mkdir()
    (left / "a.onnx").write_bytes(b"half")
    export.export(model, tmp_path / "a.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["a.onnx"]


def test_an_exported_file_that_may_not_be_read_is_not_called_bad(ordinary_user):
    for name in ("a.onnx", "a.xml"):
        (ordinary_user / name).write_bytes(b"x")
        (ordinary_user / name).chmod(0)
        with pytest.raises(
            export.ExportError, match=rf"{name}: cannot be read \(Permission denied\); make it readable"
        ):
            export.load(ordinary_user / name)


def test_a_card_that_is_no_text_does_not_keep_weights_from_being_exported(model, tmp_path):
    path = weights.save_weights(model, tmp_path / "a.safetensors")
    (tmp_path / "README.md").write_bytes(b"caf\xe9")
    assert export.card_of(path)["card"] == "caf\ufffd"


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_says_how_to_get_it(tmp_path, model, monkeypatch, package):
    if package == "onnxruntime":
        pytest.importorskip("onnx", reason="onnx is not installed: pip install 'ttlkit[export]'")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(export.ExportError, match=rf"{package} is not installed; pip install 'ttlkit\[export\]'"):
        export.export(model, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_an_unknown_suffix_is_said(model, tmp_path):
    with pytest.raises(export.ExportError, match=r"a\.pt: unknown format '\.pt'; use \.onnx"):
        export.export(model, tmp_path / "a.pt")
