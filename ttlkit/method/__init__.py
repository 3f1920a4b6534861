"""The paper: read recipes, connected_tasks, objectives, losses, networks, starts; plumbing are trainer, weights.

What it is compared with: adaptation, other ways to fine-tune; semi_supervised, other ways to use real photographs.

Removing Rain Streaks via Task Transfer Learning (Wang, Ma, Liu, arXiv 2208.13133). Only its abstract and a summary are
to be had. What they name is tagged *paper* here: two connected tasks on real photographs (recognising rainy scenes,
reconstructing what scattering by rain has blurred), distillation of all teachers into one student, and fine-tuning on
a minority of synthetic pairs. Everything else is *ours*, and tagged so.
"""
