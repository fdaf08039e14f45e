"""What replicas tell each other, without a bus: whatever happens to whom, all come to know the same."""

from __future__ import annotations

from datetime import timedelta

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from postern_core.accounts import AccountNews
from postern_core.policy import Throttling
from postern_ingress_auth.shared import Shared

RULES = Throttling(network_limit=5, user_limit=9)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 2), st.just("failed"), st.sampled_from("12"), st.sampled_from("uvU"), st.booleans()),
        st.tuples(st.integers(0, 2), st.just("succeeded"), st.sampled_from("12"), st.sampled_from("uv")),
        st.tuples(st.integers(0, 2), st.just("used"), st.sampled_from("uv"), st.sampled_from("pq")),
        st.tuples(st.integers(0, 2), st.just("clear"), st.sampled_from(["", "user:u", "address:1"])),
        st.tuples(st.integers(0, 2), st.just("suspect"), st.sampled_from("xy")),
    ),
    max_size=40,
)


def carried(news: AccountNews) -> AccountNews:
    return msgspec.json.decode(msgspec.json.encode(news), type=AccountNews)


def known(shared: Shared) -> object:
    failures = sorted((each.key, each.count, each.blocked_s > 0, each.exists) for each in shared.failures())
    return failures, sorted((use.user, use.id, use.at) for use in shared.uses())


@settings(deadline=None)
@given(EVENTS)
def test_replicas_that_hear_each_other_know_the_same_and_so_does_one_that_comes_later(events: list[tuple[object, ...]]) -> None:
    replicas = [Shared(f"replica {n}", lambda: RULES) for n in range(3)]

    def tell(news: AccountNews) -> None:
        for replica in replicas:
            if replica.origin != news.origin:
                replica.hear(carried(news))

    for replica in replicas:
        replica.on_news = tell
    suspected: set[str] = set()
    for n, what, *arguments in events:
        replica = replicas[int(str(n))]
        if what == "failed":
            replica.failed(str(arguments[0]), str(arguments[1]), exists=bool(arguments[2]))
        elif what == "suspect":
            assert replica.suspect(str(arguments[0])) is (arguments[0] not in suspected)
            suspected.add(str(arguments[0]))
        else:
            getattr(replica, str(what))(*arguments)
        if (untold := replica.untold()) is not None:
            tell(untold)
    assert known(replicas[0]) == known(replicas[1]) == known(replicas[2])
    late = Shared("late", lambda: RULES)
    for _ in range(2):  # two of them answer
        for news in replicas[1].everything():
            late.hear(carried(news))
    assert known(late) == known(replicas[1])


def test_all_that_is_known_goes_out_in_pieces_that_fit_a_message() -> None:
    shared, late = Shared("one", lambda: RULES), Shared("two", lambda: RULES)
    for n in range(6000):
        shared.failed(f"2001:db8:{n:x}::", "x" * 200 + str(n), exists=False)
        shared.counts.add(f"user:{n}", 1_800_000_000.0, messages=1)
    pieces = [msgspec.json.encode(news) for news in shared.everything()]
    assert len(pieces) > 3
    assert max(len(piece) for piece in pieces) < 1024 * 1024
    for piece in pieces:
        late.hear(msgspec.json.decode(piece, type=AccountNews))
    assert len(late.failures()) == 12_000
    assert timedelta(seconds=max(each.age_s for each in late.failures())) < timedelta(minutes=1)
