"""Parts of error messages, and lines for users."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """ " Did you mean 'x'?", to be put after a message, for the known word nearest to `word`; "" if none is near.

    Args:
        cutoff: similarity in [0, 1] below which a known word is not suggested, as in `difflib.get_close_matches`.
    """
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return f" Did you mean '{close[0]}'?" if close else ""


def say(text: str) -> None:
    """Prints a line above the progress bar, and flushes it for readers of a log file."""
    from tqdm import tqdm

    tqdm.write(text)
    sys.stdout.flush()


def duration(seconds: float) -> str:
    """A duration in the unit that fits, such as "1.5 h"."""
    minutes, hours = seconds / 60, seconds / 3600
    return f"{hours:.1f} h" if hours >= 1 else f"{minutes:.1f} min" if minutes >= 1 else f"{seconds:.0f} s"
