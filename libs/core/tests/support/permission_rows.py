"""The written table of what each service may do on the bus: operations × services, with the subject that each operation needs.

`test_permissions.py` tries every cell against a real server, and keeps docs/reference/permissions.md in step (`rendered`).
"""

from __future__ import annotations

from dataclasses import dataclass

from postern_core.broker.names import SERVICES

ID = "01k0000000000000000000000q"
JOB = f"{ID}-main-0"
ANON, AUTH, SCREENER, DELIVERY, API = SERVICES
STREAMS = ("INTAKE", "OUTBOUND", "DEFERRED", "QUARANTINE", "BADMAIL", "BODIES", "DISPOSITIONS", "EVENTS", "ARCHIVE")
BUCKETS = ("POLICY", "USERS", "SECRETS", "STATUS")
PULL_NOTHING = b'{"batch":1,"no_wait":true}'
FIRST = b'{"seq":1}'


@dataclass(frozen=True)
class Row:
    """One operation: `subject` stands for the pattern that is shown. `answered`: whether whoever may do it gets an answer."""

    what: str
    subject: str
    shown: str
    services: frozenset[str] = frozenset()
    payload: bytes = b"{}"
    answered: bool = True


def row(what: str, shown: str, *services: str, payload: bytes = b"{}", answered: bool = True) -> Row:
    subject = shown
    for name, value in {"<id>": ID, "<job>": JOB, "<route>": "main", "<n>": "0", "<k>": "0", "<instance>": "one"}.items():
        subject = subject.replace(name, value)
    return Row(what, subject, shown, frozenset(services), payload, answered)


def _direct(stream: str, subject: str) -> str:
    return f"$JS.API.DIRECT.GET.{stream}.{subject}"


def _kv(bucket: str, key: str) -> str:
    return f"$JS.API.DIRECT.GET.KV_{bucket}.$KV.{bucket}.{key}"


def _next(stream: str, consumer: str) -> str:
    return f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"


def _ack(stream: str, consumer: str) -> str:
    return f"$JS.ACK.{stream}.{consumer}.1.9999.1.1.0"


