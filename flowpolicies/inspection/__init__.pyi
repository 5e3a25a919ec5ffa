"""Names of the package, each of which `__init__.py` imports when it is first used."""

from flowpolicies.inspection.findings import Finding as Finding
from flowpolicies.inspection.findings import Track as Track
from flowpolicies.inspection.inspect import Histogram as Histogram
from flowpolicies.inspection.inspect import Inspection as Inspection
from flowpolicies.inspection.inspect import inspect_dataset as inspect_dataset
from flowpolicies.inspection.simulation.resimulation import Resimulate as Resimulate
from flowpolicies.inspection.simulation.resimulation import Resimulated as Resimulated
from flowpolicies.inspection.simulation.resimulation import open_resimulator as open_resimulator

SAMPLE: int
