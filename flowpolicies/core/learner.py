"""Loss terms in, one update out.

The update is a function of weights, moments, a batch and draws: eager by default, one graph when compiled, and
vectorised over a leading seed axis without the losses knowing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from flowpolicies.core.adam import Moments, adam_step, flatten, sgd_step
from flowpolicies.core.noise import Draw, RecordingNoise, ReplayedNoise, ZeroNoise
from flowpolicies.core.terms import LossTerm, Step
from flowpolicies.core.types import Batch, Metrics, Tree
from flowpolicies.core.views import Config, Network, Networks, View

Draws = list[list[Tensor]]
"""The draws of one update, per stage, in the order in which the loss terms ask for them."""


class LearnerState(NamedTuple):
    """What an update changes, in place. With seeds, every tensor but Adam's step count has a leading seed axis."""

    params: Tree
    targets: Tree
    moments: Moments


@final
class Learner:
    """Turns loss terms into one update.

    Args:
        networks: modules by name; only their structure is used, the weights come with the state.
        specs: the declaration of each network.
        terms: the loss terms of the algorithm, in the order in which they draw.
        cfg: the algorithm's configuration, handed to each term.
        action_dim: width of an action (chunk).
        clip_grad_norm: clip the joint gradient of a stage, over the union of all parameters that it trains, to this
            norm; None: no clipping.
        compile_backend: a `torch.compile` backend, or None for eager execution.
        n_seeds: number of vectorised seeds, or None for a single run without a seed axis.
    """

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        specs: Mapping[str, Network],
        terms: Sequence[LossTerm],
        cfg: Config,
        *,
        action_dim: int,
        clip_grad_norm: float | None = None,
        compile_backend: str | None = None,
        n_seeds: int | None = None,
    ) -> None:
        self.networks, self.specs, self.cfg = dict(networks), dict(specs), cfg
        self.terms = {term.name: term for term in terms}
        if len(self.terms) < len(terms):
            raise ValueError(
                f"two loss terms share a name: {[term.name for term in terms]}. Rename one of the functions."
            )
        self.action_dim, self.clip_grad_norm = action_dim, clip_grad_norm
        self.compile_backend, self.n_seeds = compile_backend, n_seeds
        self.uses_functorch = compile_backend is not None or n_seeds is not None
        self._updates: dict[Step, Callable[..., Metrics]] = {}
        self._draws: dict[tuple[Step, int], list[list[Draw]]] = {}

    def draws(self, state: LearnerState, batch: Batch, step: Step, generators: Sequence[torch.Generator]) -> Draws:
        """The draws of the next update, one owned generator per seed."""
        step = step._replace(copies=())
        key = (step, batch.rewards.shape[-1])
        if key not in self._draws:
            self._draws[key] = [self._record(state, batch, stage) for stage in step.stages]
        sampled: Draws = []
        for number, draws in enumerate(self._draws[key]):
            again = self._redrawn(step, number)
            sampled.append([self._sample(draw, generators) for draw in draws] if again is None else sampled[again])
        return sampled

    def _sample(self, draw: Draw, generators: Sequence[torch.Generator]) -> Tensor:
        if self.n_seeds is None:
            return draw.sample(generators[0])
        return torch.stack([draw.sample(generator) for generator in generators])

    def _redrawn(self, step: Step, number: int) -> int | None:
        """The stage whose draws this one sees again, if its terms say so."""
        stage = step.stages[number]
        sources = {self.terms[term].redraws for term in stage}
        if sources == {None}:
            return None
        found = [i for i, earlier in enumerate(step.stages[:number]) if sources <= set(earlier)]
        if len(sources) > 1 or not found:
            raise ValueError(f"{stage} is to see the draws of {sources} again, which is no term of an earlier stage")
        return found[0]

    def _record(self, state: LearnerState, batch: Batch, stage: Sequence[str]) -> list[Draw]:
        params, targets = state.params, state.targets
        if self.n_seeds is not None:
            params, targets, batch = _first(params), _first(targets), Batch(*(column[0] for column in batch))
        noise = RecordingNoise(ZeroNoise(self.action_dim, batch.rewards.device))
        with torch.no_grad():
            self._losses(self._views(params, params, targets, state.moments), batch, noise, stage)
        return noise.draws

    def update(self, state: LearnerState, batch: Batch, draws: Draws, step: Step, learning_rate: Tensor) -> Metrics:
        """One update in place: per stage gradients, target copies moved with the weights before the step, then Adam.

        Returns:
            Metrics named `term/quantity`, detached scalars (`[S]` with seeds).
        """
        self._copy(state, step.copies)
        step = step._replace(copies=())
        if step not in self._updates:
            run: Callable[..., Metrics] = partial(self._update, step, self._moving(list(state.targets), step))
            if self.compile_backend is not None:
                run = torch.compile(run, backend=self.compile_backend, fullgraph=True, dynamic=False)
            self._updates[step] = run
        return self._updates[step](state, batch, draws, learning_rate)

    def _update(
        self,
        step: Step,
        moving: Sequence[Sequence[str]],
        state: LearnerState,
        batch: Batch,
        draws: Draws,
        learning_rate: Tensor,
    ) -> Metrics:
        metrics: Metrics = {}
        for number, stage in enumerate(step.stages):
            names = self.trained(stage)
            grads, info = self.gradients(state, batch, draws[number], stage)
            metrics |= info
            with torch.no_grad():
                if step.lagged:
                    self._move_targets(state, moving[number])
                self._apply(state, grads, names, learning_rate)
                if not step.lagged:
                    self._move_targets(state, moving[number])
        return metrics

    def _moving(self, slow: Sequence[str], step: Step) -> list[list[str]]:
        """Per stage the networks, of those with a target copy, whose copy moves."""
        moving: list[list[str]] = [[] for _ in step.stages]
        for name in slow:
            if step.moves is None or name in step.moves:
                trained = [i for i, stage in enumerate(step.stages) if name in self.trained(stage)]
                moving[max(trained, default=-1)].append(name)
        return moving

    def _copy(self, state: LearnerState, copies: Sequence[tuple[str, str]]) -> None:
        for to, source in copies:
            weights = state.targets.get(source, state.params[source])
            for tree in (state.params[to], state.targets.get(to, {})):
                for key, tensor in tree.items():
                    tensor.copy_(weights[key])

    def gradients(
        self, state: LearnerState, batch: Batch, draws: list[Tensor], stage: Sequence[str]
    ) -> tuple[Tree, Metrics]:
        """Gradient of the summed losses of a stage with respect to what they train (clipped, if asked), and metrics."""

        def differentiate(params: Tree, targets: Tree, batch: Batch, draws: list[Tensor]) -> tuple[Tree, Metrics]:
            def total(trained: Tree) -> tuple[Tensor, Metrics]:
                nets = self._views(trained, params, targets, state.moments)
                return self._losses(nets, batch, ReplayedNoise(self.action_dim, draws), stage)

            grads, metrics = self._differentiate(total, {name: params[name] for name in self.trained(stage)})
            clipped, norms = self._clip(grads)
            return clipped, metrics | norms

        run = differentiate if self.n_seeds is None else vmap(differentiate)
        return run(state.params, state.targets, batch, draws)

    def _differentiate(self, total: Callable[[Tree], tuple[Tensor, Metrics]], trained: Tree) -> tuple[Tree, Metrics]:
        """The gradient; by autograd for a single eager run, which costs a quarter less per step than functorch."""
        if self.uses_functorch:
            return grad(total, has_aux=True)(trained)  # type: ignore[no-any-return]
        leaves = {name: {key: p.detach().requires_grad_() for key, p in tree.items()} for name, tree in trained.items()}
        loss, metrics = total(leaves)
        found = iter(torch.autograd.grad(loss, flatten(leaves, list(leaves)), materialize_grads=True))
        return {name: {key: next(found) for key in tree} for name, tree in leaves.items()}, metrics

    def _clip(self, grads: Tree) -> tuple[Tree, Metrics]:
        """The joint clip over all networks without one of their own, and the latter; with the norms before."""
        norms: Metrics = {}
        shares = {name: spec.clip_grad_norm is None and spec.optimizer == "adam" for name, spec in self.specs.items()}
        joint = {name: tree for name, tree in grads.items() if shares[name]}
        if self.clip_grad_norm is not None and joint:
            joint, norms["grad/norm"] = clip_by_global_norm(joint, self.clip_grad_norm)
        clipped = grads | joint
        for name in grads:
            own = self.specs[name].clip_grad_norm
            if own is not None:
                alone, norms[f"grad/{name}_norm"] = clip_by_global_norm({name: grads[name]}, own)
                clipped |= alone
        return clipped, norms

    def trained(self, stage: Sequence[str]) -> tuple[str, ...]:
        """The networks that the terms of a stage train, each once, in order."""
        return tuple(dict.fromkeys(name for term in stage for name in self.terms[term].trains))

    def _views(self, trained: Tree, params: Tree, targets: Tree, moments: Moments) -> Networks:
        online, frozen, target = (View.of(self.networks, weights) for weights in (trained, params, targets))
        updates = {name: next(iter(step.values())) for name, step in moments.step.items() if step}
        return Networks(online, frozen, target, updates)

    def _losses(
        self, nets: Networks, batch: Batch, noise: RecordingNoise | ReplayedNoise, stage: Sequence[str]
    ) -> tuple[Tensor, Metrics]:
        total, metrics = torch.zeros((), device=batch.rewards.device), {}
        for name in stage:
            loss, info = self.terms[name](nets, batch, noise, self.cfg)
            total = total + loss
            metrics[f"{name}/loss"] = loss.detach()
            metrics |= {f"{name}/{quantity}": value.detach() for quantity, value in info.items()}
        return total, metrics

    def _move_targets(self, state: LearnerState, names: Sequence[str]) -> None:
        for name in names:
            rate = self.specs[name].target_rate
            if rate is not None:
                torch._foreach_lerp_(list(state.targets[name].values()), list(state.params[name].values()), rate)

    def _apply(self, state: LearnerState, grads: Tree, names: Sequence[str], learning_rate: Tensor) -> None:
        """One call per way of optimising, so that most networks share one."""
        groups: dict[tuple[Any, ...], list[str]] = {}
        for name in names:
            spec = self.specs[name]
            way = (spec.optimizer, spec.learning_rate, spec.decay_updates, spec.weight_decay)
            groups.setdefault(way, []).append(name)
        for (optimizer, own, decay_updates, weight_decay), group in groups.items():
            rate = learning_rate if own is None else torch.full_like(learning_rate, own)
            if decay_updates is not None:
                done = next(iter(state.moments.step[group[0]].values()))
                rate = rate * cosine_decay(done, decay_updates)
            if weight_decay:
                torch._foreach_mul_(flatten(state.params, group), 1 - rate * weight_decay)
            if optimizer == "adam":
                adam_step(state.params, grads, state.moments, rate, group)
            else:
                sgd_step(state.params, grads, state.moments, rate, group)


def cosine_decay(done: Tensor, updates: int) -> Tensor:
    """(1 + cos(pi min(k, K) / K)) / 2 after k of K updates; optax's rule."""
    return 0.5 * (1 + torch.cos(math.pi * (done / updates).clamp(max=1.0)))


def clip_by_global_norm(grads: Tree, max_norm: float) -> tuple[Tree, Tensor]:
    """Scales gradients to at most `max_norm` over all of them together, and returns their norm before; optax's rule."""
    norm = torch.stack([g.square().sum() for g in flatten(grads, list(grads))]).sum().sqrt()
    scale = (max_norm / norm).clamp(max=1.0)
    return {name: {key: g * scale for key, g in tree.items()} for name, tree in grads.items()}, norm


def _first(tree: Tree) -> Tree:
    return {name: {key: tensor[0] for key, tensor in weights.items()} for name, weights in tree.items()}
