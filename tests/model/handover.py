"""A model of the hand-over: one message, every interleaving of its steps with a bounded number of faults.

The steps of each process stand in one table each, in the order in which the code takes them (`postern_screener.actions`,
`postern_delivery`); a fault may come between any two of them. `explore` walks every reachable state.

Faults: a process dies; an ack-wait runs out although the worker lives (so that two work on one message); an acknowledgement is lost;
the broker restarts and forgets which message ids it has seen.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace


class Told(enum.Enum):
    """What the client heard."""

    NOTHING = enum.auto()
    ACCEPTED = enum.auto()  # 250
    REFUSED = enum.auto()  # 451, or a lost connection: it will send the mail again under another id


class Fault(enum.StrEnum):
    """The faults that the model injects."""

    GATE_DIED = "the gate died"
    SCREENER_DIED = "the screener died"
    DELIVERY_DIED = "delivery died"
    OVERRUN = "a worker overran its ack-wait and went on"
    ACK_LOST = "an acknowledgement was lost"
    PUBACK_LOST = "the gate's publish timed out, but was stored"
    BROKER_RESTARTED = "the broker restarted"


@dataclass(frozen=True, slots=True)
class Task:
    """A worker with a message in its hands. `redelivered`: this is not the first time that the broker gave it out."""

    program: str
    step: int = 0
    redelivered: bool = False
    maybe_duplicate: bool = False
    copy: int = 0  # which stored copy of the job delivery has in its hands


@dataclass(frozen=True, slots=True)
class Stored:
    """One copy of the job in OUTBOUND."""

    copy: int
    maybe_duplicate: bool
    given_out: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """Everything that survives or is in flight for one queue id."""

    told: Told = Told.NOTHING
    gate_done: bool = False
    intake: bool = False
    intake_tries: int = 0
    outbound: tuple[Stored, ...] = ()
    copies: int = 0  # of the job, ever stored
    outbound_seen: bool = False  # the broker remembers the job's message id
    deferred: bool = False
    row: bool = False
    settled: bool = False  # disposition `delivered` is stored
    arrived: int = 0  # copies that the smart host took responsibility for
    tasks: tuple[Task, ...] = ()
    faults: tuple[Fault, ...] = ()
    unrecorded: bool = False  # a worker died between the smart host's 250 and the disposition

    def somewhere(self) -> bool:
        """Whether the message is held by anything durable, or has come to its end."""
        return self.intake or bool(self.outbound) or self.deferred or self.settled


Step = Callable[[State, Task], Iterator[State]]


def _without(state: State, task: Task) -> tuple[Task, ...]:
    tasks = list(state.tasks)
    tasks.remove(task)
    return tuple(tasks)


def _sorted(tasks: tuple[Task, ...]) -> tuple[Task, ...]:
    return tuple(sorted(tasks, key=lambda task: (task.program, task.step, task.redelivered, task.maybe_duplicate, task.copy)))


def _advance(state: State, task: Task, steps: int = 1, **changes: object) -> State:
    tasks = (*_without(state, task), replace(task, step=task.step + steps))
    return replace(state, tasks=_sorted(tasks), **changes)  # type: ignore[arg-type]


def _end(state: State, task: Task, **changes: object) -> State:
    return replace(state, tasks=_sorted(_without(state, task)), **changes)  # type: ignore[arg-type]


# --- the screener: take from INTAKE, publish to OUTBOUND, acknowledge ---


def _publish_job(state: State, task: Task) -> Iterator[State]:
    if state.outbound_seen:
        yield _advance(state, task)  # `duplicate: true`
    else:
        stored = Stored(state.copies, maybe_duplicate=task.redelivered)
        yield _advance(state, task, outbound=(*state.outbound, stored), copies=state.copies + 1, outbound_seen=True)


def _ack_intake(state: State, task: Task) -> Iterator[State]:
    yield _end(state, task, intake=False)


SCREENER: tuple[Step, ...] = (_publish_job, _ack_intake)


# --- delivery, first try: look up if marked, attempt, write the disposition or defer, acknowledge ---


def _look_up(state: State, task: Task) -> Iterator[State]:
    if (task.redelivered or task.maybe_duplicate) and (state.settled or state.deferred):
        yield _advance(state, task, steps=len(DELIVERY) - 1 - task.step)  # nothing left to do but to acknowledge
    else:
        yield _advance(state, task)


def _attempt(state: State, task: Task) -> Iterator[State]:
    yield _advance(state, task, arrived=state.arrived + 1)  # 250
    if task.program == "delivery":  # 4yz
        yield _advance(state, task, steps=DELIVERY.index(_store_deferred) - task.step)
    else:
        yield _end(state, task)  # the row stays, its lease ends


def _write_disposition(state: State, task: Task) -> Iterator[State]:
    if task.program == "delivery":
        yield _advance(state, task, steps=len(DELIVERY) - 1 - task.step, settled=True)
    else:
        yield _advance(state, task, settled=True)


def _store_deferred(state: State, task: Task) -> Iterator[State]:
    yield _advance(state, task, deferred=True)


def _insert_row(state: State, task: Task) -> Iterator[State]:
    yield _advance(state, task, row=True)


def _ack_outbound(state: State, task: Task) -> Iterator[State]:
    yield _end(state, task, outbound=tuple(stored for stored in state.outbound if stored.copy != task.copy))


DELIVERY: tuple[Step, ...] = (_look_up, _attempt, _write_disposition, _store_deferred, _insert_row, _ack_outbound)


# --- delivery, later tries: look up, attempt, write the disposition, drop the row, drop the body ---


def _look_up_row(state: State, task: Task) -> Iterator[State]:
    if state.settled:
        yield _advance(state, task, steps=RETRY.index(_drop_row) - task.step)
    else:
        yield _advance(state, task)


def _drop_row(state: State, task: Task) -> Iterator[State]:
    yield _advance(state, task, row=False)


def _drop_deferred(state: State, task: Task) -> Iterator[State]:
    yield _end(state, task, deferred=False)


RETRY: tuple[Step, ...] = (_look_up_row, _attempt, _write_disposition, _drop_row, _drop_deferred)

PROGRAMS: dict[str, tuple[Step, ...]] = {"screener": SCREENER, "delivery": DELIVERY, "retry": RETRY}
_DIES = {"screener": Fault.SCREENER_DIED, "delivery": Fault.DELIVERY_DIED, "retry": Fault.DELIVERY_DIED}


def progress(state: State) -> Iterator[State]:
    """Every step that happens without a fault."""
    if not state.gate_done:
        yield replace(state, gate_done=True, intake=True, told=Told.ACCEPTED)
    running = {task.program for task in state.tasks}
    if state.intake and "screener" not in running:
        task = Task("screener", redelivered=state.intake_tries > 0)
        yield replace(state, intake_tries=1, tasks=_sorted((*state.tasks, task)))
    held = {task.copy for task in state.tasks if task.program == "delivery"}
    for stored in state.outbound:
        if stored.copy not in held:
            task = Task("delivery", redelivered=stored.given_out, maybe_duplicate=stored.maybe_duplicate, copy=stored.copy)
            others = tuple(other for other in state.outbound if other is not stored)
            outbound = tuple(sorted((*others, replace(stored, given_out=True)), key=lambda each: each.copy))
            yield replace(state, outbound=outbound, tasks=_sorted((*state.tasks, task)))
    if state.row and "retry" not in running:
        yield replace(state, tasks=_sorted((*state.tasks, Task("retry"))))
    if state.deferred and not state.row and "retry" not in running and "delivery" not in running:
        yield replace(state, row=True)  # the janitor rebuilds rows from the stream
    for task in set(state.tasks):
        yield from PROGRAMS[task.program][task.step](state, task)


def misfortunes(state: State) -> Iterator[State]:
    """Every fault that may strike now."""

    def struck(fault: Fault, **changes: object) -> State:
        return replace(state, faults=tuple(sorted((*state.faults, fault))), **changes)  # type: ignore[arg-type]

    if not state.gate_done:
        yield struck(Fault.GATE_DIED, gate_done=True, told=Told.REFUSED)
        yield struck(Fault.PUBACK_LOST, gate_done=True, intake=True, told=Told.REFUSED)
    for task in set(state.tasks):
        unrecorded = state.unrecorded or (task.program != "screener" and task.step == DELIVERY.index(_write_disposition))
        yield struck(_DIES[task.program], tasks=_sorted(_without(state, task)), unrecorded=unrecorded)
        if PROGRAMS[task.program][task.step] in (_ack_intake, _ack_outbound):
            yield struck(Fault.ACK_LOST, tasks=_sorted(_without(state, task)))
        if _still_owned(state, task):
            second = replace(task, step=0, redelivered=True)
            yield struck(Fault.OVERRUN, tasks=_sorted((*state.tasks, second)))
    if state.outbound_seen:
        yield struck(Fault.BROKER_RESTARTED, outbound_seen=False)


def _still_owned(state: State, task: Task) -> bool:
    """Whether the broker, or the lease, may give this worker's message to a second one."""
    if sum(other.program == task.program and other.copy == task.copy for other in state.tasks) > 1:
        return False
    if task.program == "screener":
        return state.intake
    return state.row if task.program == "retry" else any(stored.copy == task.copy for stored in state.outbound)


def explore(max_faults: int) -> Iterator[tuple[State, bool]]:
    """Every reachable state, and whether nothing but a fault can change it any more."""
    start = State()
    seen, waiting = {start}, deque([start])
    while waiting:
        state = waiting.popleft()
        onward = list(progress(state))
        yield state, not onward
        if len(state.faults) < max_faults:
            onward += misfortunes(state)
        for following in onward:
            if following.arrived <= 3 and following not in seen:
                seen.add(following)
                waiting.append(following)
