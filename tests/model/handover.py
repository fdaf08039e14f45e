"""A model of the hand-over: one message, alone or in a batch, and every interleaving of its steps with a bounded number of faults.

`explore` walks every reachable state. Faults: a process dies; an ack-wait or lease runs out although the worker lives (so that two work on one
message); an acknowledgement is lost; the broker forgets which message ids it has seen, or to whom it gave what; the rules change; an entry
comes again because another message in it could not go on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from msgspec.structs import replace

from model.programs import PROGRAMS, given_out, let_go_of_intake, let_go_of_outbound, write_delivered
from model.state import Fault, State, Stored, Task, Told, start, struck, without

MOST_ARRIVED = 2  # copies after which a path tells nothing new
MOST_RELEASES = 2
_FROM_BROKER = ("screener", "delivery")  # what they have in hand was given out by it
_DIES = {
    "screener": Fault.SCREENER_DIED,
    "delivery": Fault.DELIVERY_DIED,
    "retry": Fault.DELIVERY_DIED,
    "release": Fault.API_DIED,
}


def progress(state: State) -> Iterator[State]:
    """Every step that happens without a fault, an administrator's release included."""
    if not state.gate_done:
        yield replace(state, gate_done=True, intake=True, told=Told.ACCEPTED)
    running = {task.program for task in state.tasks if not task.forgotten}
    if state.intake and "screener" not in running:
        yield start(state, Task("screener", repeated=state.intake_given_out), intake_given_out=True)
    in_hands = {task.copy for task in state.tasks if task.program == "delivery" and not task.forgotten}
    for stored in state.outbound:
        if stored.copy not in in_hands and not _behind_another(state, stored):
            task = Task("delivery", 0, stored.given_out or stored.maybe_duplicate, stored.copy, stored.generation)
            yield start(state, task, outbound=given_out(state, stored))
    for generation in state.rows - {task.generation for task in state.tasks if task.program == "retry"}:
        yield start(state, Task("retry", generation=generation))
    if (lacking := state.deferred - state.rows) and not running & {"retry", "delivery"}:
        yield replace(state, rows=state.rows | lacking)  # the janitor rebuilds rows from the stream
    # the api acts on held mail only once it is written down as held
    if state.quarantine and state.newest and "release" not in running and state.releases < MOST_RELEASES:
        yield start(state, Task("release"), releases=state.releases + 1)
    for task in set(state.tasks):
        yield from PROGRAMS[task.program][task.step](state, task)


def _behind_another(state: State, stored: Stored) -> bool:
    """Whether the broker has another to give out first: each route has a consumer of its own, and it goes through the stream in order."""
    earlier = state.outbound[: state.outbound.index(stored)]
    return any(not other.given_out and other.rerouted == stored.rerouted for other in earlier)


def misfortunes(state: State, *, marks: bool) -> Iterator[State]:
    """Every fault that may strike now."""
    if not state.gate_done:
        yield struck(state, Fault.GATE_DIED, gate_done=True, told=Told.REFUSED)
        yield struck(state, Fault.PUBACK_LOST, gate_done=True, intake=True, told=Told.REFUSED)
    for task in set(state.tasks):
        next_step = PROGRAMS[task.program][task.step]
        rest = without(state, task)
        unrecorded = state.unrecorded or next_step is write_delivered
        yield struck(state, _DIES[task.program], tasks=rest, unrecorded=unrecorded)
        if next_step in (let_go_of_intake, let_go_of_outbound):
            yield struck(state, Fault.ACK_LOST, tasks=rest)
        if _still_owned(state, task):
            second = replace(task, step=0, repeated=True)
            yield struck(state, Fault.OVERRUN, tasks=tuple(sorted((*state.tasks, second))))
    if state.remembered:
        yield struck(state, Fault.IDS_FORGOTTEN, remembered=frozenset())
    # a third worker beside two tells nothing new
    if any(task.program in _FROM_BROKER for task in state.tasks) and not any(task.forgotten for task in state.tasks):
        yield _broker_killed(state, marks=marks)
    if state.intake:
        yield struck(state, Fault.RULES_CHANGED, hold=not state.hold)
        yield struck(state, Fault.ROUTES_CHANGED, rerouted=not state.rerouted)
    # an entry that nobody could let go of for so long
    if state.newest and (state.intake or any(stored.shared for stored in state.outbound)):
        yield struck(state, Fault.WEEK_PASSED, newest=None, remembered=frozenset())


def _broker_killed(state: State, *, marks: bool) -> State:
    """Who has something in hand goes on; the broker gives it out once more, as if for the first time. `marks`: to whoever gets it, everything
    that waited then is repeated; and so is, to those who have it, what they have in hand."""
    return struck(
        state,
        Fault.BROKER_KILLED,
        remembered=state.stored_ids,
        intake_given_out=marks,
        outbound=tuple(replace(stored, given_out=marks) for stored in state.outbound),
        tasks=tuple(sorted(_forgotten(task, marks=marks) for task in state.tasks)),
    )


def _forgotten(task: Task, *, marks: bool) -> Task:
    return replace(task, forgotten=True, repeated=task.repeated or marks) if task.program in _FROM_BROKER else task


def _still_owned(state: State, task: Task) -> bool:
    """Whether the broker, or the lease, may give this worker's message to a second one."""
    if (
        sum((other.program, other.copy, other.generation) == (task.program, task.copy, task.generation) for other in state.tasks)
        > 1
    ):
        return False
    match task.program:
        case "screener":
            return state.intake
        case "retry":
            return task.generation in state.rows
        case "delivery":
            return any(stored.copy == task.copy for stored in state.outbound)
        case _:
            return False  # a second release is an administrator's, not the broker's


def _looked_at(state: State, most: int) -> bool:
    """Whether so many faults are worth a look. Of a batch, a broker that was killed has made two workers of each already, and goes alone: the other
    members make every step twofold as well."""
    if state.arrived > MOST_ARRIVED or len(state.faults) > most:
        return False
    return not state.batched or len(state.faults) == 1 or Fault.BROKER_KILLED not in state.faults


def explore(max_faults: int, *, held: bool = False, batched: bool = False, marks: bool = True) -> Iterator[tuple[State, bool]]:
    """Every reachable state, and whether nothing but a fault can change it any more. `held`: what the rules say at first."""
    begin = State(hold=held, batched=batched)
    seen, waiting = {begin}, deque([begin])
    while waiting:
        state = waiting.popleft()
        onward = list(progress(state))
        yield state, not onward
        if len(state.faults) < max_faults and state.arrived < MOST_ARRIVED:
            onward += misfortunes(state, marks=marks)
        for following in map(State.normal, onward):
            if following not in seen and _looked_at(following, max_faults):
                seen.add(following)
                waiting.append(following)
