"""Exercises of notebook 02."""

import numpy as np
from scipy.ndimage import gaussian_filter

from ttlkit.lesson.exercises.entry import Exercise

NOTEBOOK = "02_teacher_pretraining"


def _probability(logit):
    return 1 / (1 + np.exp(-logit))


def _veiled(photograph, sigmas, t, light):
    return gaussian_filter(photograph, sigmas) * t + light * (1 - t)


_random = np.random.default_rng(2)
_photographs = _random.random((2, 24, 20, 3))
_logits, _rainy = _random.normal(0, 2, 8), np.array([0.0, 1, 0, 1, 0, 1, 1, 0])

EXERCISES = (
    Exercise(
        name="stem",
        notebook=NOTEBOOK,
        question="How many weights does the first layer, the **stem**, learn? It is a 3×3 convolution with bias, from "
        "the 12 numbers of a cell of 2×2 pixels to `width` channels. Answer for every width.",
        takes="width",
        begin="a convolution has one 3×3 filter for each input channel and each output channel",
        right=lambda width: 12 * 9 * width + width,
        wrong={
            "the filters are right; what else is added to each output channel?": lambda width: 12 * 9 * width,
            "the stem sees cells, not pixels: how many numbers hold 2×2 pixels of three colours?": lambda width: (
                3 * 9 * width + width
            ),
            "how many numbers has one 3×3 filter?": lambda width: 12 * 3 * width + width,
        },
        probes=[(8,), (16,), (24,)],
        solution="def answer(width):\n    return 12 * 3 * 3 * width + width  # filters, and a bias for each channel",
    ),
    Exercise(
        name="veil",
        notebook=NOTEBOOK,
        question="Write the sample of the task `deblur`, without its chance. Blur the photograph $J$ (H, W, 3) with a "
        "Gaussian of `sigma` pixels, then veil it: $I = J\\,t + A\\,(1 - t)$. The share $t$ of the scene gets through "
        "the rain; the rest is the light $A$ of the sky. `gaussian_filter(image, sigmas)` of `scipy.ndimage` takes one "
        "sigma for each axis.",
        takes="photograph, sigma, t, light",
        begin="blur first: gaussian_filter(photograph, ...) with a sigma for rows, for columns and for colours",
        right=lambda photograph, sigma, t, light: _veiled(photograph, (sigma, sigma, 0), t, light),
        wrong={
            "at t = 1 the air is clear and no light of the sky is added; yours does the opposite": lambda p, s, t, a: (
                _veiled(p, (s, s, 0), 1 - t, a)
            ),
            "colours run into each other: along which axis must nothing be blurred?": lambda p, s, t, a: _veiled(
                p, (s, s, s), t, a
            ),
            "the veil is right, but the scene behind it is still sharp": lambda p, s, t, a: _veiled(p, 0, t, a),
            "it is blurred and darker; where is the light of the sky?": lambda p, s, t, a: _veiled(p, (s, s, 0), t, 0),
        },
        probes=[(_photographs[0], 1.0, 0.8, 0.9), (_photographs[1], 2.5, 0.6, 0.7)],
        solution="from scipy.ndimage import gaussian_filter\n\n\n"
        "def answer(photograph, sigma, t, light):\n"
        "    blurred = gaussian_filter(photograph, (sigma, sigma, 0))  # not over the colours\n"
        "    return blurred * t + light * (1 - t)",
    ),
    Exercise(
        name="yes-or-no",
        notebook=NOTEBOOK,
        question="Write the loss of the task `recognition`, the binary cross-entropy: "
        "$-y \\log p - (1 - y) \\log (1 - p)$ with $p = 1 / (1 + e^{-z})$. The logits $z$ and the labels $y$ "
        "(1: rainy, 0: rain-free) are arrays (B,); so is the answer.",
        takes="logit, rainy",
        begin="turn the logit into a probability p first",
        right=lambda z, y: -(y * np.log(_probability(z)) + (1 - y) * np.log(1 - _probability(z))),
        wrong={
            "a loss falls when the answer gets better; yours rises": lambda z, y: (
                y * np.log(_probability(z)) + (1 - y) * np.log(1 - _probability(z))
            ),
            "a logit is any number, and a logarithm wants a probability": lambda z, y: (
                -(y * np.log(z) + (1 - y) * np.log(1 - z))
            ),
            "what does it cost to call a rain-free photograph rainy? Here: nothing": lambda z, y: (
                -y * np.log(_probability(z))
            ),
        },
        probes=[(_logits, _rainy), (3 * _logits[::-1], _rainy)],
        solution="def answer(logit, rainy):\n"
        "    p = 1 / (1 + np.exp(-logit))\n"
        "    return -rainy * np.log(p) - (1 - rainy) * np.log(1 - p)",
    ),
)
