"""What the model of the hand-over knows: one message to one recipient, everything durable about it, and who works on it."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from postern_core.disposition import DispositionKind


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
    API_DIED = "the api died"
    OVERRUN = "a worker overran its ack-wait and went on"
    ACK_LOST = "an acknowledgement was lost"
    PUBACK_LOST = "the gate's publish timed out, but was stored"
    IDS_FORGOTTEN = "the broker restarted, or the duplicate window passed"


@dataclass(frozen=True, slots=True)
class Task:
    """A worker with a message in its hands. `redelivered`: this is not the first time that it was given out."""

    program: str
    step: int = 0
    redelivered: bool = False
    maybe_duplicate: bool = False
    copy: int = 0  # which stored copy of the job delivery has in its hands
    generation: int = 0  # of the job that delivery has in its hands


@dataclass(frozen=True, slots=True)
class Stored:
    """One copy of a job in OUTBOUND."""

    copy: int
    maybe_duplicate: bool
    generation: int = 0
    given_out: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """Everything that survives or is in flight for one queue id."""

    told: Told = Told.NOTHING
    gate_done: bool = False
    intake: bool = False
    intake_tries: int = 0
    outbound: tuple[Stored, ...] = ()
    copies: int = 0  # of jobs, ever stored
    remembered: frozenset[str] = frozenset()  # message ids that the broker knows
    deferred: bool = False
    row: bool = False
    row_generation: int = 0
    quarantine: bool = False
    newest: tuple[DispositionKind, int] | None = None  # the newest disposition and its generation: what a look-up sees
    standing: tuple[int, bool] = (0, False)  # the highest (generation, final) of all dispositions: what the ledger counts
    releases: int = 0  # how often an administrator asked
    arrived: int = 0  # copies that the smart host took responsibility for
    tasks: tuple[Task, ...] = ()
    faults: tuple[Fault, ...] = ()
    unrecorded: bool = False  # a worker died between the smart host's 250 and the disposition

    @property
    def settled(self) -> bool:
        """Whether the recipient has come to an end, as the ledger sees it."""
        return self.standing[1]

    def settled_for(self, generation: int) -> bool:
        """What delivery sees when it looks up a job of this generation."""
        return self.newest is not None and self.newest[0].settles(self.newest[1], generation)

    def somewhere(self) -> bool:
        """Whether the message is held by anything durable, or has come to its end."""
        return self.intake or bool(self.outbound) or self.deferred or self.quarantine or self.settled


Step = Callable[[State, Task], Iterator[State]]


def without(state: State, task: Task) -> tuple[Task, ...]:
    """The tasks but for this one."""
    tasks = list(state.tasks)
    tasks.remove(task)
    return tuple(tasks)


def in_order(tasks: tuple[Task, ...]) -> tuple[Task, ...]:
    """Which task is named first makes no other state."""
    return tuple(sorted(tasks, key=lambda t: (t.program, t.step, t.redelivered, t.maybe_duplicate, t.copy, t.generation)))


def advance(state: State, task: Task, steps: int = 1, **changes: object) -> State:
    """The task goes on by so many steps."""
    tasks = (*without(state, task), replace(task, step=task.step + steps))
    return replace(state, tasks=in_order(tasks), **changes)  # type: ignore[arg-type]


def end(state: State, task: Task, **changes: object) -> State:
    """The task is over."""
    return replace(state, tasks=in_order(without(state, task)), **changes)  # type: ignore[arg-type]


def start(state: State, task: Task, **changes: object) -> State:
    """Somebody takes it up."""
    return replace(state, tasks=in_order((*state.tasks, task)), **changes)  # type: ignore[arg-type]
