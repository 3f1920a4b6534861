"""Settings of each stage: every parameter once, with its help, default and least value; checked and filled in."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Literal

from ttlkit.method.starts import STARTS, STUDENT, start_of, student_variant, teachers_of
from ttlkit.runs.profiles import GUIDE, PROFILES, TASK_NAMES, total_steps
from ttlkit.words import SettingsError, check_name, check_run, split_names

# The one place where parameters are explained: notebooks, command line, Makefile and README repeat or show these.
HELP = {
    "profile": f"{', '.join(PROFILES)}: how much to compute",
    "collection": "'pocket' (generated) or the path of a collection",
    "run": "folder below outputs/; None: the profile's name",
    "seed": "of all that is drawn at random",
    "images": "most images per set; None: as the profile says",
    "teacher": "a recognition teacher.safetensors, to compare what it sees too; nothing: this run's, if it has one",
    "task": "connected task, such as recognition, deblur or streaks",
    "tasks": "connected tasks whose teachers to train, distil or put side by side",
    "teachers_from": "run: learn from this run's teachers; released: from those of ttlkit; None: as the profile says",
    "guide": "the teacher whose output the student copies and must not forget, or nothing",
    "init": f"what fine-tuning starts from: {', '.join(STARTS)}, or a task (its teacher)",
    "inits": "starts to compare, each a row; None: as the profile says",
    "n_pairs": "synthetic pairs to learn from; None: as the profile says",
    "rendered": "share of samples with rain rendered on photographs instead of pairs; None: as the profile says",
    "steps": "training steps; None: as the profile says",
    "batch": "crops per step; None: as the profile says",
    "patch": "side of a crop in pixels, a multiple of 16; None: as the profile says",
    "width": "channels at the finest level; None: as the profile says",
    "workers": "loader processes; None: as the profile says",
    "learning_rate": "at its peak; None: as the profile says",
    "guidance": "weight of the guide in fine-tuning, 0: none; None: as the profile says",
    "blend": "share of the weights it started from that comes back after training; None: as the profile says",
    "peers": "folders with released weights to compare: ours, PReNet's, others through spandrel; or nothing",
    "sets": "test: the sets to report with; val: those to choose recipes with",
    "real": "held-out: judge by the real photographs that no stage trains on; all: by the others too",
    "run_names": "run folders below outputs/, separated by commas",
    "image": "a photograph of yours, a path or a link; nothing: one in rendered rain",
}


Sets = Literal["test", "val"]
Real = Literal["held-out", "all"]
From = Literal["run", "released"]
SUFFIX = {"test": "", "val": "val"}  # of the stages that measure


def knob(default: Any = None, profile: str = "", least: float | None = None, most: float = float("inf")) -> Any:
    """A parameter: None is filled in from that field of the profile; less than `least`, more than `most` is refused."""
    return field(default=default, metadata={"profile": profile, "least": least, "most": most})


@dataclass(frozen=True)
class Settings:
    """What every stage takes. None means: as the profile says."""

    stage: ClassVar[str] = ""
    reads: ClassVar[tuple[str, ...]] = ()  # parts of the collection whose change makes the stage stale
    names: ClassVar[tuple[str, ...]] = ()  # parameters that name files or folders, whose content counts
    spares: ClassVar[bool] = False  # run by hand, it leaves out what is neither made nor released
    profile: str = knob("pocket")
    collection: str = knob("pocket")
    run: str | None = knob()
    seed: int = knob(0, least=0, most=2**32 - 1)

    @property
    def variant(self) -> str:
        """What tells two runs of one notebook apart, as a suffix of the folder's name."""
        return ""

    def needs(self) -> list[str]:
        """Stage folders that must be finished before this one starts."""
        return []

    def uses(self) -> list[str]:
        """Stage folders that it takes something from where they are finished."""
        return []

    def takes(self) -> list[str]:
        """Stage folders in whose place it takes what is released, whatever the run has made."""
        return []


@dataclass(frozen=True)
class Gap(Settings):
    stage = "01_gap_statistics"
    reads = ("real", "synthetic")
    images: int | None = knob(profile="gap_images", least=2)


@dataclass(frozen=True)
class GapAppendix(Gap):
    stage = "01b_gap_appendix"
    names = ("teacher",)
    teacher: str = knob("")

    def uses(self) -> list[str]:
        return teacher_stages(["recognition"])


