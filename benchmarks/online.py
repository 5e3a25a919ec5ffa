"""Measures steps per second of online training and of collection alone, beside Stable-Baselines3's SAC.

OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/online.py --hidden-dims 128 128
"""

from __future__ import annotations

import argparse
import json

import torch

from flowpolicies.benchmarking.online import measure_online


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
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    for kind in ("learning", "collecting"):
        print(f"{kind}: microseconds per step (least, median), steps per second, time relative to sb3_sac")
        for name, each in found[kind].items():
            numbers = f"{each['us_min']:8.0f} {each['us_median']:8.0f} {each['steps_per_second']:8.0f}"
            without = f"   without environment {each['overhead_ratio']:.2f}" if "overhead_ratio" in each else ""
            print(f"  {name:12s} {numbers} {each['ratio']:6.2f}{without}")


if __name__ == "__main__":
    main()
