"""Delivery's one job: bring each job to the next hop of its route, or tell its sender that it could not.

It owns the retry queue: a row in its database for each job in stream DEFERRED. It does not trust the next hop: replies are data, a
session may break anywhere, and a smart host that is slow or down holds up no other route. It does not trust its database either: rows
can be rebuilt from the stream, and mail that is delivered at the first try never touches it.

    first_try   a job from OUTBOUND ─┐
    retry       a row that is due   ─┴→ attempt → outcome → settlement: dispositions, NDRs (dsn, notices), badmail
                                                           deferral: DEFERRED and a row, due as schedule says
    janitor     rows against the stream, stored bodies against everything
    control     an administrator's requests

Standards: RFC 5321 sections 4.2, 4.5.4, 4.5.5, 6.1; RFC 3461, 3464, 6522 (notices); RFC 3834 (Auto-Submitted); RFC 1047.
"""
