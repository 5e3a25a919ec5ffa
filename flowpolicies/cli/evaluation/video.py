"""The flag --video of the commands that run policies."""

from __future__ import annotations

import ctypes.util
import os
import re
from pathlib import Path


def choose_renderer() -> None:
    """Lets MuJoCo render without a screen, if there is none and nobody has chosen otherwise.

    MuJoCo reads the variable when it is imported, so this comes before environments are made.
    """
    has_screen = any(name in os.environ for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    if has_screen or "MUJOCO_GL" in os.environ or os.name != "posix":
        return
    for name, library in (("egl", "EGL"), ("osmesa", "OSMesa")):
        if ctypes.util.find_library(library):
            os.environ["MUJOCO_GL"] = name
            return


def video_path(path: Path, *parts: str) -> Path:
    """The path of one of several videos: the parts are added to its name."""
    text = "-".join(re.sub(r"[^\w.-]+", "-", part).strip("-") for part in parts if part)
    return path.with_name(f"{path.stem}-{text}{path.suffix}") if text else path
