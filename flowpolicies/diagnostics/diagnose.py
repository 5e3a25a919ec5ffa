"""Diagnosis of a model: every diagnostic measures a number that is high when something is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final

from stable_baselines3.common.vec_env import VecEnv

from flowpolicies.diagnostics import actions, training, values
from flowpolicies.diagnostics.evidence import Evidence, NotMeasurable
from flowpolicies.diagnostics.readings import Diagnosis, Judgement, Reading
from flowpolicies.shell.algorithm import OfflineAlgorithm

Numbers = Mapping[str, float]
"""Measured numbers by name; "value" is the one that is compared with the thresholds."""


@final
@dataclass(frozen=True, kw_only=True)
class Diagnostic:
    """The declaration of a diagnostic."""

    measure: Callable[[Evidence], Numbers]
    """Function that measures, or raises NotMeasurable."""
    look: float
    """Threshold above which the judgement is "look"."""
    bad: float
    """Threshold above which the judgement is "bad"."""
    sentence: str
    """What was measured, with the names of numbers in braces, as `str.format` fills them in; {named} lists them all."""
    remedy: str
    """What to do about a value above the thresholds."""
    needs_env: bool = False
    """Whether it runs episodes, which takes longer than everything else."""

    def read(self, name: str, evidence: Evidence) -> Reading:
        """Measures and judges."""
        try:
            numbers = dict(self.measure(evidence))
        except NotMeasurable as reason:
            return Reading(name, "not applicable", f"{reason}.")
        value = numbers["value"]
        judgement: Judgement = "ok" if value <= self.look else "look" if value <= self.bad else "bad"  # NaN is bad.
        named = ", ".join(f"{key} {number:.3g}" for key, number in numbers.items() if key != "value")
        sentence = self.sentence.format(**numbers, named=named)
        return Reading(name, judgement, sentence, value, self.look, self.bad, self.remedy, numbers)


DIAGNOSTICS: Mapping[str, Diagnostic] = {
    "value_range": Diagnostic(
        measure=values.beyond_range,
        look=0.1,
        bad=1.0,
        sentence="Values go from {lowest:.4g} to {highest:.4g}; returns can be between {least:.4g} and {most:.4g}.",
        remedy="The critics diverge: bootstrapped errors grow. Try a smaller learning rate and tau, more pessimism "
        "(rho=0.5 or q_agg='min'), value_layer_norm=True, and check the rewards and masks of the data "
        "(flowpolicies data check).",
    ),
    "start_values": Diagnostic(
        measure=values.sag,
        look=0.03,
        bad=0.08,
        sentence="On {ways:.0f} ways through the data from the start to success, of {steps:.0f} steps, mean Q goes "
        "from {first:.4g} to {last:.4g}; it falls on the way by {value:.1%} of its range, and should only rise. The "
        "best of these ways returns {best:.4g}.",
        remedy="Values near the start are too high, and the policy climbs to them instead of to the goal "
        "(docs/results/authors.md). Try, in this order: more updates; rho=0.5; a gamma such that 1 / (1 - gamma) is "
        "not much shorter than an episode; with small networks in mazes observation_scaling='min_max' and an "
        "observation_gain of 20.",
    ),
    "realized_return": Diagnostic(
        measure=values.overestimation,
        look=0.25,
        bad=0.45,
        sentence="At the start Q is {q:.4g}, and {episodes:.0f} episodes of the policy return {realized:.4g} "
        "(discounted); the difference is {value:.1%} of the spread of values.",
        remedy="The critics overestimate what the policy does. Raise rho or use q_agg='min', give the data more weight "
        "(alpha, guidance_lambda or the like), or train longer if success is still growing.",
        needs_env=True,
    ),
    "flow_consistency": Diagnostic(
        measure=values.inconsistency,
        look=0.15,
        bad=0.4,
        sentence="The value of a noisy action differs from Q of the action that it flows to by {value:.1%} of the "
        "spread of values (at the beginning of the flow by {early:.1%}, at its end by {late:.1%}).",
        remedy="The inner value does not follow the critic, so its gradient misleads the policy. Train longer, use "
        "time_embedding='fourier' or more time_dim, or a smaller learning rate.",
    ),
    "ensemble_disagreement": Diagnostic(
        measure=values.disagreement,
        look=2.0,
        bad=5.0,
        sentence="Critics disagree by {policy:.3g} at the policy's actions and by {data:.3g} at the data's, "
        "{value:.2f} times as much.",
        remedy="The policy acts where the critics guess. Give the data more weight, or use more critics with more "
        "pessimism (ensemble=10, rho=0.5).",
    ),
    "gradient_norms": Diagnostic(
        measure=training.gradient_norms,
        look=50.0,
        bad=1000.0,
        sentence="The largest gradient of a loss has {value:.3g} times the norm of the weights that it trains "
        "({named}).",
        remedy="Clip gradients (clip_grad_norm=1.0), use a smaller learning rate, or scale the rewards down.",
    ),
    "guidance_norm": Diagnostic(
        measure=training.guidance_norm,
        look=1.0,
        bad=3.0,
        sentence="The guidance is {value:.3g} times as long as the velocity of the data.",
        remedy="The value outweighs the data, and the policy leaves their support. Raise guidance_lambda (lower beta, "
        "inv_temp or guidance_coef of a guided sampler).",
    ),
    "action_saturation": Diagnostic(
        measure=actions.saturation,
        look=0.2,
        bad=0.5,
        sentence="{policy:.1%} of the coordinates of the policy's actions are at a bound, {data:.1%} of the data's.",
        remedy="The policy runs into the bounds of actions, as where a critic grows without end. Give the data more "
        "weight, and see value_range.",
    ),
    "behavior_distance": Diagnostic(
        measure=actions.distance,
        look=0.3,
        bad=0.6,
        sentence="{value:.1%} of the policy's actions are farther from all of the data than 95 % of the data's own "
        "(mean distance {policy:.3g}, of the data {data:.3g}).",
        remedy="The policy leaves the data, where values are guessed. Give the data more weight, or fewer candidates "
        "(best_of_n, num_samples).",
    ),
}
"""Name -> diagnostic, in the order in which they are shown."""


def diagnose(
    model: OfflineAlgorithm,
    env: VecEnv | None = None,
    *,
    samples: int = 1024,
    seed: int = 0,
    only: tuple[str, ...] | None = None,
) -> Diagnosis:
    """Diagnoses a model. Nothing about the model changes, nor do the random numbers of its training.

    Args:
        model: a model of any algorithm, with its dataset attached (`set_dataset`) or with transitions it has collected.
        env: environments with the rewards that the model was trained on, in which one episode each is run; None: the
            diagnostics that need returns do not apply, and the starts are those of the data's episodes.
        samples: number of transitions that are looked at.
        seed: seed of the transitions, of the noise and of the episodes.
        only: names of the diagnostics to take; None: all of them.

    Raises:
        ValueError: for an unknown name, or if the model has no transitions.
    """
    unknown = sorted(set(only or ()) - DIAGNOSTICS.keys())
    if unknown:
        raise ValueError(f"no diagnostic {unknown[0]!r} (known: {', '.join(DIAGNOSTICS)})")
    evidence = Evidence(model, env, samples=samples, seed=seed)
    if model.transitions.num_windows() == 0:
        raise ValueError(
            f"this {type(model).__name__} has no transitions to look at: saved models do not contain the dataset. Call "
            "set_dataset(...) first."
        )
    chosen = {name: one for name, one in DIAGNOSTICS.items() if only is None or name in only}
    steps = {"offline": model.offline_steps, "online": model.environment_steps}
    return Diagnosis(model.name, steps, tuple(one.read(name, evidence) for name, one in chosen.items()))
