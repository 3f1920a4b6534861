"""What can be turned on a renderer, how it is drawn from a seed, and what a renderer gives back (ours)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np

from ttlkit.words import SettingsError, check_name

Seed = int | Sequence[int]


@dataclass(frozen=True)
class Knob:
    """A parameter of a renderer, drawn between `low` and `high` for every picture, unless it is given.

    scale: 'even', 'log' (evenly in the logarithm), or 'bell' (normal, `low` and `high` at two standard deviations).
    What is given may lie outside of that, but not outside of `least` to `most`.
    """

    text: str
    unit: str
    low: float
    high: float
    scale: str = "even"
    least: float = 0.0
    most: float = math.inf

    def draw(self, rng: np.random.Generator) -> float:
        if self.scale == "log":
            return float(np.exp(rng.uniform(np.log(self.low), np.log(self.high))))
        if self.scale == "bell":
            value = rng.normal((self.low + self.high) / 2, (self.high - self.low) / 4)
            return float(np.clip(value, self.least, self.most))
        return float(rng.uniform(self.low, self.high))


@dataclass(frozen=True)
class Rain:
    """A rendered picture; all arrays in [0, 1], in the dtype of the image that was given.

    rainy: (H, W, 3). streaks: (H, W), the luma that streaks add. parameters: what was drawn or given; units stand in
    the table of the renderer, PHOTOSHOP or PHYSICAL. background: (H, W, 3), the picture before the streaks (and noise
    and JPEG): veil and blur are in it, so it is what a remover of streaks alone could reach.
    """

    rainy: np.ndarray
    streaks: np.ndarray
    parameters: dict[str, float]
    background: np.ndarray


def draw_parameters(table: Mapping[str, Knob], seed: Seed, given: Mapping[str, float]):
    """Parameters by name, and the generator for all else; what is given changes neither. Raises SettingsError."""
    for name, value in given.items():
        check_name(name, table, "parameter")
        least, most = table[name].least, table[name].most
        if not (isinstance(value, Real) and least <= value <= most and math.isfinite(value)):
            raise SettingsError(f"{name} = {value!r}: must be a number from {least:g} to {most:g} {table[name].unit}")
    for_knobs, rest = np.random.default_rng(seed).spawn(2)
    drawn = {name: knob.draw(for_knobs) for name, knob in table.items()}
    return {name: float(given.get(name, value)) for name, value in drawn.items()}, rest


def checked(image: np.ndarray) -> np.ndarray:
    """An image (H, W, 3) in [0, 1] as float32, or float64 where it is that; ValueError says what else it is."""
    shape = np.shape(image)
    if len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise ValueError(f"an image is an array (H, W, 3), got shape {shape}")
    least, most = image.min(), image.max()
    if image.dtype.kind != "f" or not 0 <= least <= most <= 1:  # so written, NaN fails too
        found = f"{image.dtype} from {least} to {most}"
        raise ValueError(f"an image is float in [0, 1], got {found}; use ttlkit.data.image_files.to_float")
    return image if image.dtype == np.float64 else image.astype(np.float32, copy=False)
