"""The best model of a run so far, by a logged number."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, final

from stable_baselines3.common.logger import KVWriter

from flowpolicies.algorithms import OfflineAlgorithm
from flowpolicies.files import atomic_write, write_json
from flowpolicies.messages import did_you_mean, say
from flowpolicies.training.runs import RunFolder


@final
class BestModel(KVWriter):
    """Output format of the logger that saves the model whenever a logged number is better than ever before.

    The model is written to `best.zip`, and number, step and value to `best.json`, which a continued run reads. Of equal
    values the first one counts.

    Args:
        folder: folder of the run.
        model: the model.
        metric: name of the number, as in `progress.csv`. Of losses the smallest is best, of others the largest.
    """

    def __init__(self, folder: RunFolder, model: OfflineAlgorithm, metric: str) -> None:
        self.folder, self.model, self.metric = folder, model, metric
        self.is_loss = metric.endswith("loss")
        self._seen: set[str] = set()

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Saves the model if the number is among those that are logged now, and is better than ever before."""
        # Offline, tensors of the newest update are recorded for callbacks, and excluded from all formats.
        logged = {key: value for key, value in key_values.items() if "csv" not in (key_excluded.get(key) or ())}
        self._seen |= logged.keys()
        value = float(logged.get(self.metric, math.nan))
        best = self.read()
        if math.isnan(value) or (best is not None and not self._is_better(value, best["value"])):
            return
        model = self.model
        steps = {"offline": model.offline_steps, "online": model.environment_steps}
        with atomic_write(self.folder.best) as file, model.at_rest():
            model.save(file)
        write_json(self.folder.best.with_suffix(".json"), {"metric": self.metric, "value": value, "steps": steps})

    def _is_better(self, value: float, best: float) -> bool:
        return value < best if self.is_loss else value > best

    def read(self) -> Mapping[str, Any] | None:
        """What `best.json` says; None if no model was saved by this number yet."""
        try:
            found: Mapping[str, Any] = json.loads(self.folder.best.with_suffix(".json").read_text())
            return found if found["metric"] == self.metric and isinstance(found["value"], float | int) else None
        except (OSError, ValueError, KeyError, TypeError):  # It is rewritten at the next value.
            return None

    def warn_of_missing(self) -> None:
        """Says so if no number of this name was logged."""
        if self.metric not in self._seen and self.read() is None:
            hint = did_you_mean(self.metric, sorted(self._seen))
            say(f"No best.zip: the number '{self.metric}' was never logged.{hint}")

    def close(self) -> None:
        """Does nothing: no file stays open."""
