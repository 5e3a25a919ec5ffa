"""Measures steps per second of online training and of collection alone, beside Stable-Baselines3's SAC.

OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/online.py --hidden-dims 128 128
"""

from __future__ import annotations

import argparse
import json

import torch

from flowpolicies.benchmarking.online import describe, measure_online


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithms", nargs="+", default=["sac", "qflow"])
    parser.add_argument("--hidden-dims", nargs="+", type=int, default=[128, 128])
    parser.add_argument("--n-envs", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = measure_online(
        arguments.algorithms,
        hidden_dims=arguments.hidden_dims,
        n_envs=arguments.n_envs,
        rounds=arguments.rounds,
        steps=arguments.steps,
    )
    print(json.dumps(found, indent=2) if arguments.json else "\n".join(describe(found)))


if __name__ == "__main__":
    main()
