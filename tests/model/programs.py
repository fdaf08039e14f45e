"""The steps of each process, in the order in which the code takes them; a fault may come between any two.

SCREENER   postern_screener.worker, postern_screener.actions
DELIVERY   postern_delivery.first_try
RETRY      postern_delivery.retry
RELEASE    postern_api.quarantine.service
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from model.state import LAST_OF_DELIVERY, LAST_OF_SCREENER, Fault, State, Step, Stored, Task, advance, end, struck, without
from postern_core.disposition import DispositionKind

# --- the screener: take from INTAKE, look up (when repeated), judge, and
#     it passes     publish to OUTBOUND, with others of its batch or alone, acknowledge
#     it is held    publish to QUARANTINE, disposition `held`, acknowledge


def judge(state: State, task: Task) -> Iterator[State]:
    let_go, passes = SCREENER.index(let_go_of_intake), SCREENER.index(publish_job)
    if task.repeated and state.newest is not None:
        yield advance(state, task, let_go)
        if state.batched and state.newest[0] is DispositionKind.DELIVERED:
            yield advance(
                state, task, passes
            )  # others of the batch have not ended: it goes along with them once more, whatever the rules say
    else:
        yield advance(state, task, SCREENER.index(publish_held) if state.hold else passes)


def publish_job(state: State, task: Task) -> Iterator[State]:
    for shared in {False, state.batched}:
        yield _stored(state, task, SCREENER.index(let_go_of_intake), maybe_duplicate=task.repeated, shared=shared)


def _stored(state: State, task: Task, then: int, *, maybe_duplicate: bool, generation: int = 0, shared: bool = False) -> State:
    taken = {stored.copy for stored in state.outbound} | {other.copy for other in state.tasks}
    job = Stored(min(set(range(len(taken) + 1)) - taken), maybe_duplicate, False, generation, shared, state.rerouted)
    if job.msg_id in state.remembered:
        return advance(state, task, then)  # `duplicate: true`
    return advance(state, task, then, outbound=(*state.outbound, job), remembered=state.remembered | {job.msg_id})


def publish_held(state: State, task: Task) -> Iterator[State]:
    if "held" in state.remembered:
        yield advance(state, task)
    else:
        yield advance(state, task, quarantine=True, remembered=state.remembered | {"held"})


def write_held(state: State, task: Task) -> Iterator[State]:
    yield advance(state, task, **_written(state, DispositionKind.HELD, 0))


def let_go_of_intake(state: State, task: Task) -> Iterator[State]:
    yield end(state, task, intake=False)
    if state.batched:
        yield end(struck(state, Fault.CAME_AGAIN), task)
    if task.forgotten:  # the broker may not know what is acknowledged
        yield end(state, task)


SCREENER: tuple[Step, ...] = (judge, publish_job, publish_held, write_held, let_go_of_intake)


def _written(state: State, kind: DispositionKind, generation: int) -> dict[str, object]:
    msg_id = f"{kind}-{generation}"
    if msg_id in state.remembered:
        return {}
    return {
        "newest": (kind, generation),
        "standing": max(state.standing, (generation, kind.is_final)),
        "remembered": state.remembered | {msg_id},
    }


# --- the api releases it: `released` (once), publish to OUTBOUND under the next generation, delete the entry


def write_released(state: State, task: Task) -> Iterator[State]:
    known = state.newest is not None and state.newest[1] > 0
    yield advance(state, task, **({} if known else _written(state, DispositionKind.RELEASED, 1)))


def publish_released(state: State, task: Task) -> Iterator[State]:
    yield _stored(state, task, RELEASE.index(delete_entry), maybe_duplicate=True, generation=1)


def delete_entry(state: State, task: Task) -> Iterator[State]:
    yield end(state, task, quarantine=False)


RELEASE: tuple[Step, ...] = (write_released, publish_released, delete_entry)

# --- delivery, first try: look up if marked, attempt, write the disposition or defer, acknowledge


def look_up(state: State, task: Task) -> Iterator[State]:
    if task.repeated and (task.generation in state.deferred or state.settled_for(task.generation)):
        yield advance(state, task, DELIVERY.index(let_go_of_outbound))
    else:
        yield _beginning(state, task)


def _beginning(state: State, task: Task) -> State:
    return advance(state, task, side_by_side=_beside(state, task))


def _beside(state: State, task: Task) -> bool:
    """Whether another worker has looked it up already, or will not, and has not written down yet how it ended."""
    return state.side_by_side or any(
        other.step in _ATTEMPTING.get(other.program, ())
        or (other.program == "delivery" and other.step == 0 and not other.repeated)
        for other in without(state, task)
    )


def attempt(state: State, task: Task) -> Iterator[State]:
    yield advance(state, task, arrived=state.arrived + 1, side_by_side=_beside(state, task))  # 250
    if task.program == "delivery":  # 4yz
        yield advance(state, task, DELIVERY.index(store_deferred))
    else:
        yield end(state, task)  # the row stays, its lease ends


def write_delivered(state: State, task: Task) -> Iterator[State]:
    then = DELIVERY.index(let_go_of_outbound) if task.program == "delivery" else None
    written = _written(state, DispositionKind.DELIVERED, task.generation)
    yield advance(state, task, then, side_by_side=_beside(state, task), **written)


def store_deferred(state: State, task: Task) -> Iterator[State]:
    yield advance(state, task, deferred=state.deferred | {task.generation})


def insert_row(state: State, task: Task) -> Iterator[State]:
    yield advance(state, task, rows=state.rows | {task.generation})


def let_go_of_outbound(state: State, task: Task) -> Iterator[State]:
    left = tuple(stored for stored in state.outbound if stored.copy != task.copy)
    yield end(state, task, outbound=left)
    if any(stored.shared for stored in state.outbound if stored.copy == task.copy):
        yield end(struck(state, Fault.CAME_AGAIN), task)
    if task.forgotten:
        yield end(state, task)


DELIVERY: tuple[Step, ...] = (look_up, attempt, write_delivered, store_deferred, insert_row, let_go_of_outbound)

# --- delivery, later tries: look up, attempt, write the disposition, drop the row, drop the body


def look_up_row(state: State, task: Task) -> Iterator[State]:
    if state.settled_for(task.generation):
        yield advance(state, task, RETRY.index(drop_row))
    else:
        yield _beginning(state, task)


def drop_row(state: State, task: Task) -> Iterator[State]:
    yield advance(state, task, rows=state.rows - {task.generation})


def drop_deferred(state: State, task: Task) -> Iterator[State]:
    yield end(state, task, deferred=state.deferred - {task.generation})


RETRY: tuple[Step, ...] = (look_up_row, attempt, write_delivered, drop_row, drop_deferred)

PROGRAMS: dict[str, tuple[Step, ...]] = {"screener": SCREENER, "delivery": DELIVERY, "retry": RETRY, "release": RELEASE}
assert (SCREENER[LAST_OF_SCREENER], DELIVERY[LAST_OF_DELIVERY]) == (let_go_of_intake, let_go_of_outbound)
_ATTEMPTING = {name: [steps.index(attempt), steps.index(write_delivered)] for name, steps in PROGRAMS.items() if attempt in steps}


def given_out(state: State, stored: Stored) -> tuple[Stored, ...]:
    """OUTBOUND once this job is in somebody's hands."""
    return tuple(replace(other, given_out=True) if other is stored else other for other in state.outbound)
