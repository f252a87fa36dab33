"""The command line: one file a command group, which parses and prints; the work is elsewhere."""
