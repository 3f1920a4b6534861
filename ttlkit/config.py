"""Settings of each stage, compute profiles, seeds, device and precision."""

from __future__ import annotations

import ctypes
import difflib
import os
import random
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar


class SettingsError(ValueError):
    """A parameter, a profile or a stage order is wrong; the message says how to put it right."""


@dataclass(frozen=True)
class Profile:
    """How much to compute; the same knobs for every collection. `runtime` is for the whole chain."""

    runtime: str
    pocket_scenes: int  # scenes in the generated collection
    gap_images: int  # images per set in the statistics
    teacher_steps: int
    distillation_steps: int
    fine_tuning_steps: int
    batch: int
    patch: int  # pixels; a multiple of 16
    teacher_width: int
    student_width: int
    n_pairs: int  # the minority of synthetic pairs
    rendered: float  # share of the fine-tuning samples that are rain rendered on photographs instead
    fine_tuning_rate: float  # learning rate at its peak
    guidance: float  # weight of the guide in fine-tuning; 0: none
    kept: float  # share of the weights before fine-tuning in those after it
    inits: str  # rows of the fine-tuning comparison
    test_images: int  # images per test set
    workers: int  # loader processes


TASKS = "recognition,deblur,streaks"  # whose teachers a run trains and distils
GUIDE = "streaks"  # the one of them whose output the student must not forget
# Where fine-tuning starts, beside the tasks; `unguided` is the student without its guide.
INITS = SCRATCH, TOTAL, ALL, STUDENT, UNGUIDED = "scratch", "scratch-total", "all", "student", "unguided"
EVERY_INIT = f"{SCRATCH},{TASKS},{STUDENT}"
PROFILES = {
    "smoke": Profile(
        runtime="a good minute on 2 CPU cores: proves the path, learns next to nothing",
        pocket_scenes=8,
        gap_images=6,
        teacher_steps=12,
        distillation_steps=12,
        fine_tuning_steps=12,
        batch=4,
        patch=32,
        teacher_width=16,
        student_width=8,
        n_pairs=4,
        rendered=0.0,
        fine_tuning_rate=2e-3,
        guidance=0.5,
        kept=0.0,
        inits=f"{SCRATCH},{STUDENT}",
        test_images=2,
        workers=0,
    ),
    "pocket": Profile(
        runtime="about 9 minutes on 2 CPU cores",
        pocket_scenes=40,
        gap_images=40,
        teacher_steps=300,
        distillation_steps=300,
        fine_tuning_steps=400,
        batch=8,
        patch=64,
        teacher_width=24,
        student_width=16,
        n_pairs=24,
        rendered=0.0,
        fine_tuning_rate=2e-3,
        guidance=0.5,
        kept=0.0,
        inits=EVERY_INIT,
        test_images=8,
        workers=1,
    ),
    "laptop": Profile(
        runtime="about an hour on 2 CPU cores",
        pocket_scenes=120,
        gap_images=80,
        teacher_steps=1600,
        distillation_steps=1200,
        fine_tuning_steps=1500,
        batch=8,
        patch=96,
        teacher_width=24,
        student_width=16,
        n_pairs=100,
        rendered=0.0,
        fine_tuning_rate=2e-3,
        guidance=0.5,
        kept=0.0,
        inits=EVERY_INIT,
        test_images=12,
        workers=1,
    ),
    "sweep": Profile(
        runtime="a quarter of an hour on one CPU core for each seed and number of pairs",
        pocket_scenes=120,
        gap_images=20,
        teacher_steps=500,
        distillation_steps=400,
        fine_tuning_steps=400,
        batch=8,
        patch=64,
        teacher_width=16,
        student_width=16,
        n_pairs=50,
        rendered=0.0,
        fine_tuning_rate=5e-4,
        guidance=0.5,
        kept=0.0,
        inits=f"{SCRATCH},{TOTAL},{TASKS},{ALL},{UNGUIDED},{STUDENT}",
        test_images=12,
        workers=1,
    ),
    "release": Profile(
        runtime="about an hour on one CPU core",
        pocket_scenes=400,
        gap_images=80,
        teacher_steps=2000,
        distillation_steps=1000,
        fine_tuning_steps=16000,
        batch=8,
        patch=96,
        teacher_width=16,
        student_width=16,
        n_pairs=200,
        rendered=0.85,
        fine_tuning_rate=2e-3,
        guidance=0.0,
        kept=0.2,
        inits=STUDENT,
        test_images=1000,
        workers=1,
    ),
    "colab": Profile(
        runtime="one T4 GPU; not measured yet",
        pocket_scenes=400,
        gap_images=200,
        teacher_steps=8000,
        distillation_steps=8000,
        fine_tuning_steps=8000,
        batch=16,
        patch=128,
        teacher_width=32,
        student_width=16,
        n_pairs=200,
        rendered=0.0,
        fine_tuning_rate=2e-3,
        guidance=0.5,
        kept=0.0,
        inits=EVERY_INIT,
        test_images=100,
        workers=2,
    ),
    "paper": Profile(
        runtime="one large GPU; not measured yet",
        pocket_scenes=1000,
        gap_images=1000,
        teacher_steps=50000,
        distillation_steps=50000,
        fine_tuning_steps=50000,
        batch=32,
        patch=128,
        teacher_width=64,
        student_width=32,
        n_pairs=200,
        rendered=0.0,
        fine_tuning_rate=2e-3,
        guidance=0.5,
        kept=0.0,
        inits=EVERY_INIT,
        test_images=1000,
        workers=8,
    ),
}


