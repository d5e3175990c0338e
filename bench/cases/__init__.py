"""What is measured: each case puts one load on every server that can take it."""
