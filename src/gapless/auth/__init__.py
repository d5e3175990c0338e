"""Who comes in, and what they may hear and say: one gate for every door."""

from gapless.auth.acl import Acl, AclLine, acl_of
from gapless.auth.ask import Answer, Ask
from gapless.auth.development import DevelopmentGate
from gapless.auth.gate import Certificate, Credentials, Gate, Identity, Operation, Source
from gapless.auth.leases import Holder, Lease, Leases
from gapless.auth.options import AskOptions, AuthOptions, KeyOptions
from gapless.auth.policy import Grant, Policy, Question
from gapless.auth.policy_gate import PolicyGate
from gapless.auth.review import Verdict, review
from gapless.auth.revocations import Revocation

__all__ = [
    "Acl",
    "AclLine",
    "Answer",
    "Ask",
    "AskOptions",
    "AuthOptions",
    "Certificate",
    "Credentials",
    "DevelopmentGate",
    "Gate",
    "Grant",
    "Holder",
    "Identity",
    "KeyOptions",
    "Lease",
    "Leases",
    "Operation",
    "Policy",
    "PolicyGate",
    "Question",
    "Revocation",
    "Source",
    "Verdict",
    "acl_of",
    "review",
]
