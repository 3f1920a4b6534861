"""What a training step costs when waiting OpenMP threads sleep (OMP_WAIT_POLICY=PASSIVE, as ttlkit sets) or spin.

    .venv/bin/python tests/benchmarks/threads.py [--steps 30] [--rounds 5] [--threads N]

A step of fine-tuning: 8 crops of 96 pixels, the released student's width 16, float32 or what the machine computes
best in; made-up crops, so that nothing but the step is timed. In each round four fresh processes take turns:
with either policy, alone and beside one process that keeps a core busy. Printed are medians over the rounds with their
range, the ratio default / PASSIVE of each round likewise, and how busy the machine was before the first round: alone
means alone only where that is near zero.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

POLICIES = ("PASSIVE", "default")
WARM = 5  # steps


def child(given):
    """Print the median seconds of a step in this process, whose environment says how threads wait."""
    import torch  # before ttlkit, which would set the policy where the environment does not

    from ttlkit import machine
    from ttlkit.method import networks, objectives

    if given.threads:
        torch.set_num_threads(given.threads)
    machine.tune_process()
    machine.seed_everything(0)
    model = networks.Restorer(16).to(memory_format=torch.channels_last).train()
    optimizer, step = torch.optim.AdamW(model.parameters(), 1e-3, fused=True), objectives.restoration_step()
    batch = {name: torch.rand(8, 3, 96, 96) for name in ("rainy", "clean")}
    taken = []
    for _ in range(WARM + given.steps):
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=machine.precision("cpu") == "bf16"):
            loss = step(model, batch)[0].mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        taken.append(time.perf_counter() - began)
    print(statistics.median(taken[WARM:]), torch.get_num_threads(), machine.precision("cpu"))


def measure(policy, busy):
    """(seconds a step, threads, precision) of a fresh process, beside a busy one or not."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    if policy == "PASSIVE":
        environment["OMP_WAIT_POLICY"] = policy
    beside = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
    try:
        command = [sys.executable, __file__, *sys.argv[1:], "--child"]
        printed = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
    finally:
        if beside:
            beside.kill()
            beside.wait()
    seconds, threads, precision = printed.split()
    return float(seconds), threads, precision


def spread(values, digits):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--steps", type=int, default=30, help="timed steps a process")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--threads", type=int, help="of torch (default: as torch chooses)")
    options.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.child:
        return child(given)
    print(f"load of the machine before: {os.getloadavg()[0]:.1f} on {len(os.sched_getaffinity(0))} cores")
    taken = {(busy, policy): [] for busy in (False, True) for policy in POLICIES}
    for _ in range(given.rounds):
        for (busy, policy), found in taken.items():
            seconds, threads, precision = measure(policy, busy)
            found.append(seconds * 1000)
    print(f"{threads} threads, precision {precision}, {given.steps} steps a process, {given.rounds} rounds")
    for busy, where in ((False, "alone"), (True, "beside a busy process")):
        for policy in POLICIES:
            print(f"{where:22} {policy:8} {spread(taken[busy, policy], 0)} ms a step")
        ratios = [b / a for a, b in zip(taken[busy, "PASSIVE"], taken[busy, "default"], strict=True)]
        print(f"{'':22} default / PASSIVE {spread(ratios, 2)}")


if __name__ == "__main__":
    main()
