"""Rain rendered into photographs: (clean, seed) -> rainy; everything follows from the seed.

To be read in this order: `knobs` (what can be turned), `layers` (how streaks become pixels; streaks and scattering
for the tasks), `drawn` (Photoshop's recipe), `simulated` (a photograph taken in rain), `stacks` (rain of every
strength, to train with), `exposure` (rain that no training uses, to measure with), `scenes` (pictures without a
camera). The paper names scattering by rain and synthetic pairs; how they are rendered is ours, from the sources that
the functions name. All raise ValueError for what is no image (H, W, 3), float in [0, 1]; a bad parameter is a
SettingsError, which is one too.

A float32 image gives float32 results. A float64 image is computed in float64 throughout, whose last bits (they differ
between processors) vanish when the result is rounded to uint8: so the pocket collection is the same everywhere.
"""

from ttlkit.rain.drawn import PHOTOSHOP, photoshop
from ttlkit.rain.exposure import TRACED, traced
from ttlkit.rain.knobs import Rain
from ttlkit.rain.layers import in_places, lay, scatter, streak_holes
from ttlkit.rain.simulated import PHYSICAL, physical
from ttlkit.rain.stacks import LAYERED, layered

__all__ = ["LAYERED", "PHOTOSHOP", "PHYSICAL", "TRACED", "Rain", "in_places", "lay", "layered", "photoshop", "physical"]
__all__ += ["scatter", "streak_holes", "traced"]
