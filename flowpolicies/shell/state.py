"""State of training besides the networks: generators of random numbers, means of metrics, Adam's moments."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar, cast, final

import numpy as np
import torch
from torch import nn

from flowpolicies.core.adam import Moments, initial_moments
from flowpolicies.core.learner import LearnerState
from flowpolicies.core.types import Tree
from flowpolicies.policies import FlowPolicy

T = TypeVar("T")


class OwnsGenerator(Protocol):
    """An object with a random generator of its own."""

    generator: torch.Generator


Owners = Mapping[str, Callable[[], OwnsGenerator]]
"""Name -> function that returns the owner of a generator. It is called each time, because the owner may be replaced."""


@final
class Generators:
    """All random generators of training, as one object with a state dict, so that a resumed run continues exactly.

    Args:
        device: device of the generators that are created here.
        seeds: name -> seed of the generators that are created here.
        owners: name -> function that returns the owner of another generator, whose state is saved with them.
    """

    def __init__(self, device: torch.device, seeds: Mapping[str, int], owners: Owners) -> None:
        self._own = {name: torch.Generator(device=device).manual_seed(seed) for name, seed in seeds.items()}
        self._owners = dict(owners)

    def __getitem__(self, name: str) -> torch.Generator:
        return self._own[name]

    def _all(self) -> dict[str, torch.Generator]:
        return self._own | {name: owner().generator for name, owner in self._owners.items()}

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Name of each generator -> its state."""
        return {name: generator.get_state() for name, generator in self._all().items()}

    def load_state_dict(self, state: Mapping[str, torch.Tensor], strict: bool = True) -> None:
        """Restores what `state_dict` returned. States from another kind of device cannot be used and are skipped."""
        for name, generator in self._all().items():
            saved = state[name].cpu()
            if saved.shape == generator.get_state().shape:
                generator.set_state(saved)


def initial_state(policy: FlowPolicy, optimizer: torch.optim.Adam) -> LearnerState:
    """The policy's own weights, and zero moments that the optimiser holds and saves."""
    params, targets = _parameters(policy.networks), _parameters(policy.targets)
    moments = initial_moments(params)
    for name, tree in params.items():
        for key, parameter in tree.items():
            optimizer.state[parameter] = {part: getattr(moments, part)[name][key] for part in Moments._fields}
    return LearnerState(params, targets, moments)


def adopt_moments(state: LearnerState, optimizer: torch.optim.Optimizer) -> None:
    """Copies the moments that an optimiser has loaded into the learner's tensors, and gives these back to the
    optimiser."""
    for name, tree in state.params.items():
        for key, parameter in tree.items():
            for part in Moments._fields:
                own = getattr(state.moments, part)[name][key]
                own.copy_(optimizer.state[parameter][part])
                optimizer.state[parameter][part] = own


def _parameters(modules: nn.ModuleDict) -> Tree:
    return {name: dict(module.named_parameters()) for name, module in modules.items()}


def without_slices(parameters: T) -> T:
    """Nested dicts with a copy of each tensor that is a slice of a larger one, as in models that are trained together:
    `torch.save` would write the whole of it. Without slices, the dict itself."""
    found: Any
    if isinstance(parameters, torch.Tensor):
        found = parameters if parameters.untyped_storage().nbytes() == parameters.nbytes else parameters.clone()
        return cast(T, found)
    if not isinstance(parameters, Mapping):
        return parameters
    found = {key: without_slices(value) for key, value in parameters.items()}
    return parameters if all(found[key] is parameters[key] for key in found) else found


def spawn(seed: int | None, n: int) -> list[int]:
    """Independent seeds from one seed; None: from the operating system."""
    return [int(child.generate_state(1)[0]) for child in np.random.SeedSequence(seed).spawn(n)]


def global_generators() -> dict[str, Any]:
    """States of the global random generators of this process as plain data: Python's, NumPy's, PyTorch's."""
    version, words, gauss = random.getstate()
    state = {
        "python": {"version": version, "words": np.array(words, np.uint64), "gauss": gauss},
        "numpy": np.random.get_state(legacy=False),  # noqa: NPY002  # Environments of others draw from it.
        "torch": torch.get_rng_state().numpy(),
    }
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        state["cuda"] = [part.numpy() for part in torch.cuda.get_rng_state_all()]
    return state


def set_global_generators(state: Mapping[str, Any]) -> None:
    """Restores what `global_generators` returned. States of another number of GPUs are left out, with a warning."""
    python = state["python"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    np.random.set_state(state["numpy"])  # noqa: NPY002  # As above.
    torch.set_rng_state(torch.from_numpy(state["torch"].copy()))
    states = state.get("cuda", ())
    if len(states) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([torch.from_numpy(part.copy()) for part in states])
    elif states:
        warnings.warn(
            f"the states of the global random generators of {len(states)} GPUs are not restored, because this machine "
            f"has {torch.cuda.device_count()}. flowpolicies itself does not draw from them; an environment may.",
            stacklevel=2,
        )
