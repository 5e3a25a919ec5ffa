"""Checks of files before they are loaded as models."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from stable_baselines3.common.policies import BasePolicy

from flowpolicies.plugins import home_of
from flowpolicies.policies import FlowPolicy


def check_model_file(path: Any) -> Any:
    """The path, unchanged, unless its file is not a model.

    Raises:
        ValueError: if there is a file that `save` did not write, or a damaged one.
    """
    places = (Path(path), Path(f"{path}.zip")) if isinstance(path, str | Path) else ()
    file = next(filter(Path.is_file, places), None)
    if file is not None:
        try:
            with zipfile.ZipFile(file) as archive:
                # A truncated file may still end with a complete zip, that of the weights, which has no "data".
                archive.getinfo("data")
        except (zipfile.BadZipFile, KeyError) as error:
            raise ValueError(f"'{file}' is damaged, or is not a model that model.save() wrote.") from error
    return path


def check_owner(who: str, config: type[Any], saved_config: type[Any], policy_class: type[BasePolicy]) -> None:
    """Checks that a loaded file holds a model of the class that loads it.

    Args:
        who: name of the class that loads it.
        config: Config of that class.
        saved_config: type of the config in the file.
        policy_class: class of the policy in the file.

    Raises:
        ValueError: if the file holds another algorithm's model.
    """
    if not issubclass(policy_class, FlowPolicy):
        raise ValueError(
            f"{who} acts with FlowPolicy, got {policy_class.__name__}. Load a model of another "
            "package with the load() of its own class."
        )
    if home_of(saved_config) != home_of(config):
        owner = saved_config.__name__.removesuffix("Config")
        raise ValueError(f"the file holds a model of {owner}, not of {who}. Load it with {owner}.load().")
