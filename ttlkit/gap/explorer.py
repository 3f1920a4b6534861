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
    "rate_mm_h": {"min": 0.0, "max": 150.0, "step": 1.0, "value": 40.0},
    "horizon_m": {"min": 8.0, "max": 400.0, "step": 4.0, "value": 20.0},
    "near_m": {"min": 0.4, "max": 3.0, "step": 0.1, "value": 0.6},
    "exposure_s": {"min": 0.002, "max": 0.033, "step": 0.001, "value": 0.008},
}
STEADY = {name: knob["value"] for name, knob in RAIN_KNOBS.items()}  # what is not turned
WHITE = 0.25  # luma; on a scale of its own, the faintest line would be white in some picture


def rain_explorer(scene: np.ndarray, names: Sequence[str], seed: int = 0):
    """A widget: turn RAIN_KNOBS; see the rain, the thin bright lines that are found in it, and what the features say.

    `scene`: a rain-free image (H, W, 3), float in [0, 1] or uint8; it is scaled down. `names`: of `features.FEATURES`.
    """
    import ipywidgets as widgets

    small = features.scale_down(image_files.to_float(image_files.to_u8(scene)), 320)
    chosen = [features.BY_NAME[name] for name in names]
    picture, numbers = widgets.Image(format="png", layout={"align_self": "flex-start"}), widgets.HTML()
    sliders: dict = {}
    rows: list = []
    for name, knob in RAIN_KNOBS.items():
        wide = {"width": "260px", "min_width": "240px"}  # the name stands above: beside it, no track would be left
        slider = sliders[name] = widgets.FloatSlider(**knob, continuous_update=False, readout=False, layout=wide)
        number = widgets.BoundedFloatText(**knob, layout={"width": "80px"})  # for keys: JupyterLab keeps a slider's
        widgets.link((slider, "value"), (number, "value"))
        named = widgets.Label(f"{name}: {rain.PHYSICAL[name].text.split(',')[0]} [{rain.PHYSICAL[name].unit}]")
        rows += [named, widgets.HBox([slider, number])]

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
    return widgets.VBox([picture, widgets.HBox([widgets.VBox(rows), numbers], layout={"flex_flow": "row wrap"})])
