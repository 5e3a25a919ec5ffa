"""What the endings of the names of videos mean, and the packages that they need; known without importing torch."""

from __future__ import annotations

import importlib
from pathlib import Path

WRITERS = {".mp4": "imageio_ffmpeg", ".gif": "PIL"}
"""Ending of the name of a video -> module that writes it."""


def check_video(path: Path) -> Path:
    """The path of a video, unchanged.

    Raises:
        ValueError: if its ending is not that of a video.
        ImportError: if the package that writes it is not installed.
    """
    if path.suffix not in WRITERS:
        raise ValueError(f"'{path}': name the video with the ending {' or '.join(WRITERS)}.")
    try:
        importlib.import_module(WRITERS[path.suffix])
    except ImportError as error:
        package = WRITERS[path.suffix].replace("_", "-")
        raise ImportError(f"{path.suffix} videos need {package}: pip install 'flowpolicies[video]'") from error
    return path
