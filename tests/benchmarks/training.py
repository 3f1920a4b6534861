"""Where the time of fine-tuning the released student goes, and what the kit's loop is worth beside a plain one.

    .venv/bin/python tests/benchmarks/training.py [--steps 40] [--threads 2] [--collection FOLDER] [--rounds 3]

Batch, crops, width, the share of rendered rain and the learning rate are those of the profile `release`, without guide;
the images come out of the cache. In each round two processes take turns, on the same samples and on all threads that
torch takes:

    kit    ttlkit's Trainer: the machine's best precision, channels_last, fused AdamW, a tuned allocator
    plain  a loop as most repositories have it: float32, contiguous, AdamW as it comes, the allocator as it comes

Printed are medians over the rounds: milliseconds a step; the share of the time that is spent inside of steps, not
waiting for data, writing logs or checkpoints; floating-point operations a second in a step (forward and backward, by
torch's counter) beside those of a matrix product in the same process and precision; and plain over kit. The first
`WARM` steps are left out. Run it on a machine that does nothing else.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from ttlkit import machine
from ttlkit.data import collections
from ttlkit.method import networks, recipes, trainer
from ttlkit.runs.profiles import PROFILES

WARM = 5  # steps
RELEASE = PROFILES["release"]


def build_recipe(given):
    """The student's fine-tuning, as released, on as many pairs as the collection has; untrained."""
    folder = Path(given.collection) if given.collection else machine.home() / "datasets" / "pocket-40"
    photographs = collections.open_collection(folder, 40)
    machine.seed_everything(0)
    restorer = networks.Restorer(RELEASE.student_width)
    pairs = photographs.few_pairs(min(RELEASE.n_pairs, len(photographs.pairs)), 0)
    options = {"guidance": 0.0, "rendered": RELEASE.rendered, "patch": RELEASE.patch, "seed": 0}
    return recipes.fine_tuning(restorer, None, photographs, pairs=pairs, **options)


def wait():
    if machine.device() == "cuda":
        torch.cuda.synchronize()


def timed(call, spans):
    """`call`, which adds (begin, end) to `spans` when the device has finished."""

    def wrapped(*arguments):
        began = time.perf_counter()
        found = call(*arguments)
        wait()
        spans.append((began, time.perf_counter()))
        return found

    return wrapped


def kit(given, spans, folder):
    """Operations of a step; the loop is the Trainer's own, from the first batch to the last checkpoint."""
    machine.tune_process()
    recipe = build_recipe(given)
    options = {"steps": given.steps + WARM, "batch": RELEASE.batch, "learning_rate": RELEASE.fine_tuning_rate}
    options |= {"folder": folder, "key": "", "seed": 0, "workers": given.workers}
    fit = trainer.Trainer(recipe.model, recipe.objective, recipe.samples, **options)
    batch = next(iter(fit._loader()))
    with FlopCounterMode(display=False) as counter:
        fit._one_step(batch)
    fit._one_step = timed(fit._one_step, spans)
    fit.fit()
    return counter.get_total_flops()


def plain(given, spans, folder):
    """The same network, loss and samples in a loop without any of it."""
    recipe = build_recipe(given)
    model = recipe.model.to(machine.device()).train()
    optimizer = torch.optim.AdamW(model.parameters(), RELEASE.fine_tuning_rate, betas=(0.9, 0.99), weight_decay=1e-4)
    numbers = trainer.StepSampler(RELEASE.batch, 0, given.steps + WARM)

    def one_step(batch):
        loss = recipe.objective(model, {name: value.to(machine.device()) for name, value in batch.items()})[0].mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    one_step = timed(one_step, spans)
    for batch in torch.utils.data.DataLoader(recipe.samples, batch_sampler=numbers, num_workers=given.workers):
        one_step(batch)
    return 0


def product():
    """Operations a second of a matrix product, the best of ten, in the machine's precision."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "no": torch.float32}[machine.precision()]
    side = 8192 if machine.device() == "cuda" else 1024
    a, b = (torch.rand(side, side, device=machine.device()).to(dtype) for _ in range(2))
    spans = []
    for _ in range(11):
        timed(torch.mm, spans)(a, b)
    return 2 * side**3 / min(end - begin for begin, end in spans[1:])


def child(given):
    """One process's figures, as a line of JSON."""
    spans = []
    with tempfile.TemporaryDirectory() as folder:
        operations = {"kit": kit, "plain": plain}[given.child](given, spans, Path(folder))
    inside = [end - begin for begin, end in spans[WARM:]]
    step = statistics.median(inside)
    found = {"step": step, "share": sum(inside) / (spans[-1][1] - spans[WARM - 1][1])}
    if operations:
        found |= {"speed": operations / step, "product": product(), "operations": operations}
    print(json.dumps(found))


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--steps", type=int, default=40, help="timed steps a round")
    options.add_argument("--threads", type=int, help="of torch (default: as torch chooses)")
    options.add_argument("--collection", help="a folder (default: the pocket collection of 40 scenes)")
    options.add_argument("--workers", type=int, default=RELEASE.workers, help="loader processes")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--child", choices=("kit", "plain"), help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    if given.child:
        return child(given)
    rows = {"kit": [], "plain": []}
    for _ in range(given.rounds):
        for name, found in rows.items():
            command = [sys.executable, __file__, *sys.argv[1:], "--child", name]
            printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            found.append(json.loads(printed.splitlines()[-1]))
    print(
        f"{machine.device()}, {torch.get_num_threads()} threads, {given.workers} workers, kit in {machine.precision()}"
    )
    for name, found in rows.items():
        step, share = (statistics.median(row[key] for row in found) for key in ("step", "share"))
        print(f"{name:6} {step * 1000:8.1f} ms a step, {share:.0%} of the time inside of steps")
    speed, best = (statistics.median(row[key] for row in rows["kit"]) / 1e9 for key in ("speed", "product"))
    print(f"a step is {rows['kit'][0]['operations'] / 1e9:.1f} GFLOP: {speed:.1f} GFLOP/s")
    print(f"a matrix product: {best:.1f} GFLOP/s; the step reaches {speed / best:.0%} of it")
    ratios = [a["step"] / b["step"] for a, b in zip(rows["plain"], rows["kit"], strict=True)]
    print(f"plain / kit {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
