"""A widget: turn the knobs of the physical renderer and see what the features say."""

from collections.abc import Sequence

import numpy as np

from ttlkit import rain
from ttlkit.data import image_files
from ttlkit.gap import features
from ttlkit.lesson import figures
from ttlkit.lesson.live import png_bytes

RAIN_KNOBS = {  # of rain.physical, what a class may turn: from where to where, in which steps, and where it begins
    "angle_deg": {"min": -30.0, "max": 30.0, "step": 1.0, "value": 10.0},
    "rate_mm_h": {"min": 3.0, "max": 150.0, "step": 1.0, "value": 40.0},
    "near_m": {"min": 0.4, "max": 3.0, "step": 0.1, "value": 0.6},
    "exposure_s": {"min": 0.002, "max": 0.033, "step": 0.001, "value": 0.008},
}


def rain_explorer(scene: np.ndarray, names: Sequence[str], seed: int = 0):
    """A widget: turn direction, rain rate, distance and exposure; see the rain, and what the features say.

    `scene`: a rain-free image (H, W, 3), float in [0, 1] or uint8; it is scaled down. `names`: of `features.FEATURES`.
    """
    import ipywidgets as widgets

    small = features.scale_down(image_files.to_float(image_files.to_u8(scene)), 320)
    chosen = [features.FEATURES[features.NAMES.index(name)] for name in names]
    picture, numbers = widgets.Image(format="png", layout={"align_self": "flex-start"}), widgets.HTML()
    sliders: dict = {}
    rows: list = []
    for name, knob in RAIN_KNOBS.items():
        wide = {"width": "260px", "min_width": "240px"}  # the name stands above: beside it, no track would be left
        slider = sliders[name] = widgets.FloatSlider(**knob, continuous_update=False, readout=False, layout=wide)
        number = widgets.BoundedFloatText(**knob, layout={"width": "80px"})  # for keys: JupyterLab keeps a slider's
        widgets.link((slider, "value"), (number, "value"))
        named = widgets.Label(f"{rain.PHYSICAL[name].text.split(',')[0]} [{rain.PHYSICAL[name].unit}]")
        rows += [named, widgets.HBox([slider, number])]

    def draw(change=None) -> None:
        drawn = rain.physical(small, seed, **{name: slider.value for name, slider in sliders.items()})
        seen = features.prepare(drawn.rainy)
        crests = np.repeat((seen.crests / max(float(seen.crests.max()), 1e-6))[..., None], 3, axis=2)
        picture.value = png_bytes(np.concatenate([image_files.to_u8(drawn.rainy), image_files.to_u8(crests)], axis=1))
        found = [{"feature": one.label, "value": f"{one.measure(seen):.3g} {one.unit}"} for one in chosen]
        numbers.value = figures.table(found)._repr_html_()

    for slider in sliders.values():
        slider.observe(draw, "value")
    draw()
    return widgets.VBox([picture, widgets.HBox([widgets.VBox(rows), numbers], layout={"flex_flow": "row wrap"})])
