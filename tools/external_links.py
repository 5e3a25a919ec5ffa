"""Asks every address on other servers that the documentation and the docstrings name whether it still answers.

python tools/external_links.py  (`make links`; needs a network, and is no part of the tests)
"""

from __future__ import annotations

import re
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

ROOT = Path(__file__).parents[1]
PLACES = ("*.md", "docs/**/*.md", "flowpolicies/**/*.py", "flowpolicies/**/*.md", "integrations/**/*.py")
"""Files that name addresses, as patterns below the root of the repository."""
ADDRESS = re.compile(r"https?://[\w.-]+\.[a-z]{2,}[^\s\"'`<>()\[\]{},;\\]*")
NOT_ASKED = {
    "https://arxiv.org/abs/2501.00000": "stands for the paper of an algorithm that is to be added",
    "https://pypi.org/project/flowpolicies/": "is the page of this package once it is published",
    "https://rail.eecs.berkeley.edu/datasets/offline_rl": "begins addresses of files",
    "https://rail.eecs.berkeley.edu/datasets/ogbench/puzzle-4x4-play-100m-v0/": "begins addresses of files",
}
"""Addresses that lead to no page, and why they are named."""
BROWSERS_ONLY = ("openreview.net", "jmlr.org")
"""Servers that may refuse programs (403 or 429), which then counts as an answer."""
TRIES, WAIT, TIMEOUT, AT_ONCE = 3, 5.0, 20.0, 4
"""Number of tries per address, seconds between two of them, seconds for an answer, and number of addresses at once."""


def addresses(root: Path = ROOT) -> dict[str, list[str]]:
    """Each address, without the anchor, and the places `file:line` that name it."""
    found: dict[str, list[str]] = defaultdict(list)
    for file in sorted({path for pattern in PLACES for path in root.glob(pattern)}):
        if "vendor" not in file.parts:
            for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
                for match in ADDRESS.findall(line):
                    address = match.partition("#")[0].rstrip(".:*")
                    found[address].append(f"{file.relative_to(root).as_posix()}:{number}")
    return dict(found)


def fault(address: str, wait: float = WAIT) -> str | None:
    """What is wrong with an address after a few tries; None: it answers."""
    reason = ""
    for attempt in range(TRIES):
        time.sleep(wait * bool(attempt))
        request = Request(address, headers={"User-Agent": "flowpolicies link check", "Accept": "*/*"})
        try:
            with urlopen(request, timeout=TIMEOUT):
                return None
        except HTTPError as error:
            reason = f"{error.code} {error.reason}"
            if error.code in (403, 429) and urlsplit(address).hostname in BROWSERS_ONLY:
                return None
            if error.code in (404, 410):  # It will not come back by trying again.
                break
        except (OSError, HTTPException) as error:
            reason = str(error)
    return reason


def faults(found: dict[str, list[str]]) -> Iterator[str]:
    """A line for each address that does not answer, with the places that name it."""
    asked = sorted(found.keys() - NOT_ASKED.keys())
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for address, reason in zip(asked, pool.map(fault, asked), strict=True):
            if reason is not None:
                yield f"{address}: {reason} ({', '.join(found[address])})"


if __name__ == "__main__":
    known = addresses()
    lines = list(faults(known))
    print("\n".join([*lines, f"{len(lines)} of {len(known)} addresses do not answer."]))
    sys.exit(bool(lines))
