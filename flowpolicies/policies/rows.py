"""How many episodes an evaluation plays at once. The command line needs the number, so this module imports no other."""

ROWS = 8
"""Largest number of episodes that share a call of the networks. On CPUs a row of 8 costs a third of a single one, and
a row of more costs not much less."""
