"""Equations that two or more papers share."""

from flowpolicies.losses.adjoint import adjoint_loss as adjoint_loss
from flowpolicies.losses.adjoint import adjoint_matching as adjoint_matching
from flowpolicies.losses.adjoint import control_cost as control_cost
from flowpolicies.losses.adjoint import fine_tuned as fine_tuned
from flowpolicies.losses.adjoint import slow_or_frozen as slow_or_frozen
from flowpolicies.losses.adjoint import terminal_adjoint as terminal_adjoint
from flowpolicies.losses.edit import edit_objective as edit_objective
from flowpolicies.losses.energy import contrastive_energy as contrastive_energy
from flowpolicies.losses.energy import soft_td_loss as soft_td_loss
from flowpolicies.losses.energy import soft_value as soft_value
from flowpolicies.losses.energy import support_weights as support_weights
from flowpolicies.losses.gaussian import gaussian_log_prob as gaussian_log_prob
from flowpolicies.losses.gaussian import squashed_log_prob as squashed_log_prob
from flowpolicies.losses.gaussian import squashed_sample as squashed_sample
from flowpolicies.losses.implicit import advantage_weights as advantage_weights
from flowpolicies.losses.implicit import expectile as expectile
from flowpolicies.losses.implicit import iql_critic_loss as iql_critic_loss
from flowpolicies.losses.implicit import iql_value_loss as iql_value_loss
from flowpolicies.losses.policy import FLOW_MATCHING as FLOW_MATCHING
from flowpolicies.losses.policy import ClonedSteps as ClonedSteps
from flowpolicies.losses.policy import denoising as denoising
from flowpolicies.losses.policy import distillation as distillation
from flowpolicies.losses.policy import flow_matching as flow_matching
from flowpolicies.losses.policy import flow_matching_loss as flow_matching_loss
from flowpolicies.losses.policy import flow_matching_of_steps as flow_matching_of_steps
from flowpolicies.losses.policy import maximize_q as maximize_q
from flowpolicies.losses.policy import soft_policy_loss as soft_policy_loss
from flowpolicies.losses.policy import temperature_loss as temperature_loss
from flowpolicies.losses.score import Scored as Scored
from flowpolicies.losses.score import noise_error as noise_error
from flowpolicies.losses.score import q_score_error as q_score_error
from flowpolicies.losses.score import scored as scored
from flowpolicies.losses.score import soft_guidance as soft_guidance
from flowpolicies.losses.td import QAggregation as QAggregation
from flowpolicies.losses.td import aggregate as aggregate
from flowpolicies.losses.td import mean_size as mean_size
from flowpolicies.losses.td import regress_critic as regress_critic
from flowpolicies.losses.td import td_loss as td_loss
from flowpolicies.losses.twin import best_next_value as best_next_value
from flowpolicies.losses.twin import maximize_either_q as maximize_either_q
from flowpolicies.moved import moved_names

__getattr__ = moved_names(
    __name__,
    {
        "maximise_q": "flowpolicies.losses:maximize_q",
        "maximise_either_q": "flowpolicies.losses:maximize_either_q",
    },
)
