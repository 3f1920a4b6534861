"""The machine: where things lie, what computes and how precisely, seeds, processes, and what to record of it."""

import ctypes
import os
import platform
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")
PACKAGE = Path(__file__).resolve().parent
WEIGHTS = PACKAGE / "weights"  # what is released; README.md there says what each file is, and how it was made


class MachineError(ValueError):
    """An environment variable cannot be heeded; the message names it and the way out."""


def checkout() -> Path | None:
    """The folder of the checkout that this package is part of; None where it was installed as a wheel."""
    return PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").exists() else None


def home() -> Path:
    """Where datasets/ and outputs/ live: $TTLKIT_HOME, else the checkout, else the working directory."""
    if os.environ.get("TTLKIT_HOME"):
        return Path(os.environ["TTLKIT_HOME"]).resolve()
    return checkout() or Path.cwd()


def shipped(folder: str) -> Path:
    """A folder of the checkout that the wheel brings too, such as `notebooks`."""
    beside = (checkout() or PACKAGE) / folder
    return beside if beside.is_dir() else PACKAGE / folder


def device() -> str:
    """'cuda' where there is one (and $ACCELERATE_USE_CPU does not forbid it), else 'cpu'."""
    import torch

    forbidden = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    return "cuda" if torch.cuda.is_available() and not forbidden else "cpu"


def precision(device_name: str | None = None) -> str:
    """'bf16' where the hardware multiplies it natively, 'fp16' on older GPUs (with a scaler), else 'no' (float32).

    For the device of that name, by default `device()`; $TTLKIT_PRECISION overrides it. A T4 claims bf16 but emulates
    it, so the compute capability decides, not `is_bf16_supported`.
    """
    import torch

    if wanted := os.environ.get("TTLKIT_PRECISION"):
        if wanted not in ("no", "bf16", "fp16"):
            raise MachineError(f"TTLKIT_PRECISION = {wanted}: set it to no, bf16 or fp16, or unset it")
        return wanted
    if (device_name or device()) == "cuda":
        return "bf16" if torch.cuda.get_device_capability() >= (8, 0) else "fp16"
    has = [getattr(torch.cpu, f"_is_{name}_supported", lambda: False)() for name in ("avx512_bf16", "amx_tile")]
    return "bf16" if any(has) else "no"


def seed_everything(seed: int) -> None:
    """Seed Python and torch (all devices); NumPy is used through generators that carry their own seed."""
    import torch

    random.seed(seed)
    torch.manual_seed(seed)


def tune_process() -> None:
    """Keep glibc from handing big blocks back to the system at every training step (up to 1.6 times faster)."""
    if sys.platform != "linux":
        return
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD
    except (OSError, AttributeError):  # musl has no mallopt
        pass


def end_with(parent: int) -> None:
    """Have Linux end this process when its `parent` ends, in whatever way; at once where it has ended already.

    A kernel or a worker would else wait for ever for a parent that was killed, or go on training beside the next one.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_processes(
    work: Callable[[Job], Result], jobs: Sequence[Job], fewest: int = 16, workers: int | None = None
) -> Iterator[Result]:
    """work(job) of every job, in order, on all cores; fewer than `fewest` jobs are done here: a process takes a second.

    `work` must be a function of a module. What it raises is raised here.
    """
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    workers = min(workers or cores(), len(jobs))
    if workers < 2 or len(jobs) < fewest:
        yield from map(work, jobs)
        return
    # Not fork: the parent may have started threads of torch, and a fork of those can hang.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), end_with, (os.getpid(),))
    try:
        yield from pool.map(work, jobs, chunksize=4)
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def leaving_out(package: str) -> Iterator[None]:
    """Import others as if `package` were not installed: for an optional one that takes seconds."""
    before = sys.modules.get(package)
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]
        if before:
            sys.modules[package] = before


def provenance() -> dict[str, Any]:
    """Versions, commit, device, precision, threads and time: what a result is recorded with."""
    import torch

    return {
        "versions": {"python": platform.python_version(), **{name: _installed(name) for name in RECORDED}},
        "commit": _commit(),
        "device": device(),
        "precision": precision(),
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }


RECORDED = ("ttlkit", "torch", "numpy", "scipy", "scikit-image", "pillow", "accelerate")


def _installed(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _commit() -> str:
    if checkout() is None:
        return ""
    command = ["git", "-C", str(PACKAGE), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""