OPERATIONS = (
    row("add mail that came in at the anonymous gate", "intake.anon.<id>", ANON),
    row("add mail that came in at the authenticated gate", "intake.auth.<id>", AUTH),
    row("take mail to screen", _next("INTAKE", "screener"), SCREENER, payload=PULL_NOTHING),
    row("see how far the screener is", "$JS.API.CONSUMER.INFO.INTAKE.screener", API),
    row("let go of screened mail", _ack("INTAKE", "screener"), SCREENER, answered=False),
    row("queue a job", "outbound.<route>.<id>", SCREENER, DELIVERY, API),
    row("take jobs", _next("OUTBOUND", "delivery-<route>"), DELIVERY, payload=PULL_NOTHING),
    row("let go of jobs", _ack("OUTBOUND", "delivery-<route>"), DELIVERY, answered=False),
    row("see how far delivery is", "$JS.API.CONSUMER.INFO.OUTBOUND.delivery-<route>", API),
    row("see which routes are fed", "$JS.API.CONSUMER.NAMES.OUTBOUND", DELIVERY, API),
    row("create the consumer of a route", "$JS.API.CONSUMER.CREATE.OUTBOUND.delivery-new.outbound.new.*", API),
    row("defer a job", "deferred.<job>", DELIVERY),
    row("read a deferred job", _direct("DEFERRED", "deferred.<job>"), DELIVERY),
    row("delete a deferred job", "$JS.API.STREAM.MSG.DELETE.DEFERRED", DELIVERY, payload=FIRST),
    row("put mail aside as badmail", "badmail.<job>", DELIVERY),
    row("read badmail", _direct("BADMAIL", "badmail.<job>"), DELIVERY),
    row("delete badmail", "$JS.API.STREAM.MSG.DELETE.BADMAIL", DELIVERY, payload=FIRST),
    row("hold mail", "quarantine.<id>", SCREENER),
    row("read held mail by its id", _direct("QUARANTINE", "quarantine.<id>"), API),
    row("read held mail one after the other", "$JS.API.DIRECT.GET.QUARANTINE", API, payload=FIRST),
    row("keep a copy of screened mail", "archive.<id>", SCREENER),
    row("read copies of screened mail one after the other", "$JS.API.DIRECT.GET.ARCHIVE", API, payload=FIRST),
    row("delete held mail", "$JS.API.STREAM.MSG.DELETE.QUARANTINE", API, payload=FIRST),
    *(row(f"store a body as {service}", f"body.{service}.<id>.<k>", service) for service in SERVICES),
    row("read a stored body", _direct("BODIES", "body.ingress-anon.<id>.<k>"), SCREENER, DELIVERY, API),
    row("delete stored bodies", "$JS.API.STREAM.PURGE.BODIES", SCREENER, DELIVERY, API, payload=b'{"filter":"body.nobody.x.*"}'),
    row("write a disposition", "disposition.<id>.<n>", SCREENER, DELIVERY, API),
    row("look a disposition up", _direct("DISPOSITIONS", "disposition.<id>.<n>"), SCREENER, DELIVERY, API),
    row("record dispositions", _next("DISPOSITIONS", "recorder"), API, payload=PULL_NOTHING),
    row("let go of recorded dispositions", _ack("DISPOSITIONS", "recorder"), API, answered=False),
    row("see how far the recorder of dispositions is", "$JS.API.CONSUMER.INFO.DISPOSITIONS.recorder", API),
    *(row(f"tell events as {service}", f"event.{service}.trace", service) for service in SERVICES),
    row("record events", _next("EVENTS", "recorder"), API, payload=PULL_NOTHING),
    row("see how far the recorder of events is", "$JS.API.CONSUMER.INFO.EVENTS.recorder", API),
    row("let go of recorded events", _ack("EVENTS", "recorder"), API, answered=False),
    row("change the policy", "$KV.POLICY.gates", API),
    row("read the policy of the gates", _kv("POLICY", "gates"), ANON, AUTH, API),
    row("read the policy of the screener", _kv("POLICY", "screening"), SCREENER, API),
    row("read the policy of delivery", _kv("POLICY", "delivery"), DELIVERY, API),
    row("change SMTP users", "$KV.USERS.user.abc", API),
    row("read SMTP users' hashes", _kv("USERS", "user.abc"), AUTH, API),
    row("change a route's credentials", "$KV.SECRETS.route.<route>", API),
    row("read a route's credentials", _kv("SECRETS", "route.<route>"), DELIVERY),
    *(row(f"report status as {service}", f"$KV.STATUS.{service}.<instance>", service) for service in SERVICES),
    row("read status reports", _kv("STATUS", "screener.<instance>"), API),
    *(
        row(f"see subjects and size of {stream}", f"$JS.API.STREAM.INFO.{stream}", *seers)
        for stream, seers in (
            *((stream, (DELIVERY, API)) for stream in ("INTAKE", "OUTBOUND", "DEFERRED", "QUARANTINE", "BADMAIL", "BODIES")),
            ("DISPOSITIONS", (SCREENER, DELIVERY, API)),
            *((stream, (API,)) for stream in ("EVENTS", "ARCHIVE", *(f"KV_{bucket}" for bucket in BUCKETS))),
        )
    ),
    row("ask the screener what would come of a message", "control.screener.try", API, answered=False),
    row("ask delivery about its queue", "control.delivery.queue-list", API, answered=False),
    row("ask the authenticated gate about failed logins", "control.ingress-auth.failures-list.+", API, answered=False),
    row("tell the other replicas about greylisting", "peers.ingress-anon", ANON, answered=False),
    row("tell the other replicas about accounts", "peers.ingress-auth", AUTH, answered=False),
    *(
        row(f"ask {gate} about its sessions", f"control.{gate}.sessions-list.<instance>", API, answered=False)
        for gate in (ANON, AUTH)
    ),
)

