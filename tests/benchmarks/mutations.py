"""Damaged images and archives are read, or refused in one line: no traceback, no hang, no memory eaten.

    python tests/benchmarks/mutations.py [--seed 0] [--count 1000] [--first 0] [--keep FOLDER]

Each case changes a small file (PNG, JPEG, TIFF, WebP, BMP, GIF; zip, tar) by its seed and number alone, reads it, and
writes what was read in another format. It has 10 seconds and 2 GB. What went wrong is printed and kept; `--first N
--count 1` makes one case again.
"""

import argparse
import io
import multiprocessing
import re
import resource
import shutil
import sys
import tempfile
import zipfile
import zlib
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

sys.path[:0] = [str(Path(__file__).resolve().parents[n]) for n in (2, 1)]
from test_fetch import tarred, zipped  # noqa: E402

from ttlkit.data import image_files, photos  # noqa: E402
from ttlkit.data.public.catalogue import DataSet, Rule  # noqa: E402
from ttlkit.data.public.download import FetchError  # noqa: E402
from ttlkit.data.public.unpack import unpack  # noqa: E402

SECONDS, MEMORY = 10.0, 2 << 30
TARGETS = (".png", ".jpg", ".tif", ".webp", ".bmp")
PAIRS = DataSet(
    name="rain", title="Some rain", version="1", kind="test", citation="-", licence="-",
    rules=tuple(Rule(rf"{side}/(?P<n>\d)\.png", f"test/rain/{side}/{{n}}.png") for side in ("rainy", "clean")),
)  # fmt: skip


# ---- sound files -----------------------------------------------------------------------------------------------------


@cache
def sound_files() -> dict[str, bytes]:
    """Name to content: of each format several kinds of pixels, of storing them, and of what else belongs to a file."""
    rng = np.random.default_rng(0)
    rgba = rng.integers(0, 256, (37, 53, 4), np.uint8)
    rgba[:20] = 100, 150, 200, 255  # flat parts, which are packed in other ways than noise
    deep = rng.integers(0, 65536, (37, 53, 4), np.uint16)
    rgb, grey = Image.fromarray(rgba[..., :3]), Image.fromarray(rgba[..., 0])
    exif = Image.Exif()
    exif[274], exif[271], exif.get_ifd(0x8769)[36867] = 6, "Camera", "2026:01:01 00:00:00"
    more = {"exif": exif.tobytes(), "icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()}
    modes = {
        "rgb": rgb, "rgba": Image.fromarray(rgba), "grey": grey, "la": Image.fromarray(rgba[..., :2]),
        "palette": rgb.quantize(16), "1bit": grey.convert("1"), "cmyk": rgb.convert("CMYK"), "lab": lab(rgb),
        "float": Image.fromarray(rgba[..., 0] / np.float32(255)), "grey16": Image.fromarray(deep[..., 0]),
        "int32": Image.fromarray(deep[..., 0].astype(np.int32) << 15),
    }  # fmt: skip
    plain = {"png": "rgb rgba grey la palette 1bit grey16", "jpg": "rgb grey cmyk", "bmp": "rgb grey palette 1bit rgba",
             "tif": "rgb rgba grey la palette 1bit cmyk lab float grey16 int32", "webp": "rgb rgba",
             "gif": "palette grey"}  # fmt: skip
    found = {f"{mode}.{kind}": encoded(modes[mode], kind) for kind, those in plain.items() for mode in those.split()}
    found |= {f"more.{kind}": encoded(rgb, kind, **more) for kind in ("png", "jpg", "tif", "webp")}
    found |= {f"{name}.tif": encoded(rgb, "tif", compression=name) for name in ("tiff_lzw", "tiff_deflate", "jpeg")}
    found |= {f"group{n}.tif": encoded(modes["1bit"], "tif", compression=f"group{n}") for n in (3, 4)}
    found["progressive.jpg"] = encoded(rgb, "jpg", progressive=True)
    found["lossless.webp"] = encoded(modes["rgba"], "webp", lossless=True)
    found["clear.png"] = encoded(modes["palette"], "png", transparency=3)
    moving = {"save_all": True, "append_images": [rgb.transpose(Image.Transpose.FLIP_TOP_BOTTOM)]}
    found |= {f"moving.{kind}": encoded(rgb, kind, **moving) for kind in ("png", "webp", "gif", "tif")}
    for depth in (1, 2, 3, 4):  # of these, Pillow writes only grey
        photo = photos.Photo(deep[..., :3], deep[..., 3:] if depth % 2 == 0 else None, depth < 3)
        with tempfile.TemporaryDirectory() as folder:
            for kind in ("png", "tif"):
                photos.save_photo(Path(folder, f"x.{kind}"), photo)
                found[f"deep{depth}.{kind}"] = Path(folder, f"x.{kind}").read_bytes()
    found |= tiled_tiffs(rgba[..., :3], deep[..., :3])
    pictures = {f"top/{s}/{n}.png": found[k] for n, k in enumerate(("rgb.png", "la.png")) for s in ("rainy", "clean")}
    found |= {f"{mode.replace(':', '.')}.tar": tarred(pictures, mode) for mode in ("w", "w:gz", "w:bz2", "w:xz")}
    return found | {f"{how}.zip": zipped(pictures, how) for how in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)}


