"""What folding the learned scale of the residual blocks saves: at inference, and in a training step.

    OMP_NUM_THREADS=1 .venv/bin/python tests/benchmarks/prepare.py [--side 512] [--rounds 15]

All rows take turns in every round; printed are the fastest and the median round in milliseconds, and both as a share of
the plain equation's. On a processor it is processor time that counts, which others hardly change. Blocks:

    equation     x + s conv(ReLU(conv(x))), as one would write it on a board
    folded       s goes into the weights at every step, ReLU and sum in place
    prepared     `apply.prepare.prepared`: s went into the weights once, before (inference alone)

Inference restores one random square with the released student; a training step takes 8 crops of 96, width 16, L1 loss
and Adam. Tensors and weights are channels last, in float32 and in the machine's best precision.
"""

import argparse
import copy
import statistics
import time

import torch
import torch.nn.functional as F

from ttlkit import machine
from ttlkit.apply import prepare, restore
from ttlkit.method import networks, weights


def equation(block, x):
    return x + block.scale * block.second(F.relu(block.first(x)))


def folded(block, x):
    weight, bias = block.scale * block.second.weight, block.scale * block.second.bias
    return F.conv2d(F.relu(block.first(x), inplace=True), weight, bias, padding=1).add_(x)


def with_blocks(model, forward):
    """A copy whose residual blocks compute `forward`."""
    model = copy.deepcopy(model).to(memory_format=torch.channels_last)
    for block in model.modules():
        if isinstance(block, networks.ResidualBlock):
            block.forward = forward.__get__(block)
    return model


def inference(model, image, dtype):
    def run():
        with torch.inference_mode(), torch.autocast(image.device.type, dtype, enabled=dtype != torch.float32):
            return model(image)

    return run


def training(model, image, target, dtype):
    optimiser = torch.optim.Adam(model.parameters(), 1e-4)

    def run():
        with torch.autocast(image.device.type, dtype, enabled=dtype != torch.float32):
            loss = F.l1_loss(model(image), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return run


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--side", type=int, default=512, help="pixels")
    options.add_argument("--rounds", type=int, default=15)
    given = options.parse_args()
    machine.tune_process()
    machine.seed_everything(0)
    device, best = machine.device(), machine.precision()
    square = torch.rand(1, 3, given.side, given.side, device=device).contiguous(memory_format=torch.channels_last)
    crops = torch.rand(8, 3, 96, 96, device=device).contiguous(memory_format=torch.channels_last)
    student = weights.load_weights(restore.RELEASED).to(device)
    learner = networks.Restorer(16).to(device)
    clock = time.perf_counter if device == "cuda" else time.process_time
    print(f"{device}, {torch.get_num_threads()} threads, {given.rounds} rounds")
    for precision in dict.fromkeys(("no", best)):
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
        jobs = {
            f"{given.side} x {given.side}": {
                "equation": inference(with_blocks(student, equation), square, dtype),
                "folded": inference(with_blocks(student, folded), square, dtype),
                "prepared": inference(prepare.prepared(student), square, dtype),
            },
            "training step": {
                "equation": training(with_blocks(learner, equation), crops, 1 - crops, dtype),
                "folded": training(with_blocks(learner, folded), crops, 1 - crops, dtype),
            },
        }
        for job, rows in jobs.items():
            times = {row: [] for row in rows}
            for number in range(given.rounds + 2):  # the first two rounds warm up
                for row, run in rows.items():
                    began = clock()
                    run()
                    if device == "cuda":
                        torch.cuda.synchronize()
                    if number > 1:
                        times[row].append((clock() - began) * 1000)
            plain = times["equation"]
            for row, measured in times.items():
                least, middle = min(measured), statistics.median(measured)
                print(f"{str(dtype)[6:]:10}{job:16}{row:10}{least:8.1f}{middle:8.1f} ms  {least / min(plain):.3f}"
                      f"{middle / statistics.median(plain):7.3f} of the equation", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
