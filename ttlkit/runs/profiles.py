"""Profiles: how much to compute. Each says only what it changes of `pocket`."""

from dataclasses import dataclass, replace

TASK_NAMES = "recognition,deblur,streaks"  # whose teachers a run trains and distils
GUIDE = "streaks"  # the one of them whose output the student must not forget


@dataclass(frozen=True)
class Profile:
    """How much to compute; the same knobs for every collection. `runtime` is for the whole chain."""

    runtime: str
    pocket_scenes: int  # scenes in the generated collection
    gap_images: int  # images per set in the statistics
    teacher_steps: int
    distillation_steps: int
    distillation_rate: float  # learning rate at its peak
    fine_tuning_steps: int
    batch: int
    patch: int  # pixels; a multiple of 16
    teacher_width: int
    teachers_from: str  # what distillation and fine-tuning learn from: teachers of the run, or the released ones
    student_width: int
    n_pairs: int  # the minority of synthetic pairs
    rendered: float  # share of the fine-tuning samples that are rain rendered on photographs instead
    fine_tuning_rate: float  # the same
    guidance: float  # weight of the guide in fine-tuning; 0: none
    blend: float  # share of the weights before fine-tuning in those after it
    inits: str  # rows of the fine-tuning comparison
    test_images: int  # images per test set
    workers: int  # loader processes


POCKET = Profile(
    runtime="about 8 minutes on 2 CPU cores",
    pocket_scenes=40,
    gap_images=40,
    teacher_steps=200,
    distillation_steps=1000,
    distillation_rate=4e-3,
    fine_tuning_steps=400,
    batch=8,
    patch=64,
    teacher_width=16,
    teachers_from="released",  # minutes, and few photographs, make no good teacher
    student_width=16,
    n_pairs=10,
    rendered=0.0,
    fine_tuning_rate=2e-3,
    guidance=0.5,
    blend=0.5,
    inits="scratch,student",
    test_images=8,
    workers=1,
)
# What all others begin from: those that have the time learn from teachers of their own.
OWN = replace(POCKET, teachers_from="run", distillation_rate=2e-3, blend=0.0, inits=f"scratch,{TASK_NAMES},student")
PROFILES = {
    "smoke": replace(
        OWN,
        runtime="about 2 minutes on 2 CPU cores: proves the path, learns next to nothing",
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
        inits="scratch,student",
        test_images=2,
        workers=0,
    ),
    "pocket": POCKET,
    "laptop": replace(
        OWN,
        runtime="about an hour on 2 CPU cores",
        pocket_scenes=120,
        gap_images=80,
        teacher_steps=1600,
        distillation_steps=1200,
        fine_tuning_steps=1500,
        patch=96,
        teacher_width=24,
        n_pairs=100,
        test_images=12,
    ),
    "sweep": replace(
        OWN,
        runtime="about twenty minutes on one CPU core for each seed and number of pairs",
        pocket_scenes=120,
        gap_images=20,
        teacher_steps=500,
        distillation_steps=400,
        teacher_width=16,
        n_pairs=50,
        fine_tuning_rate=5e-4,
        rendered=0.85,
        inits="scratch,scratch-total,scratch-rendered,all-pairs,paper,paper-frozen,paper-head-first,paper-near,"
        "paper-low-rank,mixture,gaussian-process,mean-teacher,mixture-rendered,gaussian-process-rendered,"
        "mean-teacher-rendered,no-streaks,unguided,no-rendered,student",
        test_images=12,
        workers=0,
    ),
    "release": replace(
        OWN,
        runtime="a quarter of an hour on one H200 GPU with 16 cores (estimate: its stages, run one by one)",
        pocket_scenes=400,
        gap_images=80,
        teacher_steps=2000,
        distillation_steps=2000,
        fine_tuning_steps=16300,
        batch=32,
        patch=128,
        teacher_width=16,
        n_pairs=200,
        rendered=0.85,
        guidance=0.0,
        blend=0.1,
        inits="student",
        test_images=1000,
        workers=10,
    ),
    "colab": replace(
        OWN,
        runtime="one T4 GPU; not measured yet",
        pocket_scenes=400,
        gap_images=200,
        teacher_steps=8000,
        distillation_steps=8000,
        fine_tuning_steps=8000,
        batch=16,
        patch=128,
        teacher_width=32,
        n_pairs=200,
        test_images=100,
        workers=2,
    ),
    "paper": replace(
        OWN,
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
        test_images=1000,
        workers=8,
    ),
}


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
