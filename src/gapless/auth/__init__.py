"""Who comes in, and what they may hear and say: one gate for every door."""

from gapless.auth.development import DevelopmentGate
from gapless.auth.gate import Certificate, Credentials, Gate, Identity, Operation
from gapless.auth.leases import Holder, Lease, Leases
from gapless.auth.review import Verdict, review

__all__ = [
    "Certificate",
    "Credentials",
    "DevelopmentGate",
    "Gate",
    "Holder",
    "Identity",
    "Lease",
    "Leases",
    "Operation",
    "Verdict",
    "review",
]
