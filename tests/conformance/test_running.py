"""What `check` reports: refusals, declared exceptions, names, tables."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.base_class import BaseAlgorithm

from flowpolicies.conformance import NotApplicable, check
from flowpolicies.conformance.case import Case
from flowpolicies.conformance.promises import Promise
from flowpolicies.conformance.running import run

SMALL: dict[str, Any] = {"policy_kwargs": {"net_arch": [8]}}


class Refusing(SAC):
    """Refuses n-step returns, and says what to do instead."""

    conformance_exceptions = {  # noqa: RUF012
        "n_step_returns_are_accepted": "Returns of several steps are computed from chunks: pass horizon=.",
        "learn_returns_the_model": "It does, so that this declaration is stale.",
        "counts_steps_of_all_environments[one]": "Counts double.",
    }

    def __init__(self, *args: Any, n_steps: int = 1, **kwargs: Any) -> None:
        if n_steps != 1:
            raise ValueError("n_steps is not supported: pass horizon= instead")
        super().__init__(*args, **kwargs)

    def learn(self, *args: Any, **kwargs: Any) -> Any:
        super().learn(*args, **kwargs)
        self.num_timesteps *= 2
        return self


class Silent(Refusing):
    """Refuses the same without declaring what it inherits, but more."""

    conformance_exceptions = {"train_freq_takes_a_unit": "Counts double."}  # noqa: RUF012


def results(cls: Any, *names: str) -> dict[str, str]:
    return {row.promise.name: row.result for row in check(cls, names, **SMALL).rows}


def test_a_declared_refusal_is_one() -> None:
    [row] = check(Refusing, "n_step_returns_are_accepted", **SMALL).rows
    assert row.result == "refused"
    assert row.message == "ValueError: n_steps is not supported: pass horizon= instead"


def test_a_refusal_that_is_not_declared_is_a_failure() -> None:
    [row] = check(Refusing, "n_step_returns_stop_at_ends", **SMALL).rows
    assert row.result == "failed"
    assert "pass horizon= instead" in row.message
    assert "Refusing.conformance_exceptions" in row.message


def test_a_declared_difference_does_not_apply_and_gives_its_reason() -> None:
    [row] = check(Refusing, "counts_steps_of_all_environments[one]", **SMALL).rows
    assert (row.result, row.message) == ("not applicable", "Counts double.")
    assert results(Refusing, "counts_steps_of_all_environments[two]").popitem()[1] == "failed"


def test_declarations_are_inherited() -> None:
    names = "n_step_returns_are_accepted", "train_freq_takes_a_unit"
    assert set(results(Silent, *names).values()) == {"refused", "not applicable"}


def test_a_stale_declaration_is_reported() -> None:
    report = check(Refusing, ["learn_returns_the_model", "n_step_returns_are_accepted"], **SMALL)
    assert report.stale == ["learn_returns_the_model"]
    report.raise_for_failures()


def test_failures_are_raised_with_their_names() -> None:
    report = check(Refusing, ["train_freq_takes_a_unit", "learn_returns_the_model"], **SMALL)
    with pytest.raises(AssertionError, match="train_freq_takes_a_unit: num_timesteps is 24, expected 12"):
        report.raise_for_failures()


def test_a_name_without_its_variant_means_all_variants() -> None:
    assert len(results(SAC, "counts_steps_of_all_environments")) == 3
    assert list(results(SAC, "counts_steps_of_all_environments[two]")) == ["counts_steps_of_all_environments[two]"]


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"only names an unknown check 'learn_returns_a_model'\. Did you mean"):
        check(SAC, "learn_returns_a_model")
    cls = type("Typo", (SAC,), {"conformance_exceptions": {"no_such_check": "?"}})
    with pytest.raises(ValueError, match=r"Typo\.conformance_exceptions names an unknown check 'no_such_check'"):
        check(cls)


@pytest.mark.parametrize("cls", [BaseAlgorithm, int, "SAC"])
def test_other_classes_are_refused(cls: Any) -> None:
    with pytest.raises(TypeError, match="subclasses of OffPolicyAlgorithm"):
        check(cls)


def verdict(function: Any) -> tuple[str, str]:
    found = run(Promise("a", "b", "c", function), SAC, {})
    return found.result, found.message


def test_errors_become_results() -> None:
    def raising(error: Exception) -> Any:
        def function(case: Case) -> None:
            raise error

        return function

    assert verdict(lambda case: None) == ("passed", "")
    assert verdict(raising(NotApplicable("no images"))) == ("not applicable", "no images")
    assert verdict(raising(AssertionError("3 is not 4"))) == ("failed", "3 is not 4")
    assert verdict(raising(KeyError("x"))) == ("failed", "KeyError: 'x'")
    assert verdict(raising(ValueError("use y"))).__getitem__(0) == "failed"


def test_checks_leave_the_global_generators_and_the_output_alone(capsys: pytest.CaptureFixture[str]) -> None:
    np.random.seed(3)
    torch.manual_seed(3)
    expected = np.random.get_state()[1][:5].tolist(), torch.get_rng_state()[:5].tolist()

    def noisy(case: Case) -> None:
        np.random.rand(5)
        torch.rand(5)
        print("noise")

    assert verdict(noisy) == ("passed", "")
    assert (np.random.get_state()[1][:5].tolist(), torch.get_rng_state()[:5].tolist()) == expected
    assert capsys.readouterr().out == ""


def test_checks_get_a_folder_of_their_own() -> None:
    folders = []

    def write(case: Case) -> None:
        (case.folder / "file").write_text("x")
        folders.append(case.folder)

    assert verdict(write) == verdict(write) == ("passed", "")
    assert folders[0] != folders[1]
    assert not folders[0].exists()


def test_the_table_has_one_row_per_check() -> None:
    text = check(Refusing, ["learn_returns_the_model", "train_freq_takes_a_unit"], **SMALL).to_markdown()
    first, _, _, _, *rows = text.splitlines()
    assert first.startswith("Refusing: 2 checks in ")
    assert first.endswith("1 passed, 1 failed, 0 refused, 0 not applicable")
    assert rows[0].startswith("| `learn_returns_the_model` | `learn` returns the model")
    assert "failed: num_timesteps is 24, expected 12" in rows[1]


def test_optimised_python_is_refused() -> None:
    code = "from stable_baselines3 import SAC\nfrom flowpolicies.conformance import check\ncheck(SAC)"
    found = subprocess.run([sys.executable, "-O", "-c", code], capture_output=True, text=True, check=False)
    assert "Run Python without -O" in found.stderr


def test_the_kit_does_not_need_pytest() -> None:
    code = (
        "import sys; sys.modules['pytest'] = None\n"
        "from stable_baselines3 import SAC\nfrom flowpolicies.conformance import check\n"
        "check(SAC, 'learn_takes_a_float').raise_for_failures()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
