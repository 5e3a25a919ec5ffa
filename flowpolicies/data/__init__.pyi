"""Names of the package, each of which `__init__.py` imports when it is first used."""

from flowpolicies.data.dataset.checks import DataFault as DataFault
from flowpolicies.data.dataset.dataset import TransitionDataset as TransitionDataset
from flowpolicies.data.dataset.npz import read_npz as read_npz
from flowpolicies.data.dataset.npz import write_npz as write_npz
from flowpolicies.data.dataset.transforms import RewardTransform as RewardTransform
from flowpolicies.data.dataset.transforms import RewardTransformName as RewardTransformName
from flowpolicies.data.dataset.transforms import normalized_score as normalized_score
from flowpolicies.data.formats.memmap import open_memmap as open_memmap
from flowpolicies.data.formats.memmap import write_memmap as write_memmap
from flowpolicies.data.formats.sb3 import from_sb3_buffer as from_sb3_buffer
from flowpolicies.data.formats.sb3 import to_sb3_buffer as to_sb3_buffer
from flowpolicies.data.replay.goals import HindsightGoals as HindsightGoals
from flowpolicies.data.replay.relabelling import OnlineGoals as OnlineGoals
from flowpolicies.data.sources import check_address as check_address
from flowpolicies.data.sources import generate_dataset as generate_dataset
from flowpolicies.data.sources import list_sources as list_sources
from flowpolicies.data.sources import load_dataset as load_dataset
from flowpolicies.data.sources import make_env as make_env
from flowpolicies.data.sources import open_writer as open_writer
from flowpolicies.data.sources import register_source as register_source
from flowpolicies.data.sources import save_dataset as save_dataset
from flowpolicies.spaces.json import space_from_json as space_from_json
from flowpolicies.spaces.json import space_to_json as space_to_json
