"""Run the command `jobmanager` as `python -m jobmanager`."""

import sys

from jobmanager.cli import main

if __name__ == "__main__":
    sys.exit(main())
