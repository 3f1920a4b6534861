"""Metrics against scikit-image and against numbers worked out by hand."""

import json
import math

import numpy as np
import pytest
import torch
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from ttlkit.data import image_files, tensors
from ttlkit.evaluate import metrics


def _pair(seed=0, batch=2, height=40, width=33, noise=0.1):
    generator = torch.Generator().manual_seed(seed)
    clean = torch.rand(batch, 3, height, width, generator=generator)
    clean = torch.nn.functional.avg_pool2d(clean, 3, 1, 1)  # smooth enough that structure means something
    restored = clean + noise * torch.randn(clean.shape, generator=generator)
    return restored, clean


def _array(tensor):
    return tensor.permute(1, 2, 0).double().numpy()


def _rounded(tensor):
    return _array((tensor.clamp(0, 1) * 255).round() / 255)


def _skimage_ssim(first, second, **options):
    return structural_similarity(
        first, second, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1, **options
    )


def test_y_equals_rgb2ycbcr():
    _, clean = _pair()
    np.testing.assert_allclose(metrics.to_y(clean)[0, 0].numpy() * 255, rgb2ycbcr(_array(clean[0]))[..., 0], atol=1e-4)
    ends = metrics.to_y(torch.stack((torch.zeros(3, 1, 1), torch.ones(3, 1, 1)))) * 255
    np.testing.assert_allclose(ends.ravel(), [16, 235], atol=1e-4)


@pytest.mark.parametrize("noise", [0.003, 0.1, 0.5])
def test_psnr_equals_skimage(noise):
    restored, clean = _pair(noise=noise)
    rgb, luma = metrics.psnr(restored, clean), metrics.psnr(restored, clean, channel="y")
    assert rgb.shape == luma.shape == (2,)
    for index in range(2):
        first, second = _rounded(clean[index]), _rounded(restored[index])
        assert rgb[index] == pytest.approx(peak_signal_noise_ratio(first, second, data_range=1), abs=1e-3)
        first_y, second_y = (rgb2ycbcr(image)[..., 0] / 255 for image in (first, second))
        assert luma[index] == pytest.approx(peak_signal_noise_ratio(first_y, second_y, data_range=1), abs=1e-3)


def test_only_valid_pixels_count():
    restored, clean = _pair(batch=2)
    valid = torch.zeros(2, 1, *clean.shape[2:], dtype=torch.bool)
    valid[0, :, 8:30, 5:28] = True  # of the second image nothing
    inside = restored[:1, :, 8:30, 5:28], clean[:1, :, 8:30, 5:28]
    for channel in ("rgb", "y"):
        for measure in (metrics.psnr, metrics.ssim):
            found = measure(restored, clean, channel, valid=valid)
            assert found[0] == pytest.approx(float(measure(*inside, channel)), abs=1e-5)
            assert found[1].isnan()
    spoilt = torch.where(valid, restored, 1 - restored)
    assert metrics.scores(spoilt, clean, valid)["psnr_rgb"][0] == metrics.psnr(restored, clean, valid=valid)[0]


def test_psnr_on_y_is_1_32_db_above_rgb_for_a_grey_error():
    clean = torch.full((1, 3, 16, 16), 100 / 255)
    restored = clean + 10 / 255
    assert metrics.psnr(restored, clean) == pytest.approx(20 * math.log10(255 / 10), abs=1e-4)
    gain = metrics.psnr(restored, clean, channel="y") - metrics.psnr(restored, clean)
    assert gain == pytest.approx(20 * math.log10(255 / 219), abs=1e-3)


def test_rounding_to_8_bits_rounds_and_clamps():
    clean = torch.full((1, 3, 16, 16), 100 / 255)
    assert metrics.psnr(clean + 0.4 / 255, clean) == 100
    assert metrics.psnr(clean + 0.6 / 255, clean) == pytest.approx(20 * math.log10(255), abs=1e-4)
    assert metrics.psnr(clean + 0.4 / 255, clean, quantise=False) == pytest.approx(20 * math.log10(255 / 0.4), abs=1e-3)
    white = torch.ones(1, 3, 16, 16)
    assert metrics.psnr(white + 3, white) == 100
    assert metrics.ssim(white + 3, white) == 1


def test_identical_images_stay_finite():
    _, clean = _pair()
    for quantise in (True, False):
        assert metrics.psnr(clean, clean, quantise=quantise).tolist() == [100, 100]
        np.testing.assert_allclose(metrics.ssim(clean, clean, quantise=quantise), 1, atol=1e-6)
    json.dumps({key: value.tolist() for key, value in metrics.scores(clean, clean).items()}, allow_nan=False)


@pytest.mark.parametrize(("height", "width"), [(11, 11), (12, 40), (64, 48)])
@pytest.mark.parametrize("noise", [0.01, 0.2])
def test_ssim_equals_skimage(height, width, noise):
    restored, clean = _pair(height=height, width=width, noise=noise)
    rgb, luma = metrics.ssim(restored, clean), metrics.ssim(restored, clean, channel="y")
    assert rgb.shape == luma.shape == (2,)
    for index in range(2):
        first, second = _rounded(clean[index]), _rounded(restored[index])
        assert rgb[index] == pytest.approx(_skimage_ssim(first, second, channel_axis=2), abs=1e-5)
        first_y, second_y = (rgb2ycbcr(image)[..., 0] / 255 for image in (first, second))
        assert luma[index] == pytest.approx(_skimage_ssim(first_y, second_y), abs=1e-5)


