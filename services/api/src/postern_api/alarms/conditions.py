"""What of a look is worth an alarm. Pure: looks in, conditions out; whether a condition has lasted long enough is the board's to say.

docs/operate/alarms.md has a row for each kind. Standards: none; docs/reliability.md says what the alarms are for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from postern_api.alarms.kinds import Condition, Figure, Key, Kind, Severity
from postern_api.alarms.look import EngineDown, Look, Stale, StreamSeen
from postern_api.ledger.comparison import Fault
from postern_api.ledger.verification import Verified
from postern_core.bus.topology import BADMAIL, BODIES, DEFERRED, DISPOSITIONS, INTAKE, OUTBOUND, QUARANTINE
from postern_core.policy import OnFailure

_WARN_AT: Final = 0.70
_CRITICAL_AT: Final = 0.85
_SLACK: Final = 0.03  # an alarm that is up goes down only this far below, so that it does not come and go
_SILENT_S: Final = 10.0  # a peer is heard of every second
_FAR_BEHIND: Final = 1000  # operations; fewer are on their way in any busy stream
_MANY_UNCLAIMED: Final = 1000
_STANDS_S: Final = (
    (Severity.CRITICAL, 3600.0),
    (Severity.WARNING, 900.0),
)  # in INTAKE, OUTBOUND: both pass on at once what they can
_WHEN_FULL: Final = {
    INTAKE: "the gates refuse mail with 452 4.3.1",
    OUTBOUND: "the screener stops, INTAKE fills up, and then the gates refuse mail with 452 4.3.1",
    DEFERRED: "mail that has to wait stays in OUTBOUND, and new mail does not get past it",
    QUARANTINE: "mail that is to be held stays in INTAKE",
    BADMAIL: "what cannot be returned stays where it is, and is tried again",
    BODIES: "the gates refuse messages above the inline limit with 452 4.3.1, and what rules change in messages over 6 MiB waits in INTAKE",
    DISPOSITIONS: "no message can come to its end",
}
_WHY_FILLING: Final = {
    INTAKE: "see whether the screener runs and keeps up (postern status), and start more replicas of it",
    OUTBOUND: "see whether delivery runs, and which smart host does not answer",
    DEFERRED: "see which route fails (GET /api/v1/queue), and retry or delete what waits",
    QUARANTINE: "release or delete held mail",
    BADMAIL: "delete badmail that was looked at",
    BODIES: "it empties with the mail: look at the queue and at quarantine",
    DISPOSITIONS: "it empties by age, in seven days: raise its limit",
}
# the others' mail lies somewhere
_LOST: Final = frozenset({Fault.MISSING, Fault.ROW_WITHOUT_MAIL, Fault.HELD_WITHOUT_MAIL, Fault.BADMAIL_WITHOUT_MAIL})


@dataclass(slots=True)
class Past:
    """What was, as far as it tells something about what is."""

    before: Look | None = None  # the look before this one
    highest: dict[tuple[str, str], int] = field(default_factory=dict)  # sequence number ever seen, by stream and its creation

    def remember(self, look: Look) -> None:
        self.before = look
        for name, seen in look.streams.items():
            self.highest[name, seen.created] = max(seen.last_seq, self.highest.get((name, seen.created), 0))


def conditions(look: Look, past: Past, verified: Verified | None, up: Mapping[Key, Severity]) -> dict[Key, Condition]:
    """Everything in this look that is not as it should be. `up` are the alarms that are up."""
    found: dict[Key, Condition] = {}
    if verified is not None and verified.count:
        found[Kind.LEDGER_DISCREPANCIES, ""] = _discrepancies(verified)
    if look.silent:
        found[Kind.BROKER_SILENT, ""] = Condition(
            Severity.CRITICAL,
            f"the broker does not answer: {look.silent}. The other alarms are as they were when it last did",
            "see whether it runs and whether its disk is full (its log says so); gates answer 451 meanwhile, and clients keep their mail",
        )
        return found
    if look.not_storing:
        found[Kind.BROKER_NOT_STORING, ""] = Condition(
            Severity.CRITICAL,
            f"the broker answers, and stores nothing ({look.not_storing}): no mail comes in or moves on",
            "see its log. After a full disk make room first, then restart the broker: what it once failed to write to, it does not write to again. "
            "Nothing is lost that was accepted, gates answer 451 or 452 meanwhile",
        )
    for stream, why in look.unreadable.items():
        found[Kind.STREAM_UNREADABLE, stream] = Condition(
            Severity.CRITICAL,
            f"{stream} cannot be looked at: {why}",
            "on a cluster it has no leader: bring its servers back; if it is gone, restore the broker's store, and do not make it anew",
        )
    for stream, seen in look.streams.items():
        found |= _of_stream(stream, seen, look, past, up)
    for server, store in look.stores.items():
        if store.limit_bytes > 0:
            found |= _filling(
                (Kind.STORE_FILLING, server),
                store.used_bytes / store.limit_bytes,
                up,
                f"the store of broker {server}",
                "every publish is refused with 452 4.3.1, also those that let mail move on",
                "make room, or raise max_file_store on a larger disk",
                {"used_bytes": store.used_bytes, "limit_bytes": store.limit_bytes},
            )
    found |= _behind(look, past.before)
    found |= {(Kind.ENGINE_DOWN, engine): _engine_down(engine, down) for engine, down in look.engines_down.items()}
    found |= {(Kind.POLICY_STALE, replica): _stale(replica, stale) for replica, stale in look.stale.items()}
    return found


def covers(look: Look, before: Look | None, key: Key) -> bool:
    """Whether this look could have found the condition: else its alarm stays as it is."""
    kind, about = key
    if kind in (Kind.LEDGER_DISCREPANCIES, Kind.BROKER_SILENT):
        return True
    if look.silent:
        return False
    stream, _, _ = about.partition("/")
    match kind:
        case Kind.STORE_FILLING:
            return about in look.stores
        case Kind.REPLICA_BEHIND:
            return not look.unreadable
        case Kind.REPLICAS_DIFFER:
            return differing(look, before, about) is not None
        case Kind.STRANDED_MESSAGES | Kind.CONSUMER_MISSING | Kind.CONSUMER_UNEXPECTED:
            return stream in look.consumers
        case Kind.BROKER_NOT_STORING | Kind.STREAM_UNREADABLE | Kind.POLICY_STALE | Kind.ENGINE_DOWN:
            return True
        case _:
            return stream in look.streams


def _of_stream(
    stream: str, seen: StreamSeen, look: Look, past: Past, up: Mapping[Key, Severity]
) -> Iterator[tuple[Key, Condition]]:
    if not seen.drops_oldest:
        shares = [held / limit for held, limit in ((seen.bytes, seen.max_bytes), (seen.messages, seen.max_messages)) if limit > 0]
        yield from _filling(
            (Kind.STREAM_FILLING, stream),
            max(shares, default=0.0),
            up,
            stream,
            _WHEN_FULL.get(stream, "nothing more can be stored in it"),
            _WHY_FILLING.get(stream, "raise its limit"),
            {"messages": seen.messages, "bytes": seen.bytes, "max_bytes": seen.max_bytes},
        )
    highest = past.highest.get((stream, seen.created), 0)
    # where there are replicas a new leader may be a moment behind, and their copies are compared
    gone = highest - seen.last_seq if seen.replicas == 1 else 0
    if seen.lost_bytes or gone > 0:
        what = f"{seen.lost_bytes} bytes" if seen.lost_bytes else f"the last {gone} messages"
        yield (
            (Kind.STREAM_DAMAGED, stream),
            Condition(
                Severity.CRITICAL,
                f"the broker could not read {what} of {stream} from its disk when it started: mail is lost",
                "postern ledger verify names it; keep a copy of the broker's files, and replace the disk",
                {"lost_bytes": seen.lost_bytes, "lost_sequences": max(gone, 0)},
            ),
        )
    if standing := next((severity for severity, limit_s in _STANDS_S if seen.is_work_queue and seen.oldest_s >= limit_s), None):
        yield (
            (Kind.MAIL_STANDING, stream),
            Condition(
                standing,
                f"the oldest mail in {stream} has been there for {seen.oldest_s / 60:.0f} minutes: it cannot go on, or not so fast as it comes",
                f"the log of {'the screener' if stream == INTAKE else 'delivery'} names it with the reason: message.unreadable and job.unreadable "
                "(a newer version wrote it: upgrade), bus.handler_postponed, message.waits_for_engine, job.postponed, job.failed",
                {"oldest_s": round(seen.oldest_s), "messages": seen.messages},
            ),
        )
    yield from _of_consumers(stream, look, past.before)
    if differing(look, past.before, stream):
        copies = {server: store.copies[stream] for server, store in look.stores.items() if stream in store.copies}
        told = [f"{server}: {copy.messages} messages, {copy.first_seq} to {copy.last_seq}" for server, copy in copies.items()]
        yield (
            (Kind.REPLICAS_DIFFER, stream),
            Condition(
                Severity.CRITICAL,
                f"the servers' copies of {stream} differ although nothing moves in it ({'; '.join(told)})",
                "stop the server with the smaller copy and no other, move its store away, and start it: it takes all of it from the others anew",
                {"copies": told},
            ),
        )


def _of_consumers(stream: str, look: Look, before: Look | None) -> Iterator[tuple[Key, Condition]]:
    consumers = look.consumers.get(stream)
    if consumers is None:
        return
    for name in consumers.missing:
        yield (
            (Kind.CONSUMER_MISSING, f"{stream}/{name}"),
            Condition(
                Severity.CRITICAL,
                f"{stream} has no consumer {name}: what is there for it stays there",
                "run the provisioner; for a route's consumer the api makes it by itself within half a minute, or says why not (its log)",
            ),
        )
    if consumers.unexpected:
        yield (
            (Kind.CONSUMER_UNEXPECTED, stream),
            Condition(
                Severity.WARNING,
                f"{stream} has consumers that are not Postern's: {', '.join(consumers.unexpected)}",
                "whoever made them used the provisioner's password: see why. On a work queue they take mail away",
                {"consumers": list(consumers.unexpected)},
            ),
        )
    earlier = before.streams.get(stream) if before else None
    # what is stranded stays, so that the oldest message stays what it is: without that the counts of a busy stream could deceive
    stands = earlier is None or earlier.first_seq == look.streams[stream].first_seq
    if consumers.unclaimed and (stands or consumers.unclaimed >= _MANY_UNCLAIMED):
        yield (
            (Kind.STRANDED_MESSAGES, stream),
            Condition(
                Severity.CRITICAL,
                f"{stream} holds {consumers.unclaimed} messages that no consumer has before it: nobody will take them",
                "a consumer is missing or was changed (nats consumer info): delete the changed one and run the provisioner, "
                "whose new one is offered all that is there",
                {"stranded": consumers.unclaimed, "messages": look.streams[stream].messages},
            ),
        )


def _filling(
    key: Key, share: float, up: Mapping[Key, Severity], what: str, then: str, advice: str, figures: dict[str, Figure]
) -> Iterator[tuple[Key, Condition]]:
    for severity, limit in ((Severity.CRITICAL, _CRITICAL_AT), (Severity.WARNING, _WARN_AT)):
        if share >= limit - (_SLACK if up.get(key) in (severity, Severity.CRITICAL) else 0.0):
            summary = f"{what} is {share:.0%} full; when it is full, {then}"
            yield key, Condition(severity, summary, advice, {"fill": round(share, 4), **figures})
            return


# -- replicas


def _behind(look: Look, before: Look | None) -> Iterator[tuple[Key, Condition]]:
    """One alarm for each server, whatever the number of streams that it keeps."""
    streams: dict[str, list[str]] = {}
    offline: set[str] = set()
    silent_s: dict[str, float] = {}
    lag: dict[str, int] = {}
    for stream, seen in look.streams.items():
        earlier = before.streams.get(stream) if before else None
        is_still = earlier is not None and earlier.position == seen.position
        for peer in seen.peers:
            # some operations are always on their way in a busy stream, and `current` then is a matter of the moment
            late = not peer.current and (is_still or peer.lag >= _FAR_BEHIND)
            if peer.offline or peer.silent_s > _SILENT_S or late:
                streams.setdefault(peer.name, []).append(stream)
                offline |= {peer.name} if peer.offline else set()
                silent_s[peer.name] = max(peer.silent_s, silent_s.get(peer.name, 0.0))
                lag[peer.name] = max(peer.lag, lag.get(peer.name, 0))
        if len(seen.peers) < seen.replicas - 1:
            yield (
                (Kind.REPLICA_BEHIND, stream),
                Condition(
                    Severity.CRITICAL,
                    f"{stream} has {len(seen.peers) + 1} replicas instead of {seen.replicas}",
                    "a server was taken out of the cluster for good: bring in another",
                    {"replicas": len(seen.peers) + 1, "wanted": seen.replicas},
                ),
            )
    for name, concerned in streams.items():
        state = "is offline" if name in offline else "does not keep up"
        yield (
            (Kind.REPLICA_BEHIND, name),
            Condition(
                Severity.CRITICAL,
                f"broker {name} {state}: {len(concerned)} streams have one copy less than they should, and the loss of another stops mail",
                "bring it back as it is, with its store; do not change the cluster's members meanwhile",
                {"streams": concerned, "lag": lag[name], "silent_s": round(silent_s[name], 1)},
            ),
        )


def differing(look: Look, before: Look | None, stream: str) -> bool | None:
    """Whether the servers' copies of a stream differ; None when that cannot be said, since they were not seen, or moved."""
    now = {server: store.copies[stream] for server, store in look.stores.items() if stream in store.copies}
    if len(now) < 2:
        return None
    if len(set(now.values())) == 1:
        return False
    then = {server: store.copies[stream] for server, store in before.stores.items() if stream in store.copies} if before else {}
    return True if now == then else None


