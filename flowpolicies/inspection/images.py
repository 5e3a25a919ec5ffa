"""Checks of observations that are images, or look like images in another type or layout."""

from __future__ import annotations

import numpy as np
from gymnasium.spaces import Dict

from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.inspection.columns import Ranges
from flowpolicies.inspection.findings import Finding, found, is_image, named_arrays
from flowpolicies.spaces.layout import has_channels_last, may_be_float_images


def check_images(dataset: TransitionDataset, ranges: dict[str, Ranges]) -> list[Finding]:
    """Reports images with channels last, images that are nearly black, and floats that look like images.

    Args:
        dataset: the dataset to check.
        ranges: ranges of the dataset's columns.
    """
    findings = []
    for name, array in named_arrays("observations", dataset.observations):
        space = dataset.observation_space
        part = space[name.partition("/")[2]] if isinstance(space, Dict) else space
        brightest = float(np.nanmax(ranges[name].high)) if ranges[name].high.size else np.nan
        if has_channels_last(part):
            text = f"{name} are images with their channels last {array.shape[1:]}, which networks take for rows"
            advice = "Build the dataset with TransitionDataset.from_arrays, which transposes them and their space."
            findings.append(found(dataset, "observations", "fault", text, advice))
        elif is_image(array) and brightest <= 1:
            text = f"{name} are images (uint8) without a value above {brightest:.0f}, so that they are nearly black"
            advice = (
                "Floats from 0 to 1 were probably converted to bytes without a factor of 255. Convert them by "
                '(255 * images).round().astype("uint8").'
            )
            findings.append(found(dataset, "observations", "warning", text, advice))
        elif may_be_float_images(part):
            text = f"{name} have the shape of images {array.shape[1:]}, but are {array.dtype} (up to {brightest:.6g})"
            advice = (
                "Networks take them as plain numbers, not as images. If they are images, pass them to "
                "TransitionDataset.from_arrays with observation_space=Box(0, 255, shape, np.uint8), which converts "
                "them."
            )
            findings.append(found(dataset, "observations", "warning", text, advice))
    return findings
