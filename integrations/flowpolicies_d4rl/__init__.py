"""D4RL for flowpolicies: its original data, and its tasks in simulators that still install."""

from flowpolicies_d4rl.antmaze import AntMaze as AntMaze
from flowpolicies_d4rl.environment import make_env as make_env
from flowpolicies_d4rl.loading import load as load
from flowpolicies_d4rl.resimulation import open_resimulator as open_resimulator