FORBIDDEN = (
    *(row("create a stream", f"$JS.API.STREAM.CREATE.{name}") for name in (*STREAMS, "NEW")),
    *(
        row(f"{what} a stream", f"$JS.API.STREAM.{call}.{stream}")
        for what, call in (("change", "UPDATE"), ("delete", "DELETE"), ("copy", "SNAPSHOT"), ("restore", "RESTORE"))
        for stream in (*STREAMS, *(f"KV_{bucket}" for bucket in BUCKETS))
    ),
    *(
        row("empty a stream", f"$JS.API.STREAM.PURGE.{stream}")
        for stream in (*STREAMS, *(f"KV_{bucket}" for bucket in BUCKETS))
        if stream != "BODIES"
    ),
    *(
        row("delete a message", f"$JS.API.STREAM.MSG.DELETE.{stream}", payload=FIRST)
        for stream in (
            "INTAKE",
            "OUTBOUND",
            "BODIES",
            "DISPOSITIONS",
            "EVENTS",
            "ARCHIVE",
            *(f"KV_{bucket}" for bucket in BUCKETS),
        )
    ),
    *(
        row("read any message by its number", f"$JS.API.STREAM.MSG.GET.{stream}", payload=FIRST)
        for stream in (*STREAMS, *(f"KV_{bucket}" for bucket in BUCKETS))
    ),
    *(
        row("read any message by its number", f"$JS.API.DIRECT.GET.{stream}", payload=FIRST)
        for stream in (*STREAMS, *(f"KV_{bucket}" for bucket in BUCKETS))
        if stream not in ("QUARANTINE", "ARCHIVE")
    ),
    *(
        row("create or change a consumer", f"$JS.API.CONSUMER.CREATE.{stream}{name}")
        for stream in (*STREAMS, *(f"KV_{bucket}" for bucket in BUCKETS))
        for name in ("", ".spy")
    ),
    row("create a consumer of all mail", "$JS.API.CONSUMER.CREATE.INTAKE.screener.intake.*.*"),
    *(
        row(f"{what} a consumer", f"$JS.API.CONSUMER.{call}.{stream}.{consumer}")
        for what, call in (("delete", "DELETE"), ("pause", "PAUSE"), ("unpin", "UNPIN"), ("reset", "RESET"))
        for stream, consumer in (("INTAKE", "screener"), ("OUTBOUND", "delivery-main"), ("DISPOSITIONS", "recorder"))
    ),
    row("delete everything", "$JS.API.ACCOUNT.PURGE.POSTERN"),
    *(
        row("ask about a consumer that is not ours", f"$JS.API.CONSUMER.INFO.{stream}.spy")
        for stream in (*STREAMS, *(f"KV_{bucket}" for bucket in BUCKETS))
        if stream != "OUTBOUND"
    ),
    row("list streams", "$JS.API.STREAM.LIST"),
    row("list the subjects of messages", "$JS.API.STREAM.NAMES"),
    *(row("tell of a change that is none", f"policy.changed.{section}") for section in ("gates", "screening", "delivery")),
    row("tell of a status that is none", "status.changed.screener.<instance>"),
    *(row(f"answer in the name of a broker to {service}", f"_INBOX_{service.replace('-', '_')}.x") for service in SERVICES),
    row("add mail as Postern itself", "intake.internal.<id>"),
    row("ask the broker's system account", "$SYS.REQ.SERVER.PING"),
)

SUBSCRIPTIONS = (
    row("hear of changes to the policy of the gates", "policy.changed.gates", ANON, AUTH),
    row("hear of changes to the policy of the screener", "policy.changed.screening", SCREENER),
    row("hear of changes to the policy of delivery", "policy.changed.delivery", DELIVERY),
    row("hear of status reports", "status.changed.*.*", API),
    row("answer what would come of a message", "control.screener.*", SCREENER),
    row("answer about the queue", "control.delivery.*", DELIVERY),
    row("answer about its sessions", "control.ingress-anon.*.*", ANON),
    row("answer about its sessions and failed logins", "control.ingress-auth.*.*", AUTH),
    row("hear what other replicas tell about greylisting", "peers.ingress-anon", ANON),
    row("hear what other replicas tell about accounts", "peers.ingress-auth", AUTH),
    *(row(f"hear answers to {service}", f"_INBOX_{service.replace('-', '_')}.>", service) for service in SERVICES),
)

EAVESDROPPING = tuple(
    row("listen", subject)
    for subject in (
        ">",
        "intake.>",
        "intake.anon.*",
        "outbound.>",
        "deferred.>",
        "quarantine.>",
        "badmail.>",
        "body.>",
        "disposition.>",
        "event.>",
        "$KV.>",
        "$KV.SECRETS.>",
        "policy.changed.>",
        "users.changed.>",
        "secrets.changed.>",
        "$JS.ACK.>",
        "$JS.API.>",
        "$JS.EVENT.>",
        "$SYS.>",
        "peers.>",
        "control.>",
        "_INBOX.>",
        "_R_.>",
    )
)


def rendered() -> str:
    """The tables of docs/reference/permissions.md."""
    return "\n".join(
        (
            *_table("may publish to", OPERATIONS),
            "",
            *_table("may subscribe to", SUBSCRIPTIONS),
        )
    )


def _table(head: str, rows: tuple[Row, ...]) -> list[str]:
    lines = [f"| | {head} | {' | '.join(SERVICES)} |", f"| --- | --- |{' :-: |' * len(SERVICES)}"]
    for each in rows:
        shown = each.shown.replace(".1.9999.1.1.0", ".>").replace(".user.abc", ".user.<name>")
        shown = shown.replace("body.ingress-anon.<id>", "body.<writer>.<id>" if "DIRECT" in shown else "body.ingress-anon.<id>")
        marks = " | ".join("yes" if service in each.services else "–" for service in SERVICES)
        lines.append(f"| {each.what} | `{shown}` | {marks} |")
    return lines
