"""Exercises of notebook 05."""

import numpy as np

from ttlkit.lesson.exercises.entry import Exercise

NOTEBOOK = "05_real_scene_evaluation"
LUMA = np.array([65.481, 128.553, 24.966]) / 255  # of red, green and blue; their sum is 219 / 255


def _psnr(error):
    return -10 * np.log10(np.square(error).mean())


def _interval(means, level=0.95):
    return np.quantile(means, [(1 - level) / 2, (1 + level) / 2])


def _normal(mean, error):
    return np.array([mean - 1.96 * error, mean + 1.96 * error])


_random = np.random.default_rng(5)
_clean = _random.integers(0, 256, (2, 6, 5, 3), dtype=np.uint8)
_restored = _random.integers(0, 256, _clean.shape, dtype=np.uint8)
_gains = _random.normal(0.4, 1, (2, 12))
_drawn = _random.integers(0, 12, (2, 4000, 12))  # many: an end may be read off the sorted means as well

EXERCISES = (
    Exercise(
        name="psnr",
        notebook=NOTEBOOK,
        question="Write PSNR on RGB, in dB, for two images (H, W, 3) of 8-bit numbers, `uint8`. Bring them to [0, 1] "
        "first; then it is $-10 \\log_{10}$ of the mean of all squared differences.",
        takes="restored, clean",
        begin="restored / 255 are numbers with a fraction, in [0, 1]",
        right=lambda r, c: _psnr(r / 255 - c / 255),
        wrong={
            "8-bit numbers wrap around: 3 - 5 is 254 there; divide before you subtract": lambda r, c: _psnr(
                (r - c) / 255
            ),
            "8-bit numbers wrap around, squares too: 16 times 16 is 0 there": lambda r, c: (
                -10 * np.log10(((r - c) ** 2).mean() / 255**2)
            ),
            "8-bit numbers wrap around (3 - 5 is 254 there), and 255 levels count as 1: divide before you subtract": (
                lambda r, c: -10 * np.log10(((r - c) ** 2).mean()),
                lambda r, c: _psnr((r - c).astype(float)),
            ),
            "squares wrap in 16 bits too: 255² is above 32767; divide by 255 before you square": lambda r, c: (
                -10 * np.log10(((r.astype(np.int16) - c) ** 2).mean() / 255**2)
            ),
            "a difference of 255 levels should count as 1": lambda r, c: _psnr(r.astype(float) - c),
            "10 goes with the mean square, 20 with its root": (
                lambda r, c: _psnr(r / 255 - c / 255) / 2,
                lambda r, c: _psnr(r / 255 - c / 255) * 2,
            ),
            "more error should give fewer dB": lambda r, c: -_psnr(r / 255 - c / 255),
            "more error should give fewer dB; and 20 goes with the root of the mean square": lambda r, c: (
                -2 * _psnr(r / 255 - c / 255)
            ),
            "the logarithm to base 10 is np.log10; np.log is the natural one": lambda r, c: (
                _psnr(r / 255 - c / 255) * np.log(10)
            ),
            "square each difference first, then take the mean": lambda r, c: _psnr((r / 255 - c / 255).mean()),
            "that is the mean square; asked is -10 times its logarithm": lambda r, c: np.square(
                r / 255 - c / 255
            ).mean(),
            "one mean over all pixels and colours, then the logarithm; not a mean of logarithms": lambda r, c: np.mean(
                [_psnr(r[..., i] / 255 - c[..., i] / 255) for i in range(3)]
            ),
        },
        probes=[(_restored[i], _clean[i]) for i in range(2)],
        solution="def answer(restored, clean):\n"
        "    error = restored / 255 - clean / 255\n"
        "    return -10 * np.log10(np.mean(error**2))",
    ),
    Exercise(
        name="luma",
        notebook=NOTEBOOK,
        question="A grey error: red, green and blue are all off by `error` (of 1) at every pixel. Give its PSNR on RGB "
        "and on luma, two numbers. $Y = (65.481\\,R + 128.553\\,G + 24.966\\,B + 16) / 255$. How far apart are they?",
        takes="error",
        begin="by how much is Y off when R, G and B are all off by `error`? the 16 is in both images",
        right=lambda e: np.array([_psnr(e), _psnr(LUMA.sum() * e)]),
        wrong={
            "the three weights of Y do not sum to 1": lambda e: np.array([_psnr(e), _psnr(e)]),
            "RGB first, then luma": lambda e: np.array([_psnr(LUMA.sum() * e), _psnr(e)]),
            "the 16 is in both images: it is no part of the error": lambda e: np.array(
                [_psnr(e), _psnr(LUMA.sum() * e + 16 / 255)]
            ),
            "the error of Y is not the mean of the three errors, and not their weighted squares": lambda e: np.array(
                [_psnr(e), -10 * np.log10((LUMA * e**2).sum())]
            ),
            "square the error first": lambda e: np.array([_psnr(e), _psnr(LUMA.sum() * e)]) / 2,
            "the error of luma is *smaller*, so its PSNR is higher": lambda e: np.array(
                [_psnr(e), _psnr(e / LUMA.sum())]
            ),
            "divide by 255": lambda e: np.array([_psnr(e), _psnr(219 * e)]),
            "the logarithm to base 10 is np.log10; np.log is the natural one": lambda e: (
                np.array([_psnr(e), _psnr(LUMA.sum() * e)]) * np.log(10)
            ),
            "more error should give fewer dB": lambda e: -np.array([_psnr(e), _psnr(LUMA.sum() * e)]),
        },
        probes=[(0.1,), (0.02,)],
        solution="def answer(error):\n"
        "    rgb = -20 * np.log10(error)\n"
        "    luma = -20 * np.log10(error * (65.481 + 128.553 + 24.966) / 255)\n"
        "    return [rgb, luma]  # 1.32 dB apart, whatever the error",
    ),
    Exercise(
        name="interval",
        notebook=NOTEBOOK,
        question="Write the 95 % bootstrap interval of a mean difference. `gains` (N,) holds student minus scratch for "
        "each image; each line of `drawn` (R, N) names N images drawn with replacement. Give the two ends, as [low, "
        "high].",
        takes="gains, drawn",
        begin="gains[drawn] has the shape of drawn: R imaginary test sets, each with N images",
        right=lambda g, d: _interval(g[d].mean(1)),
        wrong={
            "that is where 95 % of the images lie; asked is where their mean lies": lambda g, d: _interval(g),
            "that is where 95 % of all drawn images lie; take the mean of each drawn set first": lambda g, d: _interval(
                g[d]
            ),
            "0.05 is left out on each side, which makes 90 %": lambda g, d: _interval(g[d].mean(1), 0.9),
            "the mean runs over the R sets; it should run over the N images of one set": lambda g, d: _interval(
                g[d].mean(0)
            ),
            "percentile takes 2.5 and 97.5": lambda g, d: np.percentile(g[d].mean(1), [0.025, 0.975]),
            "low first, then high": lambda g, d: _interval(g[d].mean(1))[::-1],
            "that assumes a normal law; use the drawn sets": (
                lambda g, d: _normal(g.mean(), g.std() / len(g) ** 0.5),
                lambda g, d: _normal(g.mean(), g.std(ddof=1) / len(g) ** 0.5),
                lambda g, d: _normal(g.mean(), g[d].mean(1).std()),
                lambda g, d: _normal(g[d].mean(1).mean(), g[d].mean(1).std()),
            ),
        },
        probes=[(_gains[i], _drawn[i]) for i in range(2)],
        within=0.01,
        solution="def answer(gains, drawn):\n"
        "    means = gains[drawn].mean(axis=1)\n"
        "    return np.quantile(means, [0.025, 0.975])",
    ),
)
