"""Logging and statistics of episodes."""

from __future__ import annotations

import csv
import importlib
from pathlib import Path
from typing import Any

from stable_baselines3.common.logger import configure
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from flowpolicies.conformance.case import STEPS, Case, need_argument, need_package, without

_ROLLOUT = ["rollout/ep_rew_mean", "rollout/ep_len_mean", "time/episodes", "time/fps", "time/time_elapsed"]
_KEYS = [*_ROLLOUT, "time/total_timesteps", "train/learning_rate", "train/n_updates"]


def _logged(
    model: OffPolicyAlgorithm, folder: Path, steps: int = 24, log_interval: int | None = 1
) -> list[dict[str, str]]:
    """The rows of the log of a run."""
    model.set_logger(configure(str(folder), ["csv"]))
    model.learn(steps, log_interval=log_interval)  # type: ignore[arg-type]
    file = folder / "progress.csv"
    return list(csv.DictReader(file.open())) if file.stat().st_size else []


def the_documented_keys_are_logged(case: Case) -> None:
    """The log has the documented keys for rollouts, time and training."""
    rows = _logged(case.model(case.env(length=4)), case.folder)
    missing = without(_KEYS, rows[-1])
    assert not missing, f"missing in the log: {missing}"


def losses_are_logged(case: Case) -> None:
    """Losses are logged under names that begin with `train/` and contain "loss"."""
    rows = _logged(case.model(case.env(length=4)), case.folder)
    names = [name for name in rows[-1] if name.startswith("train/") and "loss" in name]
    assert names, f"the log has only {sorted(rows[-1])}"
    assert any(float(rows[-1][name] or "nan") == float(rows[-1][name] or "nan") for name in names), "all are empty"


def returns_and_lengths_are_logged(case: Case) -> None:
    """The logged mean length and return are those of the episodes."""
    row = _logged(case.model(case.env(length=4)), case.folder, steps=8)[-1]
    assert float(row["rollout/ep_len_mean"]) == 4, f"the mean length is {row['rollout/ep_len_mean']}"
    assert -12 < float(row["rollout/ep_rew_mean"]) < 0, f"the mean return is {row['rollout/ep_rew_mean']}"
    assert (row["time/episodes"], row["time/total_timesteps"]) == ("2", "8"), f"the counts are {row}"


def updates_are_counted_in_the_log(case: Case) -> None:
    """`train/n_updates` counts the updates so far."""
    model = case.model(case.env(length=4))
    row = _logged(model, case.folder)[-1]
    assert float(row["train/n_updates"]) > 0, f"train/n_updates is {row['train/n_updates']}"
    assert abs(float(row["train/n_updates"]) - model._n_updates) <= 1, f"the model counts {model._n_updates}"


def success_is_logged(case: Case) -> None:
    """Where infos report `is_success`, the log has `rollout/success_rate`."""
    row = _logged(case.model(case.env(length=4, success=True)), case.folder)[-1]
    assert 0 <= float(row.get("rollout/success_rate") or "nan") <= 1, f"the row has {sorted(row)}"


def log_interval_counts_episodes(case: Case) -> None:
    """`log_interval=2` logs after every second episode."""
    rows = _logged(case.model(case.env(length=3)), case.folder, steps=18, log_interval=2)
    assert len(rows) == 3, f"{len(rows)} rows after 6 episodes, expected 3"


def log_interval_may_be_none(case: Case) -> None:
    """`log_interval=None` logs nothing after episodes."""
    rows = _logged(case.model(case.env(length=3)), case.folder, steps=18, log_interval=None)
    assert not rows, f"{len(rows)} rows"


def set_logger_is_obeyed(case: Case) -> None:
    """`set_logger` replaces the logger, and `model.logger` is it, also during and after `learn`."""
    model, logger = case.model(), configure(str(case.folder), ["csv", "json"])
    model.set_logger(logger)
    model.learn(STEPS, log_interval=1)
    assert model.logger is logger, "model.logger is another object"
    assert (case.folder / "progress.json").stat().st_size, "progress.json is empty"


