"""ttlkit: single-image deraining by task transfer learning (arXiv 2208.13133)."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ttlkit.apply.restore import derain as derain

__version__ = "0.1.0"
# Else torch's waiting threads spin: on a crowded machine a step then takes some 10 times as long. On a quiet one the
# spinning is faster, by half: tests/benchmarks/threads.py.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def __getattr__(name: str):
    """`ttlkit.derain`, imported when it is asked for: it takes a while, and `import ttlkit` must not."""
    if name == "derain":
        from ttlkit.apply.restore import derain

        return derain
    raise AttributeError(f"module 'ttlkit' has no attribute '{name}'")
