"""Who comes in, and what they may hear and say: one gate for every door."""

from gapless.auth.gate import Credentials, DevelopmentGate, Gate, Identity

__all__ = ["Credentials", "DevelopmentGate", "Gate", "Identity"]