def test_ssim_is_exact_on_flat_bright_images():
    """Where the variance is 4e-6 of the squared mean, float32 without the shift is off by 3e-5."""
    clean = torch.full((1, 3, 32, 32), 0.97)
    restored = clean + 0.002 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    expected = _skimage_ssim(_array(clean[0]), _array(restored[0]), channel_axis=2)
    assert metrics.ssim(restored, clean, quantise=False) == pytest.approx(expected, abs=1e-5)


def test_ssim_has_gradients_and_ignores_autocast_and_memory_format():
    restored, clean = _pair()
    expected = metrics.ssim(restored, clean, quantise=False)
    restored = restored.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = metrics.ssim(restored, clean, quantise=False)
        value.sum().backward()
    assert value.dtype == torch.float32
    assert torch.equal(value.detach(), expected)
    assert restored.grad.abs().sum() > 0
    turned = restored.detach().contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(metrics.ssim(turned, clean, quantise=False), expected)


def test_half_precision_images_are_measured_in_float32():
    restored, clean = _pair()
    assert {value.dtype for value in metrics.scores(restored.bfloat16(), clean).values()} == {torch.float32}


def test_masked_change_separates_streaks_from_the_rest():
    rainy = torch.full((2, 3, 4, 5), 0.5)
    mask = torch.zeros(2, 1, 4, 5)
    mask[0, 0, :2] = 1  # the second image has no streak
    restored = rainy - mask * 20 / 255
    restored[1, 0] += 6 / 255  # one channel of three
    inside, outside = metrics.masked_change(restored, rainy, mask).values()
    assert inside[0] == pytest.approx(20, abs=1e-4)
    assert outside.tolist() == pytest.approx([0, 2], abs=1e-4)
    assert inside[1].isnan()


def test_scores_are_the_single_metrics_and_do_not_mix_images():
    restored, clean = _pair()
    together = metrics.scores(restored, clean)
    assert list(together) == ["psnr_rgb", "ssim_rgb", "psnr_y", "ssim_y"]
    second = metrics.scores(restored[1:], clean[1:])
    for key, value in together.items():
        assert value.shape == (2,)
        assert value[1] == pytest.approx(second[key].item(), abs=1e-5)


@pytest.mark.parametrize(
    ("restored", "clean", "words"),
    [
        ((1, 3, 16, 16), (1, 3, 16, 17), r"\(1, 3, 16, 16\) and \(1, 3, 16, 17\)"),
        ((1, 3, 16, 16), (2, 3, 16, 16), "differ in shape"),
        ((1, 1, 16, 16), (1, 1, 16, 16), r"\(B, 3, H, W\)"),
        ((3, 16, 16), (3, 16, 16), r"\(B, 3, H, W\)"),
        ((1, 3, 10, 16), (1, 3, 10, 16), "11x11 pixels, got 10x16"),
    ],
)
def test_wrong_shapes_are_named(restored, clean, words):
    with pytest.raises(ValueError, match=words):
        metrics.scores(torch.zeros(restored), torch.zeros(clean))


def test_unknown_channel_and_wrong_mask_are_named():
    images = torch.zeros(1, 3, 16, 16)
    with pytest.raises(ValueError, match="'Y'"):
        metrics.psnr(images, images, channel="Y")
    with pytest.raises(ValueError, match=r"\(1, 3, 16, 16\)"):
        metrics.masked_change(images, images, images)


def test_bootstrap_covers_the_mean_as_promised():
    """Of 200 samples of 50 with known mean, about 94 % of the intervals hold it."""
    random = np.random.default_rng(0)
    hits = 0
    for seed in range(200):
        mean, low, high = metrics.bootstrap(random.normal(30, 2, size=50), rounds=500, seed=seed)
        assert low < mean < high
        hits += low <= 30 <= high
    assert 175 <= hits <= 199


def test_bootstrap_repeats_by_seed_and_survives_one_value():
    values = [20.13, 30.77, 25.31, 28.92, 26.05, 31.48]
    assert metrics.bootstrap(values, seed=3) == metrics.bootstrap(torch.tensor(values, dtype=torch.float64), seed=3)
    assert metrics.bootstrap(values, seed=3) != metrics.bootstrap(values, seed=4)
    assert metrics.bootstrap([31.5]) == (31.5, 31.5, 31.5)
    narrow, wide = metrics.bootstrap(values, level=0.5), metrics.bootstrap(values, level=0.99)
    assert wide[1] < narrow[1] < narrow[2] < wide[2]
    with pytest.raises(ValueError, match="at least one"):
        metrics.bootstrap([])


def test_rain100l_input_scores_as_published(shared_data):
    """The untouched input of Rain100L is 25.52 dB on RGB and 26.90 dB on Y (shared/data/README.md)."""
    folder = shared_data / "collection" / "test" / "rain100l"
    rgb, luma = [], []
    for path in image_files.list_images(folder / "rainy"):
        rainy, clean = (tensors.to_tensor(image_files.load_image(p)) for p in (path, folder / "clean" / path.name))
        rgb.append(metrics.psnr(rainy, clean).item())
        luma.append(metrics.psnr(rainy, clean, channel="y").item())
    assert len(rgb) == 100
    assert metrics.bootstrap(rgb)[0] == pytest.approx(25.52, abs=0.005)
    assert metrics.bootstrap(luma)[0] == pytest.approx(26.90, abs=0.005)
