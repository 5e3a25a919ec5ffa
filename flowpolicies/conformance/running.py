"""Runs the checks for one class."""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.utils import set_random_seed

from flowpolicies.conformance.case import Case, NotApplicable
from flowpolicies.conformance.checks import PROMISES
from flowpolicies.conformance.promises import Promise
from flowpolicies.conformance.report import CheckResult, Report, Verdict
from flowpolicies.messages import did_you_mean

EXCEPTIONS = "conformance_exceptions"
"""Class attribute that maps the name of a check to the reason why the class does not keep the promise."""
REFUSALS = (TypeError, ValueError, NotImplementedError)
"""Errors by which a class may refuse something on purpose."""


def check(cls: type[OffPolicyAlgorithm], only: Sequence[str] | str | None = None, **arguments: Any) -> Report:
    """Whether a class keeps the promises of Stable-Baselines3.

    `check(SAC, policy_kwargs=dict(net_arch=[8])).raise_for_failures()`

    Args:
        cls: an off-policy algorithm for continuous actions.
        only: names of checks, with or without a variant in brackets; None: all checks.
        **arguments: constructor arguments of every model, such as small networks that make the checks fast.

    Raises:
        TypeError: if the class does not extend Stable-Baselines3's OffPolicyAlgorithm.
        ValueError: for an unknown name of a check, here or in the class's `conformance_exceptions`.
    """
    rows = [run(promise, cls, arguments) for promise in chosen(cls, only)]
    return Report(cls.__name__, rows)


def chosen(cls: type[OffPolicyAlgorithm], only: Sequence[str] | str | None = None) -> list[Promise]:
    """The checks to run; the arguments and errors are those of `check`."""
    if not __debug__:
        raise RuntimeError("the checks are assertions, which `python -O` leaves out. Run Python without -O.")
    if not (isinstance(cls, type) and issubclass(cls, OffPolicyAlgorithm)):
        raise TypeError(f"the checks are for subclasses of OffPolicyAlgorithm of Stable-Baselines3, got {cls!r}")
    exceptions(cls)
    if only is None:
        return list(PROMISES.values())
    names = [only] if isinstance(only, str) else list(only)
    _require_known(names, "only")
    return [promise for promise in PROMISES.values() if promise.name in names or promise.function in names]


def exceptions(cls: type[OffPolicyAlgorithm]) -> dict[str, str]:
    """The promises that a class states it does not keep, with reasons; those of its bases are included.

    Raises:
        ValueError: for a name that no check has.
    """
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        found |= vars(base).get(EXCEPTIONS, {})
    _require_known(found, f"{cls.__name__}.{EXCEPTIONS}")
    return found


def _require_known(names: Sequence[str] | Mapping[str, str], where: str) -> None:
    known = {promise.function for promise in PROMISES.values()} | PROMISES.keys()
    for name in names:
        if name not in known:
            raise ValueError(f"{where} names an unknown check {name!r}.{did_you_mean(name, known)}")


def run(promise: Promise, cls: type[OffPolicyAlgorithm], arguments: Mapping[str, Any]) -> Verdict:
    """One check, in a folder of its own, with seeded global generators and without output."""
    declared = exceptions(cls)
    reason = declared.get(promise.name, declared.get(promise.function))
    start = time.perf_counter()
    result, message = _outcome(promise, cls, arguments)
    if result == "failed" and reason is not None:
        result, message = "not applicable", reason
    elif result == "refused" and reason is None:
        message = f"{message} (If this is refused on purpose, declare it in {cls.__name__}.{EXCEPTIONS}.)"
        result = "failed"
    return Verdict(promise, result, message, time.perf_counter() - start, reason is not None)


def _outcome(promise: Promise, cls: type[OffPolicyAlgorithm], arguments: Mapping[str, Any]) -> tuple[CheckResult, str]:
    try:
        with _quiet(), tempfile.TemporaryDirectory() as folder:
            promise.run(Case(cls, arguments, Path(folder)))
    except NotApplicable as reason:
        return "not applicable", str(reason)
    except REFUSALS as error:
        return "refused", f"{type(error).__name__}: {error}"
    except AssertionError as error:
        return "failed", str(error) or "an assertion of the class without a text"
    except Exception as error:  # Whatever a class raises is a finding about it.
        return "failed", f"{type(error).__name__}: {error}"
    return "passed", ""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Seeds the global generators and puts them back afterwards; hides output and warnings."""
    numpy_state, torch_state = np.random.get_state(), torch.get_rng_state()  # noqa: NPY002  # SB3 draws from them.
    set_random_seed(0)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            with contextlib.redirect_stderr(io.StringIO()):
                yield
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002
        torch.set_rng_state(torch_state)
