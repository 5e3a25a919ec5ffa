"""Videos of the first episodes of an evaluation, as MP4 or GIF."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, final

import gymnasium as gym
import numpy as np
from PIL import Image

from flowpolicies.comparison.endings import check_video
from flowpolicies.data import make_env
from flowpolicies.data.replay.pixels import FrameStack, frames_between
from flowpolicies.files import atomic_path
from flowpolicies.policies import Evaluation, FlowPolicy, evaluate

FPS = 30
"""Frames per second of environments that do not say theirs."""


def record_video(
    policy: FlowPolicy, address: str, path: Path, *, episodes: int = 1, seed: int = 0, deterministic: bool = False
) -> Evaluation:
    """Plays the first episodes of an evaluation again, and writes them as a video.

    With the same seed they are the episodes that `evaluate` plays first.

    Args:
        policy: the policy.
        address: address or Gymnasium id of the environment.
        path: file to write; .mp4 or .gif.
        episodes: number of episodes.
        seed: seed of the episodes and of the policy's noise.
        deterministic: whether flows start at zero noise.

    Raises:
        ValueError: for another ending, or an environment that does not fit the policy.
        ImportError: if the package that writes videos is not installed.
        OSError: if the environment cannot be rendered on this machine; the message says what to set.
    """
    check_video(path)
    with closing(_open(address)) as env, _writer(path, env.metadata.get("render_fps") or FPS) as write:
        recorder: gym.Env[Any, Any] = _FrameRecorder(env, lambda: write(_frame(env, address)), episodes)
        if len(policy.observation_space.shape or ()) == 3:
            recorder = FrameStack(recorder, frames_between(env.observation_space, policy.observation_space))
        return evaluate(policy, recorder, episodes, deterministic=deterministic, seed=seed)


def _open(address: str) -> gym.Env[Any, Any]:
    try:
        return make_env(address, render_mode="rgb_array")
    except (ValueError, ImportError):  # A wrong address, or a package that is not installed.
        raise
    except Exception as error:  # Renderers fail with errors of any class.
        raise _cannot_render(address, error) from error


def _frame(env: gym.Env[Any, Any], address: str) -> np.ndarray:
    try:
        frame: Any = env.render()
    except Exception as error:  # As above.
        raise _cannot_render(address, error) from error
    if not isinstance(frame, np.ndarray):
        raise ValueError(f"the environment '{address}' returns no image when it renders, so there is no video of it.")
    return frame


def _cannot_render(address: str, error: Exception) -> OSError:
    now = os.environ.get("MUJOCO_GL")
    value = "is not set" if now is None else f"is '{now}'"
    reason = f"{type(error).__name__}: {error}".rstrip(".: ").partition("\n")[0]
    return OSError(
        f"'{address}' could not be rendered ({reason}). The environment variable MUJOCO_GL {value}. Without a screen "
        "set MUJOCO_GL=egl (a GPU, or Mesa's libEGL) or MUJOCO_GL=osmesa (Mesa's libOSMesa, without a GPU) before "
        "Python starts."
    )


@contextmanager
def _writer(path: Path, fps: float) -> Iterator[Callable[[np.ndarray], None]]:
    """A function that appends a frame; the file is there when all frames are written."""
    with atomic_path(path) as temporary, (_mp4 if path.suffix == ".mp4" else _gif)(temporary, fps) as append:
        yield append


@contextmanager
def _mp4(path: Path, fps: float) -> Iterator[Callable[[np.ndarray], None]]:
    import imageio_ffmpeg

    writer: Any = None

    def append(frame: np.ndarray) -> None:
        nonlocal writer
        if writer is None:
            size = (frame.shape[1], frame.shape[0])
            # The format is named because the temporary file ends in .tmp; players expect even sizes.
            options = {"macro_block_size": 2, "output_params": ["-f", "mp4"]}
            writer = imageio_ffmpeg.write_frames(str(path), size, fps=fps, **options)
            writer.send(None)
        writer.send(np.ascontiguousarray(frame))

    try:
        yield append
    finally:
        if writer is not None:
            writer.close()


@contextmanager
def _gif(path: Path, fps: float) -> Iterator[Callable[[np.ndarray], None]]:
    frames: list[Image.Image] = []
    yield lambda frame: frames.append(Image.fromarray(frame).quantize())
    frames[0].save(path, "GIF", save_all=True, append_images=frames[1:], duration=1000 / fps, loop=0)


@final
class _FrameRecorder(gym.Wrapper[Any, Any, Any, Any]):
    """Calls a function after each reset and step, until a number of episodes has ended."""

    def __init__(self, env: gym.Env[Any, Any], record: Callable[[], None], episodes: int) -> None:
        super().__init__(env)
        self._record, self._left = record, episodes

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts an episode, and records its first frame."""
        found = self.env.reset(seed=seed, options=options)
        if self._left > 0:
            self._record()
        return found

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Makes a step, and records the frame after it."""
        found = self.env.step(action)
        if self._left > 0:
            self._record()
            self._left -= bool(found[2] or found[3])
        return found
