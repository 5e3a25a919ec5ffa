"""The functional core: batches, noise, views, loss terms and the learner. Torch only."""

from flowpolicies.core.learner import Learner as Learner
from flowpolicies.core.noise import Draw as Draw
from flowpolicies.core.noise import GeneratorNoise as GeneratorNoise
from flowpolicies.core.noise import Noise as Noise
from flowpolicies.core.noise import RecordingNoise as RecordingNoise
from flowpolicies.core.noise import ReplayedNoise as ReplayedNoise
from flowpolicies.core.noise import ZeroNoise as ZeroNoise
from flowpolicies.core.types import Batch as Batch
from flowpolicies.core.types import Loss as Loss
from flowpolicies.core.types import Metrics as Metrics
from flowpolicies.core.types import Velocity as Velocity
from flowpolicies.core.views import GLOSSARY as GLOSSARY
from flowpolicies.core.views import BoundNetwork as BoundNetwork
from flowpolicies.core.views import LossTerm as LossTerm
from flowpolicies.core.views import Network as Network
from flowpolicies.core.views import Networks as Networks
from flowpolicies.core.views import UpdateSpec as UpdateSpec
from flowpolicies.core.views import View as View
from flowpolicies.core.views import is_zero as is_zero
from flowpolicies.core.views import loss_term as loss_term
from flowpolicies.moved import moved_names

__getattr__ = moved_names(
    __name__,
    {
        "Step": "flowpolicies.core:UpdateSpec",
    },
)
