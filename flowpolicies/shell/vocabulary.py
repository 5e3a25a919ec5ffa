"""What the pickles in model zips and replay buffers may name: the classes of this package and of its plugins."""

from __future__ import annotations

from typing import Any

from flowpolicies.data.replay.episodes import Episodes
from flowpolicies.data.replay.goals import HindsightGoals
from flowpolicies.data.replay.relabelling import OnlineGoals
from flowpolicies.data.replay.store import Store
from flowpolicies.moved import MODULES
from flowpolicies.pickles import Known, UnknownName
from flowpolicies.plugins import import_package_of
from flowpolicies.samplers import SAMPLERS
from flowpolicies.shell.catalog import REGISTRY
from flowpolicies.shell.config import PolicyConfig, config_at, restore_config

MAX_ROWS = 1 << 28
"""Largest number of rows of a replay buffer that is read."""


def vocabulary() -> Known:
    """The vocabulary of now: plugins and notebooks may have registered classes."""
    return Known(
        filled=(PolicyConfig, Store, Episodes, HindsightGoals, OnlineGoals, *SAMPLERS.declared.values()),
        calls={(restore_config.__module__, restore_config.__qualname__): _restored},
        moved=MODULES,
        load=import_package_of,
        checks={Store: _check_store},
    )


def _restored(module: Any, name: Any, state: Any) -> PolicyConfig:
    """A config of a class that this process knows; nothing is imported but packages with entry points of ours."""
    if type(module) is not str or type(name) is not str or not isinstance(state, dict):
        raise ValueError("a config has no name or no fields")
    if config_at(module, name) is None:
        import_package_of(module)
        REGISTRY.import_built_in()
    cls = config_at(module, name)
    if cls is None:
        raise UnknownName(module, name)
    return restore_config(module, name, state)


def _check_store(state: Any) -> None:
    rows = [state[key] for key in ("capacity", "n_envs")]
    if not all(type(n) is int and n >= 1 for n in rows) or rows[0] * rows[1] > MAX_ROWS:
        raise ValueError(f"a replay buffer has room for more than {MAX_ROWS:,} rows")