@dataclass(frozen=True)
class Training(Settings):
    """What every stage takes that trains."""

    batch: int | None = knob(profile="batch", least=1)
    patch: int | None = knob(profile="patch", least=16)
    workers: int | None = knob(profile="workers", least=0)
    learning_rate: float = knob(2e-3, least=0, most=1)


@dataclass(frozen=True)
class TeacherPretraining(Training):
    stage = "02_teacher_pretraining"
    reads = ("real", "streaks")
    task: str = knob("deblur")
    steps: int | None = knob(profile="teacher_steps", least=1)
    width: int | None = knob(profile="teacher_width", least=8, most=1024)

    @property
    def variant(self) -> str:
        return self.task


@dataclass(frozen=True)
class Distillation(Training):
    stage = "03_distillation"
    reads = ("real", "streaks")
    tasks: str = knob(TASK_NAMES)
    teachers_from: From | None = knob(profile="teachers_from")
    guide: str = knob(GUIDE)
    steps: int | None = knob(profile="distillation_steps", least=1)
    width: int | None = knob(profile="student_width", least=8, most=1024)
    learning_rate: float | None = knob(profile="distillation_rate", least=0, most=1)  # type: ignore[assignment]

    @property
    def variant(self) -> str:
        return student_variant(split_names(self.tasks), self.guide)

    def needs(self) -> list[str]:
        return [name for name in teacher_stages(split_names(self.tasks)) if name not in self.takes()]

    def takes(self) -> list[str]:
        return released_among(split_names(self.tasks), self.teachers_from)


@dataclass(frozen=True)
class FineTuning(Training):
    stage = "04_fine_tuning"
    reads = ("synthetic", "real", "streaks")
    init: str = knob(STUDENT)
    tasks: str = knob(TASK_NAMES)
    teachers_from: From | None = knob(profile="teachers_from")
    guide: str = knob(GUIDE)
    n_pairs: int | None = knob(profile="n_pairs", least=1)
    rendered: float | None = knob(profile="rendered", least=0, most=1)
    steps: int | None = knob(profile="fine_tuning_steps", least=1)
    width: int | None = knob(profile="student_width", least=8, most=1024)
    learning_rate: float | None = knob(profile="fine_tuning_rate", least=0, most=1)  # type: ignore[assignment]
    guidance: float | None = knob(profile="guidance", least=0)
    blend: float | None = knob(profile="blend", least=0, most=1)

    @property
    def variant(self) -> str:
        return self.init

    @property
    def guided(self) -> bool:
        """Whether the guide looks after what it starts from."""
        return bool(self.guide and self.guidance)

    @property
    def teachers(self) -> list[str]:
        """The tasks whose teachers it starts from."""
        return teachers_of(self.init, split_names(self.tasks))

    @property
    def student(self) -> str:
        """The stage that distils the student it starts from; '' where it starts from none."""
        start = start_of(self.init)
        tasks, guide = (start.tasks, "") if start.tasks else (self.tasks, self.guide)
        variant = student_variant(split_names(tasks), guide)
        return "-".join(filter(None, (Distillation.stage, variant))) if start.student else ""

    @property
    def helpers(self) -> list[str]:
        """The tasks whose teachers it needs, the guide's among them."""
        return [*self.teachers, *([self.guide] if self.guided else [])]

    def needs(self) -> list[str]:
        student = [self.student] if self.student else []
        return student + [name for name in teacher_stages(self.helpers) if name not in self.takes()]

    def takes(self) -> list[str]:
        return released_among(self.helpers, self.teachers_from)


@dataclass(frozen=True)
class Evaluation(Settings):
    stage = "05_real_scene_evaluation"
    reads = ("test", "val", "real", "synthetic")
    names = ("peers",)
    spares = True
    sets: Sets = knob("test")
    inits: str | None = knob(profile="inits")
    peers: str = knob("")
    images: int | None = knob(profile="test_images", least=2)
    real: Real = knob("held-out")

    @property
    def variant(self) -> str:
        return SUFFIX[self.sets]

    def needs(self) -> list[str]:
        return [f"04_fine_tuning-{init}" for init in split_names(self.inits or "")]

    def uses(self) -> list[str]:
        return teacher_stages(["recognition"])


