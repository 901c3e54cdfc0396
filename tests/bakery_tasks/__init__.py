"""An application whose tasks the tests enqueue."""
