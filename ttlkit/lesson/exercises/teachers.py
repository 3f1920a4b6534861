"""Exercises of notebook 02."""

import numpy as np
from scipy.ndimage import gaussian_filter

from ttlkit.lesson.exercises.entry import Exercise

NOTEBOOK = "02_teacher_pretraining"


def _probability(logit):
    return 1 / (1 + np.exp(-logit))


def _cross_entropy(z, y):
    return -(y * np.log(_probability(z)) + (1 - y) * np.log(1 - _probability(z)))


def _veiled(photograph, sigmas, t, light):
    return gaussian_filter(photograph, sigmas) * t + light * (1 - t)


_random = np.random.default_rng(2)
_photographs = _random.random((2, 24, 20, 3))
_logits, _rainy = _random.normal(0, 2, 8), np.array([0.0, 1, 0, 1, 0, 1, 1, 0])

EXERCISES = (
    Exercise(
        name="stem",
        notebook=NOTEBOOK,
        question="How many weights does the first layer, the **stem**, learn? It is a convolution with bias, from the "
        "12 numbers of a cell of 2×2 pixels to `width` channels. Its filters have `kernel`×`kernel` places: 3×3 here, "
        "but answer for every width and every kernel.",
        takes="width, kernel",
        begin="a convolution has one filter, kernel×kernel weights, for each input channel and each output channel",
        right=lambda width, kernel: 12 * kernel**2 * width + width,
        wrong={
            "the filters are right; what else is added to each output channel?": (
                lambda w, k: 12 * k**2 * w,
                lambda w, k: 12 * 9 * w,
            ),
            "one bias for each output channel, not one for all": (
                lambda w, k: 12 * k**2 * w + 1,
                lambda w, k: 12 * 9 * w + 1,
            ),
            "the stem sees cells, not pixels: how many numbers hold 2×2 pixels of three colours?": (
                lambda w, k: 3 * k**2 * w + w,
                lambda w, k: 3 * 9 * w + w,
            ),
            "the three colours are missing: 2×2 pixels × 3 = 12 inputs": lambda w, k: 4 * k**2 * w + w,
            "a filter has rows and columns: how many weights are kernel×kernel?": lambda w, k: 12 * k * w + w,
            "either 3×3 = 9 is missing, or the three colours: 2×2 pixels × 3 = 12 inputs": lambda w, k: 4 * 9 * w + w,
            "each output channel has a filter for each of its 12 inputs": lambda w, k: k**2 * w + w,
            "each output channel has filters of its own": lambda w, k: 12 * k**2 + w,
            "right for a 3×3 kernel; what if the kernel is 5×5?": lambda w, k: 12 * 9 * w + w,
        },
        probes=[(8, 3), (16, 3), (24, 5)],
        solution="def answer(width, kernel):\n"
        "    return 12 * kernel * kernel * width + width  # filters, and a bias for each channel",
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
            "the light of the sky counts with the share 1 - t": lambda p, s, t, a: _veiled(p, (s, s, 0), t, 0) + a,
            "1 - t is the share of the sky; times what? the light of the sky": lambda p, s, t, a: _veiled(
                p, (s, s, 0), t, 1
            ),
            "the order of the axes is rows, columns, colours": lambda p, s, t, a: _veiled(p, (0, s, s), t, a),
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
        right=_cross_entropy,
        wrong={
            "a loss falls when the answer gets better; yours rises": lambda z, y: -_cross_entropy(z, y),
            "a logit is any number, and a logarithm wants a probability": lambda z, y: (
                -(y * np.log(z) + (1 - y) * np.log(1 - z))
            ),
            "what does it cost to call a rain-free photograph rainy? Here: nothing": lambda z, y: (
                -y * np.log(_probability(z))
            ),
            "the minus holds for both terms": lambda z, y: (
                -y * np.log(_probability(z)) + (1 - y) * np.log(1 - _probability(z))
            ),
            "a large z must give p near 1, and label 1 is rainy: see which of the two is turned": lambda z, y: (
                _cross_entropy(-z, y)
            ),
            "one loss for each crop, no mean": lambda z, y: _cross_entropy(z, y).mean(),
            "one loss for each crop, no sum": lambda z, y: _cross_entropy(z, y).sum(),
        },
        probes=[(_logits, _rainy), (3 * _logits[::-1], _rainy)],
        solution="def answer(logit, rainy):\n"
        "    p = 1 / (1 + np.exp(-logit))\n"
        "    return -rainy * np.log(p) - (1 - rainy) * np.log(1 - p)",
    ),
)
