"""Jobs and runs for agents, over the Model Context Protocol: tools that read, and one that starts a run where that is allowed. An extra."""
