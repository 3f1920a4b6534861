"""The restorers as files for ONNX Runtime and OpenVINO: written, checked against torch, and run without torch."""

from __future__ import annotations

import io
import json
import os
import re
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ttlkit import __version__, files

if TYPE_CHECKING:  # torch takes seconds to import, and exported networks run without it
    from ttlkit.method.networks import Derainer

Run = Callable[[np.ndarray], np.ndarray]
SUFFIXES = {".onnx": "onnx", ".xml": "openvino"}  # of the files, and which engine runs them
SEAL = b"sha256"  # stands before the checksum at the end of a file
OPSET = 18  # of the ONNX standard; the graph needs nothing newer
CLOSE = 1e-4  # largest difference from torch, of values in [0, 1], with which a file is kept; measured: below 1e-6
CHECKED = ((1, 3, 97, 131), (2, 3, 45, 23))  # no side is a multiple of 16


class ExportError(RuntimeError):
    """A file cannot be exported or used; the message names it and the way out."""


@dataclass(frozen=True)
class Engine:
    """What restores images, whichever library computes it.

    `run`: rainy, float32 (B, 3, H, W) in [0, 1], any H and W, to restored, the same, clipped. `radius`: how many pixels
    away an output pixel still sees, None where that is unknown, and the image must stay whole. `multiple`: tiles begin
    at multiples of it. `too_large`: what `run` raises when a batch does not fit into memory. `facts`: of an exported
    file 'radius', 'multiple', 'version' of ttlkit, 'weights' (header of the weights), 'card' (the model card).
    """

    run: Run
    radius: int | None = None
    multiple: int = 1
    too_large: tuple[type[Exception], ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)


@contextmanager
def _extra():
    """The packages of the extra `export`; ExportError says how to get one that is missing."""
    try:
        yield
    except ImportError as error:
        raise ExportError(f"{error.name or error} is not installed; pip install 'ttlkit[export]'") from None


@_extra()
def export(model: Derainer, path: Path | str, card: dict[str, Any] | None = None) -> Path:
    """Write a restorer as `path`: OUT.onnx, or OUT.xml with OUT.bin beside it for OpenVINO; float32.

    Input 'rainy' and output 'restored' are float32 (batch, 3, height, width) RGB in [0, 1], all three sizes free. What
    the file restores is compared with torch on CHECKED before it takes its place: whole or not at all. `card` goes
    into its metadata (see `card_of`). Raises ExportError.
    """
    import torch

    path = Path(path)
    kind = kind_of(path)
    graph = to_onnx(model, card)
    with files.beside(path) as folder:
        folder.mkdir()
        made = folder / path.name
        if kind == "onnx":
            made.write_bytes(_sealed(graph + b"r\x4a\n\x06", b"\x12@%s"))  # one more of an ONNX file's metadata_props
        else:
            import openvino

            network = openvino.Core().read_model(graph)
            try:
                openvino.save_model(network, made, compress_to_fp16=False)
            except RuntimeError:  # 'basic_ios::clear: iostream error'
                raise ExportError(f"{path}: cannot be written; free space there, or choose another folder") from None
            made.write_bytes(_sealed(made.read_bytes() + b"<!--", b" %s-->", made.with_suffix(".bin").read_bytes()))
        engine = load(made, exact=True)
        for shape in CHECKED:
            rainy = np.random.default_rng(0).random(shape, np.float32)
            with torch.inference_mode():
                expected = model(torch.from_numpy(rainy)).clamp(0, 1).numpy()
            worst = float(np.abs(engine.run(rainy) - expected).max())
            if not worst <= CLOSE:
                raise ExportError(f"{path}: differs from torch by {worst:.2g}, so it was not kept; use --engine torch")
        for file in sorted(folder.iterdir()):  # the .bin before the .xml that needs it
            os.replace(file, path.with_name(file.name))
    return path


def _sealed(content: bytes, end: bytes, *more: bytes) -> bytes:
    """`content`, and at its end the checksum of it and of what belongs to it."""
    return content + SEAL + end % files.digest(content, *more).encode()


def _check_seal(path: Path) -> None:
    """ExportError where a bit of an exported file has changed since; older files have no seal."""
    content = path.read_bytes()
    start = content.rfind(SEAL, -100)
    told = re.search(rb"[0-9a-f]{64}", content[start:]) if start >= 0 else None
    more = [path.with_suffix(".bin").read_bytes()] if told and path.suffix == ".xml" else []
    if told and told[0].decode() != files.digest(content[:start], *more):
        raise ExportError(f"{path}: damaged (its checksum is wrong); export it again")


def kind_of(path: Path) -> str:
    """'onnx' or 'openvino', by the suffix."""
    if path.suffix not in SUFFIXES:
        raise ExportError(
            f"{path}: unknown format '{path.suffix}'; use .onnx (ONNX Runtime), .xml (OpenVINO), or .html"
        )
    return SUFFIXES[path.suffix]


