"""Names of the package, each of which `__init__.py` imports when it is first used."""

from flowpolicies.importing.flax import Imported as Imported
from flowpolicies.importing.flax import import_flax as import_flax
from flowpolicies.importing.flax import importable as importable
from flowpolicies.importing.unpickling import read_pickle as read_pickle
