"""The doors through which events leave (and, for clients, come in)."""
