"""The section with videos, whose bytes are in the page."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path

from flowpolicies.pages.blocks import MediaBlock, PageBlock, Section, TextBlock
from flowpolicies.report.gather import Gathered, count

KINDS = {".mp4": "video/mp4", ".webm": "video/webm", ".gif": "image/gif"}
"""Ending of the name of a video -> its media type."""
STARTS = {".mp4": (4, b"ftyp"), ".webm": (0, b"\x1aE\xdf\xa3"), ".gif": (0, b"GIF8")}
"""Ending of the name of a video -> position and bytes that such files have."""
MEGABYTE = 1_000_000


def check_videos(paths: Sequence[Path]) -> None:
    """Raises an error for files that are no videos.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if its ending is not that of a video.
    """
    for path in paths:
        if path.suffix.lower() not in KINDS:
            raise ValueError(f"--videos '{path}': reports show {', '.join(KINDS)} files.")
        if not path.is_file():
            raise FileNotFoundError(f"--videos '{path}': there is no such file.")


def videos_section(gathered: Gathered, given: Sequence[Path], limit: float) -> Section:
    """Videos in the run folders and those that are given, up to a limit.

    Args:
        given: further videos.
        limit: size in megabytes, of all videos together, up to which they are put into the page.
    """
    inside = [(f"{gathered.names[path]}: {file.name}", file) for path in gathered.records for file in _videos_in(path)]
    shown: list[PageBlock] = []
    lacking: list[PageBlock] = []
    left = limit * MEGABYTE
    for title, path in [*inside, *((str(path), path) for path in given)]:
        problem = _problem(path, left, limit, is_inside=path not in given)
        if problem:
            lacking.append(TextBlock(f"{title} is left out: {problem}", "missing"))
            continue
        content, suffix = path.read_bytes(), path.suffix.lower()
        left -= len(content)
        address = f"data:{KINDS[suffix]};base64,{base64.b64encode(content).decode()}"
        shown.append(MediaBlock(title, address, suffix != ".gif"))
    sentence = f"{count(len(shown), 'video')} of policies in their environments."
    if not shown:
        sentence = "There are no videos."
        how = "Make one with: flowpolicies evaluate RUN --video RUN/episode.mp4; --videos adds those of other folders."
        lacking.append(TextBlock(how, "missing"))
    return Section(title="Videos", sentence=sentence, blocks=[*shown, *lacking])


def _videos_in(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in KINDS:
            yield path


def _problem(path: Path, left: float, limit: float, *, is_inside: bool) -> str:
    """Why a video cannot be shown; "" if it can."""
    if is_inside and path.is_symlink():  # It would put a file from elsewhere into a page that is passed on.
        return "it is a symbolic link; name the file with --videos."
    if not path.is_file():
        return "it is not a file."
    if (size := path.stat().st_size) > left:
        return f"it has {size / MEGABYTE:.1f} MB, and all videos together may have {limit:g} (--max-video-mb)."
    position, bytes_ = STARTS[path.suffix.lower()]
    with path.open("rb") as file:
        if file.read(position + len(bytes_))[position:] != bytes_:
            return f"it is not a {path.suffix} file."
    return ""
