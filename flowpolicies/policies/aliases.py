"""The names of Stable-Baselines3's policies, which promise a kind of observation."""

from __future__ import annotations

from typing import Any

from gymnasium import spaces

from flowpolicies.spaces.layout import is_image_space


def check_policy_alias(name: Any, observation_space: spaces.Space[Any]) -> None:
    """Refuses a name of a Stable-Baselines3 policy that does not suit the observations, as Stable-Baselines3 does.

    `"FlowPolicy"` suits all observations, and so does a policy class.

    Args:
        name: what was passed as `policy`; anything but the three names is accepted.
        observation_space: space of the model's observations.

    Raises:
        ValueError: for "MultiInputPolicy" without a Dict space, "MlpPolicy" or "CnnPolicy" with one, or "CnnPolicy"
            without images.
    """
    is_dict = isinstance(observation_space, spaces.Dict)
    if name == "MultiInputPolicy" and not is_dict:
        raise ValueError(
            f'"MultiInputPolicy" is for Dict observations, but they are {observation_space}. Use "FlowPolicy", which '
            'takes all observations, or "MlpPolicy".'
        )
    if name in ("MlpPolicy", "CnnPolicy") and is_dict:
        raise ValueError(
            f'"{name}" is not for Dict observations. Use "MultiInputPolicy", or "FlowPolicy", which takes all '
            "observations."
        )
    if name == "CnnPolicy" and not is_image_space(observation_space):
        raise ValueError(
            '"CnnPolicy" is for images, which are uint8 Boxes with three axes and the bounds 0 and 255, but the '
            f'observations are {observation_space}. Use "MlpPolicy" or "FlowPolicy"; if they are images as floats, let '
            "the environment return uint8."
        )
