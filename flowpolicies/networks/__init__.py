"""Network modules. Each is built as `Module(observation_dim, action_dim, **options)`."""

from flowpolicies.moved import moved_names
from flowpolicies.networks.critic import Critic as Critic
from flowpolicies.networks.diffusion import EmbedLevel as EmbedLevel
from flowpolicies.networks.diffusion import LevelEmbedding as LevelEmbedding
from flowpolicies.networks.diffusion import NoisePrediction as NoisePrediction
from flowpolicies.networks.diffusion import NoisyValue as NoisyValue
from flowpolicies.networks.encoders import Encoded as Encoded
from flowpolicies.networks.encoders import ImpalaVariant as ImpalaVariant
from flowpolicies.networks.encoders import ObservationEncoder as ObservationEncoder
from flowpolicies.networks.encoders import ObservationPart as ObservationPart
from flowpolicies.networks.gaussian import GaussianNetwork as GaussianNetwork
from flowpolicies.networks.gaussian import TanhNormal as TanhNormal
from flowpolicies.networks.gaussian import normal_log_prob as normal_log_prob
from flowpolicies.networks.gaussian import tanh_log_slope as tanh_log_slope
from flowpolicies.networks.mlp import MLP as MLP
from flowpolicies.networks.mlp import Activation as Activation
from flowpolicies.networks.mlp import Initialization as Initialization
from flowpolicies.networks.mlp import TimeEmbedding as TimeEmbedding
from flowpolicies.networks.mlp import embed_time as embed_time
from flowpolicies.networks.registry import ENCODERS as ENCODERS
from flowpolicies.networks.registry import NETWORKS as NETWORKS
from flowpolicies.networks.registry import EncoderFactory as EncoderFactory
from flowpolicies.networks.registry import register_encoder as register_encoder
from flowpolicies.networks.registry import register_network as register_network
from flowpolicies.networks.residual import InputNormValue as InputNormValue
from flowpolicies.networks.residual import ResidualBlock as ResidualBlock
from flowpolicies.networks.residual import ResidualNoisePrediction as ResidualNoisePrediction
from flowpolicies.networks.temperature import Multiplier as Multiplier
from flowpolicies.networks.temperature import Temperature as Temperature
from flowpolicies.networks.unet import UNet as UNet
from flowpolicies.networks.value import Value as Value
from flowpolicies.networks.velocity import VelocityField as VelocityField

NETWORKS.register("Gaussian", GaussianNetwork)  # Policy files keep the name that this class once had.
NETWORKS.register_classes(globals())

__getattr__ = moved_names(
    __name__,
    {
        "Gaussian": "flowpolicies.networks.gaussian:GaussianNetwork",
        "Part": "flowpolicies.networks.encoders:ObservationPart",
    },
)
