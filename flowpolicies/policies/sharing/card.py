"""What others need to know about a policy besides its weights: the model card (README.md), and the same as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, final

from flowpolicies.data import TransitionDataset
from flowpolicies.policies.evaluation import Evaluation, Interval
from flowpolicies.record import describe_dataset, describe_hardware, describe_software

RESULTS_VERSION = 1
"""Version of `results.json` that is written."""


class EvaluationSummary(NamedTuple):
    """The estimates of one evaluation, with 95 % intervals, without its single episodes."""

    environment: str | None
    """Address or Gymnasium id of the environment; None if it is not known."""
    episodes: int
    """Number of episodes of the evaluation."""
    success: Interval | None
    """Success rate in [0, 1]; None if the environment does not report success."""
    mean_return: Interval
    """Mean of the episodes' sums of rewards."""
    length: float
    """Mean length of the episodes in environment steps."""
    return_std: float | None = None
    """Standard deviation of the return between episodes; None if it is not known."""
    seed: int | None = None
    """Seed of the episodes; None if it is not known."""
    deterministic: bool | None = None
    """Whether flows started at zero noise; None if it is not known."""

    @classmethod
    def of(cls, evaluation: Evaluation) -> EvaluationSummary:
        """The estimates of an evaluation."""
        return cls(
            environment=evaluation.environment,
            episodes=len(evaluation),
            success=None if evaluation.successes is None else evaluation.success_rate(),
            mean_return=evaluation.mean_return(),
            length=float(evaluation.lengths.mean()),
            return_std=float(evaluation.returns.std()),
            seed=evaluation.seed,
            deterministic=evaluation.deterministic,
        )

    def to_json(self) -> dict[str, Any]:
        """The estimates as JSON data, in which intervals are objects with mean, low and high."""
        success = None if self.success is None else self.success._asdict()
        return {**self._asdict(), "success": success, "mean_return": self.mean_return._asdict(), "confidence": 0.95}


@final
@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """The facts of a model card. What is None is called "not stated" or "not recorded" in the text."""

    name: str
    """Name of the policy; `user/name` if it is that of a repository."""
    license: str | None = None
    """Identifier of the license of the weights, such as "mit"; None if the author did not state one."""
    evaluations: tuple[EvaluationSummary, ...] = ()
    """Evaluations of the policy, the most important one first."""
    dataset: Mapping[str, Any] | None = None
    """Description of the training data, as `flowpolicies.record.describe_dataset` makes it."""
    training: Mapping[str, Any] | None = None
    """Record of the training, as JSON data; `algorithm`, `commands`, `seed`, `steps` and `software` are shown."""
    origin: str | None = None
    """Where the policy was loaded from before it was saved; None if it was trained in this process."""
    policy: Mapping[str, str] | None = None
    """Properties of the policy for the text: name -> value."""
    software: Mapping[str, str] = field(default_factory=describe_software)
    """Versions of the packages that write the card."""

    @classmethod
    def make(
        cls,
        name: str,
        license: str | None,
        evaluation: Evaluation | EvaluationSummary | Sequence[Evaluation | EvaluationSummary] | None,
        dataset: TransitionDataset | Mapping[str, Any] | None,
        training: Mapping[str, Any] | None,
        origin: object = None,
        policy: Mapping[str, str] | None = None,
    ) -> ModelCard:
        """The card of what users have: evaluations and datasets instead of their descriptions."""
        if evaluation is None:
            evaluation = ()
        given = (evaluation,) if isinstance(evaluation, Evaluation | EvaluationSummary) else tuple(evaluation)
        return cls(
            name=name,
            license=license,
            evaluations=tuple(
                EvaluationSummary.of(entry) if isinstance(entry, Evaluation) else entry for entry in given
            ),
            dataset=_described(dataset) if isinstance(dataset, TransitionDataset) else dataset,
            training=training,
            origin=None if origin is None else str(origin),
            policy=policy,
        )

    def results(self) -> dict[str, Any]:
        """Content of `results.json`."""
        return {
            "schema_version": RESULTS_VERSION,
            "name": self.name,
            "license": self.license,
            "evaluations": [evaluation.to_json() for evaluation in self.evaluations],
            "dataset": self.dataset,
            "training": self.training,
            "loaded_from": self.origin,
            "software": self.software,
            "hardware": describe_hardware(),
        }

    def text(self) -> str:
        """Content of `README.md`: YAML for programs, then Markdown for people."""
        return "\n".join(["---", *yaml_lines(self.metadata()), "---", *_markdown(self), ""])

    def metadata(self) -> dict[str, Any]:
        """The front matter that the Hugging Face Hub reads, with the results in `model-index`."""
        algorithm = (self.training or {}).get("algorithm")
        environments = [one.environment for one in self.evaluations]
        tags = ["flowpolicies", "reinforcement-learning", "flow-matching", algorithm, *environments]
        found: dict[str, Any] = {} if self.license is None else {"license": self.license}
        found |= {"library_name": "flowpolicies", "pipeline_tag": "reinforcement-learning"}
        found["tags"] = [str(tag) for tag in dict.fromkeys(tags) if tag is not None]
        if results := [_model_index_entry(one) for one in self.evaluations]:
            found["model-index"] = [{"name": self.name, "results": results}]
        return found