def _stale(replica: str, stale: Stale) -> Condition:
    why = f": it refused the newest ({stale.refused})" if stale.refused else ""
    return Condition(
        Severity.WARNING,
        f"{replica} runs revision {stale.revision} of the policy, {stale.newest} is on the bus{why}",
        "what it refused it goes on refusing until the policy is changed; else see whether it reaches the broker, and start it anew",
        {"revision": stale.revision, "newest": stale.newest},
    )


_WITHOUT_ENGINE: Final = {
    OnFailure.DEFER: "mail that it is needed for waits in INTAKE",
    OnFailure.HOLD: "mail that it is needed for is held (engine-failed)",
    OnFailure.PASS: "mail passes without it, marked X-Postern-Unscanned",
}


def _engine_down(engine: str, down: EngineDown) -> Condition:
    return Condition(
        Severity.CRITICAL if down.on_failure is OnFailure.DEFER else Severity.WARNING,
        f"{engine} does not answer {', '.join(down.replicas)}: {down.error}. Until it does, {_WITHOUT_ENGINE[down.on_failure]}",
        "see whether it runs and whether the screener reaches it (GET /api/v1/engines); what waits is tried again by itself",
        {"replicas": list(down.replicas), "on_failure": down.on_failure.value},
    )


# -- the books


def _discrepancies(verified: Verified) -> Condition:
    faults = sorted({finding.fault for finding in verified.findings})
    is_lost = any(fault in _LOST for fault in faults)
    return Condition(
        Severity.CRITICAL if is_lost else Severity.WARNING,
        f"ledger and mail disagree about {verified.count} messages ({', '.join(faults)})" + (": mail is lost" if is_lost else ""),
        "postern ledger verify names each of them; docs/operate/ledger.md says what the faults mean",
        {"count": verified.count, "faults": list(faults), "ids": [finding.identity for finding in verified.findings[:10]]},
    )