@dataclass(frozen=True)
class Settings:
    """What every stage takes. None means: as the profile says."""

    stage: ClassVar[str] = ""
    reads: ClassVar[tuple[str, ...]] = ()  # parts of the collection whose change makes the stage stale
    profile: str = "pocket"
    collection: str = "pocket"
    run: str | None = None
    seed: int = 0

    @property
    def variant(self) -> str:
        """What tells two runs of one notebook apart, as a suffix of the folder's name."""
        return ""

    def needs(self) -> list[str]:
        """Stage folders that must be finished before this one starts."""
        return []


@dataclass(frozen=True)
class Gap(Settings):
    stage = "01_gap_statistics"
    reads = ("real", "synthetic")
    images: int | None = field(default=None, metadata={"profile": "gap_images", "least": 2})
    teacher: str = ""


@dataclass(frozen=True)
class Training(Settings):
    batch: int | None = field(default=None, metadata={"profile": "batch", "least": 1})
    patch: int | None = field(default=None, metadata={"profile": "patch", "least": 16})
    workers: int | None = field(default=None, metadata={"profile": "workers", "least": 0})
    learning_rate: float = 2e-3


@dataclass(frozen=True)
class TeacherPretraining(Training):
    stage = "02_teacher_pretraining"
    reads = ("real", "streaks")
    task: str = "deblur"
    steps: int | None = field(default=None, metadata={"profile": "teacher_steps", "least": 1})
    width: int | None = field(default=None, metadata={"profile": "teacher_width", "least": 8})

    @property
    def variant(self) -> str:
        return self.task


@dataclass(frozen=True)
class Distillation(Training):
    stage = "03_distillation"
    reads = ("real", "streaks")
    tasks: str = TASKS
    guide: str = GUIDE
    steps: int | None = field(default=None, metadata={"profile": "distillation_steps", "least": 1})
    width: int | None = field(default=None, metadata={"profile": "student_width", "least": 8})

    def needs(self) -> list[str]:
        return [f"02_teacher_pretraining-{task}" for task in split_names(self.tasks)]


@dataclass(frozen=True)
class FineTuning(Training):
    stage = "04_fine_tuning"
    reads = ("synthetic", "real", "streaks")
    init: str = STUDENT
    tasks: str = TASKS
    guide: str = GUIDE
    n_pairs: int | None = field(default=None, metadata={"profile": "n_pairs", "least": 1})
    rendered: float | None = field(default=None, metadata={"profile": "rendered", "least": 0})
    steps: int | None = field(default=None, metadata={"profile": "fine_tuning_steps", "least": 1})
    width: int | None = field(default=None, metadata={"profile": "student_width", "least": 8})
    learning_rate: float | None = field(default=None, metadata={"profile": "fine_tuning_rate"})  # type: ignore[assignment]
    guidance: float | None = field(default=None, metadata={"profile": "guidance", "least": 0})
    kept: float | None = field(default=None, metadata={"profile": "kept", "least": 0})

    @property
    def variant(self) -> str:
        return self.init

    @property
    def guided(self) -> bool:
        """Whether it starts from something that the guide has taught, and so must not forget it."""
        return bool(self.guide and self.guidance) and self.init in (ALL, STUDENT, self.guide)

    def needs(self) -> list[str]:
        names = [] if self.init in (SCRATCH, TOTAL, STUDENT, UNGUIDED) else [self.init]
        names = split_names(self.tasks) if self.init == ALL else names
        teachers = dict.fromkeys([*names, *([self.guide] if self.guided else [])])
        start = ["03_distillation"] if self.init in (STUDENT, UNGUIDED) else []
        return start + [f"02_teacher_pretraining-{name}" for name in teachers]


@dataclass(frozen=True)
class Evaluation(Settings):
    stage = "05_real_scene_evaluation"
    reads = ("test", "real", "synthetic")
    inits: str | None = field(default=None, metadata={"profile": "inits"})
    peers: str = ""
    images: int | None = field(default=None, metadata={"profile": "test_images", "least": 1})

    def needs(self) -> list[str]:
        return [f"04_fine_tuning-{init}" for init in split_names(self.inits or "")]


@dataclass(frozen=True)
class Ablation(Settings):
    """The table over the runs of a sweep; it belongs to no run, and its folder is that of the sweep."""

    stage = "06_ablation"
    runs: str = ""  # names of run folders, each with a finished stage 5

    def needs(self) -> list[str]:
        return [f"../{run}/05_real_scene_evaluation" for run in split_names(self.runs)]


@dataclass(frozen=True)
class StartHere(Settings):
    stage = "00_start_here"
    image: str = ""

    def needs(self) -> list[str]:
        return ["04_fine_tuning-student"]


