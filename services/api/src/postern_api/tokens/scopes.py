"""Scopes and what each allows: a table, so that it can be read and tested cell by cell."""

from __future__ import annotations

import enum


class Scope(enum.StrEnum):
    """What a token is for."""

    ADMIN = "admin"  # everything
    OPERATOR = "operator"  # reads; works on queue, badmail, quarantine and sessions, mail content included; acknowledges alerts
    AUDITOR = "auditor"  # reads what is not the content of mail


class Right(enum.StrEnum):
    """What an endpoint asks for."""

    READ = "read"  # policy, queue, quarantine lists, traces, ledger, sessions, status, audit log
    OPERATE = (
        "operate"  # retry, hold, release, forward, delete mail; read its content; end sessions; acknowledge and reset alerts
    )
    ADMINISTER = "administer"  # change the policy; tokens


ALLOWS: dict[Scope, frozenset[Right]] = {
    Scope.ADMIN: frozenset({Right.READ, Right.OPERATE, Right.ADMINISTER}),
    Scope.OPERATOR: frozenset({Right.READ, Right.OPERATE}),
    Scope.AUDITOR: frozenset({Right.READ}),
}
