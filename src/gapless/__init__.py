"""Gapless: every application event to every device, once and in order, over whichever connection is alive."""

__version__ = "0.1.0"
