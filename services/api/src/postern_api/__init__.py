"""The control plane: a REST API over policy, queue, quarantine, trace and ledger.

Its one job is to let administrators see and change Postern; no mail passes through it, and mail moves while it is away. It trusts
nobody without a token, and no payload: every change is checked as a whole before it becomes a revision. Implements RFC 6750 section
2.1 (bearer tokens), RFC 9110 section 13.1.1 (If-Match), RFC 9106 (Argon2id for SMTP users' passwords).
"""
