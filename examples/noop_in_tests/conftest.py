"""Before the application is imported: nobody keeps the time, and the record is kept in memory."""

import os

os.environ["JOBMANAGER_BACKEND"] = "noop"
os.environ["JOBMANAGER_DATABASE_URL"] = "memory://"
