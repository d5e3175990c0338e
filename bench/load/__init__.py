"""The load generator: clients that parse just enough to count and to time."""
