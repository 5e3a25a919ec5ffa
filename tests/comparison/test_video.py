from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gymnasium as gym
import imageio_ffmpeg
import numpy as np
import pytest
from gymnasium import spaces
from PIL import Image
from tiny import pendulum_data, tiny

from flowpolicies import FlowPolicy, evaluate
from flowpolicies.algorithms import BC
from flowpolicies.cli.evaluation.video import choose_renderer, video_path
from flowpolicies.comparison import endings
from flowpolicies.comparison.video import record_video

FRAMES = 6
"""Frames of an episode: one after the reset, and one after each of five steps."""


class Brightens(gym.Env[Any, Any]):
    """Episodes of five steps; a frame is brighter the later it is, and has odd sizes."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012
    observation_space = spaces.Box(np.array([-1, -1, -8], np.float32), np.array([1, 1, 8], np.float32))
    action_space = spaces.Box(-2.0, 2.0, (1,), np.float32)

    def __init__(self, render_mode: str | None = None, fails: bool = False, blank: bool = False) -> None:
        self.render_mode, self.fails, self.blank = render_mode, fails, blank

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t, self.start = 0, self.np_random.uniform(-1, 1, 3).astype(np.float32)
        return self.start, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        return self.start, float(self.start[0]), False, self.t == 5, {}

    def render(self) -> Any:
        if self.fails:
            raise RuntimeError("an OpenGL platform library has not been loaded into this process.")
        return None if self.blank else np.full((33, 47, 3), 40 * self.t, np.uint8)


gym.register("Brightens-v0", Brightens)


@pytest.fixture(scope="module")
def policy() -> FlowPolicy:
    return tiny(BC, dataset=pendulum_data()).policy


def test_a_gif_has_a_frame_for_each_state(policy: FlowPolicy, tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    found = record_video(policy, "Brightens-v0", path, seed=3)
    with Image.open(path) as image:
        assert (image.n_frames, image.size, image.info["duration"]) == (FRAMES, (47, 33), 50)
        assert image.info["loop"] == 0
    assert found.returns.tolist() == evaluate(policy, "Brightens-v0", 3, seed=3).returns[:1].tolist()
    assert list(tmp_path.iterdir()) == [path]


def test_an_mp4_of_several_episodes(policy: FlowPolicy, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    record_video(policy, "Brightens-v0", path, episodes=2)
    meta, *raw = imageio_ffmpeg.read_frames(path)
    assert (meta["size"], meta["fps"]) == ((48, 34), 20)  # Sizes are even.
    frames = [np.frombuffer(frame, np.uint8).mean() for frame in raw]
    assert len(frames) == 2 * FRAMES
    assert frames[5] > 150 > frames[3] > frames[0] < 10
    assert frames[6] < 10


def test_errors_say_what_to_do(policy: FlowPolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    with pytest.raises(OSError, match=r"an OpenGL .* MUJOCO_GL is 'glfw'\. Without a screen set MUJOCO_GL=egl"):
        record_video(policy, "Brightens-v0,fails=true", tmp_path / "a.gif")
    with pytest.raises(ValueError, match="returns no image when it renders"):
        record_video(policy, "Brightens-v0,blank=true", tmp_path / "a.gif")
    with pytest.raises(ValueError, match=r"name the video with the ending \.mp4 or \.gif"):
        record_video(policy, "Brightens-v0", tmp_path / "a.avi")
    monkeypatch.setitem(endings.WRITERS, ".mp4", "no_such_module")
    with pytest.raises(ImportError, match=r"\.mp4 videos need no-such-module: pip install 'flowpolicies\[video\]'"):
        record_video(policy, "Brightens-v0", tmp_path / "a.mp4")
    assert not list(tmp_path.iterdir())


def test_mujoco_renders_without_a_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL"):
        monkeypatch.delenv(name, raising=False)
    found = {"EGL": None, "OSMesa": "libOSMesa.so"}
    monkeypatch.setattr("ctypes.util.find_library", found.get)
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    choose_renderer()  # The choice of the user stays.
    assert os.environ["MUJOCO_GL"] == "glfw"
    monkeypatch.delenv("MUJOCO_GL")
    choose_renderer()
    assert os.environ["MUJOCO_GL"] == "osmesa"


def test_names_of_several_videos() -> None:
    assert video_path(Path("out/a.mp4"), "", "") == Path("out/a.mp4")
    assert video_path(Path("out/a.mp4"), "fql seed 0", "task 3") == Path("out/a-fql-seed-0-task-3.mp4")
