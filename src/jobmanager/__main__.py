"""`python -m jobmanager` is the command `jobmanager`."""

import sys

from jobmanager.cli import main

if __name__ == "__main__":
    sys.exit(main())
