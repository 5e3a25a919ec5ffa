"""D4RL's scores."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from flowpolicies.data.dataset.dataset import TransitionDataset

REFERENCE = "reference_scores"
"""Key of a dataset's provenance: the returns `min` and `max` that scores of 0 and 100 mean."""


def normalized_score(dataset: TransitionDataset | Mapping[str, Any], returns: Any) -> Any:
    """100 (return - random) / (expert - random), D4RL's score, from the references that came with a dataset.

    Args:
        dataset: of D4RL or Minari, or its provenance.
        returns: one return or an array of them, of the rewards as they are stored.

    Raises:
        ValueError: if the dataset has no reference scores.
    """
    provenance = dataset.provenance if isinstance(dataset, TransitionDataset) else dataset
    if REFERENCE not in provenance:
        raise ValueError(
            f"dataset '{provenance.get('name')}' has no reference scores (those of D4RL have, and of Minari where "
            "its metadata hold ref_min_score and ref_max_score), so returns cannot be normalised."
        )
    low, high = provenance[REFERENCE]["min"], provenance[REFERENCE]["max"]
    return 100 * (np.asarray(returns) - low) / (high - low)
