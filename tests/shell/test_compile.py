"""compile= and precision= of models: old names, files of earlier versions, and how often a run compiles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import LinearSchedule
from tiny import tiny
from torch._dynamo.utils import counters

from flowpolicies import BC, FQL, QFlow, ReBRAC
from flowpolicies.core import precision
from flowpolicies.core.compiling import CompilationError
from flowpolicies.training.continuing import _current_settings

SAVED = Path(__file__).parents[1] / "saved"


class Seen(BaseCallback):
    """Records how many updates the learner is told will follow."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead: list[int] = []

    def _on_step(self) -> bool:
        self.ahead.append(self.model._learner.compiler.updates_to_come)
        return True


def compiles_nothing(*_: Any) -> Any:
    raise RuntimeError("a backend that compiles nothing")


def test_a_whole_run_compiles_each_stage_once(data: Any, tmp_path: Path) -> None:
    """Delayed updates, a schedule, offline and then online, saved and loaded in between."""
    torch._dynamo.reset()
    counters.clear()
    options: dict[str, Any] = {"batch_size": 8, "actor_freq": 2, "learning_rate": LinearSchedule(1e-3, 0.0, 1.0)}
    options |= {"actor_hidden_dims": (8,), "value_hidden_dims": (8,)}
    model = tiny(ReBRAC, dataset=data, env="Pendulum-v1", learning_starts=0, compile="eager", **options)
    model.learn_offline(5)
    stages = {stage for i in range(5) for stage in model._learner._stages(model.cfg.update_spec(i))}
    model.learn(6)
    assert counters["stats"]["unique_graphs"] == len(stages) == 2
    model.save(tmp_path / "model")
    again = ReBRAC.load(tmp_path / "model", env="Pendulum-v1", dataset=data, device="cpu")
    again.learn_offline(3)
    assert again.compile == "eager"
    assert counters["stats"]["unique_graphs"] == 2 * len(stages)  # Another model, but no variant of the first.
    assert not counters["recompiles"]
    assert model._n_updates == 11


def test_a_compiled_run_continues_where_it_was_saved(data: Any, tmp_path: Path) -> None:
    whole, part = (tiny(BC, dataset=data, compile="aot_eager") for _ in range(2))
    whole.learn_offline(4)
    part.learn_offline(2).save(tmp_path / "model")
    part = BC.load(tmp_path / "model", dataset=data, device="cpu").learn_offline(2)
    for key, value in whole.policy.state_dict().items():
        assert torch.equal(value, part.policy.state_dict()[key]), key


def test_the_old_argument_works_with_a_note(data: Any) -> None:
    with pytest.warns(DeprecationWarning, match="compile_backend='inductor' is now compile=True"):
        assert tiny(BC, dataset=data, compile_backend="inductor").compile is True


def test_models_of_earlier_versions_are_eager_and_can_be_compiled() -> None:
    model = QFlow.load(SAVED / "flow.zip", device="cpu")
    assert (model.compile, model.precision) == (False, "fp32")
    assert "compile_backend" not in model.__dict__
    assert QFlow.load(SAVED / "flow.zip", device="cpu", compile="auto").compile == "auto"
    assert QFlow.load(SAVED / "flow.zip", device="cpu", compile_backend="inductor").compile is True


def test_a_choice_at_loading_counts_more_than_that_of_a_file(data: Any, tmp_path: Path) -> None:
    model = tiny(BC, dataset=data)
    model.__dict__["compile_backend"] = "inductor"  # As an earlier version saved it.
    model.save(tmp_path / "old")
    assert BC.load(tmp_path / "old", device="cpu").compile is True
    assert BC.load(tmp_path / "old", device="cpu", compile=False).compile is False


def test_records_of_earlier_versions_are_read() -> None:
    recorded = json.loads((SAVED / "run/config.json").read_text())["settings"]
    assert recorded["compile_backend"] is None
    assert _current_settings(recorded)["compile"] is False
    assert _current_settings({"compile_backend": "inductor"}) == {"compile": True}


def test_another_choice_applies_to_the_next_update(data: Any) -> None:
    model = tiny(BC, dataset=data).learn_offline(1)
    model.compile = compiles_nothing
    with pytest.raises(CompilationError, match="compile=False"):
        model.learn_offline(1)


@pytest.mark.parametrize("choice", ["always", 1.0])
def test_an_unknown_choice_is_refused_at_once(choice: Any, data: Any) -> None:
    with pytest.raises((ValueError, TypeError), match='compile must be True, False or "auto"'):
        tiny(BC, dataset=data, compile=choice)


def test_an_unknown_precision_and_one_without_units_are_refused(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="precision must be one of 'fp32', 'tf32', 'bf16'"):
        tiny(BC, dataset=data, precision="half")
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: False)
    with pytest.raises(ValueError, match='precision="bf16" needs units'):
        tiny(BC, dataset=data, precision="bf16")


def test_the_learner_is_told_how_many_updates_follow_offline(data: Any) -> None:
    model, seen = tiny(BC, dataset=data, compile="auto"), Seen()
    model.learn_offline(20, callback=seen)
    assert seen.ahead[1:] == list(range(19, 0, -1))  # The first call has seen no pace yet.
    seen.ahead.clear()
    model.learn_offline(5, callback=seen)
    assert seen.ahead[1:] == [4, 3, 2, 1]


def test_the_learner_is_told_how_many_updates_follow_online() -> None:
    """Four updates in each round of two steps: two updates per step."""
    model = tiny(FQL, env="Pendulum-v1", learning_starts=2, train_freq=2, gradient_steps=4, compile="auto")
    seen = Seen()
    model.learn(20, callback=seen)
    assert seen.ahead[-1] == 4  # Told at step 18, for the round at step 20.
    assert max(seen.ahead) <= 40
    assert seen.ahead[10] > seen.ahead[15] > 0


def test_direct_calls_of_train_know_their_own_steps(data: Any) -> None:
    model = tiny(BC, dataset=data, compile="auto")
    model.train(7)
    assert model._learner.compiler.updates_to_come == 7
