"""Restorers side by side on val/ and the dry photographs, where recipes are chosen; or, once, on test/.

    .venv/bin/python tests/benchmarks/choose.py COLLECTION WEIGHTS [WEIGHTS ...] [--images 12] [--sets val]

PSNR (RGB, rounded, valid pixels alone), mean over images, with half a 95 % bootstrap interval; then the gain over the
input on the same images. WEIGHTS: .safetensors of restorers, or PReNet's .pth, which see no dry photographs (slow).
"""

import argparse
from functools import partial
from pathlib import Path

import torch

from ttlkit import machine
from ttlkit.apply import restore
from ttlkit.data import collections
from ttlkit.evaluate import baselines, scores
from ttlkit.lesson import figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("collection", type=Path)
    parser.add_argument("weights", type=Path, nargs="+")
    parser.add_argument("--images", type=int, default=12, help="most images of a set")
    parser.add_argument("--sets", choices=scores.SETS, default="val")
    parser.add_argument("--save", type=Path, help="a CSV for the scores of single images")
    chosen = parser.parse_args()
    torch.set_grad_enabled(False)
    device = machine.device()
    restorers = {scores.UNTOUCHED: scores.untouched}
    for path in chosen.weights:
        load = baselines.load_peer if path.suffix == ".pth" else restore.load_restorer
        name = path.stem if path.parent.name in ("", "peers", "weights") else "/".join(path.parts[-3:-1])
        restorers[name] = partial(restore.restore, load(path, device))
    work = scores.cases(collections.open_collection(chosen.collection), chosen.images, chosen.sets)
    paired = [case for case in work if case[0].kind == "paired"]
    dry = [case for case in work if case[0].kind == "dry"]
    own = {name: restorer for name, restorer in restorers.items() if not name.startswith("prenet")}
    rows = scores.score(restorers, paired) + scores.score(own, dry)
    if chosen.save:
        scores.save_rows(chosen.save, rows)
    summary = scores.summarise(rows)
    for metric in ("psnr_rgb", "psnr_dry"):
        print(figures.markdown_table(scores.pivot(summary, metric)), end="\n\n")
    gains = [row for name in list(restorers)[1:] for row in scores.differences(rows, name, scores.UNTOUCHED)]
    print(figures.markdown_table(gains))


if __name__ == "__main__":
    main()
