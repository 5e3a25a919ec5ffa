"""Updates of several models together: vectorised over a leading axis that their losses do not see, or in turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from flowpolicies.algorithms import OfflineAlgorithm
from flowpolicies.core.adam import Moments
from flowpolicies.core.lanes import Lanes
from flowpolicies.core.learner import LearnerState
from flowpolicies.core.matmul import widest
from flowpolicies.core.types import Tree
from flowpolicies.core.views import set_mode
from flowpolicies.data.replay.sampling import sample_together
from flowpolicies.training.seeds.variants import cannot_be_swept

LARGEST = 16384
"""Rows of a batch times units of the widest layer up to which vectorised updates are faster on a CPU: there, calls of
torch take longer than their arithmetic. Larger tensors of all models together do not fit its cache."""


def update_together(models: Sequence[OfflineAlgorithm], swept: Sequence[str] = ()) -> Vectorized | InTurn:
    """The faster way to update several models together: vectorised on a GPU, when compiled, and for small networks.

    Args:
        models, swept: as of `Vectorized`.
    """
    first = models[0]
    is_small = first.batch_size * widest(first.policy.networks.parameters()) <= LARGEST
    if is_small or first.device.type != "cpu" or first.compile is not False:
        return Vectorized(models, swept)
    return InTurn(models)


@final
class InTurn:
    """Trains several models one after the other, an update of each at a time."""

    def __init__(self, models: Sequence[OfflineAlgorithm]) -> None:
        self.models = list(models)

    def train(self) -> None:
        """One update of every model, on a batch of its own."""
        for model in self.models:
            model.train(gradient_steps=1, batch_size=model.batch_size)

    def release(self) -> None:
        """Does nothing: each model has its own tensors."""


@final
class Vectorized:
    """Trains several models of one algorithm at once, each as `OfflineAlgorithm.train` trains it alone.

    Weights, target copies and moments of all models become common tensors, and those of each model slices of them, so
    that every model is up to date at any time: it can act, and be saved. Each model has its own batches and noise.

    Args:
        models: models after equally many updates, of one algorithm, that differ in seeds and swept fields only.
        swept: fields of the config that differ between the models.

    Raises:
        ValueError: if a swept field decides which code of a loss runs.
    """

    def __init__(self, models: Sequence[OfflineAlgorithm], swept: Sequence[str] = ()) -> None:
        self.models, self.swept = list(models), tuple(swept)
        first, states = models[0], [model._state for model in models]
        moments = [state.moments for state in states]
        self.state = LearnerState(
            _stack([state.params for state in states]),
            _stack([state.targets for state in states]),
            Moments(
                {name: {key: step.clone() for key, step in tree.items()} for name, tree in moments[0].step.items()},
                _stack([part.exp_avg for part in moments]),
                _stack([part.exp_avg_sq for part in moments]),
            ),
        )
        for number, model in enumerate(models):
            _set_tensors(model, self.state, number)
        lanes = Lanes(_differing_buffers(models), _values(models, swept))
        self.learner = first._make_learner(n_seeds=len(models), lanes=lanes)

    def train(self) -> None:
        """One update of every model, on a batch of its own."""
        first = self.models[0]
        for model in self.models:
            model.transitions.updates = model._n_updates
        batch = sample_together([model.transitions for model in self.models], first.batch_size)
        spec = first.cfg.update_spec(first._n_updates)
        if any(model.cfg.update_spec(model._n_updates) != spec for model in self.models if self.swept):
            raise cannot_be_swept(", ".join(self.swept), "it selects what an update does, from this update on")
        set_mode(first.policy, True)
        learning_rate = first.lr_schedule(first._current_progress_remaining)
        first._rate.fill_(learning_rate)  # A new tensor would make the host wait for the GPU.
        if self.learner.compiler is not None:
            self.learner.compiler.updates_to_come = first._updates_to_come(1)
        draws = self.learner.draws(self.state, batch, spec, [model.generators["noise"] for model in self.models])
        metrics = self.learner.update(self.state, batch, draws, spec, first._rate)
        columns = [values.unbind() for values in metrics.values()]
        for model, values in zip(self.models, zip(*columns, strict=True), strict=True):
            model.optimizer.param_groups[0]["lr"] = learning_rate
            model._means.add(dict(zip(metrics, values, strict=True)))
            model._n_updates += 1
            model._record_newest(learning_rate)

    def release(self) -> None:
        """Gives each model tensors of its own."""
        for number, model in enumerate(self.models):
            _set_tensors(model, self.state, number, copy=True)


def check_sweep(models: Sequence[OfflineAlgorithm], swept: Sequence[str]) -> None:
    """Raises a ValueError for a swept field that decides which code of a loss runs. The models stay as they are."""
    for name in swept:
        together = Vectorized(models, [name])
        generators = [model.transitions.generator for model in models]
        states = [generator.get_state() for generator in generators]
        batch = sample_together([model.transitions for model in models], models[0].batch_size)
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        try:
            together.learner._record(together.state, batch, list(together.learner.terms))
        except (RuntimeError, TypeError) as error:
            reason = f"a loss decides by it which code runs ({str(error).splitlines()[0]:.100})"
            raise cannot_be_swept(name, reason) from error
        finally:
            together.release()


def _set_tensors(model: OfflineAlgorithm, state: LearnerState, number: int, *, copy: bool = False) -> None:
    """Makes the tensors of a model slices of the common ones, or with `copy` copies of these slices."""
    own = model._state
    for mine, common in ((own.params, state.params), (own.targets, state.targets)):
        for name, tree in mine.items():
            for key, parameter in tree.items():
                parameter.data = _slice(common[name][key], number, copy)
    for name, tree in own.params.items():
        for key, parameter in tree.items():
            step, first, second = (part[name][key] for part in state.moments)
            held = (step.clone() if copy else step, _slice(first, number, copy), _slice(second, number, copy))
            for part, tensor in zip(Moments._fields, held, strict=True):
                getattr(own.moments, part)[name][key] = model.optimizer.state[parameter][part] = tensor


def _slice(common: Tensor, number: int, copy: bool) -> Tensor:
    return common[number].clone() if copy else common[number]


def _stack(trees: Sequence[Tree]) -> Tree:
    first = trees[0]
    return {
        name: {key: torch.stack([tree[name][key].detach() for tree in trees]) for key in first[name]} for name in first
    }


def _differing_buffers(models: Sequence[OfflineAlgorithm]) -> Tree:
    """Constants of the networks that differ between the models, such as random frequencies; `[S, ...]`."""
    found = _stack(
        [{name: dict(net.named_buffers()) for name, net in model.policy.networks.items()} for model in models]
    )
    differ = {
        name: {key: value for key, value in tree.items() if not (value == value[:1]).all()}
        for name, tree in found.items()
    }
    return differ if any(differ.values()) else {}


def _values(models: Sequence[OfflineAlgorithm], swept: Sequence[str]) -> dict[str, Tensor]:
    """Values of the swept fields of the config, `[S]`."""
    return {
        name: torch.tensor([getattr(model.cfg, name) for model in models], dtype=torch.float32, device=models[0].device)
        for name in swept
        if name in type(models[0])._fields
    }