def lab(rgb: Image.Image) -> Image.Image:
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    return ImageCms.profileToProfile(rgb, *profiles, outputMode="LAB")


def encoded(picture: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, image_files.FORMATS.get(f".{kind}", kind), **options)
    return buffer.getvalue()


def tiled_tiffs(*pictures: np.ndarray) -> dict[str, bytes]:
    """TIFFs as Pillow does not write them: in tiles, by planes, big-endian, BigTIFF."""
    import tifffile

    found = {}
    ways = {"tiled": {"tile": (16, 16)}, "planar": {"planarconfig": "separate"}, "packed": {"compression": "zlib"}}
    for pixels in pictures:
        for name, way in ways.items():
            for form in ({}, {"bigtiff": True}, {"byteorder": ">"}):
                buffer = io.BytesIO()
                shape = pixels.transpose(2, 0, 1) if name == "planar" else pixels
                with tifffile.TiffWriter(buffer, **form) as file:
                    file.write(np.ascontiguousarray(shape), photometric="rgb", **way)
                found[f"{name}-{'-'.join(form)}-{pixels.dtype}.tif"] = buffer.getvalue()
    return found


# ---- damage ----------------------------------------------------------------------------------------------------------


def mutated(seed: int, number: int) -> tuple[str, bytes]:
    """(name, content) of a case: a sound file, one of each format after the other, damaged one to three times."""
    rng = np.random.default_rng([seed, number])
    sound = sound_files()
    formats = sorted({name.rpartition(".")[2] for name in sound})
    suffix = formats[number % len(formats)]
    name = str(rng.choice([one for one in sound if one.endswith(f".{suffix}")]))
    content = sound[name]
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        damage = DAMAGES[rng.integers(len(DAMAGES))]
        content = damage(content, rng) if content else content
    return f"{number}-{name}", with_checksums(content) if suffix == "png" and number % 3 else content


def with_checksums(content: bytes) -> bytes:
    """A PNG whose chunks have the checksums of what is in them now: else nothing but these would be tested."""
    place, fixed = 8, bytearray(content)
    while place + 12 <= len(fixed):
        end = place + 8 + int.from_bytes(fixed[place : place + 4], "big")
        if end + 4 <= len(fixed):
            fixed[end : end + 4] = zlib.crc32(fixed[place + 4 : end]).to_bytes(4, "big")
        place = end + 4
    return bytes(fixed)


def _place(content: bytes, rng: np.random.Generator) -> int:
    """Somewhere in it; half of the time near the start, where headers are."""
    return int(rng.integers(min(len(content), int(rng.choice([64, 512, 1 << 30, 1 << 30])))))


def truncate(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: _place(content, rng)]


def flip(content: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.integers(1, 9)):
        changed[_place(content, rng)] ^= 1 << rng.integers(8)
    return bytes(changed)


def splice(content: bytes, rng: np.random.Generator) -> bytes:
    """Its head and another file's tail, or its own, by which parts are lost or doubled."""
    others = list(sound_files().values())
    tail = content if rng.random() < 0.5 else others[rng.integers(len(others))]
    return content[: _place(content, rng)] + tail[_place(tail, rng) :]


def enlarge(content: bytes, rng: np.random.Generator) -> bytes:
    """A field of 2 or 4 bytes becomes one of the numbers that sizes and counts go wrong with."""
    place, size = _place(content, rng), int(rng.choice([2, 4]))
    value = int(rng.choice([0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])) % (1 << 8 * size)
    return content[:place] + value.to_bytes(size, str(rng.choice(["little", "big"]))) + content[place + size :]


