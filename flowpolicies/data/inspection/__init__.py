"""Checks of a dataset that find what makes training go wrong without an error."""

from flowpolicies.data.inspection.environment import Resimulate as Resimulate
from flowpolicies.data.inspection.environment import Resimulated as Resimulated
from flowpolicies.data.inspection.environment import open_resimulator as open_resimulator
from flowpolicies.data.inspection.findings import Finding as Finding
from flowpolicies.data.inspection.findings import Track as Track
from flowpolicies.data.inspection.inspect import SAMPLE as SAMPLE
from flowpolicies.data.inspection.inspect import Histogram as Histogram
from flowpolicies.data.inspection.inspect import Inspection as Inspection
from flowpolicies.data.inspection.inspect import inspect_dataset as inspect_dataset