def _described(dataset: TransitionDataset) -> dict[str, Any]:
    return {"name": dataset.name, **describe_dataset(dataset)}


def _model_index_entry(one: EvaluationSummary) -> dict[str, Any]:
    """One entry of `model-index`. Leaderboards read the first metric, a text "mean +/- standard deviation"."""
    environment = one.environment or "unknown"
    mean, interval = one.mean_return.mean, "95 % interval {:.4g} to {:.4g}, {} episodes"
    facts = {"episodes": one.episodes, "seed": one.seed, "deterministic": one.deterministic}
    reward: float | str = round(mean, 4) if one.return_std is None else f"{mean:.2f} +/- {one.return_std:.2f}"
    metrics: list[dict[str, Any]] = [
        {
            "type": "mean_reward",
            "value": reward,
            "name": f"mean return ({interval.format(one.mean_return.low, one.mean_return.high, one.episodes)})",
            "args": {**facts, "low": one.mean_return.low, "high": one.mean_return.high},
        }
    ]
    if one.success is not None:
        metrics.append(
            {
                "type": "success_rate",
                "value": round(one.success.mean, 4),
                "name": f"success rate ({interval.format(one.success.low, one.success.high, one.episodes)})",
                "args": {**facts, "low": one.success.low, "high": one.success.high},
            }
        )
    return {
        "task": {"type": "reinforcement-learning", "name": "reinforcement-learning"},
        "dataset": {"name": environment, "type": environment},
        "metrics": metrics,
    }


def _markdown(card: ModelCard) -> Iterator[str]:
    yield f"# {plain(card.name)}"
    yield ""
    yield "A policy of [flowpolicies](https://pypi.org/project/flowpolicies/): weights (`model.safetensors`) and their"
    yield "declaration (`config.json`). Loading them executes nothing from the files."
    yield ""
    yield from (f"- {key}: {code(value)}" for key, value in (card.policy or {}).items())
    if card.origin is not None:
        yield f"- loaded from: {code(card.origin)}"
    yield from _use(card)
    yield from ("", "## Evaluation", "")
    yield from _evaluations(card.evaluations)
    yield from ("", "## Data", "")
    yield from _dataset(card.dataset)
    yield from ("", "## Training", "")
    yield from _training(card.training, card.software)
    yield from ("", "## Software", "", "Versions that wrote these files; `results.json` also has the hardware:", "")
    yield from _versions(card.software)
    yield from ("", "## License", "")
    yield "Not stated by the author." if card.license is None else f"{code(card.license)}"


def _use(card: ModelCard) -> Iterator[str]:
    place = card.name if "/" in card.name else f"path/to/{card.name}"
    known = next((one.environment for one in card.evaluations if one.environment), None)
    names = "FlowPolicy" if known is None else "FlowPolicy, evaluate"
    yield from ("", "## Use", "", "```python", f"from flowpolicies import {names}", "")
    yield f"policy = FlowPolicy.from_pretrained({json.dumps(plain(place), ensure_ascii=False)})"
    if known is not None:
        yield f"print(evaluate(policy, {json.dumps(plain(known), ensure_ascii=False)}, episodes=10, seed=0))"
    yield "```"


