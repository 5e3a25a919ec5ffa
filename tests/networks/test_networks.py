"""Networks: numbers of the reference, shapes, ensembles, encoders."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from flowpolicies.core import View
from flowpolicies.networks import (
    MLP,
    Critic,
    Encoded,
    GaussianNetwork,
    ObservationEncoder,
    ObservationPart,
    TanhNormal,
    Value,
    VelocityField,
    embed_time,
)
from flowpolicies.networks.encoders import _Stack
from flowpolicies.networks.mlp import Dense, LayerNorm, gelu
from flowpolicies.samplers.compose import repeat


def test_gelu_is_flax_s() -> None:
    assert float(gelu(torch.tensor(1.0))) == pytest.approx(0.841192, abs=1e-6)
    x = torch.linspace(-8, 8, 1001)
    torch.testing.assert_close(gelu(x), F.gelu(x, approximate="tanh"), atol=1e-6, rtol=0)


def test_dense_is_xavier_uniform_per_member_with_zero_bias() -> None:
    layer = Dense(100, 60, ensemble=3)
    bound = math.sqrt(6 / 160)
    assert layer.weight.shape == (3, 100, 60)
    for member in layer.weight.detach():
        assert float(member.abs().max()) <= bound
        assert float(member.std()) == pytest.approx(bound / math.sqrt(3), rel=0.03)
    assert not layer.bias.any()
    assert float(Dense(100, 60, scale=0.01).weight.detach().abs().max()) <= 0.1 * bound


def test_layer_norm_uses_epsilon_1e_6() -> None:
    x = torch.tensor([[0.0, 2e-3]])
    expected = (x - 1e-3) / math.sqrt(1e-6 + 1e-6)
    torch.testing.assert_close(LayerNorm(2)(x), expected)
    torch.testing.assert_close(LayerNorm(2, ensemble=2)(x.expand(2, 1, 2))[1], expected)


def test_norm_comes_after_the_activation_and_not_on_the_output() -> None:
    net = MLP(3, (8, 8), 2, layer_norm=True)
    x = torch.randn(5, 3)
    h = net.norms[0](gelu(net.layers[0](x)))
    h = net.norms[1](gelu(net.layers[1](h)))
    torch.testing.assert_close(net(x), net.output(h))
    assert MLP(3, (8,), None)(x).shape == (5, 8)


def test_ensemble_equals_its_members() -> None:
    critic = Critic(3, 2, hidden_dims=(16, 8), ensemble=4)
    s, a = torch.randn(5, 7, 3), torch.randn(5, 7, 2)
    q = critic(s, a)
    assert q.shape == (4, 5, 7)
    for i in range(4):
        single = Critic(3, 2, hidden_dims=(16, 8), ensemble=1)
        single.load_state_dict({key: tensor[i : i + 1] for key, tensor in critic.state_dict().items()})
        torch.testing.assert_close(single(s, a)[0], q[i], atol=1e-6, rtol=1e-5)
    assert len({float(layer[0, 0]) for layer in critic.net.layers[0].weight.detach()}) == 4


def test_shapes_of_the_other_heads() -> None:
    s, a, t = torch.randn(4, 3), torch.randn(4, 2), torch.rand(4, 1)
    assert Value(3, 2, hidden_dims=(8,))(s).shape == (4,)
    assert VelocityField(3, 2, hidden_dims=(8,))(s, a, t).shape == (4, 2)
    assert VelocityField(3, 2, hidden_dims=(8,), time_embedding="none")(s, a).shape == (4, 2)
    assert Critic(3, 2, hidden_dims=(8,), time_embedding="fourier", time_dim=16)(s, a, t).shape == (2, 4)


def test_fourier_features_run_from_frequency_1_to_256() -> None:
    t = torch.tensor([[0.3]])
    phi = embed_time(t, "fourier", 8)
    w = np.exp(np.linspace(0, np.log(256), 4))
    np.testing.assert_allclose(phi[0], np.concatenate([np.sin(0.3 * w), np.cos(0.3 * w)]), atol=1e-4)
    assert torch.equal(embed_time(t, "scalar"), t)
    with pytest.raises(ValueError, match="time_dim must be even and at least 4"):
        Critic(3, 2, time_embedding="fourier", time_dim=7)


def test_gaussian_head() -> None:
    mean, log_std = GaussianNetwork(3, 2, hidden_dims=(8,))(torch.randn(4, 3))
    assert mean.shape == log_std.shape == (4, 2)
    assert not log_std.any()
    head = GaussianNetwork(
        3, 2, hidden_dims=(8,), state_dependent_std=True, tanh_mean=True, log_std_bounds=(-0.01, 0.01)
    )
    mean, log_std = head(100 * torch.randn(4, 3))
    assert mean.abs().max() <= 1
    assert log_std.abs().max() <= 0.01


def test_tanh_normal_log_probability_matches_torch_and_stays_finite() -> None:
    torch.manual_seed(0)
    head = TanhNormal(3, 2, hidden_dims=(8,))
    s, eps = torch.randn(4, 3), torch.randn(4, 2)
    sample, log_prob = head(s, eps)
    features = head.trunk(s)
    base = torch.distributions.Normal(head.mean(features), head.log_std(features).clamp(-20, 2).exp())
    expected = torch.distributions.TransformedDistribution(base, torch.distributions.TanhTransform())
    torch.testing.assert_close(log_prob, expected.log_prob(sample).sum(-1), atol=1e-3, rtol=1e-3)
    assert head(s, 100 * eps)[1].isfinite().all()


def test_max_pooling_pads_below_and_right_only() -> None:
    stack = _Stack(1, 1, blocks=0)
    torch.nn.init.dirac_(stack.entry.weight)
    torch.nn.init.zeros_(stack.entry.bias)
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    torch.testing.assert_close(stack(x)[0, 0], torch.tensor([[10.0, 11.0], [14.0, 15.0]]))
    assert stack(torch.zeros(1, 1, 5, 7)).shape == (1, 1, 3, 4)


def test_encoder_of_pixels_and_dicts() -> None:
    encoder = ObservationEncoder([ObservationPart((3, 64, 64), True), ObservationPart((5,), False)])
    assert encoder.out_dim == 512 + 5
    assert encoder.images[0].output.weight.shape == (2048, 512)
    flat = torch.rand(2, 3, 3 * 64 * 64 + 5)
    features = encoder(flat)
    assert features.shape == (2, 3, 517)
    torch.testing.assert_close(features[..., 512:], flat[..., -5:])
    images = torch.randint(0, 256, (2, 48), dtype=torch.uint8)
    assert ObservationEncoder([ObservationPart((3, 4, 4), True)], "impala_debug")(images).shape == (2, 512)
    with pytest.raises(ValueError, match="unknown encoder 'impal'"):
        ObservationEncoder([ObservationPart((3, 4, 4), True)], "impal")


@pytest.mark.parametrize("compiled", [False, True])
def test_expanded_observations_are_encoded_once(compiled: bool) -> None:
    torch.manual_seed(0)
    encoder = ObservationEncoder([ObservationPart((3, 8, 8), True), ObservationPart((2,), False)], "impala_debug")
    network = Encoded(encoder, Critic(encoder.out_dim, 2, hidden_dims=(8,)))
    encoded = []
    encoder.images[0].register_forward_pre_hook(lambda _, inputs: encoded.append(len(inputs[0])))
    s, a = torch.rand(4, 194), torch.randn(4, 5, 2)
    repeated, copied = repeat(s, 5), repeat(s, 5).contiguous()

    def loss(observations: Tensor) -> Tensor:
        return network(observations, a).square().mean()

    run = torch.compile(loss, backend="aot_eager") if compiled else loss
    found, expected = run(repeated), loss(copied)
    torch.testing.assert_close(found, expected)
    assert encoded == [4, 20]
    gradients = [torch.autograd.grad(value, list(network.parameters())) for value in (found, expected)]
    torch.testing.assert_close(*gradients)


def test_given_encodes_once_and_changes_nothing() -> None:
    encoder = ObservationEncoder([ObservationPart((3, 8, 8), True)], "impala_debug")
    network = Encoded(encoder, VelocityField(encoder.out_dim, 2, hidden_dims=(8,)))
    calls = []
    encoder.register_forward_hook(lambda *_: calls.append(1))
    s, x, t = torch.rand(4, 192), torch.randn(4, 2), torch.rand(4, 1)
    for weights in (None, {"net": dict(network.named_parameters())}):
        view = View.of({"net": network}, weights)
        expected = view.net(s, x, t)
        calls.clear()
        field = view.net.given(s)
        for _ in range(3):
            torch.testing.assert_close(field(x, t), expected)
        assert len(calls) == 1


@pytest.mark.parametrize("options", [{}, {"layer_norm": True}, {"time_embedding": "fourier"}, {"activation": "relu"}])
def test_a_field_at_given_observations_is_the_same_function(options: dict) -> None:
    network = VelocityField(3, 2, hidden_dims=(8, 8), **options)
    other = {name: (2 * value).detach().requires_grad_() for name, value in network.named_parameters()}
    s, x, t = torch.randn(4, 3), torch.randn(4, 2), torch.rand(4, 1)
    for view in (View.of({"net": network}), View.of({"net": network}, {"net": other})):
        found, expected = view.net.given(s)(x, t), view.net(s, x, t)
        assert torch.equal(found, expected)
        weights = list(network.parameters() if view.net.weights is None else other.values())
        torch.testing.assert_close(*(torch.autograd.grad(y.sum(), weights) for y in (found, expected)))


def test_a_layer_that_was_replaced_is_called() -> None:
    class Adapted(torch.nn.Module):
        def __init__(self, layer: torch.nn.Module) -> None:
            super().__init__()
            self.layer, self.adapter = layer, torch.nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) + self.adapter(x)

    network = VelocityField(3, 2, hidden_dims=(8, 8))
    s, x, t = torch.randn(4, 3), torch.randn(4, 2), torch.rand(4, 1)
    before = network.function()(s, x, t)
    network.net.layers[1] = Adapted(network.net.layers[1])
    assert torch.equal(network.function()(s, x, t), network(s, x, t))
    assert not torch.equal(network.function()(s, x, t), before)
