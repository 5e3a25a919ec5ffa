"""Compares returns of a uniform random policy in `make_env("d4rl:...")` with those that D4RL's score maps to 0.

python benchmarks/d4rl_random.py [--episodes 1000]
"""

import argparse

import numpy as np

from flowpolicies.data import make_env
from flowpolicies_d4rl.names import TASKS

NAMES = ("pen-human-v1", "door-human-v1", "hammer-human-v1", "relocate-human-v1")
NAMES += ("halfcheetah-random-v2", "hopper-random-v2", "walker2d-random-v2")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=1000)
    episodes = parser.parse_args().episodes
    print("| environment | mean return | standard error | lowest | D4RL's |\n|---|---|---|---|---|")
    for name in NAMES:
        env, returns = make_env(f"d4rl:{name}"), np.zeros(episodes)
        env.action_space.seed(0)
        for episode in range(episodes):
            env.reset(seed=episode)
            ended = False
            while not ended:
                _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
                returns[episode] += float(reward)
                ended = terminated or truncated
        error = returns.std(ddof=1) / np.sqrt(episodes)
        print(
            f"| {name} | {returns.mean():.2f} | {error:.2f} | {returns.min():.2f} | {TASKS[name].random:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
