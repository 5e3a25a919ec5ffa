"""`python -m flowpolicies` is the command line."""

import sys

from flowpolicies.cli import main

if __name__ == "__main__":  # Processes that are spawned import this file.
    sys.exit(main())
