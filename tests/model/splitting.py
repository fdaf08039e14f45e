"""A model of a split: one message, recipients for whom rules differ, and every interleaving of the screener's own steps with a bounded number of faults.

The screener is the real one (`screener_run.py`), one operation on the bus after another. Delivery is here as far as a split can see it: looked up and attempted, written down, let go.
What becomes of a share after that is what becomes of any message (`handover.py`). An acknowledgement of a publish that gets lost is a screener that
dies behind that publish: nothing else is known afterwards.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

import msgspec
from msgspec.structs import replace

from postern_core.disposition import DispositionKind

WHOLE_BODY: Final = "body.ingress-anon.whole.0"
MOST_ARRIVED: Final = 2  # copies after which a path tells nothing new
MOST_RELEASES: Final = 1
_ATTEMPTED, _WRITTEN = 1, 2


class Fault(enum.StrEnum):
    """The faults that the model injects."""

    SCREENER_DIED = "the screener died"
    OVERRUN = "a screener overran its ack-wait and went on"
    ACK_LOST = "an acknowledgement was lost"
    IDS_FORGOTTEN = "the duplicate window passed"
    RULES_CHANGED = "the rules changed"


class End(msgspec.Struct, frozen=True):
    """A disposition."""

    id: str
    n: int
    kind: DispositionKind
    generation: int = 0
    successor: str = ""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A copy of a job in OUTBOUND."""

    msg_id: str
    id: str
    recipients: tuple[int, ...]
    body: str  # where it is stored
    content: bytes  # or itself
    marked: bool  # maybe a duplicate
    route: str
    given_out: bool = False
    generation: int = 0
    copy: int = 0


class Held(msgspec.Struct, frozen=True):
    """An entry of QUARANTINE."""

    id: str
    recipients: tuple[int, ...]
    body: str
    content: bytes


class Read(msgspec.Struct, frozen=True):
    """Requests: the newest of a subject …"""

    subject: str


class Remove(msgspec.Struct, frozen=True):
    """… all that begin so, away …"""

    prefix: str


class PutJob(msgspec.Struct, frozen=True):
    """… into a stream …"""

    job: Job


class PutHeld(msgspec.Struct, frozen=True):
    msg_id: str
    held: Held


class PutEnd(msgspec.Struct, frozen=True):
    msg_id: str
    end: End


class PutBody(msgspec.Struct, frozen=True):
    msg_id: str
    subject: str
    content: bytes


class Ack(msgspec.Struct, frozen=True):
    """… and let go of the input."""


Request = Read | Remove | PutJob | PutHeld | PutEnd | PutBody | Ack
Answer = End | bytes | str | None


class Screening(msgspec.Struct, frozen=True):
    """A screener with the message in its hands."""

    policy: str
    repeated: bool
    answers: tuple[Answer, ...] = ()


