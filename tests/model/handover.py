"""A model of the hand-over: one message, every interleaving of its steps with a bounded number of faults.

`explore` walks every reachable state. Faults: a process dies; an ack-wait or lease runs out although the worker lives (so that two work on one
message); an acknowledgement is lost; the broker forgets which message ids it has seen (a restart, or the duplicate window).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace

from model.programs import PROGRAMS, ack_intake, ack_outbound, given_out, write_delivered
from model.state import Fault, State, Task, Told, in_order, start, without

MOST_ARRIVED = 3  # copies after which a path tells nothing new
MOST_RELEASES = 2
_DIES = {
    "screener": Fault.SCREENER_DIED,
    "holder": Fault.SCREENER_DIED,
    "delivery": Fault.DELIVERY_DIED,
    "retry": Fault.DELIVERY_DIED,
    "release": Fault.API_DIED,
}


def progress(state: State, *, held: bool) -> Iterator[State]:
    """Every step that happens without a fault, an administrator's release included. `held`: the verdict."""
    if not state.gate_done:
        yield replace(state, gate_done=True, intake=True, told=Told.ACCEPTED)
    running = {task.program for task in state.tasks}
    screener = "holder" if held else "screener"
    if state.intake and screener not in running:
        yield start(state, Task(screener, redelivered=state.intake_tries > 0), intake_tries=1)
    in_hands = {task.copy for task in state.tasks if task.program == "delivery"}
    for stored in state.outbound:
        if stored.copy not in in_hands:
            task = Task("delivery", 0, stored.given_out, stored.maybe_duplicate, stored.copy, stored.generation)
            yield start(state, task, outbound=given_out(state, stored))
    if state.row and "retry" not in running:
        yield start(state, Task("retry", generation=state.row_generation))
    if state.deferred and not state.row and not running & {"retry", "delivery"}:
        yield replace(state, row=True)  # the janitor rebuilds rows from the stream
    # the api acts on held mail only once it is written down as held
    if state.quarantine and state.newest and "release" not in running and state.releases < MOST_RELEASES:
        yield start(state, Task("release"), releases=state.releases + 1)
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
        next_step = PROGRAMS[task.program][task.step]
        rest = in_order(without(state, task))
        yield struck(_DIES[task.program], tasks=rest, unrecorded=state.unrecorded or next_step is write_delivered)
        if next_step in (ack_intake, ack_outbound):
            yield struck(Fault.ACK_LOST, tasks=rest)
        if _still_owned(state, task):
            yield struck(Fault.OVERRUN, tasks=in_order((*state.tasks, replace(task, step=0, redelivered=True))))
    if state.remembered:
        yield struck(Fault.IDS_FORGOTTEN, remembered=frozenset())


def _still_owned(state: State, task: Task) -> bool:
    """Whether the broker, or the lease, may give this worker's message to a second one."""
    if sum(other.program == task.program and other.copy == task.copy for other in state.tasks) > 1:
        return False
    match task.program:
        case "screener" | "holder":
            return state.intake
        case "retry":
            return state.row
        case "delivery":
            return any(stored.copy == task.copy for stored in state.outbound)
        case _:
            return False  # a second release is an administrator's, not the broker's


def explore(max_faults: int, *, held: bool = False) -> Iterator[tuple[State, bool]]:
    """Every reachable state, and whether nothing but a fault can change it any more."""
    begin = State()
    seen, waiting = {begin}, deque([begin])
    while waiting:
        state = waiting.popleft()
        onward = list(progress(state, held=held))
        yield state, not onward
        if len(state.faults) < max_faults:
            onward += misfortunes(state)
        for following in onward:
            if following.arrived <= MOST_ARRIVED and following not in seen:
                seen.add(following)
                waiting.append(following)
