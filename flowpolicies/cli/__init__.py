"""The command line `flowpolicies`."""

from flowpolicies.cli.app import main as main
