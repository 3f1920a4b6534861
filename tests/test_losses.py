"""Losses: values worked out by hand, gradients, float32 under autocast."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ttlkit.evaluate import metrics
from ttlkit.method import losses

ALL = [losses.charbonnier, losses.negative_ssim, losses.restoration, losses.feature_distance]


def _random(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_charbonnier_by_hand():
    clean = torch.zeros(2, 3, 4, 4)
    restored = torch.stack((torch.full((3, 4, 4), 0.3), torch.zeros(3, 4, 4)))
    value = losses.charbonnier(restored, clean, epsilon=0.4)
    assert value.tolist() == pytest.approx([0.5, 0.4])  # the 3-4-5 triangle; epsilon is the floor


def test_charbonnier_has_a_gradient_where_the_error_is_zero():
    restored = torch.zeros(1, 3, 4, 4, requires_grad=True)
    losses.charbonnier(restored, torch.zeros(1, 3, 4, 4)).sum().backward()
    assert torch.equal(restored.grad, torch.zeros_like(restored))  # plain sqrt would give NaN


def test_negative_ssim_is_one_minus_ssim_and_falls_by_gradient_descent():
    clean = _random(2, 3, 24, 24)
    restored = (clean + 0.2 * _random(2, 3, 24, 24, seed=1)).requires_grad_()
    first = losses.negative_ssim(restored, clean)
    torch.testing.assert_close(first, 1 - metrics.ssim(restored, clean, quantise=False))
    torch.testing.assert_close(losses.negative_ssim(clean, clean), torch.zeros(2), atol=1e-6, rtol=0)
    first.sum().backward()
    with torch.no_grad():
        assert (losses.negative_ssim(restored - 0.1 * restored.grad, clean) < first).all()


def test_restoration_is_charbonnier_and_a_fifth_of_negative_ssim():
    restored, clean = _random(2, 3, 16, 16), _random(2, 3, 16, 16, seed=1)
    expected = losses.charbonnier(restored, clean) + losses.negative_ssim(restored, clean) / 5
    torch.testing.assert_close(losses.restoration(restored, clean), expected)


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(1e-2, 1e3), offset=st.floats(-10, 10))
def test_feature_distance_does_not_see_the_teachers_scale(scale, offset):
    teacher, student = _random(2, 4, 8, 8), _random(2, 4, 8, 8, seed=1)
    per_channel = scale * torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1)
    torch.testing.assert_close(
        losses.feature_distance(student, per_channel * (teacher + offset)),
        losses.feature_distance(student, teacher),
        rtol=1e-2,
        atol=1e-3,
    )


def test_feature_distance_by_hand():
    teacher = 5 + 7 * _random(3, 4, 8, 8)
    zeros = losses.feature_distance(torch.zeros(3, 4, 8, 8), teacher)
    assert zeros.shape == (3,)
    assert zeros.mean() == pytest.approx(1, abs=1e-4)
    mean = teacher.mean(dim=(0, 2, 3), keepdim=True)
    deviation = teacher.std(dim=(0, 2, 3), keepdim=True, correction=0)
    perfect = losses.feature_distance((teacher - mean) / deviation, teacher)
    torch.testing.assert_close(perfect, torch.zeros(3), atol=1e-6, rtol=0)


def test_feature_distance_treats_a_dead_channel_as_zero():
    teacher = _random(2, 2, 8, 8)
    teacher[:, 1] = 0
    value = losses.feature_distance(torch.zeros(2, 2, 8, 8), teacher)
    assert value.mean() == pytest.approx(0.5, abs=1e-4)


def test_the_teacher_gets_no_gradient():
    student = _random(1, 2, 8, 8).requires_grad_()
    teacher = _random(1, 2, 8, 8, seed=1).requires_grad_()
    losses.feature_distance(student, teacher).sum().backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


@pytest.mark.parametrize("loss", ALL)
def test_losses_are_float32_per_image_under_autocast(loss):
    first, second = _random(3, 3, 16, 16).bfloat16(), _random(3, 3, 16, 16, seed=1).bfloat16()
    expected = loss(first.float(), second.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(first, second)
    assert value.shape == (3,)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    assert not any(math.isnan(number) for number in value.tolist())


@pytest.mark.parametrize("loss", ALL)
def test_losses_do_not_broadcast(loss):
    with pytest.raises(ValueError, match=r"\(1, 3, 16, 16\)"):
        loss(torch.zeros(2, 3, 16, 16), torch.zeros(1, 3, 16, 16))