def the_logger_has_levels_and_formats(case: Case) -> None:
    """After `learn`, `model.logger` is a Logger whose `record` and `dump` a user can call."""
    model = case.trained()
    model.logger.record("mine/number", 1)
    assert model.logger.name_to_value["mine/number"] == 1, "the value was not recorded"
    model.logger.dump(0)


def tensorboard_runs_are_numbered(case: Case) -> None:
    """With `tensorboard_log`, each `learn` writes to a folder `NAME_1`, `NAME_2`, ... for `tb_log_name=NAME`."""
    need_package("tensorboard")
    model = case.model(tensorboard_log=str(case.folder))
    model.learn(4, tb_log_name="mine").learn(4, tb_log_name="mine")
    found = sorted(path.name for path in case.folder.iterdir())
    assert found == ["mine_1", "mine_2"], f"the folders are {found}"


def tensorboard_runs_continue(case: Case) -> None:
    """With `reset_num_timesteps=False`, `learn` continues the last folder of TensorBoard."""
    need_package("tensorboard")
    model = case.model(tensorboard_log=str(case.folder))
    model.learn(4, tb_log_name="mine").learn(4, tb_log_name="mine", reset_num_timesteps=False)
    found = sorted(path.name for path in case.folder.iterdir())
    assert found == ["mine_1"], f"the folders are {found}"


def tensorboard_has_the_metrics(case: Case) -> None:
    """TensorBoard's files have the metrics of rollouts and training, by environment step."""
    need_package("tensorboard")
    reader: Any = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    case.model(case.env(length=4), tensorboard_log=str(case.folder)).learn(STEPS, log_interval=1, tb_log_name="mine")
    events = reader.EventAccumulator(str(case.folder / "mine_1")).Reload()
    names = events.Tags()["scalars"]
    missing = without(["rollout/ep_rew_mean", "rollout/ep_len_mean", "train/learning_rate"], names)
    assert not missing, f"missing: {missing}"
    assert events.Scalars("rollout/ep_rew_mean")[-1].step == STEPS, "the step is not num_timesteps"


def verbose_prints_the_log(case: Case) -> None:
    """`verbose=1` prints the log as a table."""
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()) as printed:
        case.model(case.env(length=4), verbose=1).learn(8, log_interval=1)
    assert "ep_rew_mean" in printed.getvalue(), "the log was not printed"


def dump_logs_can_be_called(case: Case) -> None:
    """`model.dump_logs()` writes the log at once."""
    model = case.model()
    model.set_logger(configure(str(case.folder), ["csv"]))
    model.learn(STEPS, log_interval=1000)
    model.dump_logs()
    rows = list(csv.DictReader((case.folder / "progress.csv").open()))
    assert rows[-1]["time/total_timesteps"] == str(STEPS), f"the row is {rows[-1:]}"


def episodes_are_remembered(case: Case) -> None:
    """`ep_info_buffer` holds the return, length and time of the last episodes."""
    found = case.model(case.env(length=4)).learn(12).ep_info_buffer
    assert found is not None
    assert [one["l"] for one in found] == [4, 4, 4], f"it holds {list(found)}"
    assert all({"r", "l", "t"} <= one.keys() for one in found), f"its entries have {sorted(found[0])}"


def stats_window_size_is_obeyed(case: Case) -> None:
    """`stats_window_size` is the number of episodes that `ep_info_buffer` and `ep_success_buffer` hold."""
    need_argument(case, "stats_window_size")
    model = case.model(case.env(length=2, success=True), stats_window_size=3).learn(STEPS)
    for buffer in (model.ep_info_buffer, model.ep_success_buffer):
        assert buffer is not None
        assert (len(buffer), buffer.maxlen) == (3, 3), f"{len(buffer)} of {buffer.maxlen} entries"


def statistics_are_reset_with_the_counter(case: Case) -> None:
    """`learn` forgets the statistics of earlier episodes, unless `reset_num_timesteps=False`."""
    model = case.model(case.env(length=4)).learn(8)
    model.learn(4, reset_num_timesteps=False)
    assert len(model.ep_info_buffer or []) == 3, f"{len(model.ep_info_buffer or [])} episodes, expected 3"
    model.learn(4)
    assert len(model.ep_info_buffer or []) == 1, f"{len(model.ep_info_buffer or [])} episodes, expected 1"
