"""What a comparison found, as files: tables, values of every image, figures, and one page to read."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ttlkit import files
from ttlkit.gap import features, plots, study
from ttlkit.gap.stats import Row
from ttlkit.gap.study import Measured
from ttlkit.lesson import figures, report

HOW_TO_READ = """
- **distance**: Wasserstein distance of the two sets over the standard deviation within them, with a 95 % bootstrap
  interval over images. **null**: 95 % of random splits of all images together lie below it.
- **A | A**, **B | B**: mean distance between random halves of one set (half as many images, so a little more chance).
- **Cliff's delta**: chance that an image of A has more of it than one of B, less the chance of the opposite.
- **p (Holm)**: share of random splits that are as far apart, corrected for the number of features.
- Scenes differ between sets too: a difference is one of image sets, not of rain alone.
- Size, noise, blocks of JPEG and watermarks on the margin belong to the files. When they differ, use
  `ttlkit gap --equalise`.
"""


def write(folder: Path, a: Measured, b: Measured, found: dict, deep: Sequence[Row] = (), note: str = "") -> Path:
    """Write gap.json, values.csv, figures and gap.html, which needs no network, into `folder`; returns gap.html.

    Without the packages of the extra `report` the page is gap.md. Each file is written whole or not at all; GapError
    names the one that is in the way, or the folder.
    """
    rows = study.for_json(found["features"])
    tables = {"a": a.name, "b": b.name, **found, "features": rows, "deep": list(deep)}
    values = pd.concat([pd.DataFrame({"set": side.name, "file": side.paths, **side.values}) for side in (a, b)])
    try:
        files.write_json(folder / "gap.json", {**tables, "skipped": [*a.skipped, *b.skipped], "note": note})
        files.write_text(folder / "values.csv", values.to_csv(index=False, float_format="%.6g"))
        page = _page(folder / "figures", a, b, found, deep, note)
        try:
            return report.write_report([], folder / "gap.html", f"{a.name} against {b.name}", page)
        except report.ReportError:  # its packages are no part of a core installation
            return files.write_text(folder / "gap.md", page)
    except OSError as error:
        words = f"cannot be written ({error.strerror or error}); free space, or choose another folder"
        raise study.GapError(f"{files.shown(error.filename or folder)}: {words}") from None


def _page(place: Path, a: Measured, b: Measured, found: dict, deep: Sequence[Row], note: str) -> str:
    """The comparison as Markdown for a page beside the folder `place`, into which its figures are written."""

    def figure(name: str, drawn) -> str:
        with files.whole(place / f"{name}.png") as partial:
            drawn.savefig(partial, format="png", dpi=110, bbox_inches="tight")
        return f"\n![{name}](figures/{name}.png)\n"

    first, second = (figures.in_markdown(side.name) for side in (a, b))
    rows = sorted(found["features"], key=lambda row: -row["wasserstein"])
    text = [
        f"A = {first}, {len(a.paths)} images; B = {second}, {len(b.paths)} images. {note}\n",
        f"In short: {study.verdict(rows, first, second)}.\n",
        figure("distances", plots.plot_distances(rows)),
        figures.markdown_table(study.as_table(rows), study.COLUMNS, 3),
        f"\n## How to read it\n{HOW_TO_READ}",
    ]
    for title, tests in (("All features of rain at once", found["overall"]), ("What the teacher sees", deep)):
        if tests:
            text += [f"\n## {title}\n", figures.markdown_table(list(tests), digits=3), "\n"]
    text.append("\n## The features that differ most, and what they see\n")
    for row in [row for row in rows if row["group"] != "camera"][:4]:
        feature = features.BY_NAME[row["feature"]]
        sides = {side.name: side.values[feature.name] for side in (a, b)}
        pictures = {side.name: study.typical(side, feature) for side in (a, b)}
        text += [
            f"\n### {feature.label}\n",
            f"{(feature.measure.__doc__ or '').strip().splitlines()[0]}\n",
            figure(feature.name, plots.plot_distributions(sides, feature.label, feature.unit)),
            figure(f"{feature.name}-seen", plots.plot_feature(pictures, feature)),
        ]
    if a.skipped or b.skipped:
        rows = [{"left out": problem} for problem in (*a.skipped, *b.skipped)]
        text += ["\n## Left out\n", figures.markdown_table(rows)]
    return "\n".join(text)
