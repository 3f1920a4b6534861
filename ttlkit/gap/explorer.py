"""A widget: turn the knobs of the physical renderer and see what the features say."""

from collections.abc import Sequence

import numpy as np

from ttlkit import rain
from ttlkit.data import image_files
from ttlkit.gap import features
from ttlkit.lesson import figures
from ttlkit.lesson.live import png_bytes

RAIN_KNOBS = {  # of rain.physical: what a class may turn, and from where to where
    "angle_deg": (-30.0, 30.0, 10.0),
    "rate_mm_h": (0.0, 150.0, 40.0),
    "horizon_m": (8.0, 400.0, 20.0),
    "near_m": (0.4, 3.0, 0.6),
    "exposure_s": (0.002, 0.033, 0.008),
}
STEADY = {name: value for name, (_, _, value) in RAIN_KNOBS.items()}  # what is not turned
WHITE = 0.25  # luma; on a scale of its own, the faintest line would be white in some picture


def rain_explorer(scene: np.ndarray, names: Sequence[str], seed: int = 0):
    """A widget: turn RAIN_KNOBS; see the rain, the thin bright lines that are found in it, and what the features say.

    `scene`: a rain-free image (H, W, 3), float in [0, 1] or uint8; it is scaled down. `names`: of `features.FEATURES`.
    """
    import ipywidgets as widgets

    small = features.scale_down(image_files.to_float(image_files.to_u8(scene)), 320)
    chosen = [features.BY_NAME[name] for name in names]
    picture, numbers, sliders = widgets.Image(format="png"), widgets.HTML(), {}
    look: dict = {"style": {"description_width": "initial"}, "layout": {"width": "100%", "max_width": "480px"}}
    look |= {"continuous_update": False, "readout_format": ".3g"}
    for name, (least, most, value) in RAIN_KNOBS.items():
        label = f"{name}: {rain.PHYSICAL[name].text.split(',')[0]} [{rain.PHYSICAL[name].unit}]"
        step = (most - least) / 100
        sliders[name] = widgets.FloatSlider(value, min=least, max=most, step=step, description=label, **look)

    def draw(change=None) -> None:
        drawn = rain.physical(small, seed, **{name: slider.value for name, slider in sliders.items()})
        seen = features.prepare(drawn.rainy)
        crests = np.repeat(np.clip(seen.crests / WHITE, 0, 1)[..., None], 3, axis=2)
        picture.value = png_bytes(np.concatenate([image_files.to_u8(drawn.rainy), image_files.to_u8(crests)], axis=1))
        found = [{"feature": one.label, "value": f"{one.measure(seen):.3g} {one.unit}"} for one in chosen]
        numbers.value = figures.table(found)._repr_html_()

    for slider in sliders.values():
        slider.observe(draw, "value")
    draw()
    return widgets.VBox([picture, widgets.HBox([widgets.VBox(list(sliders.values())), numbers])])
