"""Jobs and runs as people and programs read them: in words, and as documents with stable keys. Shared by the command line, pages and API."""
