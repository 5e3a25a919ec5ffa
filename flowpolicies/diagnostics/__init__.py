"""Diagnosis of models: diagnostics with thresholds and remedies, and scores of policies without an environment."""

from flowpolicies.diagnostics.callback import DiagnosisCallback as DiagnosisCallback
from flowpolicies.diagnostics.diagnose import DIAGNOSTICS as DIAGNOSTICS
from flowpolicies.diagnostics.diagnose import diagnose as diagnose
from flowpolicies.diagnostics.readings import Diagnosis as Diagnosis
from flowpolicies.diagnostics.readings import Reading as Reading
