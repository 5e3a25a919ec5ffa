"""The benchmark `flowpolicies reproduce table local`: many algorithms on data that this machine generates."""
