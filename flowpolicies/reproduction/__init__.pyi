"""Names of the package, each of which `__init__.py` imports when it is first used."""

from flowpolicies.reproduction.preset_files import Preset as Preset
from flowpolicies.reproduction.presets import list_presets as list_presets
from flowpolicies.reproduction.presets import load_preset as load_preset
