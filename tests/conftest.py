"""Options of the whole test suite."""

import signal
import sys
from pathlib import Path

import pytest
import torch

for folder in ("parity", "support"):
    sys.path.insert(0, str(Path(__file__).parent / folder))
torch.set_num_threads(1)
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # Shells start background jobs so, and processes hand it on: the tests of Ctrl-C would wait for ever.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden-dir", default=None, help="directory of recordings to replay instead of tests/golden")
