"""Run the command `jobmanager` as `python -m jobmanager`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Python put the working directory first, before libraries that are loaded later; the application is found there all the same.
    if not sys.flags.safe_path and sys.path[:1] == [str(Path.cwd())]:
        del sys.path[0]

    from jobmanager.cli import main

    sys.exit(main())
