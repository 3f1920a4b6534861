"""Recipes side by side on what they are chosen on: the sets of val/ and the dry photographs; never on test/.

    .venv/bin/python tests/benchmarks/choose.py COLLECTION WEIGHTS [WEIGHTS ...] [--images 12] [--sets val]

PSNR (RGB, rounded, valid pixels alone), mean over images; WEIGHTS: .safetensors of restorers, or PReNet's .pth.
"""

import argparse
from functools import partial
from pathlib import Path

import pandas as pd
import torch

from ttlkit import machine
from ttlkit.apply import restore
from ttlkit.data import collections
from ttlkit.evaluate import baselines, scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("collection", type=Path)
    parser.add_argument("weights", type=Path, nargs="+")
    parser.add_argument("--images", type=int, default=12, help="most images of a set")
    parser.add_argument("--sets", choices=scores.SETS, default="val")
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
    table = pd.DataFrame(rows)
    table["psnr"] = table["psnr_rgb"].fillna(table["psnr_dry"])
    print(table.pivot_table("psnr", "model", "set", sort=False).round(2).to_string())


if __name__ == "__main__":
    main()
