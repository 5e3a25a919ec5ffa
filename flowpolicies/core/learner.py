"""The learner: turns loss terms into one update of all networks.

The update is a function of weights, moments, a batch and draws. It runs eagerly by default, the gradient of each stage
can be compiled, and all of it can be vectorised over a leading seed axis that the loss terms do not see.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from flowpolicies.choices import CompileChoice, Precision, deprecated_backend
from flowpolicies.core.adam import Moments, adam_step, clip_by_global_norm, cosine_decay, flatten, sgd_step
from flowpolicies.core.compiling import Compiler
from flowpolicies.core.lanes import ALIKE, Lanes
from flowpolicies.core.matmul import products, widest
from flowpolicies.core.noise import Draw, Noise, RecordingNoise, ReplayedNoise, ZeroNoise
from flowpolicies.core.precision import check_precision, factors_of, rounded
from flowpolicies.core.types import Batch, Loss, Metrics, Tree
from flowpolicies.core.views import Config, LossTerm, Network, Networks, UpdateSpec, View

Draws = list[list[Tensor]]
"""The draws of one update, per stage, in the order in which the loss terms ask for them."""

DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (torch.float64, torch.float32, torch.float16)}
"""Name -> dtype of the sums of metrics."""

Stages = tuple[tuple[str, ...], ...]
"""Names of loss terms, per stage."""


class LearnerState(NamedTuple):
    """What an update changes, in place. With seeds, every tensor except Adam's step count has a leading seed axis."""

    params: Tree
    targets: Tree
    moments: Moments


