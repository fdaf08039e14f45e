"""The steps of each process, in the order in which the code takes them; a fault may come between any two.

SCREENER, HOLDER   postern_screener.actions: pass, hold
DELIVERY           postern_delivery.first_try
RETRY              postern_delivery.retry
RELEASE            postern_api.quarantine.service
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from model.state import State, Step, Stored, Task, advance, end
from postern_core.disposition import DispositionKind

# --- the screener lets it pass: take from INTAKE, publish to OUTBOUND, acknowledge


def publish_job(state: State, task: Task) -> Iterator[State]:
    yield _stored(state, task, generation=0, maybe_duplicate=task.redelivered)


def _stored(state: State, task: Task, *, generation: int, maybe_duplicate: bool) -> State:
    msg_id = f"job-{generation}"
    if msg_id in state.remembered:
        return advance(state, task)  # `duplicate: true`
    job = Stored(state.copies, maybe_duplicate, generation)
    return advance(state, task, outbound=(*state.outbound, job), copies=state.copies + 1, remembered=state.remembered | {msg_id})


def ack_intake(state: State, task: Task) -> Iterator[State]:
    yield end(state, task, intake=False)


SCREENER: tuple[Step, ...] = (publish_job, ack_intake)

# --- the screener holds it: look up (when redelivered), publish to QUARANTINE, disposition `held`, acknowledge


def look_up_held(state: State, task: Task) -> Iterator[State]:
    if task.redelivered and state.newest is not None:
        yield advance(state, task, steps=HOLDER.index(ack_intake) - task.step)
    else:
        yield advance(state, task)


def publish_held(state: State, task: Task) -> Iterator[State]:
    if "held" in state.remembered:
        yield advance(state, task)
    else:
        yield advance(state, task, quarantine=True, remembered=state.remembered | {"held"})


def write_held(state: State, task: Task) -> Iterator[State]:
    yield advance(state, task, **_written(state, DispositionKind.HELD, 0))


HOLDER: tuple[Step, ...] = (look_up_held, publish_held, write_held, ack_intake)


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
    yield _stored(state, task, generation=1, maybe_duplicate=True)


def delete_entry(state: State, task: Task) -> Iterator[State]:
    yield end(state, task, quarantine=False)


RELEASE: tuple[Step, ...] = (write_released, publish_released, delete_entry)

# --- delivery, first try: look up if marked, attempt, write the disposition or defer, acknowledge


def look_up(state: State, task: Task) -> Iterator[State]:
    repeated = task.redelivered or task.maybe_duplicate
    deferred = state.deferred and state.row_generation == task.generation
    if repeated and (deferred or state.settled_for(task.generation)):
        yield advance(state, task, steps=DELIVERY.index(ack_outbound) - task.step)
    else:
        yield advance(state, task)


def attempt(state: State, task: Task) -> Iterator[State]:
    yield advance(state, task, arrived=state.arrived + 1)  # 250
    if task.program == "delivery":  # 4yz
        yield advance(state, task, steps=DELIVERY.index(store_deferred) - task.step)
    else:
        yield end(state, task)  # the row stays, its lease ends


def write_delivered(state: State, task: Task) -> Iterator[State]:
    written = _written(state, DispositionKind.DELIVERED, task.generation)
    yield advance(state, task, steps=DELIVERY.index(ack_outbound) - task.step if task.program == "delivery" else 1, **written)


def store_deferred(state: State, task: Task) -> Iterator[State]:
    yield advance(state, task, deferred=True, row_generation=task.generation)


def insert_row(state: State, task: Task) -> Iterator[State]:
    yield advance(state, task, row=True)


def ack_outbound(state: State, task: Task) -> Iterator[State]:
    yield end(state, task, outbound=tuple(stored for stored in state.outbound if stored.copy != task.copy))


DELIVERY: tuple[Step, ...] = (look_up, attempt, write_delivered, store_deferred, insert_row, ack_outbound)

# --- delivery, later tries: look up, attempt, write the disposition, drop the row, drop the body


def look_up_row(state: State, task: Task) -> Iterator[State]:
    if state.settled_for(task.generation):
        yield advance(state, task, steps=RETRY.index(drop_row) - task.step)
    else:
        yield advance(state, task)


def drop_row(state: State, task: Task) -> Iterator[State]:
    yield advance(state, task, row=False)


def drop_deferred(state: State, task: Task) -> Iterator[State]:
    yield end(state, task, deferred=False)


RETRY: tuple[Step, ...] = (look_up_row, attempt, write_delivered, drop_row, drop_deferred)

PROGRAMS: dict[str, tuple[Step, ...]] = {
    "screener": SCREENER,
    "holder": HOLDER,
    "delivery": DELIVERY,
    "retry": RETRY,
    "release": RELEASE,
}


def given_out(state: State, stored: Stored) -> tuple[Stored, ...]:
    """OUTBOUND once this job is in somebody's hands."""
    others = tuple(other for other in state.outbound if other is not stored)
    return tuple(sorted((*others, replace(stored, given_out=True)), key=lambda each: each.copy))