def _evaluations(evaluations: Sequence[EvaluationSummary]) -> Iterator[str]:
    if not evaluations:
        yield "Not recorded."
        return
    yield "Means with 95 % confidence intervals: Wilson's for success rates, the percentile bootstrap for returns."
    yield ""
    yield "| environment | episodes | success rate | return | length | actions | seed |"
    yield "|---|---|---|---|---|---|---|"
    kinds = {True: "zero noise", False: "sampled", None: ""}
    for one in evaluations:
        cells = (
            code(one.environment or "unknown"),
            one.episodes,
            "not reported" if one.success is None else one.success,
            one.mean_return,
            f"{one.length:.0f}",
            kinds[one.deterministic],
            "" if one.seed is None else one.seed,
        )
        yield f"| {' | '.join(map(str, cells))} |"


def _dataset(dataset: Mapping[str, Any] | None) -> Iterator[str]:
    if not dataset or all(value is None for value in dataset.values()):
        yield "Not recorded."
        return
    provenance = dataset.get("provenance") or {}
    name = dataset.get("address") or dataset.get("name") or provenance.get("name")
    shown = {"name": name, **{key: dataset.get(key) for key in ("fingerprint", "transitions", "episodes")}}
    yield from (f"- {key}: {code(value)}" for key, value in shown.items() if value is not None)


def _training(training: Mapping[str, Any] | None, software_now: Mapping[str, str]) -> Iterator[str]:
    if not training:
        yield "Not recorded."
        return
    software = training.get("software") or {}
    shown = {
        "algorithm": training.get("algorithm"),
        "seed": training.get("seed"),
        **{f"{phase} steps": steps for phase, steps in (training.get("steps") or {}).items()},
        "commit of flowpolicies": software.get("flowpolicies_commit"),
    }
    yield from (f"- {key}: {code(value)}" for key, value in shown.items() if value is not None)
    if commands := training.get("commands"):
        yield from ("", "```shell", *(plain(command) for command in commands), "```")
    if software and software != software_now:
        yield from ("", "Trained with these versions:", "", *_versions(software))


def _versions(software: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"- {plain(package)} {code(version)}" for package, version in software.items())


def plain(text: object) -> str:
    """A text in one line, without control characters and backticks, which would end the line or the code it is in."""
    kept = "".join(character if character.isprintable() else " " for character in str(text))
    return " ".join(kept.replace("`", "'").split())


def code(text: object) -> str:
    """A text as code in Markdown, also within a cell of a table."""
    return f"`{plain(text).replace('|', '/')}`"


def yaml_lines(data: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """A mapping of texts, numbers, lists and mappings as YAML. The texts are quoted as in JSON, which YAML accepts."""
    for key, value in data.items():
        yield from _yaml_entry(f"{indent}{key}:", value, indent)


def _yaml_entry(head: str, value: Any, indent: str) -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        yield head
        yield from yaml_lines(value, f"{indent}  ")
    elif isinstance(value, list) and value:
        yield head
        for item in value:
            if isinstance(item, Mapping):
                first, *rest = yaml_lines(item, f"{indent}  ")
                yield from (f"{indent}- {first.strip()}", *rest)
            else:
                yield f"{indent}- {_yaml_scalar(item)}"
    else:
        yield f"{head} {_yaml_scalar(value)}"


def _yaml_scalar(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(plain(value), ensure_ascii=False)
    text = json.dumps(value)
    return text.replace("e", ".0e") if isinstance(value, float) and "." not in text and "e" in text else text


def without_home(data: Any) -> Any:
    """JSON data in which the path of the user's home folder, which has the user's name, is written as `~`."""
    home = str(Path.home())
    if isinstance(data, str):
        return data if home == "/" else data.replace(home, "~")
    if isinstance(data, Mapping):
        return {key: without_home(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [without_home(value) for value in data]
    return data