@final
class Learner:
    """Turns loss terms into one update.

    Args:
        networks: modules by name; only their structure is used, the weights are part of the state.
        specs: the declaration of each network.
        terms: the loss terms of the algorithm, in the order in which they draw.
        cfg: the algorithm's configuration, which each term receives.
        action_dim: width of an action (chunk).
        clip_grad_norm: norm to which the joint gradient of all networks of a stage is clipped; None: no clipping.
        n_seeds: number of vectorised seeds, or None for a single run without a seed axis.
        lanes: what differs between vectorised seeds besides the state.
        compile: whether the gradient of a stage is compiled: True, False, "auto" (if that repays in the
            `updates_to_come` of the compiler), or a backend of `torch.compile`.
        precision: number type of matrix products.
        compile_backend: deprecated; a backend of `torch.compile`, or None.

    Raises:
        ValueError: if two loss terms share a name, for an unknown `compile` or `precision`, and if the device has no
            units for the precision.
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
        n_seeds: int | None = None,
        lanes: Lanes = ALIKE,
        compile: CompileChoice = False,
        precision: Precision = "fp32",
        compile_backend: str | Callable[..., Any] | None = None,
    ) -> None:
        self.networks, self.specs, self.cfg = dict(networks), dict(specs), cfg
        self.terms = {term.name: term for term in terms}
        if len(self.terms) < len(terms):
            raise ValueError(
                f"two loss terms share a name: {[term.name for term in terms]}. Rename one of the functions."
            )
        self.action_dim, self.clip_grad_norm = action_dim, clip_grad_norm
        self.n_seeds, self.lanes, self.precision = n_seeds, lanes, precision
        if compile_backend is not None:
            compile = deprecated_backend(compile_backend)
        parameters = [p for module in networks.values() for p in module.parameters()]
        self._width = widest(parameters)
        device = parameters[0].device if parameters else torch.device("cpu")
        check_precision(precision, device)
        self._factors = {name: factors_of(module) for name, module in networks.items()} if precision == "bf16" else {}
        self.compiler = None if compile is False else Compiler(compile, device, (precision, n_seeds, *networks))
        self._draws: dict[tuple[Stages, int], list[list[Draw]]] = {}

    def update(
        self, state: LearnerState, batch: Batch, draws: Draws, spec: UpdateSpec, learning_rate: Tensor
    ) -> Metrics:
        """One update, in place.

        Args:
            state: weights, target copies and moments, which are changed.
            batch: a minibatch.
            draws: what `draws` returned for this batch.
            spec: which terms are trained, in which stages, and which target copies are updated.
            learning_rate: scalar tensor `[]` of the networks without a learning rate of their own.

        Returns:
            Metrics named `term/quantity`, detached scalars (`[S]` with seeds).
        """
        # Weights that require gradients, as a policy's do, would make every loss build graphs that nobody reads.
        state = state._replace(params={name: _detached(tree) for name, tree in state.params.items()})
        self._copy_weights(state, spec.copy_weights)
        metrics: Metrics = {}
        for stage, slow, drawn in zip(self._stages(spec), self._target_updates(state, spec), draws, strict=True):
            grads, info = self.gradients(state, batch, drawn, stage)
            metrics |= info
            with torch.no_grad():
                # As in the JAX code of FQL, QAM and RQL, target copies move towards the weights before the step.
                if spec.targets_first:
                    self._update_targets(state, slow)
                self._apply(state, grads, self.trained(stage), learning_rate)
                if not spec.targets_first:
                    self._update_targets(state, slow)
        return metrics

    def gradients(
        self, state: LearnerState, batch: Batch, draws: list[Tensor], stage: tuple[str, ...]
    ) -> tuple[Tree, Metrics]:
        """Gradient (clipped, if asked) of the summed losses of a stage with respect to the networks it trains, and
        metrics."""
        size = batch.rewards.shape[-1]
        inputs = (state.params, state.targets, _updates(state.moments), batch, draws, self.lanes)
        with products(self.precision, size, self._width):
            if self.compiler is None:
                return self._gradients(stage, *inputs)
            grads, metrics = self.compiler(stage, size, self._gradients, inputs)
        if self.compiler.reuses_outputs:
            metrics = dict(zip(metrics, torch.stack(list(metrics.values())), strict=True))
        return grads, metrics

    def _gradients(
        self,
        stage: tuple[str, ...],
        params: Tree,
        targets: Tree,
        updates: Metrics,
        batch: Batch,
        draws: list[Tensor],
        lanes: Lanes,
    ) -> tuple[Tree, Metrics]:
        """The pure function behind `gradients`, which is compiled."""
        total = self._loss_of(stage, updates, partial(ReplayedNoise, self.action_dim))
        trained = {name: params[name] for name in self.trained(stage)}
        inputs = (params, targets, batch, draws, lanes)
        if torch.compiler.is_compiling():
            grads, metrics = self._over_seeds(grad(total, has_aux=True))(trained, *inputs)
        else:  # Autograd costs a quarter less per step than functorch, also around vmap.
            leaves = {n: {key: p.detach().requires_grad_() for key, p in tree.items()} for n, tree in trained.items()}
            loss, metrics = self._over_seeds(total)(leaves, *inputs)
            weights = flatten(leaves, list(leaves))
            found = iter(torch.autograd.grad(loss, weights, torch.ones_like(loss), materialize_grads=True))
            grads = {name: {key: next(found) for key in tree} for name, tree in leaves.items()}
        clipped, norms = self._over_seeds(self._clip)(grads)
        return clipped, metrics | norms

    def _over_seeds(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, vectorised over the leading seed axis of its arguments if there is one."""
        return function if self.n_seeds is None else vmap(function)

    def _loss_of(
        self, stage: Sequence[str], updates: Metrics, noise_of: Callable[[list[Tensor]], Noise]
    ) -> Callable[[Tree, Tree, Tree, Batch, list[Tensor], Lanes], Loss]:
        """The loss of a stage as a function of the weights that it trains, all weights, target copies, batch, draws,
        and what is special to a seed."""

        def total(trained: Tree, params: Tree, targets: Tree, batch: Batch, draws: list[Tensor], lane: Lanes) -> Loss:
            """The sum over the terms of the stage, `[]`, and the metrics of all of them."""
            if lane.buffers:
                trained, params, targets = map(lane.weights, (trained, params, targets))
            nets, noise = self._views(trained, params, targets, updates), noise_of(draws)
            cfg = lane.config(self.cfg) if lane.swept else self.cfg
            loss, metrics = torch.zeros((), dtype=torch.float32, device=batch.rewards.device), {}
            for name in stage:
                value, info = self.terms[name](nets, batch, noise, cfg)
                loss = loss + value
                metrics[f"{name}/loss"] = value.detach()
                metrics |= {f"{name}/{quantity}": scalar.detach() for quantity, scalar in info.items()}
            return loss, metrics

        return total

    def _views(self, trained: Tree, params: Tree, targets: Tree, updates: Metrics) -> Networks:
        online, frozen, target = (View.of(self.networks, self._rounded(tree)) for tree in (trained, params, targets))
        return Networks(online, frozen, target, updates)

    def _rounded(self, tree: Tree) -> Tree:
        """The weights as products take them."""
        return {name: rounded(tree[name], self._factors[name]) for name in tree} if self._factors else tree

    def trained(self, stage: Sequence[str]) -> tuple[str, ...]:
        """The networks that the terms of a stage train, each once, in the order of the terms."""
        return tuple(dict.fromkeys(name for term in stage for name in self.terms[term].trains))

    def _stages(self, spec: UpdateSpec) -> Stages:
        return (tuple(self.terms),) if spec.stages is None else spec.stages

    def _target_updates(self, state: LearnerState, spec: UpdateSpec) -> list[list[str]]:
        """Per stage, the networks whose target copy is updated in it."""
        stages = self._stages(spec)
        updated: list[list[str]] = [[] for _ in stages]
        for name in state.targets:
            if spec.target_updates is None or name in spec.target_updates:
                training = [number for number, stage in enumerate(stages) if name in self.trained(stage)]
                updated[max(training, default=-1)].append(name)
        return updated

    def _update_targets(self, state: LearnerState, names: Sequence[str]) -> None:
        for name in names:
            rate = self.specs[name].target_rate
            if rate is not None:
                torch._foreach_lerp_(list(state.targets[name].values()), list(state.params[name].values()), rate)

    def _copy_weights(self, state: LearnerState, pairs: Sequence[tuple[str, str]]) -> None:
        for destination, source in pairs:
            weights = state.targets.get(source, state.params[source])
            for tree in (state.params[destination], state.targets.get(destination, {})):
                for key, tensor in tree.items():
                    tensor.copy_(weights[key])

    def _clip(self, grads: Tree) -> tuple[Tree, Metrics]:
        """Clips jointly the networks without a clip of their own, and each other network alone.

        Returns:
            The clipped gradients, and the norms before clipping.
        """
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

    def _apply(self, state: LearnerState, grads: Tree, names: Sequence[str], learning_rate: Tensor) -> None:
        """One optimiser step. Networks with the same settings of the optimiser share one call."""
        groups: dict[tuple[Any, ...], list[str]] = {}
        for name in names:
            spec = self.specs[name]
            kind = (spec.optimizer, spec.learning_rate, spec.decay_updates, spec.weight_decay)
            groups.setdefault(kind, []).append(name)
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

    def draws(
        self, state: LearnerState, batch: Batch, spec: UpdateSpec, generators: Sequence[torch.Generator]
    ) -> Draws:
        """The draws of the next update.

        The loss terms are called once with a recording noise, which shows the draws that they ask for. From then on
        these are drawn here, outside the compiled update (docs/adr/0001).

        Args:
            state: weights and moments.
            batch: a batch of the size of the next one.
            spec: what the next update does.
            generators: one per seed.

        Raises:
            ValueError: if a stage uses the draws of a term that no earlier stage has.
        """
        stages = self._stages(spec)
        key = (stages, batch.rewards.shape[-1])
        if key not in self._draws:
            self._draws[key] = [self._record(state, batch, stage) for stage in stages]
        sampled: Draws = []
        for number, draws in enumerate(self._draws[key]):
            earlier = self._stage_to_repeat(stages, number)
            sampled.append([self._sample(d, generators) for d in draws] if earlier is None else sampled[earlier])
        return sampled

    def _sample(self, draw: Draw, generators: Sequence[torch.Generator]) -> Tensor:
        if self.n_seeds is None:
            return draw.sample(generators[0])
        return torch.stack([draw.sample(generator) for generator in generators])

    def _stage_to_repeat(self, stages: Stages, number: int) -> int | None:
        """Number of the earlier stage whose draws stage `number` uses again; None if it has draws of its own."""
        sources = {self.terms[term].same_draws_as for term in stages[number]}
        if sources == {None}:
            return None
        found = [i for i, earlier in enumerate(stages[:number]) if sources <= set(earlier)]
        if len(sources) > 1 or not found:
            raise ValueError(
                f"stage {stages[number]} uses the draws of {sources} again, but no earlier stage has that term. "
                "Put the term that same_draws_as names into an earlier stage."
            )
        return found[0]

    def _record(self, state: LearnerState, batch: Batch, stage: Sequence[str]) -> list[Draw]:
        """The draws that the terms of a stage ask for."""
        noise = RecordingNoise(ZeroNoise(self.action_dim, batch.rewards.device))
        total = self._over_seeds(self._loss_of(stage, _updates(state.moments), lambda _: noise))
        with torch.no_grad():
            total(state.params, state.params, state.targets, batch, [], self.lanes)
        return noise.draws


