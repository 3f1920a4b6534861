"""Lines with soft ends, drawn between the pixels: every streak, of every renderer, becomes pixels here (ours)."""

import numpy as np

MOST_SAMPLES = 4_000_000  # points at a time; those of a large picture in heavy rain would take all the memory


def draw_lines(shape: tuple[int, int], lines: np.ndarray, step: float, ripple: np.ndarray | None = None) -> np.ndarray:
    """Sum (H, W), float64, of n lines, each a row of points about `step` pixels apart.

    lines (5, n): middle y and x, length [px], tilt from the vertical [rad], weight a pixel. ripple (5, n): strength,
    turns (2) and phases (2) of two waves, the second half as high, that the brightness follows along each line.
    """
    height, width = shape
    y, x, length, tilt, weight = lines
    samples = np.maximum(2, np.ceil(length / step)).astype(int)
    if len(samples) > 1 and samples.sum() > MOST_SAMPLES:
        halves = np.s_[:, : len(samples) // 2], np.s_[:, len(samples) // 2 :]
        one, two = (draw_lines(shape, lines[h], step, None if ripple is None else ripple[h]) for h in halves)
        return one + two
    line = np.repeat(np.arange(len(samples)), samples)  # of every point, which line it is on
    place = np.arange(len(line)) - np.repeat(np.cumsum(samples) - samples, samples)
    along = (place + 0.5) / samples[line] - 0.5  # from -0.5 to 0.5
    value = (weight * length / samples)[line] * np.minimum(1, 6 * (0.5 - np.abs(along)))  # a sixth at each end fades
    if ripple is not None:
        strength, *waves = ripple[:, line]
        angle = [2 * np.pi * turns * along + phase for turns, phase in zip(waves[:2], waves[2:], strict=True)]
        value *= 1 + strength * (2 * np.sin(angle[0]) + np.sin(angle[1])) / 3
    y = y[line] + along * (length * np.cos(tilt))[line]
    x = x[line] + along * (length * np.sin(tilt))[line]
    keep = (y > -1) & (y < height) & (x > -1) & (x < width)
    y, x, value = y[keep] + 1, x[keep] + 1, value[keep]
    row, column = y.astype(int), x.astype(int)
    down, right = y - row, x - column  # each point is shared among the four pixels around it
    stride = width + 2  # a one-pixel rim takes what falls outside
    base = row * stride + column
    index = np.concatenate([base + corner for corner in (0, 1, stride, stride + 1)])
    parts = np.concatenate([value * a * b for a in (1 - down, down) for b in (1 - right, right)])
    return np.bincount(index, parts, minlength=(height + 2) * stride).reshape(-1, stride)[1:-1, 1:-1]