def scribble(content: bytes, rng: np.random.Generator) -> bytes:
    place, noise = _place(content, rng), rng.bytes(int(rng.integers(1, 40)))
    return content[:place] + noise + content[place + len(noise) :]


DAMAGES = (truncate, flip, splice, enlarge, scribble)


# ---- reading them ----------------------------------------------------------------------------------------------------


def attempt(name: str, content: bytes, folder: Path, number: int) -> str:
    """How a damaged file was taken: 'read', or the words of a refusal; AssertionError and what else is a failure."""
    path = folder / name
    path.write_bytes(content)
    try:
        if name.endswith((".zip", ".tar")):
            unpack(PAIRS, path, folder / "staging")
        else:
            as_deraining(path, folder / f"out{TARGETS[number % len(TARGETS)]}")
        outcome = "read"
    except (image_files.ImageError, FetchError) as error:
        outcome = str(error)
        assert "\n" not in outcome and outcome.isprintable(), f"not one line: {outcome!a}"
        assert re.search(rf"{path.name}|out[.]|test/rain|{PAIRS.title}", outcome), f"names no file: {outcome}"
        assert len(outcome) < 1000, f"too many words: {outcome[:200]}"
    left = {one.name for one in folder.iterdir()} - {path.name, "staging", f"out{TARGETS[number % len(TARGETS)]}"}
    assert not left, f"left behind: {left}"
    for one in folder.iterdir():
        shutil.rmtree(one) if one.is_dir() else one.unlink()
    return outcome


def as_deraining(source: Path, target: Path) -> None:
    """A photograph in and out, without the network between."""
    photo = photos.load_photo(source)
    height, width, depth = photo.pixels.shape
    assert depth == 3 and height and width and photo.pixels.dtype in (np.uint8, np.uint16), photo.pixels.shape
    assert photo.alpha is None or (photo.alpha.shape, photo.alpha.dtype) == ((height, width, 1), photo.pixels.dtype)
    assert photo.flat_u8().shape == (height, width, 3)
    photos.save_photo(target, photo)
    assert photos.load_photo(target).pixels.shape == photo.pixels.shape, "another size when read again"


def work(pipe, seed: int) -> None:
    """The process that reads: takes numbers of cases, gives back ('', outcome) or (what failed, '')."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    with tempfile.TemporaryDirectory() as folder:
        while (number := pipe.recv()) is not None:
            try:
                pipe.send(("", attempt(*mutated(seed, number), Path(folder), number)))
            except BaseException as error:  # noqa: BLE001 - any other kind is what is looked for
                pipe.send((f"{type(error).__name__}: {error}", ""))


def search(seed: int, numbers: range) -> tuple[dict[int, str], Counter]:
    """(number of a case to what failed, outcomes by format) of the cases; a process that hangs or dies is replaced."""
    context = multiprocessing.get_context("spawn")
    failed, outcomes, process = {}, Counter(), None
    for number in numbers:
        if process is None:
            pipe, theirs = context.Pipe()
            process = context.Process(target=work, args=(theirs, seed), daemon=True)
            process.start()
            theirs.close()
            pipe.send(number)
            pipe.poll(60)  # it has to import first
        else:
            pipe.send(number)
        try:
            problem, outcome = pipe.recv() if pipe.poll(SECONDS) else (f"more than {SECONDS:g} s", "")
        except (EOFError, ConnectionError):
            problem, outcome = "the process died", ""
        if problem:
            failed[number] = problem
            process.kill()
            process = None
        else:
            outcomes[mutated(seed, number)[0].rpartition(".")[2], "read" if outcome == "read" else "refused"] += 1
    if process:
        pipe.send(None)
        process.join()
    return failed, outcomes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument(
        "--keep", type=Path, default=Path(tempfile.gettempdir(), "mutations"), help="where failing files go"
    )
    chosen = parser.parse_args()
    failed, outcomes = search(chosen.seed, range(chosen.first, chosen.first + chosen.count))
    for suffix in sorted({suffix for suffix, _ in outcomes}):
        print(f"{suffix:5s} {outcomes[suffix, 'read']:4d} read, {outcomes[suffix, 'refused']:4d} refused")
    for number, problem in failed.items():
        name, content = mutated(chosen.seed, number)
        chosen.keep.mkdir(parents=True, exist_ok=True)
        (chosen.keep / name).write_bytes(content)
        print(f"seed {chosen.seed}, case {number}, kept as {chosen.keep / name}: {problem}")
    print(f"{len(failed)} of {chosen.count} cases failed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
