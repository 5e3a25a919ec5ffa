"""Pure functions of tensors and velocity callables."""

from flowpolicies.flows.consistency import boundaries as boundaries
from flowpolicies.flows.consistency import consistency_function as consistency_function
from flowpolicies.flows.consistency import curriculum as curriculum
from flowpolicies.flows.consistency import random_neighbors as random_neighbors
from flowpolicies.flows.continuous import EARLIEST as EARLIEST
from flowpolicies.flows.continuous import dpm_solver as dpm_solver
from flowpolicies.flows.continuous import noise_level as noise_level
from flowpolicies.flows.continuous import trained_times as trained_times
from flowpolicies.flows.diffusion import REVERSE_RULES as REVERSE_RULES
from flowpolicies.flows.diffusion import BetaSchedule as BetaSchedule
from flowpolicies.flows.diffusion import Diffusion as Diffusion
from flowpolicies.flows.diffusion import Noised as Noised
from flowpolicies.flows.diffusion import ReverseRule as ReverseRule
from flowpolicies.flows.diffusion import betas as betas
from flowpolicies.flows.diffusion import posterior_mean as posterior_mean
from flowpolicies.flows.guidance import action_gradient as action_gradient
from flowpolicies.flows.guidance import lean_adjoint as lean_adjoint
from flowpolicies.flows.guidance import pull_back as pull_back
from flowpolicies.flows.pathwise import path_kl as path_kl
from flowpolicies.flows.pathwise import reverse_step as reverse_step
from flowpolicies.flows.pathwise import step_kl as step_kl
from flowpolicies.flows.solvers import SOLVERS as SOLVERS
from flowpolicies.flows.solvers import Method as Method
from flowpolicies.flows.solvers import euler as euler
from flowpolicies.flows.solvers import euler_until_arrival as euler_until_arrival
from flowpolicies.flows.solvers import heun as heun
from flowpolicies.flows.solvers import interpolate as interpolate
from flowpolicies.flows.solvers import leading_grid as leading_grid
from flowpolicies.flows.solvers import midpoint as midpoint
from flowpolicies.flows.solvers import remaining_grid as remaining_grid
from flowpolicies.flows.solvers import rk4 as rk4
from flowpolicies.flows.solvers import uniform_grid as uniform_grid
from flowpolicies.flows.solvers import unit_grid as unit_grid
from flowpolicies.flows.stochastic import memoryless_sde as memoryless_sde
from flowpolicies.flows.stochastic import memoryless_sigma as memoryless_sigma
from flowpolicies.moved import moved_names

__getattr__ = moved_names(
    __name__,
    {
        "random_neighbours": "flowpolicies.flows:random_neighbors",
    },
)
