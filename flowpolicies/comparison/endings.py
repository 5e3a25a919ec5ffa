"""What the endings of the names of videos mean, and the packages that they need; known without importing torch."""

from __future__ import annotations

import importlib
from pathlib import Path

WRITERS = {".mp4": ("imageio", "imageio_ffmpeg"), ".gif": ("imageio", "PIL")}
"""Ending of the name of a video -> modules that write it."""


def check_video(path: Path) -> Path:
    """The path of a video, unchanged.

    Raises:
        ValueError: if its ending is not that of a video.
        ImportError: if a package that writes it is not installed.
    """
    if path.suffix not in WRITERS:
        raise ValueError(f"'{path}': name the video with the ending {' or '.join(WRITERS)}.")
    for module in WRITERS[path.suffix]:
        try:
            importlib.import_module(module)
        except ImportError as error:
            hint = "pip install 'flowpolicies[video]'"
            raise ImportError(f"{path.suffix} videos need {module.replace('_', '-')}: {hint}") from error
    return path
