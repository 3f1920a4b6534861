"""ttlkit: single-image deraining by task transfer learning (arXiv 2208.13133)."""

__version__ = "0.1.0"
