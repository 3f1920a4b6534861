"""One training loop for teachers, distillation and fine-tuning, on CPU, one GPU or several. Ours."""

import copy
import io
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler

from ttlkit import files, machine
from ttlkit.method.objectives import Step


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what to do."""


class Stopped(KeyboardInterrupt):
    """Training was interrupted and has saved its last step; a notebook shows one line, not where it was."""

    def _render_traceback_(self) -> list[str]:
        return [f"Stopped: {self}"]


@contextmanager
def _wishes_to_stop(processes: int) -> Iterator[list[int]]:
    """A list that an interrupt fills, so that it breaks into no step; the second one breaks in."""
    wishes: list[int] = []
    # Several processes would stop at different steps, and wait for each other; other threads get no interrupts.
    if processes > 1 or threading.current_thread() is not threading.main_thread():
        yield wishes
        return

    def wish(number: int, _: Any) -> None:
        wishes.append(number)
        signal.signal(signal.SIGINT, before)

    before = signal.getsignal(signal.SIGINT) or signal.default_int_handler
    signal.signal(signal.SIGINT, wish)
    try:
        yield wishes
    finally:
        signal.signal(signal.SIGINT, before)


class StepSampler(Sampler[list[int]]):
    """The sample numbers of each step from `start` on: step k takes k·batch … (k+1)·batch - 1, dealt out by rank.

    Dealt like cards, so that the first half of every share is the first half of the batch: a step may treat it apart.
    Raises TrainingError when the processes cannot have equal shares.
    """

    def __init__(self, batch: int, start: int, stop: int, rank: int = 0, world: int = 1):
        if batch % world:
            raise TrainingError(f"batch = {batch} cannot be shared by {world} processes; make it a multiple")
        self.batch, self.start, self.stop, self.rank, self.world = batch, start, stop, rank, world

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.start, self.stop):
            yield list(range(step * self.batch + self.rank, (step + 1) * self.batch, self.world))


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over the first 5 % (at most 200) of the steps, then half a cosine down to 1 % of `peak`."""
    warm = min(200, max(1, steps // 20))
    if step < warm:
        return peak * (step + 1) / warm
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))))


