"""Exercises of notebook 03."""

import numpy as np

from ttlkit.lesson.exercises.entry import Exercise

NOTEBOOK = "03_distillation"


def _scaled(features, axes, power=0.5):
    return (features - features.mean(axes, keepdims=True)) / features.var(axes, keepdims=True) ** power


_random = np.random.default_rng(3)
_loud = np.array([0.01, 1.0, 40.0])[:, None, None]  # channels of very different scale
_features = _random.normal(1, 1, (2, 4, 3, 6, 5)) * _loud + np.arange(4)[:, None, None, None]
_matrix, _bias = _random.normal(0, 1, (2, 4, 4)), _random.normal(0, 1, (2, 4))
_maps = _random.normal(0, 1, (2, 4, 6, 5))
_distances = _random.random((2, 3, 7))

EXERCISES = (
    Exercise(
        name="standardise",
        notebook=NOTEBOOK,
        question="Standardise the features of a teacher, an array (B, C, H, W): each channel gets mean 0 and standard "
        "deviation 1, counted over all images and pixels together.",
        takes="features",
        begin="features.mean(axis=..., keepdims=True): over which axes, so that one number is left for each channel?",
        right=lambda features: _scaled(features, (0, 2, 3)),
        wrong={
            "one mean for all channels: the loudest channel still decides": lambda f: _scaled(f, (0, 1, 2, 3)),
            "each image by itself: a channel that is strong only in rain would look alike in every image": lambda f: (
                _scaled(f, (2, 3))
            ),
            "the means are right; by what is the rest divided, the variance or its root?": lambda f: _scaled(
                f, (0, 2, 3), 1
            ),
            "the means are gone, the scales are as different as before": lambda f: _scaled(f, (0, 2, 3), 0),
            "nearly: the sum of squares is divided by n here, not by n - 1 (torch's std does that, as does ddof=1)": (
                lambda f: (f - f.mean((0, 2, 3), keepdims=True)) / f.std((0, 2, 3), ddof=1, keepdims=True)
            ),
        },
        probes=[(_features[0],), (_features[1],)],
        solution="def answer(features):\n"
        "    mean = features.mean(axis=(0, 2, 3), keepdims=True)\n"
        "    return (features - mean) / features.std(axis=(0, 2, 3), keepdims=True)",
    ),
    Exercise(
        name="adapter",
        notebook=NOTEBOOK,
        question="A 1×1 adapter applies one matrix at every pixel. Write it: `features` (C, H, W) of the student, "
        "`matrix` (D, C), `bias` (D,) to the features (D, H, W) that are compared with the teacher's.",
        takes="features, matrix, bias",
        begin='np.einsum("dc,chw->dhw", ...) multiplies at every pixel',
        right=lambda f, m, b: np.einsum("dc,chw->dhw", m, f) + b[:, None, None],
        wrong={
            "the matrix is right; what is missing?": lambda f, m, b: np.einsum("dc,chw->dhw", m, f),
            "rows of the matrix are the outputs; you sum over the rows": lambda f, m, b: (
                np.einsum("cd,chw->dhw", m, f) + b[:, None, None]
            ),
            "all pixels come out alike: apply the matrix at each pixel, not to the mean of all": lambda f, m, b: (
                np.einsum("dc,chw->dhw", m, f * 0 + f.mean((1, 2), keepdims=True)) + b[:, None, None]
            ),
        },
        stops={  # the features (4, 6, 5) and a bias (4,)
            "the bias needs two more axes: bias[:, None, None]": r"broadcast.*(\(4,6,5\) ?\(4,\)|\(4,\) ?\(4,6,5\))",
        },
        probes=[(_maps[i], _matrix[i], _bias[i]) for i in range(2)],
        solution="def answer(features, matrix, bias):\n"
        '    return np.einsum("dc,chw->dhw", matrix, features) + bias[:, None, None]',
    ),
    Exercise(
        name="whole-loss",
        notebook=NOTEBOOK,
        question="Write the whole loss. `distances` (teachers, levels) are the distances of the features, `output` is "
        "the distance between what student and guide restore, `weight` is the weight of this last term.",
        takes="distances, output, weight",
        begin="teachers count alike, and so do the seven levels: one mean",
        right=lambda d, o, w: d.mean() + w * o,
        wrong={
            "with twice as many teachers your loss doubles; each should count its share": (
                lambda d, o, w: d.sum() + w * o,
                lambda d, o, w: d.sum(0).mean() + w * o,
            ),
            "the features are in; what says that the student should restore as the guide does?": lambda d, o, w: (
                d.mean()
            ),
            "both terms are in; does the second one count as much as it should?": lambda d, o, w: d.mean() + o,
            "divide by the number of levels too": lambda d, o, w: d.sum(1).mean() + w * o,
            "`weight` is not always 10": lambda d, o, w: d.mean() + 10 * o,
            "the weight belongs to the other term": lambda d, o, w: w * d.mean() + o,
        },
        probes=[(_distances[0], 0.05, 10.0), (_distances[1], 0.2, 3.0)],
        solution="def answer(distances, output, weight):\n    return distances.mean() + weight * output",
    ),
)
