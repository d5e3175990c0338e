"""Benchmarks of Gapless beside its peers: `python -m bench --help`."""