class Trainer:
    """Runs `objective(model, batch) -> (loss (B,), logs of (B,))` for a number of steps; stops and resumes bit-exactly.

    `samples[n]` must be a pure function of n, and all randomness inside an objective comes from torch, which is seeded
    per step: then batch k does not depend on when the run was interrupted. Writes into `folder`:
    `checkpoint.pt` (every `checkpoint_seconds`, whole or not at all) and `metrics.jsonl`. `key` names the settings;
    a checkpoint with another key is ignored.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Step,
        samples: Any,
        *,
        folder: Path,
        key: str,
        steps: int,
        batch: int,
        learning_rate: float,
        seed: int,
        workers: int = 0,
        log_every: int = 10,
        checkpoint_seconds: float = 20,
    ):
        self.objective, self.samples, self.folder, self.key = objective, samples, Path(folder), key
        self.steps, self.batch, self.peak, self.seed = steps, batch, learning_rate, seed
        self.workers, self.log_every, self.checkpoint_seconds = workers, log_every, checkpoint_seconds
        self.accelerator = Accelerator(mixed_precision=machine.precision(), cpu=machine.device() == "cpu")
        self.plain = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        options: dict[str, Any] = {"lr": learning_rate, "betas": (0.9, 0.99), "weight_decay": 1e-4}
        optimizer = torch.optim.AdamW(model.parameters(), **options, fused=True)  # one pass over memory, not twelve
        self.model, self.optimizer = self.accelerator.prepare(self.plain, optimizer)
        self.done = 0  # steps finished
        self.history: list[dict[str, float]] = []

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    def fit(self, on_log: Callable[[dict[str, float]], None] | None = None) -> list[dict[str, float]]:
        """Train to the last step, from the checkpoint where there is one; returns the rows of metrics.jsonl.

        `on_log` gets each of them; those of before the checkpoint come first, and without seconds_left. An interrupt
        (one process) waits for the end of the step, saves it, and raises Stopped.
        """
        self._resume()
        if on_log and self.accelerator.is_main_process:
            replay(self.history, on_log)
        with _wishes_to_stop(self.accelerator.num_processes) as wishes:
            self._train(on_log, wishes)
        return self.history

    def _train(self, on_log: Callable[[dict[str, float]], None] | None, wishes: list[int]) -> None:
        began, saved, first = time.time(), time.time(), self.done
        self.model.train()
        for batch in self._loader():
            logs = self._one_step(batch)
            self.done += 1
            if self.done % self.log_every == 0 or self.done == self.steps:
                means = torch.stack([value.float().mean() for value in logs.values()])
                # One exchange between processes and one wait for the device.
                row = dict(zip(logs, self.accelerator.reduce(means, "mean").tolist(), strict=True))
                if not math.isfinite(row["loss"]):
                    raise TrainingError(
                        f"the loss is {row['loss']} at step {self.done}; lower learning_rate "
                        f"(now {self.peak:g}) and delete {self.checkpoint}"
                    )
                seconds = time.time() - began
                left = seconds / (self.done - first) * (self.steps - self.done)
                self._log({"step": self.done, "steps": self.steps, **row, "seconds_left": round(left, 1)}, on_log)
            if time.time() - saved > self.checkpoint_seconds or self.done == self.steps:
                self.save_checkpoint()
                saved = time.time()
            if wishes and self.done < self.steps:
                self.save_checkpoint()
                raise Stopped(f"step {self.done} of {self.steps} is saved; run again: the training goes on from there")
        self.plain.eval()

    def _one_step(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        torch.manual_seed(int(np.random.SeedSequence([self.seed, self.done]).generate_state(1)[0]))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.done, self.steps, self.peak)
        batch = {name: self._placed(value) for name, value in batch.items()}
        with self.accelerator.autocast():
            loss, logs = self.objective(self.model, batch)
        mean = loss.mean()
        self.accelerator.backward(mean)
        self.accelerator.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {"loss": mean.detach(), **{name: value.detach() for name, value in logs.items()}}

    def _placed(self, value: Tensor) -> Tensor:
        value = value.to(self.accelerator.device, non_blocking=True)
        return value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value

    def _loader(self) -> DataLoader:
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        return DataLoader(
            self.samples,
            batch_sampler=StepSampler(self.batch, self.done, self.steps, rank, world),
            num_workers=self.workers if self.done < self.steps else 0,
            pin_memory=self.accelerator.device.type == "cuda",
        )

    def _log(self, row: dict[str, float], on_log: Callable[[dict[str, float]], None] | None) -> None:
        self.history.append(row)
        if self.accelerator.is_main_process:
            files.append(self.folder / "metrics.jsonl", json.dumps(row) + "\n")
            if on_log:
                on_log(row)

    def save_checkpoint(self) -> None:
        """Write checkpoint.pt, whole or not at all: a checksum, then tensors, plain values and the rows so far."""
        if not self.accelerator.is_main_process:
            return
        scaler = self.accelerator.scaler
        state = {
            "key": self.key,
            "done": self.done,
            "rows": self.history,
            "model": self.plain.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler else {},
        }
        try:
            buffer = io.BytesIO()
            torch.save(state, buffer)
            with files.whole(self.checkpoint) as partial, open(partial, "wb") as file:
                file.write(files.digest(buffer.getbuffer()).encode())
                file.write(buffer.getbuffer())
        except OSError as error:
            raise TrainingError(
                f"{self.checkpoint}: cannot be written at step {self.done} ({error}); free space and run again: "
                f"it goes on from the last checkpoint"
            ) from None

    def _resume(self) -> None:
        """Take up the checkpoint, if there is one that fits; whatever is wrong with it, one line says so."""
        fresh = copy.deepcopy((self.plain.state_dict(), self.optimizer.state_dict()))
        if self.checkpoint.exists():
            try:
                self._take(load_checkpoint(self.checkpoint))
                finished = ": it was trained before" if self.done == self.steps else ""
                self.accelerator.print(f"going on from step {self.done} of {self.steps}{finished}")
            except Exception as error:  # noqa: BLE001 - a damaged state raises nearly every kind there is
                self.plain.load_state_dict(fresh[0])
                self.optimizer.load_state_dict(fresh[1])
                self.done, self.history = 0, []
                words = str(error).splitlines()[0] if str(error) else type(error).__name__
                self.accelerator.print(f"{self.checkpoint}: {words}; training starts afresh")
        self.accelerator.wait_for_everyone()  # all have read before the first writes
        if self.accelerator.is_main_process:
            rows = "".join(json.dumps(row) + "\n" for row in self.history)
            files.write_text(self.folder / "metrics.jsonl", rows)
        self.accelerator.wait_for_everyone()

    def _take(self, state: dict[str, Any]) -> None:
        if state["key"] != self.key:
            raise TrainingError("settings, images or code have changed since this checkpoint")
        if not 0 <= state["done"] <= self.steps:
            raise TrainingError(f"its step {state['done']} is not one of {self.steps}")
        self.plain.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"] and self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.done, self.history = state["done"], list(state["rows"])


def replay(rows: list[dict[str, float]], on_log: Callable[[dict[str, float]], None]) -> None:
    """Hand on rows of a training of before, without seconds_left."""
    for row in rows:
        on_log({name: value for name, value in row.items() if name != "seconds_left"})


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What `Trainer.save_checkpoint` wrote, on the CPU; TrainingError where a bit of it has changed."""
    content = path.read_bytes()
    if files.digest(content[64:]).encode() != content[:64]:
        raise TrainingError("damaged (its checksum is wrong)")
    return torch.load(io.BytesIO(content[64:]), map_location="cpu", weights_only=True)