class Delivering(msgspec.Struct, frozen=True):
    """Delivery with a job in its hands."""

    copy: int
    stage: int
    recipients: tuple[int, ...] = ()  # who got it in this attempt


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that survives or is in flight."""

    policy: str
    intake: bool = True
    given_out: bool = False
    screening: tuple[Screening, ...] = ()
    delivering: tuple[Delivering, ...] = ()
    jobs: tuple[Job, ...] = ()
    held: frozenset[Held] = frozenset()
    bodies: frozenset[tuple[str, bytes]] = frozenset()
    remembered: frozenset[str] = frozenset()
    newest: frozenset[End] = frozenset()  # of each recipient and id
    written: frozenset[End] = frozenset()  # all
    arrived: tuple[tuple[bytes, ...], ...] = ()  # by recipient: what the smart host took
    ways: frozenset[tuple[int, str]] = frozenset()  # by which id
    releases: int = 0
    faults: tuple[Fault, ...] = ()
    side_by_side: bool = False  # two had copies of one job in hand at one moment
    bodiless: frozenset[int] = frozenset()  # whose job did not find its body: it waits frozen, with an alarm
    unread: bool = False  # a screener did not find a body that nobody had made use of
    again: bool = False  # a screener went on for somebody of whom it had read that he goes on elsewhere, or has his mail

    def end_of(self, queue_id: str, n: int) -> End | None:
        return next((end for end in self.newest if (end.id, end.n) == (queue_id, n)), None)

    def has_body(self, place: str) -> bool:
        return not place or any(subject == place for subject, _ in self.bodies)

    def content_of(self, body: str, content: bytes) -> bytes:
        return next((stored for subject, stored in self.bodies if subject == body), b"") if body else content

    def ended(self, whole: str, n: int) -> DispositionKind | None:
        """How the recipient ended, as the ledger tells it: it follows from the whole to the share."""
        end = self._standing(whole, n)
        if end is not None and end.kind is DispositionKind.SPLIT:
            end = self._standing(end.successor, n)
        return end.kind if end is not None and end.kind.is_final else None

    def _standing(self, queue_id: str, n: int) -> End | None:
        ends = [end for end in self.written if (end.id, end.n) == (queue_id, n)]
        return max(ends, key=lambda end: (end.generation, end.kind.is_final), default=None)

    def finals(self, n: int) -> set[DispositionKind]:
        """How the recipient ended, under whatever id."""
        return {end.kind for end in self.written if end.n == n and end.kind.is_final} - {DispositionKind.SPLIT}

    def is_somewhere(self, n: int) -> bool:
        """Whether something durable has the recipient's mail, or he has come to an end."""
        return (
            self.intake
            or any(n in job.recipients and self.has_body(job.body) for job in self.jobs)
            or any(n in held.recipients and self.has_body(held.body) for held in self.held)
            or bool(self.finals(n) - {DispositionKind.HELD})
        )


Next = Callable[[Screening], Request | None]


def _ended(state: State, msg_id: str, *ends: End) -> State:
    """Written down, unless the broker has it."""
    if msg_id in state.remembered:
        return state
    about = {(end.id, end.n) for end in ends}
    newest = frozenset(end for end in state.newest if (end.id, end.n) not in about) | frozenset(ends)
    return replace(state, newest=newest, written=state.written.union(ends), remembered=state.remembered | {msg_id})


def _stored(state: State, job: Job) -> State:
    if job.msg_id in state.remembered:
        return state
    taken = {other.copy for other in state.jobs}
    job = replace(job, copy=min(set(range(len(taken) + 1)) - taken))
    return replace(state, jobs=(*state.jobs, job), remembered=state.remembered | {job.msg_id})


def _put_body(state: State, request: PutBody) -> tuple[State, str]:
    if request.msg_id in state.remembered:
        return state, ""
    if state.has_body(request.subject):
        return state, "taken"
    bodies = state.bodies | {(request.subject, request.content)}
    return replace(state, bodies=bodies, remembered=state.remembered | {request.msg_id}), ""


def _read(state: State, subject: str) -> Answer:
    kind, _, rest = subject.partition(".")
    if kind == "body":
        return next((content for place, content in state.bodies if place == subject), None)
    queue_id, _, n = rest.rpartition(".")
    return state.end_of(queue_id, int(n))


def _screened(state: State, task: Screening, next_of: Next) -> State:
    """The screener's next step: all that it reads at once, or one thing that it stores or removes."""
    others = list(state.screening)
    others.remove(task)
    request = next_of(task)
    if isinstance(request, Read):
        while isinstance(request := next_of(task), Read):
            task = replace(task, answers=(*task.answers, _read(state, request.subject)))
        return replace(state, screening=(*others, task))
    answer: Answer = ""
    match request:
        case PutJob(job):
            state = replace(_stored(state, job), again=state.again or _goes_on_elsewhere(task, job.id, job.recipients))
        case PutHeld(msg_id, held) if msg_id not in state.remembered:
            known = _goes_on_elsewhere(task, held.id, held.recipients) or _has_his_mail(task, held.id, held.recipients)
            state = replace(
                state,
                held=state.held | {held},
                remembered=state.remembered | {msg_id},
                again=state.again or known,
                unread=state.unread or not (held.body or held.content),
            )
        case PutEnd(msg_id, end):
            state = _ended(state, msg_id, end)
        case PutBody():
            state, answer = _put_body(state, request)
        case Remove(prefix):
            state = replace(state, bodies=frozenset(each for each in state.bodies if not each[0].startswith(prefix)))
        case Ack():
            return replace(state, intake=False, screening=tuple(others))
        case None:
            return replace(state, screening=tuple(others))  # it gave up: its input comes again
        case _:
            pass
    return replace(state, screening=(*others, replace(task, answers=(*task.answers, answer))))


