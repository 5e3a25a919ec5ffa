"""Prints what rliable says about some scores, which tests/comparison/rliable.json holds.

rliable 1.2.0 (Apache-2.0) needs arch < 8, which does not import beside pandas 3. So it is no dependency of the tests,
and this runs in an environment of its own:

    pip install "rliable==1.2.0" "pandas<3" && python tests/comparison/record_rliable.py
"""

import json

import numpy as np
from rliable import library as rly
from rliable import metrics

rng = np.random.default_rng(0)
np.random.seed(0)
ours = rng.normal(60, 15, (5, 4)).round(1) + np.array([0, 10, -20, 5])
other = rng.normal(52, 15, (8, 4)).round(1) + np.array([0, 10, -20, 5])
other[0, 0] = ours[0, 0]
scores = {"a": np.round(ours, 1), "b": np.round(other, 1)}
REPS = 2000


def agg(s):
    return np.array([metrics.aggregate_mean(s), metrics.aggregate_iqm(s)])


point, interval = rly.get_interval_estimates(scores, agg, reps=REPS)
pp, pi = rly.get_interval_estimates({"a,b": (scores["a"], scores["b"])}, metrics.probability_of_improvement, reps=REPS)
taus = np.array([20.0, 40.0, 50.0, 60.0, 80.0])
prof, prof_i = rly.create_performance_profile(scores, taus, reps=1000)
out = {
    "rliable": "1.2.0, Apache-2.0, https://github.com/google-research/rliable",
    "made_by": "tests/comparison/record_rliable.py",
    "reps": REPS,
    "scores": {k: v.tolist() for k, v in scores.items()},
    "mean": {k: [float(point[k][0]), *map(float, interval[k][:, 0])] for k in scores},
    "iqm": {k: [float(point[k][1]), *map(float, interval[k][:, 1])] for k in scores},
    "improvement": [float(pp["a,b"]), *map(float, np.ravel(pi["a,b"]))],
    "thresholds": taus.tolist(),
    "profile": {k: [prof[k].tolist(), *prof_i[k].tolist()] for k in scores},
}
print(json.dumps(out, indent=1))
