"""What a file must be to be loaded as a model."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowpolicies.policies import FlowPolicy
from flowpolicies.shell.registry import ALGORITHMS

if TYPE_CHECKING:
    from flowpolicies.shell.algorithm import OfflineAlgorithm


def check_model_file(path: Any) -> Any:
    """The path, as it was given.

    Raises:
        ValueError: if there is a file, and it is not what `save` writes.
    """
    places = (Path(path), Path(f"{path}.zip")) if isinstance(path, str | Path) else ()
    file = next(filter(Path.is_file, places), None)
    if file is not None:
        try:
            with zipfile.ZipFile(file) as archive:
                archive.getinfo("data")  # In a file that was cut off, zipfile may find a whole zip: that of weights.
        except (zipfile.BadZipFile, KeyError) as error:
            raise ValueError(f"'{file}' is damaged, or is not a model that model.save() wrote.") from error
    return path


def check_owner(model: OfflineAlgorithm) -> None:
    """Raises a ValueError if the file that was loaded holds another algorithm's model."""
    if not issubclass(model.policy_class, FlowPolicy):
        raise ValueError(
            f"{type(model).__name__} acts with FlowPolicy, got {model.policy_class.__name__}. A file of another "
            "package's algorithm is loaded with the load() of its own class."
        )
    if type(model.cfg) is not model.Config:
        owners = [cls.__name__ for cls in ALGORITHMS.values() if cls.Config is type(model.cfg)]
        name = owners[0] if owners else type(model.cfg).__name__
        raise ValueError(
            f"the file holds a model of {name}, not of {type(model).__name__}. Load it with {name}.load()."
        )