def _goes_on_elsewhere(task: Screening, queue_id: str, recipients: tuple[int, ...]) -> bool:
    """Whether it had read that one of them is part of another share."""
    read = [answer for answer in task.answers if isinstance(answer, End)]
    return any(end.n in recipients and end.kind is DispositionKind.SPLIT and end.successor != queue_id for end in read)


def _has_his_mail(task: Screening, queue_id: str, recipients: tuple[int, ...]) -> bool:
    """Whether it had read that one of them was delivered to."""
    read = [answer for answer in task.answers if isinstance(answer, End) and answer.id == queue_id]
    return any(end.n in recipients and end.kind is DispositionKind.DELIVERED for end in read)


def _behind_another(state: State, job: Job) -> bool:
    """Whether the broker has another to give out first: each route has a consumer of its own, and it goes through the stream in order."""
    return any(not other.given_out and other.route == job.route for other in state.jobs[: state.jobs.index(job)])


def _taken(state: State, job: Job) -> State:
    """Delivery takes up a job: it looks it up where it is marked, and attempts it for whom it is open."""
    ends = {n: state.end_of(job.id, n) for n in job.recipients}
    settled = {n for n, end in ends.items() if end is not None and end.kind.settles(end.generation, job.generation)}
    is_looked_up = job.marked or job.given_out
    left = tuple(n for n in job.recipients if not is_looked_up or n not in settled)
    if left and not state.has_body(job.body):
        bodiless = state.bodiless.union(left) - settled
        return replace(state, bodiless=bodiless, delivering=(*state.delivering, Delivering(job.copy, _WRITTEN)))
    in_hand = {task.copy for task in state.delivering if task.stage == _ATTEMPTED}
    beside = any(other.copy in in_hand and other.id == job.id for other in state.jobs)
    content = state.content_of(job.body, job.content)
    return replace(
        state,
        jobs=tuple(replace(other, given_out=True) if other is job else other for other in state.jobs),
        delivering=(*state.delivering, Delivering(job.copy, _ATTEMPTED if left else _WRITTEN, left)),
        arrived=tuple((*got, content) if n in left else got for n, got in enumerate(state.arrived)),
        ways=state.ways | {(n, job.id) for n in left},
        side_by_side=state.side_by_side or (beside and bool(left)),
    )


def _delivered(state: State, task: Delivering) -> State:
    job = next(job for job in state.jobs if job.copy == task.copy)
    rest = tuple(other for other in state.delivering if other is not task)
    if task.stage == _ATTEMPTED:
        state = replace(state, delivering=(*rest, replace(task, stage=_WRITTEN)))
        for n in task.recipients:
            end = End(job.id, n, DispositionKind.DELIVERED, job.generation)
            state = _ended(state, f"{job.id}:{n}:{job.generation}:delivered", end)
        return state
    return replace(
        state,
        delivering=rest,
        jobs=tuple(other for other in state.jobs if other.copy != task.copy),
        bodies=frozenset(each for each in state.bodies if each[0] != job.body or job.id in {held.id for held in state.held}),
    )


