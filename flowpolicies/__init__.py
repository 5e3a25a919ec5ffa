"""Flow policies for offline and offline-to-online reinforcement learning, behind Stable-Baselines3's contract.

from flowpolicies import QFlow, load_dataset, make_env

model = QFlow(dataset=load_dataset("ogbench:cube-single-play-singletask-task2-v0"), guidance_lambda=5.0)
model.learn_offline(1_000_000)
model.set_env(make_env("ogbench:cube-single-play-singletask-task2-v0"))
print(model.evaluate(episodes=50))
"""

from flowpolicies.lazy import make_lazy
from flowpolicies.moved import install

make_lazy(__name__)
install()
