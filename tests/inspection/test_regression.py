from __future__ import annotations

import numpy as np

from flowpolicies.inspection.regression import explained


def test_explained_variance_is_that_of_unseen_rows() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(2000, 2))
    outputs = np.stack([inputs[:, 0], inputs[:, 0] + rng.normal(size=2000), rng.normal(size=2000)], 1)
    np.testing.assert_allclose(explained(inputs, outputs), [1, 0.5, 0], atol=0.08)