@_extra()
def to_onnx(model: Derainer, card: dict[str, Any] | None = None) -> bytes:
    """The network as an ONNX file in memory, with `card` in its metadata; padding and clipping are in the graph.

    By torch's older exporter: it gives the same values as the newer one (`dynamo=True`) in a second instead of
    fourteen, and needs no onnxscript.
    """
    import onnx
    import torch

    from ttlkit.apply.prepare import prepared
    from ttlkit.method.networks import UNet

    multiple = UNet.multiple

    class Whole(torch.nn.Sequential):
        def forward(self, rainy):
            # Replicate padding by indices: how far `F.pad` pads would be frozen at the size of the example.
            height, width = rainy.shape[-2:]
            rows = torch.arange((height + multiple - 1) // multiple * multiple).clamp(max=height - 1)
            columns = torch.arange((width + multiple - 1) // multiple * multiple).clamp(max=width - 1)
            return super().forward(rainy[:, :, rows][:, :, :, columns])[..., :height, :width].clamp(0, 1)

    free = {0: "batch", 2: "height", 3: "width"}
    encoded = io.BytesIO()
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # that the exporter is the older one, and of sizes that do not change
        torch.onnx.export(
            Whole(prepared(model)), (torch.rand(2, 3, 37, 53),),
            encoded,  # type: ignore[arg-type]  # the older exporter takes a buffer as well as a file
            dynamo=False, opset_version=OPSET,
            input_names=["rainy"], output_names=["restored"], dynamic_axes={"rainy": free, "restored": free},
        )  # fmt: skip
    graph = onnx.load_from_string(encoded.getvalue())
    facts = {"radius": UNet.radius, "multiple": multiple, "version": __version__, "opset": OPSET, **(card or {})}
    graph.producer_name, graph.doc_string = "ttlkit", facts.get("card", "")
    onnx.helper.set_model_props(graph, {"ttlkit": json.dumps(facts)})
    return graph.SerializeToString()


def card_of(weights: Path) -> dict[str, Any]:
    """The header of the weights, and the model card (README.md) where one lies beside them."""
    from safetensors import safe_open

    with safe_open(weights, framework="np") as file:
        header = json.loads(file.metadata()["ttlkit"])
    card = weights.with_name("README.md")
    return {"weights": header, "card": card.read_text("utf-8", "replace") if card.is_file() else json.dumps(header)}


@_extra()
def load(source: Path | bytes, kind: str = "", exact: bool = False) -> Engine:
    """Run an exported file, or ONNX in memory with the engine `kind`, on the processor.

    OpenVINO takes bfloat16 where the processor multiplies it natively, unless `exact`; ONNX Runtime takes float32.
    Threads: $OMP_NUM_THREADS, which neither heeds by itself, else as many as the engine takes. Raises ExportError.
    """
    name = "network in memory" if isinstance(source, bytes) else str(source)
    try:
        if isinstance(source, Path):
            kind = kind_of(source)
            _check_seal(source)
    except FileNotFoundError:
        raise ExportError(f"{name}: no such file; `ttlkit export {name}` makes it") from None
    except OSError as error:
        raise ExportError(f"{name}: cannot be read ({error.strerror}); make it readable, or export it again") from None
    threads = os.environ.get("OMP_NUM_THREADS", "")
    start = _start_onnx if kind == "onnx" else _start_openvino
    try:
        run, text = start(source, int(threads) if threads.isdigit() else 0, exact)
    except KeyError:
        text = ""
    except ImportError:
        raise
    except Exception as error:  # noqa: BLE001 - both engines raise many kinds for a bad file
        words = " ".join(str(error).split())[:200]
        if isinstance(error, MemoryError) or "bad_alloc" in words or "allocate memory" in words:
            raise ExportError(f"{name}: too little memory is free to load it; close other programs") from None
        raise ExportError(f"{name}: not a network that {kind} can run ({words}); export it again") from None
    try:
        facts = json.loads(text)
        radius, multiple = facts["radius"], facts["multiple"]
        if {type(radius), type(multiple)} != {int} or radius < 0 or multiple < 1:
            raise ValueError
    except (KeyError, TypeError, ValueError, RecursionError):
        raise ExportError(f"{name}: not written by ttlkit; make it with `ttlkit export`") from None
    return Engine(run, radius, multiple, facts=facts)


def _start_onnx(source: Path | bytes, threads: int, exact: bool) -> tuple[Run, str]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map["ttlkit"]
    return lambda rainy: session.run(None, {"rainy": rainy})[0], facts


def _start_openvino(source: Path | bytes, threads: int, exact: bool) -> tuple[Run, str]:
    import openvino

    network = openvino.Core().read_model(source)
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    compiled = openvino.compile_model(network, "CPU", options | ({"INFERENCE_PRECISION_HINT": "f32"} if exact else {}))
    facts = network.get_rt_info(["framework", "ttlkit"]).astype(str)  # where OpenVINO keeps the metadata of ONNX
    return lambda rainy: compiled(rainy)[0], facts