def _released(state: State, held: Held) -> State:
    """An administrator lets it go: `released`, its job under the next generation with a body of its own, the entry and its body deleted."""
    bodies = state.bodies
    body = f"body.api.{held.id}.0" if held.body else ""
    if body:
        bodies = frozenset(each for each in bodies if each[0] != held.body) | {(body, state.content_of(held.body, b""))}
    state = replace(state, releases=state.releases + 1, held=state.held - {held}, bodies=bodies)
    for n in held.recipients:
        state = _ended(state, f"{held.id}:{n}:1:released", End(held.id, n, DispositionKind.RELEASED, 1))
    return _stored(
        state,
        Job(
            msg_id=f"{held.id}:1:outbound",
            id=held.id,
            recipients=held.recipients,
            body=body,
            content=held.content,
            marked=True,
            route="inside",
            generation=1,
        ),
    )


def _can_be_released(state: State, held: Held) -> bool:
    """Whether it is written down as held, and its body is there."""
    ends = [state.end_of(held.id, n) for n in held.recipients]
    return state.has_body(held.body) and all(end is not None and end.kind is DispositionKind.HELD for end in ends)


def progress(state: State, next_of: Next) -> Iterator[State]:
    """Every step that happens without a fault, an administrator's release included."""
    if state.intake and not state.screening:
        yield replace(state, given_out=True, screening=(Screening(state.policy, state.given_out),))
    for task in set(state.screening):
        yield _screened(state, task, next_of)
    in_hands = {task.copy for task in state.delivering}
    for job in state.jobs:
        if job.copy not in in_hands and not _behind_another(state, job):
            yield _taken(state, job)
    for delivering in state.delivering:
        yield _delivered(state, delivering)
    for held in state.held if state.releases < MOST_RELEASES else ():
        if _can_be_released(state, held):
            yield _released(state, held)


def misfortunes(state: State, policies: tuple[str, str], next_of: Next, wanted: frozenset[Fault]) -> Iterator[State]:
    """Every fault that may strike now."""

    def struck(fault: Fault, **changes: object) -> State:
        return replace(state, faults=tuple(sorted((*state.faults, fault))), **changes)

    for task in set(state.screening):
        rest = list(state.screening)
        rest.remove(task)
        if task.answers or task.repeated:  # else nothing has happened
            yield struck(Fault.SCREENER_DIED, screening=tuple(rest))
        if isinstance(next_of(task), Ack):
            yield struck(Fault.ACK_LOST, screening=tuple(rest))
    if Fault.OVERRUN in wanted and state.intake and len(state.screening) == 1:
        second = Screening(state.policy, repeated=True)
        yield struck(Fault.OVERRUN, screening=(*state.screening, second))
    if Fault.IDS_FORGOTTEN in wanted and state.remembered:
        yield struck(Fault.IDS_FORGOTTEN, remembered=frozenset())
    if Fault.RULES_CHANGED in wanted and state.intake:
        yield struck(Fault.RULES_CHANGED, policy=policies[state.policy == policies[0]])


def _normal(state: State) -> State:
    """The same, without what nobody will look at again."""
    if state.intake or state.screening:
        return state
    return replace(state, remembered=frozenset(), policy="", given_out=False)


def explore(
    policy: str, revised: str, max_faults: int, next_of: Next, *, stored: bytes = b"", wanted: frozenset[Fault] = frozenset(Fault)
) -> Iterator[tuple[State, bool]]:
    """Every reachable state of a message that comes under `policy`, which `revised` may replace, and whether nothing but a fault can change it any
    more. `stored`: its body, where that does not travel with it."""
    bodies = frozenset({(WHOLE_BODY, stored)}) if stored else frozenset()
    begin = State(policy=policy, bodies=bodies, arrived=((),) * len(policy))
    seen, waiting = {begin}, deque([begin])
    while waiting:
        state = waiting.popleft()
        onward = list(progress(state, next_of))
        yield state, not onward
        copied = any(len(got) >= MOST_ARRIVED for got in state.arrived)
        if len(state.faults) < max_faults and not copied:
            onward += misfortunes(state, (policy, revised), next_of, wanted)
        for following in map(_normal, onward):
            if following not in seen and all(len(got) <= MOST_ARRIVED for got in following.arrived):
                seen.add(following)
                waiting.append(following)
