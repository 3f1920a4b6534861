"""The widget of the blind vote: two restorations of one photograph without their names; which is better?"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from ttlkit.data import image_files
from ttlkit.evaluate import votes
from ttlkit.evaluate.votes import Question
from ttlkit.lesson import figures
from ttlkit.lesson.live import VIEW_SIDE, png_bytes

Show = Callable[[str, str | None], np.ndarray]  # a photograph and a model, None for the rainy input, to its picture
BUTTONS = {"left": "Left is better", "none": "No difference", "right": "Right is better", votes.UNDO: "Undo"}
HELP = "Buttons work with the mouse, or with Tab and Space. Each vote is saved at once: stop whenever you like."


def pictures(restorers: Mapping[str, Callable[[np.ndarray], np.ndarray]], places: Mapping[str, Path]) -> Show:
    """What `plot_question` and `ballot` show: the photographs in `places`, at most VIEW_SIDE px, as restored."""

    def show(photograph: str, model: str | None) -> np.ndarray:
        rainy = image_files.load_image(places[photograph])
        if (scale := VIEW_SIDE / max(rainy.shape[:2])) < 1:
            rainy = image_files.resize(rainy, *(max(1, round(n * scale)) for n in rainy.shape[:2]))
        return restorers[model](rainy) if model else rainy

    return show


def plot_question(question: Question, show: Show, title: str | None = None):
    """A question as a plain figure: left and right without names, and the rainy input."""
    pictures = [show(question.photograph, model) for model in (question.left, question.right, None)]
    return figures.plot_images([pictures], ["left", "right", "rainy input"], title=title)


def ballot(path: Path, asked: Sequence[Question], show: Show, seed: int = 0, weights: Mapping[str, str] | None = None):
    """A widget that asks the questions without a vote in votes.csv at `path`, one after the other.

    `show(photograph, model)`: its picture, (H, W, 3) float in [0, 1] or uint8; of model None the rainy input. `seed`
    of the order, and a mark of each model's `weights`, are saved with each vote. Undo takes back the last vote that
    was given here. Works with ipywidgets 7 and 8, and waits for nobody.
    """
    import ipywidgets as widgets

    left, right, rainy = (widgets.Image(format="png", layout={"max_width": width}) for width in ("49%", "49%", "98%"))
    message = widgets.HTML()
    wide = {"layout": {"width": "auto"}}
    buttons = {vote: widgets.Button(description=text, **wide) for vote, text in BUTTONS.items()}
    shown = widgets.ToggleButton(False, description="Show the rainy input", **wide)
    above = widgets.VBox([])
    given: list[Question] = []
    waiting = votes.left_to_ask(asked, votes.load_votes(path, weights))

    @lru_cache(maxsize=8)
    def png(photograph: str, model: str | None) -> bytes:
        return png_bytes(image_files.to_u8(show(photograph, model)))

    def draw(_=None) -> None:
        for vote, button in buttons.items():
            button.disabled = not (given if vote == votes.UNDO else waiting)
        if not waiting:
            message.value, above.children = "<b>Every pair has its vote.</b> Thank you.", ()
            return
        question = waiting[0]
        message.value = f"{len(waiting)} of {len(asked)} pairs are left. {HELP}"
        left.value, right.value = (png(question.photograph, model) for model in question[1:])
        rainy.value = png(question.photograph, None) if shown.value else b""
        above.children = (rainy,) if shown.value else ()

    def cast(vote: str) -> None:
        undone = vote == votes.UNDO
        try:
            votes.save_vote(path, given[-1] if undone else waiting[0], vote, seed, weights)
        except OSError as error:  # a callback's traceback would vanish in the server's log
            message.value = f"<b>The vote could not be saved</b> ({error.strerror}); free space, then vote again."
            return
        if undone:
            waiting.insert(0, given.pop())
        else:
            given.append(waiting.pop(0))
        draw()

    for vote, button in buttons.items():
        button.on_click(lambda _, vote=vote: cast(vote))
    shown.observe(draw, "value")
    draw()
    row = {"flex_flow": "row wrap"}
    bar = widgets.HBox([*buttons.values(), shown], layout=row)
    return widgets.VBox([message, above, widgets.HBox([left, right]), bar])