STAGES: dict[str, type[Settings]] = {
    kind.stage: kind for kind in (Gap, TeacherPretraining, Distillation, FineTuning, Evaluation, Ablation, StartHere)
}


def split_names(text: str) -> list[str]:
    """'a, b' to ['a', 'b']."""
    return [name.strip() for name in text.split(",") if name.strip()]


def split_numbers(text: str) -> list[int]:
    """'1, 2' to [1, 2]; SettingsError for anything else."""
    try:
        return [int(name) for name in split_names(text)]
    except ValueError:
        raise SettingsError(f"'{text}': give whole numbers, separated by commas") from None


def resolve(kind: type[Settings], given: Mapping[str, Any]) -> Settings:
    """Check `given` against the stage's parameters and fill what is None from the profile.

    Raises SettingsError, one line, for an unknown name, a wrong type or a value out of range.
    """
    known = {f.name: f for f in fields(kind)}
    for name in given:
        check_name(name, known, f"parameter of {kind.stage or 'a run'}")
    settings = _validated(kind, {k: v for k, v in given.items() if v is not None})
    check_name(settings.profile, PROFILES, "profile")
    profile = PROFILES[settings.profile]
    values = asdict(settings)
    for name, f in known.items():
        if values[name] is None and "profile" in f.metadata:
            values[name] = getattr(profile, f.metadata["profile"])
        least = f.metadata.get("least")
        if least is not None and values[name] < least:
            raise SettingsError(f"{name} = {values[name]} is too small; {kind.stage} needs at least {least}")
    if values.get("init") == TOTAL and given.get("steps") is None:
        values["steps"] = total_steps(profile, len(split_names(values["tasks"])))
    if values.get("patch", 0) % 16:
        raise SettingsError(f"patch = {values['patch']} must be a multiple of 16 (the network halves it four times)")
    if values["seed"] < 0:
        raise SettingsError(f"seed = {values['seed']} must not be negative")
    values["run"] = values["run"] or settings.profile
    if Path(values["run"]).name != values["run"] or values["run"].startswith("."):
        raise SettingsError(f"run = '{values['run']}' must be a plain folder name below outputs/")
    return kind(**values)


def total_steps(profile: Profile, tasks: int) -> int:
    """Steps from scratch that cost what all stages of the student cost together.

    A forward pass counts as a third of a step. Each teacher takes its steps; distillation takes a step of the student
    and a forward pass of every teacher; guided fine-tuning sees half as many photographs as pairs, and the guide too.
    """
    teacher = (profile.teacher_width / profile.student_width) ** 2  # of the student's step
    teachers = profile.teacher_steps * tasks * teacher
    distillation = profile.distillation_steps * (1 + tasks * teacher / 3)
    fine_tuning = profile.fine_tuning_steps * (1.5 + 0.5 * teacher / 3 if profile.guidance else 1)
    return round(teachers + distillation + fine_tuning)


def check_name(name: str, known: Iterable[str], what: str) -> None:
    """Raise SettingsError with the nearest known name when `name` is not one of them."""
    known = list(known)
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise SettingsError(f"unknown {what}: '{name}'{hint} Known: {', '.join(known)}")


def _validated(kind: type[Settings], values: dict[str, Any]) -> Settings:
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        hint = " (papermill: pass text that looks like a number with -r)" if first["type"] == "string_type" else ""
        raise SettingsError(f"{name} = {first['input']!r}: {first['msg']}{hint}") from None


def seed_everything(seed: int) -> None:
    """Seed Python and torch (all devices); NumPy is used through generators that carry their own seed."""
    import torch

    random.seed(seed)
    torch.manual_seed(seed)


def home() -> Path:
    """Where datasets/ and outputs/ live: $TTLKIT_HOME, else the checkout, else the working directory."""
    if os.environ.get("TTLKIT_HOME"):
        return Path(os.environ["TTLKIT_HOME"]).resolve()
    checkout = Path(__file__).resolve().parents[1]
    return checkout if (checkout / "pyproject.toml").exists() else Path.cwd()


def device() -> str:
    """'cuda' where there is one (and $ACCELERATE_USE_CPU does not forbid it), else 'cpu'."""
    import torch

    forbidden = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    return "cuda" if torch.cuda.is_available() and not forbidden else "cpu"


def precision(device_name: str | None = None) -> str:
    """'bf16' where the hardware multiplies it natively, 'fp16' on older GPUs (with a scaler), else 'no' (float32).

    For the device of that name, by default `device()`.
    A T4 claims bf16 but emulates it, so the compute capability decides, not `is_bf16_supported`.
    """
    import torch

    if os.environ.get("TTLKIT_PRECISION"):
        return os.environ["TTLKIT_PRECISION"]
    if (device_name or device()) == "cuda":
        return "bf16" if torch.cuda.get_device_capability() >= (8, 0) else "fp16"
    has = [getattr(torch.cpu, f"_is_{name}_supported", lambda: False)() for name in ("avx512_bf16", "amx_tile")]
    return "bf16" if any(has) else "no"


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
