"""Reproducing published results: presets, published tables, jobs, and the demo."""

from flowpolicies.reproduction.preset_files import Preset as Preset
from flowpolicies.reproduction.presets import list_presets as list_presets
from flowpolicies.reproduction.presets import load_preset as load_preset
