"""Pickles from outside, read without running anything that they name."""

from flowpolicies.pickles.known import Known as Known
from flowpolicies.pickles.machine import UnknownName as UnknownName
from flowpolicies.pickles.machine import read_pickle as read_pickle
