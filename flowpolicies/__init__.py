"""Flow policies for offline and offline-to-online reinforcement learning, behind Stable-Baselines3's contract.

from flowpolicies import QFlow, load_dataset, make_env

model = QFlow(dataset=load_dataset("ogbench:cube-single-play-singletask-task2-v0"), guidance_lambda=5.0)
model.learn_offline(1_000_000)
model.set_env(make_env("ogbench:cube-single-play-singletask-task2-v0"))
print(model.evaluate(episodes=50))
"""

from flowpolicies.algorithms import ALGORITHMS as ALGORITHMS
from flowpolicies.algorithms import BAM as BAM
from flowpolicies.algorithms import BC as BC
from flowpolicies.algorithms import BDPO as BDPO
from flowpolicies.algorithms import CAC as CAC
from flowpolicies.algorithms import CGQL as CGQL
from flowpolicies.algorithms import CGQLL as CGQLL
from flowpolicies.algorithms import CGQLM as CGQLM
from flowpolicies.algorithms import DAC as DAC
from flowpolicies.algorithms import DACD4RL as DACD4RL
from flowpolicies.algorithms import DSRL as DSRL
from flowpolicies.algorithms import FAWAC as FAWAC
from flowpolicies.algorithms import FBRAC as FBRAC
from flowpolicies.algorithms import FQL as FQL
from flowpolicies.algorithms import IDQL as IDQL
from flowpolicies.algorithms import IFQL as IFQL
from flowpolicies.algorithms import IQL as IQL
from flowpolicies.algorithms import IQLDDPGBC as IQLDDPGBC
from flowpolicies.algorithms import QAM as QAM
from flowpolicies.algorithms import QAME as QAME
from flowpolicies.algorithms import QAMF as QAMF
from flowpolicies.algorithms import QC as QC
from flowpolicies.algorithms import QFQL as QFQL
from flowpolicies.algorithms import QGPO as QGPO
from flowpolicies.algorithms import QIPO as QIPO
from flowpolicies.algorithms import QSM as QSM
from flowpolicies.algorithms import RLPD as RLPD
from flowpolicies.algorithms import RQL as RQL
from flowpolicies.algorithms import SAC as SAC
from flowpolicies.algorithms import TFQL as TFQL
from flowpolicies.algorithms import BCDiffusion as BCDiffusion
from flowpolicies.algorithms import BCGaussian as BCGaussian
from flowpolicies.algorithms import DiffusionQL as DiffusionQL
from flowpolicies.algorithms import FEdit as FEdit
from flowpolicies.algorithms import OfflineAlgorithm as OfflineAlgorithm
from flowpolicies.algorithms import QFlow as QFlow
from flowpolicies.algorithms import QFlowBPTT as QFlowBPTT
from flowpolicies.algorithms import QIPOFull as QIPOFull
from flowpolicies.algorithms import QSMOnline as QSMOnline
from flowpolicies.algorithms import ReBRAC as ReBRAC
from flowpolicies.algorithms import ReBRACQAM as ReBRACQAM
from flowpolicies.algorithms import get_algorithm as get_algorithm
from flowpolicies.algorithms import make as make
from flowpolicies.data import TransitionDataset as TransitionDataset
from flowpolicies.data import generate_dataset as generate_dataset
from flowpolicies.data import list_sources as list_sources
from flowpolicies.data import load_dataset as load_dataset
from flowpolicies.data import make_env as make_env
from flowpolicies.data import register_source as register_source
from flowpolicies.moved import install
from flowpolicies.policies import Evaluation as Evaluation
from flowpolicies.policies import FlowPolicy as FlowPolicy
from flowpolicies.policies import SteeredEnv as SteeredEnv
from flowpolicies.policies import evaluate as evaluate

install()
__version__ = "0.1.0"
