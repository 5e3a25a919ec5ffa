"""OGBench draws from NumPy's global random state; this confines that."""
# ruff: noqa: NPY002  # The legacy functions are what there is to confine.

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


@contextmanager
def global_draws_from(random_state: np.random.RandomState) -> Iterator[None]:
    """Let `np.random.*` draw from `random_state` in this block, and leave the state outside as it was.

    Costs about 0.2 ms, as NumPy copies the state four times.
    """
    outer = np.random.get_state()
    np.random.set_state(random_state.get_state())
    try:
        yield
    finally:
        random_state.set_state(np.random.get_state())
        np.random.set_state(outer)
