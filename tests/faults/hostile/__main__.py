"""The programme as a process; a child process imports this module too, and nothing with it."""

import logging
import os
import sys

if __name__ == "__main__":
    from tests.faults.hostile.programme import main

    logging.basicConfig(level=logging.WARNING, filename=os.environ.get("HOSTILE_LOG", os.devnull))
    main(*sys.argv[1:])
