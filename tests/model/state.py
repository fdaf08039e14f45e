"""What the model of the hand-over knows: one message to one recipient, everything durable about it, and who works on it.

The message may have come in a batch. Of the others in it the model knows only what they can do to this one: they go along with it or do not, and
they let go of an entry that they share or make it come again. Whatever holds for every choice of theirs holds for each of them in turn.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator

import msgspec
from msgspec.structs import replace

from postern_core.disposition import DispositionKind

LAST_OF_SCREENER, LAST_OF_DELIVERY = 4, 5  # their steps that let go


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
    IDS_FORGOTTEN = "the duplicate window passed"
    BROKER_KILLED = "the broker was killed, and forgot ids and what it had given out"
    RULES_CHANGED = "the rules changed: what passed is held from now on, or the other way round"
    ROUTES_CHANGED = "the routes changed: from now on mail takes another one"
    CAME_AGAIN = "an entry came again for the sake of another message in it"
    WEEK_PASSED = "the dispositions grew too old for DISPOSITIONS"


class Task(msgspec.Struct, frozen=True, order=True):
    """A worker with a message in its hands."""

    program: str
    step: int = 0
    repeated: bool = False  # given out before, as far as the broker tells, or marked *maybe duplicate*
    copy: int = 0  # which stored copy of the job delivery has in its hands
    generation: int = 0  # of the job that delivery has in its hands
    forgotten: bool = False  # the broker does not know any more that it gave this out


class Stored(msgspec.Struct, frozen=True, order=True):
    """One copy of a job in OUTBOUND. `shared`: with others of the batch, in one entry."""

    copy: int
    maybe_duplicate: bool
    given_out: bool
    generation: int = 0
    shared: bool = False
    rerouted: bool = False

    @property
    def msg_id(self) -> str:
        """Of its members and its route: in other company, and on another route, it is another."""
        return f"job-{self.generation}{'+' if self.shared else ''}{'r' if self.rerouted else ''}"


class State(msgspec.Struct, frozen=True):
    """Everything that survives or is in flight for one queue id."""

    batched: bool = False  # it came in a batch
    hold: bool = False  # what the rules say of it now
    rerouted: bool = False  # the route that mail takes now is not the first one
    told: Told = Told.NOTHING
    gate_done: bool = False
    intake: bool = False
    intake_given_out: bool = False
    outbound: tuple[Stored, ...] = ()  # in the order of the stream
    remembered: frozenset[str] = frozenset()  # message ids that the broker knows
    deferred: frozenset[int] = frozenset()  # generations of the jobs in DEFERRED
    rows: frozenset[int] = frozenset()  # and of those in the retry queue
    quarantine: bool = False
    newest: tuple[DispositionKind, int] | None = None  # the newest disposition and its generation: what a look-up sees
    standing: tuple[int, bool] = (0, False)  # the highest (generation, final) of all dispositions: what the ledger counts
    releases: int = 0  # how often an administrator asked
    arrived: int = 0  # copies that the smart host took responsibility for
    tasks: tuple[Task, ...] = ()
    faults: tuple[Fault, ...] = ()
    unrecorded: bool = False  # a worker died between the smart host's 250 and the disposition
    side_by_side: bool = False  # two workers were between their look-up and their disposition at one moment

    @property
    def settled(self) -> bool:
        """Whether the recipient has come to an end, as the ledger sees it."""
        return self.standing[1]

    def settled_for(self, generation: int) -> bool:
        """What delivery sees when it looks up a job of this generation."""
        return self.newest is not None and self.newest[0].settles(self.newest[1], generation)

    @property
    def stored_ids(self) -> frozenset[str]:
        """The message ids of what is still stored: those that a broker which starts anew knows."""
        jobs = {job.msg_id for job in self.outbound}
        gone = {msg_id for msg_id in self.remembered if msg_id.startswith("job-")} - jobs | (
            set() if self.quarantine else {"held"}
        )
        return self.remembered - gone

    def somewhere(self) -> bool:
        """Whether the message is held by anything durable, or has come to its end."""
        return self.intake or bool(self.outbound or self.deferred) or self.quarantine or self.settled

    def normal(self) -> State:
        """The same, without what nobody will look at again: what differs in that only is one state."""
        stored = {job.copy for job in self.outbound}
        # an acknowledgement of what is gone
        tasks = tuple(
            task
            for task in self.tasks
            if (self.intake or (task.program, task.step) != ("screener", LAST_OF_SCREENER))
            and (task.copy in stored or (task.program, task.step) != ("delivery", LAST_OF_DELIVERY))
        )
        programs = {task.program for task in tasks}
        screened_again = self.intake or "screener" in programs
        released_again = self.quarantine or "release" in programs
        tried_again = screened_again or released_again or bool(self.deferred or self.rows or self.outbound or tasks)
        of_screener = ("job-0", "job-0+", "job-0r", "job-0+r", "held", "held-0")
        relevant = dict.fromkeys(of_screener, screened_again) | dict.fromkeys(("job-1", "job-1r", "released-1"), released_again)
        return replace(
            self,
            tasks=tasks,
            hold=self.hold and screened_again,
            rerouted=self.rerouted and (screened_again or released_again),
            intake_given_out=self.intake_given_out and self.intake,
            remembered=frozenset(msg_id for msg_id in self.remembered if relevant.get(msg_id, tried_again)),
            newest=self.newest if tried_again else None,
        )


Step = Callable[[State, Task], Iterator[State]]


def without(state: State, task: Task) -> tuple[Task, ...]:
    """The tasks but for this one."""
    tasks = list(state.tasks)
    tasks.remove(task)
    return tuple(tasks)


def struck(state: State, fault: Fault, **changes: object) -> State:
    """A fault happens."""
    return replace(state, faults=tuple(sorted((*state.faults, fault))), **changes)


def advance(state: State, task: Task, to: int | None = None, **changes: object) -> State:
    """The task goes on to the next step of its program, or to step `to`."""
    moved = replace(task, step=task.step + 1 if to is None else to)
    return replace(state, tasks=tuple(sorted((*without(state, task), moved))), **changes)


def end(state: State, task: Task, **changes: object) -> State:
    """The task is over."""
    return replace(state, tasks=without(state, task), **changes)


def start(state: State, task: Task, **changes: object) -> State:
    """Somebody takes it up."""
    return replace(state, tasks=tuple(sorted((*state.tasks, task))), **changes)
