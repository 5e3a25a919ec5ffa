"""Samplers: frozen dataclasses of plain data, called as `sampler(view, observations, noise)` -> actions."""

from flowpolicies.samplers.base import Sampler as Sampler
from flowpolicies.samplers.compose import BestOfN as BestOfN
from flowpolicies.samplers.compose import SoftmaxOfN as SoftmaxOfN
from flowpolicies.samplers.compose import WithNoise as WithNoise
from flowpolicies.samplers.compose import best_of as best_of
from flowpolicies.samplers.compose import candidates as candidates
from flowpolicies.samplers.compose import repeat as repeat
from flowpolicies.samplers.consistency import Consistency as Consistency
from flowpolicies.samplers.diffusion import Denoise as Denoise
from flowpolicies.samplers.direct import Gaussian as Gaussian
from flowpolicies.samplers.direct import OneStep as OneStep
from flowpolicies.samplers.direct import Perturbed as Perturbed
from flowpolicies.samplers.direct import TanhGaussian as TanhGaussian
from flowpolicies.samplers.dpm import DPMSolver as DPMSolver
from flowpolicies.samplers.dpm import EnergyGuided as EnergyGuided
from flowpolicies.samplers.edit import Edit as Edit
from flowpolicies.samplers.flow import ClassifierGuided as ClassifierGuided
from flowpolicies.samplers.flow import Guided as Guided
from flowpolicies.samplers.flow import Integrate as Integrate
from flowpolicies.samplers.flow import IntegrateResidual as IntegrateResidual
from flowpolicies.samplers.flow import Schedule as Schedule
from flowpolicies.samplers.latent import Latent as Latent
from flowpolicies.samplers.registry import SAMPLERS as SAMPLERS
from flowpolicies.samplers.registry import register_sampler as register_sampler
from flowpolicies.samplers.robust import GuidanceMonitor as GuidanceMonitor
from flowpolicies.samplers.robust import RobustGuided as RobustGuided
from flowpolicies.samplers.stochastic import MemorylessSDE as MemorylessSDE

SAMPLERS.register_classes(globals())
