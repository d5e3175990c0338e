"""Servers that the same load is put on, for comparison."""
