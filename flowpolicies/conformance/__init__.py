"""Checks whether an algorithm keeps the promises of Stable-Baselines3.

In Python:

    from flowpolicies.conformance import check
    print(check(MyAlgo).to_markdown())

With pytest, one test per promise:

    pytest -p flowpolicies.conformance --sb3-class my_package:MyAlgo

The class may be any off-policy algorithm for continuous actions that extends Stable-Baselines3's; it need not know
flowpolicies. What it does not do on purpose it declares as `conformance_exceptions = {name of the check: reason}`.
"""

from flowpolicies.conformance.case import NotApplicable as NotApplicable
from flowpolicies.conformance.checks import PROMISES as PROMISES
from flowpolicies.conformance.promises import Promise as Promise
from flowpolicies.conformance.report import Report as Report
from flowpolicies.conformance.report import Verdict as Verdict
from flowpolicies.conformance.running import check as check

pytest_plugins = ["flowpolicies.conformance.plugin"]  # With `pytest -p flowpolicies.conformance`.