@final
class MetricMeans:
    """Means of metrics between two dumps of the log. Values stay tensors until the dump.

    Updates in a row that have the same metrics are added as one tensor, so that an update costs one addition.
    """

    def __init__(self) -> None:
        self.newest: Metrics = {}
        """The scalars of the newest update."""
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._names: tuple[str, ...] = ()
        self._row = self._newest_row = torch.empty(0, dtype=torch.float32)
        self._added = 0

    def add(self, metrics: Metrics) -> None:
        """Adds the scalars of one update."""
        self.newest, names = metrics, tuple(metrics)
        if not names:
            return
        self._newest_row = torch.stack(list(metrics.values()))
        if names != self._names:
            self._settle()
            zero = torch.zeros_like(self._newest_row[0])
            self._names, self._row = names, torch.stack([self._sums.get(name, zero) for name in names])
        self._row = self._row + self._newest_row
        self._added += 1

    def newest_values(self) -> list[float]:
        """The values of `newest` in its order. They are read at once, since each reading waits for the device."""
        values: list[float] = self._newest_row.tolist() if self.newest else []
        return values

    def _settle(self) -> None:
        """Writes the sums of the last updates to their names."""
        for name, total in zip(self._names, self._row, strict=False):
            self._sums[name] = total
            self._counts[name] = self._counts.get(name, 0) + self._added
        self._names, self._added = (), 0

    def pop(self) -> dict[str, float]:
        """Returns the means since the last call, and starts anew."""
        means = {key: total / count for key, (total, count, _) in self.state().items()}
        self._sums, self._counts = {}, {}
        return means

    def state(self) -> dict[str, tuple[float, int, str]]:
        """Sum, number of values and dtype of each metric since the last dump, as plain data without loss."""
        self._settle()
        totals = torch.stack(list(self._sums.values())).tolist() if self._sums else []
        return {
            key: (total, self._counts[key], str(self._sums[key].dtype).removeprefix("torch."))
            for key, total in zip(self._sums, totals, strict=True)
        }

    def restore(self, state: Mapping[str, tuple[float, int, str]], device: torch.device) -> None:
        """Goes on from what `state` returned."""
        self._sums = {
            key: torch.tensor(total, dtype=DTYPES[dtype], device=device) for key, (total, _, dtype) in state.items()
        }
        self._counts = {key: count for key, (_, count, _) in state.items()}
        self._names, self._added = (), 0


def _detached(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor.detach() for key, tensor in weights.items()}


def _updates(moments: Moments) -> Metrics:
    """Number of optimiser steps of each network so far, `[]`."""
    return {name: next(iter(step.values())) for name, step in moments.step.items() if step}