@dataclass(frozen=True)
class Ablation(Settings):
    """The table over the runs of a sweep; it belongs to no run, and its folder is that of the sweep."""

    stage = "06_ablation"
    sets: Sets = knob("test")
    run_names: str = knob("")

    @property
    def variant(self) -> str:
        return SUFFIX[self.sets]

    def needs(self) -> list[str]:
        return self._evaluations(self.variant)

    def uses(self) -> list[str]:
        return self._evaluations(SUFFIX["val"])

    def _evaluations(self, variant: str) -> list[str]:
        evaluation = "-".join(filter(None, (Evaluation.stage, variant)))
        return [f"../{run}/{evaluation}" for run in split_names(self.run_names)]


@dataclass(frozen=True)
class StartHere(Settings):
    stage = "00_start_here"
    names = ("image",)
    image: str = knob("")

    def uses(self) -> list[str]:
        return [f"04_fine_tuning-{STUDENT}"]


STAGES: dict[str, type[Settings]] = {
    kind.stage: kind
    for kind in (Gap, GapAppendix, TeacherPretraining, Distillation, FineTuning, Evaluation, Ablation, StartHere)
}


def teacher_stages(tasks: Iterable[str]) -> list[str]:
    """The stages that train these tasks' teachers, each once."""
    return [f"{TeacherPretraining.stage}-{task}" for task in dict.fromkeys(tasks)]


def released_among(tasks: Iterable[str], teachers_from: str | None) -> list[str]:
    """The stages of those tasks whose teachers are released, where `teachers_from` says to take these; else []."""
    known = split_names(TASK_NAMES) if teachers_from == "released" else []
    return teacher_stages(task for task in tasks if task in known)


def how_to_make(stage: str) -> str:
    """The notebook of a stage's folder and what to give it: 02_teacher_pretraining.ipynb with task = 'deblur'."""
    notebook, _, variant = stage.rpartition("/")[2].partition("-")
    given = {
        TeacherPretraining.stage: f"task = '{variant}'",
        Distillation.stage: f"tasks = '{variant.replace('+', ',')}' and guide = ''",
        FineTuning.stage: f"init = '{variant}'",
        Evaluation.stage: f"sets = '{variant}'",
    }.get(notebook)
    return f"{notebook}.ipynb" + (f" with {given}" if variant and given else "")


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
    known = {f.name: f.metadata for f in fields(kind)}
    for name, value in given.items():
        check_name(name, known, f"parameter of {kind.stage or 'a run'}")
        if isinstance(value, bool):  # which would count as 0 or 1
            raise SettingsError(f"{name} = {value}: no parameter is yes or no")
    values = asdict(_validated(kind, {k: v for k, v in given.items() if v is not None}))
    check_name(values["profile"], PROFILES, "profile")
    profile = PROFILES[values["profile"]]
    for name, facts in known.items():
        if values[name] is None and facts["profile"]:
            values[name] = getattr(profile, facts["profile"])
        least, most = facts["least"], facts["most"]
        if least is not None and not least <= values[name] <= most:  # written so that NaN fails too
            wanted = f"at least {least}" + (f" and at most {most}" if most < float("inf") else "")
            raise SettingsError(f"{name} = {values[name]}: {kind.stage or 'a run'} needs {wanted}")
    if "init" in values:
        start = start_of(values["init"], values["guide"])
        if start.long and given.get("steps") is None:
            values["steps"] = total_steps(profile, len(split_names(values["tasks"])))
        if given.get("width") is None:
            values["width"] = max(values["width"], start.least_width)
        elif values["width"] < start.least_width:  # found out later, it would cost the run's finished one
            raise SettingsError(
                f"width = {values['width']}: init = '{values['init']}' needs {start.least_width} or more"
            )
        for name, takes in (("rendered", start.rendered), ("guidance", start.guided), ("blend", start.blends)):
            values[name] = values[name] if takes else 0.0  # so that config.json says what was done
    if values.get("patch", 0) % 16:
        raise SettingsError(f"patch = {values['patch']} must be a multiple of 16 (the network halves it four times)")
    values["run"] = values["run"] or values["profile"]
    check_run(values["run"])
    if values["run"] == "site":
        raise SettingsError("run = 'site': outputs/site is where `make site` builds; choose another name")
    return kind(**values)


def _validated(kind: type[Settings], values: dict[str, Any]) -> Settings:
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        hint = " (papermill: pass text that looks like a number with -r)" if first["type"] == "string_type" else ""
        raise SettingsError(f"{name} = {first['input']!r}: {first['msg']}{hint}") from None
