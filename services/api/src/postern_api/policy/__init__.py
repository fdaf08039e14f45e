"""The policy as administrators edit it, and how a change becomes a revision that is live.

`objects` → `checks` → `compiling` → `editing` (one transaction) → `publishing` (KV POLICY, USERS).
"""
