"""Find training images that show a scene of the test set: copied, mirrored, rescaled, cropped or recompressed."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter

from ttlkit.data import image_files

SIDE = 480  # px; the longer side that scenes are compared at
POINTS = 6  # matching points that one affine map must explain; what chance does: tests/benchmarks/leaks.py
TURN = 0.6  # radians; photographs are mirrored, cropped and squeezed, but not rotated
AGREEMENT = 0.6  # correlation of the two pictures where they overlap; a shared watermark alone stays below
THUMBNAIL = 32  # px; for scenes with too little texture for points
ALIKE = 0.8  # correlation of two thumbnails without their slow part
MOST = 500  # points kept of one scene
RATIO = 0.8  # of the distances from a point to the best and to the second best of another scene

# SIFT's descriptor is 4 rows x 4 columns x 8 directions; this order is that of the mirrored picture
_MIRRORED = np.arange(128).reshape(4, 4, 8)[:, ::-1][..., -np.arange(8) % 8].ravel()


@dataclass(frozen=True)
class Scene:
    """What is compared of an image: `grey` (h, w) uint8, `points` (n, 2) in it as (x, y), their `angles` (n,) in
    radians and unit `descriptors` (n, 128), and a thumbnail for pictures without points."""

    path: Path
    grey: np.ndarray
    points: np.ndarray
    angles: np.ndarray
    descriptors: np.ndarray
    thumbnail: np.ndarray


class Leak(NamedTuple):
    """A training image that shows a test scene, and what gives it away."""

    train: Path
    test: Path
    evidence: str


def scene(path: Path, image: np.ndarray) -> Scene:
    """Describe an image (H, W, 3), float or uint8, by SIFT points (Lowe, IJCV 60, 2004) and a thumbnail."""
    from skimage.feature import SIFT

    scale = min(2.0, SIDE / max(image.shape[:2]))
    small = image_files.resize(image, *(max(1, round(side * scale)) for side in image.shape[:2]))
    grey = image_files.to_grey(small)
    low, high = np.percentile(grey, (1, 99))
    grey = np.clip((grey - low) / max(high - low, 1e-3), 0, 1).astype(np.float32)  # brightness does not matter
    points, angles, descriptors = np.zeros((0, 2)), np.zeros(0), np.zeros((0, 128), np.float32)
    if min(grey.shape) >= 24:
        sift = SIFT(upsampling=1)
        with suppress(RuntimeError):  # no point found
            sift.detect_and_extract(grey)
            keep = np.argsort(-sift.sigmas, kind="stable")[:MOST]
            points, angles = sift.keypoints[keep][:, ::-1].astype(np.float64), sift.orientations[keep]
            descriptors = sift.descriptors[keep].astype(np.float32)
            descriptors /= np.maximum(np.linalg.norm(descriptors, axis=1, keepdims=True), 1e-6)
    return Scene(path, image_files.to_u8(grey), points, angles, descriptors, _thumbnail(grey))


def _thumbnail(grey: np.ndarray) -> np.ndarray:
    """(THUMBNAIL²,) of mean 0 and length 1, without slow gradients, which all skies share; zero for a flat picture."""
    rgb = image_files.resize(np.repeat(grey[..., None], 3, 2), THUMBNAIL, THUMBNAIL)
    fine = rgb[..., 0] - gaussian_filter(rgb[..., 0], 3)
    length = np.linalg.norm(fine)
    return (fine / length if length > 0.15 else np.zeros_like(fine)).ravel()


def find_leaks(train: Iterable[Scene], test: Sequence[Scene]) -> Iterator[Leak]:
    """The leaks of each training scene, as they are found; only the test side is held in memory.

    Points are matched by descriptor, as they are and mirrored, and must follow one affine map (RANSAC:
    Fischler & Bolles, CACM 24, 1981) under which the pictures agree. Scenes without enough points are compared
    as thumbnails, whole.
    """
    if not test:
        return
    stack = np.concatenate([s.descriptors for s in test])
    owner = np.repeat(np.arange(len(test)), [len(s.descriptors) for s in test])
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    thumbnails = np.stack([s.thumbnail for s in test])
    for candidate in train:
        found: dict[int, str] = {}
        for mirrored in (False, True):
            view = _mirror(candidate) if mirrored else candidate
            for i in _close(view, stack, starts, owner):
                evidence = _same_scene(view, test[i])
                if evidence and i not in found:
                    found[i] = evidence + (", mirrored" if mirrored else "")
            for i in np.flatnonzero(thumbnails @ view.thumbnail > ALIKE):
                found.setdefault(int(i), "the same thumbnail" + (", mirrored" if mirrored else ""))
        yield from (Leak(candidate.path, test[i].path, found[i]) for i in sorted(found))


def _mirror(view: Scene) -> Scene:
    points = view.points * (-1, 1) + (view.grey.shape[1] - 1, 0)
    thumbnail = view.thumbnail.reshape(THUMBNAIL, THUMBNAIL)[:, ::-1].ravel()
    return Scene(view.path, view.grey[:, ::-1], points, -view.angles, view.descriptors[:, _MIRRORED], thumbnail)


def _close(view: Scene, stack: np.ndarray, starts: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """A quick sieve: test scenes that hold what looks most like a point of `view`, for a few of its points."""
    if len(view.points) < POINTS or not len(stack):
        return np.zeros(0, int)
    sample = view.descriptors[:: -(-len(view.descriptors) // 200)]
    best = np.maximum.reduceat(sample @ stack.T, starts, axis=1)
    nearest = best.max(1, keepdims=True) - 0.02  # frames of one scene share its points
    return owner[starts][((best > 0.88) & (best > nearest)).sum(0) >= POINTS - 1]


def _same_scene(view: Scene, other: Scene) -> str:
    """Words on the evidence, '' where there is not enough."""
    from skimage.feature import match_descriptors
    from skimage.measure import ransac
    from skimage.transform import AffineTransform, warp

    # each other's best, and clearly better than the second best (Lowe 2004)
    mine, others = match_descriptors(view.descriptors, other.descriptors, max_ratio=RATIO).T
    turned = np.angle(np.exp(1j * (view.angles[mine] - other.angles[others])))
    mine, others = mine[np.abs(turned) < TURN], others[np.abs(turned) < TURN]
    if len(mine) < POINTS:
        return ""
    ends = view.points[mine], other.points[others]
    model, inliers = ransac(ends, AffineTransform, min_samples=3, residual_threshold=4, max_trials=300, rng=0)
    if inliers is None or inliers.sum() < POINTS or not 0.01 < abs(np.linalg.det(model.params[:2, :2])) < 100:
        return ""
    moved = warp(view.grey, model.inverse, output_shape=other.grey.shape, cval=np.nan)
    overlap = np.isfinite(moved)
    if overlap.mean() < 0.02 or _correlation(moved[overlap], other.grey[overlap]) < AGREEMENT:
        return ""
    return f"{inliers.sum()} matching points"


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / max(np.sqrt((a * a).sum() * (b * b).sum()), 1e-9))
