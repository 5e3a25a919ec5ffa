"""Names of the package, each of which `__init__.py` imports when it is first used."""

from flowpolicies.reproduction.demo.progress import DemoRun as DemoRun
from flowpolicies.reproduction.demo.progress import run_all as run_all
from flowpolicies.reproduction.demo.run import run_demo as run_demo
from flowpolicies.reproduction.demo.runs import address as address
from flowpolicies.reproduction.demo.runs import make_runs as make_runs
from flowpolicies.reproduction.demo.settings import DemoSettings as DemoSettings
