"""Discrete diffusion: values of the noise schedules, and the reverse rules."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from flowpolicies.core import GeneratorNoise, ReplayedNoise
from flowpolicies.flows import REVERSE_RULES, Diffusion, betas

VP_BETA = {
    5: [0.195875, 0.458818, 0.635781, 0.754878, 0.835031],
    10: [0.057764, 0.146577, 0.227018, 0.299878, 0.365869, 0.425641, 0.479778, 0.528813, 0.573226, 0.613452],
}
VP_ABAR = {
    5: [0.804125, 0.435178, 0.158500, 0.038852, 0.006409],
    10: [0.942236, 0.804125, 0.621574, 0.435178, 0.275960, 0.158500, 0.082455, 0.038852, 0.016581, 0.006409],
}


@pytest.mark.parametrize("steps", [5, 10])
def test_vp_schedule_has_the_golden_values(steps: int) -> None:
    levels = Diffusion(steps).levels(torch.zeros(1, dtype=torch.float64))
    assert levels.beta.tolist() == pytest.approx(VP_BETA[steps], abs=5.1e-7)
    assert levels.abar.tolist() == pytest.approx(VP_ABAR[steps], abs=5.1e-7)
    assert levels.abar_before.tolist() == pytest.approx([1.0, *VP_ABAR[steps][:-1]], abs=5.1e-7)


def test_linear_and_cosine_schedules() -> None:
    np.testing.assert_allclose(betas("linear", 5), [1e-4, 0.005075, 0.01005, 0.015025, 2e-2], rtol=1e-9)
    f = lambda u: math.cos(math.pi / 2 * (u + 0.008) / 1.008) ** 2
    cosine = betas("cosine", 4)
    assert cosine[0] == pytest.approx(1 - f(0.25) / f(0))
    assert cosine[2] == pytest.approx(1 - f(0.75) / f(0.5))
    assert cosine[3] == 0.999
    with pytest.raises(ValueError, match="at least one step"):
        betas("vp", 0)


@pytest.mark.parametrize("first_index", [0, 1])
def test_noising_feeds_the_raw_index(first_index: int) -> None:
    levels, eps = torch.tensor([0, 2, 4]), torch.tensor([[1.0], [-1.0], [0.5]])
    actions = torch.tensor([[0.3], [0.3], [0.3]])
    noised = Diffusion(5, first_index=first_index).noised(actions, ReplayedNoise(1, [levels, eps]))
    assert noised.t.flatten().tolist() == [first_index + i for i in (0, 2, 4)]
    assert noised.t.shape == noised.abar.shape == noised.beta.shape == (3, 1)
    abar = np.array(VP_ABAR[5])[[0, 2, 4]]
    np.testing.assert_allclose(noised.abar.flatten(), abar, atol=1e-6)
    np.testing.assert_allclose(noised.beta.flatten(), np.array(VP_BETA[5])[[0, 2, 4]], atol=1e-6)
    expected = np.sqrt(abar) * 0.3 + np.sqrt(1 - abar) * eps.flatten().numpy()
    np.testing.assert_allclose(noised.x.flatten(), expected, atol=1e-5)


def numpy_chain(rule: str, x: float, zs: list[float], predict, steps: int = 5) -> float:
    """The formulas of 0.3, written out with 1-based t."""
    alpha = [math.exp(-0.1 / steps - (10 - 0.1) * (2 * t - 1) / (2 * steps**2)) for t in range(1, steps + 1)]
    abar = [1.0, *np.cumprod(alpha)]
    clip = lambda y: min(max(y, -1.0), 1.0)
    for t, z in zip(range(steps, 0, -1), zs, strict=True):
        a, b, e = alpha[t - 1], 1 - alpha[t - 1], predict(x, t)
        noise = z if t > 1 else 0.0
        x0h = (x - math.sqrt(1 - abar[t]) * e) / math.sqrt(abar[t])
        mu = (math.sqrt(abar[t - 1]) * b * clip(x0h) + math.sqrt(a) * (1 - abar[t - 1]) * x) / (1 - abar[t])
        if rule == "ancestral":
            x = mu + math.sqrt(b) * noise
        elif rule == "posterior":
            x = mu + math.sqrt(b * (1 - abar[t - 1]) / (1 - abar[t])) * noise
        elif rule == "direct":
            x = clip((x - b / math.sqrt(1 - abar[t]) * e) / math.sqrt(a) + math.sqrt(b) * noise)
        elif rule == "jump":
            x = clip(x0h + math.sqrt(b) * noise)
        else:
            x = clip((x - math.sqrt(1 - abar[t]) * e) / math.sqrt(a) + math.sqrt(1 - abar[t - 1]) * e)
    return x


@pytest.mark.parametrize("rule", list(REVERSE_RULES))
@pytest.mark.parametrize("start", [-1.5, 0.2])
def test_reverse_rules_equal_the_formulas(rule: str, start: float) -> None:
    zs = [0.3, -0.7, 1.1, 0.2, 9.0]  # The last one must not matter.
    predict = lambda x, t: 0.4 * x - 0.1 * t
    noise = ReplayedNoise(1, [torch.tensor([[z]], dtype=torch.float64) for z in zs])
    x = torch.tensor([[start]], dtype=torch.float64)
    states, predictions = Diffusion(5).reverse(predict, x, noise, rule)
    assert len(states) == 6
    assert len(predictions) == 5
    assert float(states[-1]) == pytest.approx(numpy_chain(rule, start, zs, predict), abs=1e-12)


def test_the_true_noise_leads_back_to_the_action() -> None:
    """A perfect prediction for a single action: every rule ends at it, however noisy the way."""
    action, diffusion = 0.37, Diffusion(10)
    levels = diffusion.levels(torch.zeros(1, dtype=torch.float64))

    def perfect(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        abar = levels.abar[index.long() - 1]
        return (x - abar.sqrt() * action) / (1 - abar).sqrt()

    noise = GeneratorNoise(1, torch.Generator().manual_seed(0))
    start = torch.randn(64, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for rule in ("ancestral", "posterior", "jump", "ddim"):
        states, _ = diffusion.reverse(perfect, start, noise, rule)
        torch.testing.assert_close(states[-1], torch.full_like(start, action), atol=1e-6, rtol=0)


def test_bound_and_temperature() -> None:
    predict, x = (lambda x, t: torch.zeros_like(x)), torch.full((1, 1), 3.0)
    noise = lambda: ReplayedNoise(1, [torch.ones(1, 1)] * 3)
    free = Diffusion(3).reverse(predict, x, noise(), "ancestral", bound=None, temperature=0.0)[0][-1]
    assert float(free) == pytest.approx(3.0 / math.sqrt(float(Diffusion(3).levels(x).abar[-1])), rel=1e-4)
    wide = Diffusion(3).reverse(predict, x, noise(), "ancestral", bound=4.0, temperature=0.0)[0][-1]
    assert float(wide) == pytest.approx(4.0)


def two_modes(diffusion: Diffusion) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The best prediction of the noise, if actions are -0.6 (40 %) and 0.4 (60 %), each with deviation 0.05."""
    abars = diffusion.levels(torch.zeros(1)).abar
    centres, log_shares = torch.tensor([-0.6, 0.4]), torch.tensor([0.4, 0.6]).log()

    def predict(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        abar = abars[index.long() - 1]
        variance = abar * 0.05**2 + 1 - abar
        off = x - abar.sqrt() * centres
        share = (log_shares - off.square() / (2 * variance)).softmax(-1)
        mean = (share * (centres + abar.sqrt() * 0.05**2 / variance * off)).sum(-1, keepdim=True)
        return (x - abar.sqrt() * mean) / (1 - abar).sqrt()

    return predict


@pytest.mark.parametrize("rule", ["ancestral", "posterior", "direct", "ddim"])
def test_with_many_levels_every_chain_samples_the_data_and_with_five_it_blurs_them(rule: str) -> None:
    """Five levels end with a jump from noise of half the distance of the modes: a perfect network blurs them too."""
    near = {}
    for steps in (5, 50):
        noise, diffusion = GeneratorNoise(1, torch.Generator().manual_seed(0)), Diffusion(steps)
        x = diffusion.reverse(two_modes(diffusion), noise.actions((4000,)), noise, rule)[0][-1]
        near[steps] = [float(((x - center).abs() < 0.15).float().mean()) for center in (-0.6, 0.4)]
    assert near[50] == pytest.approx([0.4, 0.6], abs=0.025)
    assert sum(near[5]) < 0.75
