"""ttlkit: single-image deraining by task transfer learning (arXiv 2208.13133)."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ttlkit.restore import derain as derain

__version__ = "0.1.0"


def __getattr__(name: str):
    """`ttlkit.derain`, imported when it is asked for: it takes a while, and `import ttlkit` must not."""
    if name == "derain":
        from ttlkit.restore import derain

        return derain
    raise AttributeError(f"module 'ttlkit' has no attribute '{name}'")
