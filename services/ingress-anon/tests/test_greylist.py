"""Greylisting's memory: who passes when, what replicas learn from each other, and that it is bounded."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from postern_core.greylist import GreylistNews, SeenClient, SeenTriplet
from postern_core.policy import ListenerGreylisting
from postern_ingress_anon.greylist import Greylist

RULES = ListenerGreylisting(enabled=True, whitelist_after=3)
NET, NOW, HOUR, DAY = "192.0.2.0/24", 1_000_000.0, 3600.0, 86400.0


class Replica(Greylist):
    """One that writes its news down."""

    def __init__(self, origin: str = "one", *, most: int = 50_000) -> None:
        super().__init__(origin, most=most)
        self.news: list[SeenTriplet | SeenClient] = []
        self.on_news = self.news.append

    def at(self, after_s: float, sender: str = "a@s.example", network: str = NET, rules: ListenerGreylisting = RULES) -> bool:
        return self.passes(network, sender, "b@relay.example", NOW + after_s, rules)

    def told(self) -> GreylistNews:
        """What it said since the last time."""
        news, self.news[:] = list(self.news), []
        return GreylistNews(
            origin=self.origin,
            triplets=tuple(each for each in news if isinstance(each, SeenTriplet)),
            clients=tuple(each for each in news if isinstance(each, SeenClient)),
        )


def test_a_stranger_passes_when_he_comes_again_after_the_delay() -> None:
    one = Replica()
    assert [one.at(after) for after in (0, 1, 299, 301, 302, 30 * DAY, 64 * DAY)] == [False, False, False, True, True, True, True]
    assert not one.at(100 * DAY)  # forgotten after 35 days without mail


def test_who_comes_again_too_late_is_a_stranger_again() -> None:
    one = Replica()
    assert [one.at(after) for after in (0, 49 * HOUR, 49 * HOUR + 299, 49 * HOUR + 301)] == [False, False, False, True]


def test_each_of_network_sender_and_recipient_makes_a_stranger_and_case_does_not() -> None:
    one = Replica()
    one.at(0)
    assert one.at(400)
    assert one.at(400, "A@S.example")
    assert not one.at(400, "c@s.example")
    assert not one.at(400, network="198.51.100.0/24")
    assert not one.passes(NET, "a@s.example", "c@relay.example", NOW + 400, RULES)
    assert not one.passes(NET, "a@s.exampleb", "@relay.example", NOW + 400, RULES)


def test_a_network_that_came_again_often_enough_is_not_asked_any_more() -> None:
    one = Replica()
    for n in range(3):
        assert not one.at(0, f"{n}@s.example")
    for n in range(3):
        assert not one.at(350, "new@s.example") or n == 3
        assert one.at(400, f"{n}@s.example")
    assert one.at(400, "whoever@s.example")
    assert not one.at(400, "whoever@s.example", rules=msgspec.structs.replace(RULES, whitelist_after=None))
    assert one.at(34 * DAY, "another@s.example")
    assert one.at(68 * DAY, "another@s.example")
    assert not one.at(140 * DAY, "another@s.example")


def test_the_others_know_what_one_does() -> None:
    one, two = Replica("one"), Replica("two")
    assert not one.at(0)
    two.hear(one.told(), NOW + 0.5)
    assert not two.at(100)
    assert two.at(301)
    one.hear(two.told(), NOW + 301.5)
    assert one.at(302)
    assert one.told().triplets == ()  # the other has just told of it


def test_a_replica_that_comes_later_is_told_all() -> None:
    one, late = Replica("one"), Replica("late")
    for n in range(3000):
        one.at(0, f"{n}@s.example", network=f"10.{n // 256}.{n % 256}.0/24")
    for n in range(5):
        one.at(400, f"{n}@s.example", network=f"10.0.{n}.0/24")
    for news in one.everything(NOW + 500):
        assert len(news.triplets) <= 2000
        late.hear(msgspec.json.decode(msgspec.json.encode(news), type=GreylistNews), NOW + 500)
    assert late.at(501, "0@s.example", network="10.0.0.0/24")
    assert late.at(501, "2999@s.example", network="10.11.183.0/24")
    assert not late.at(501, "3000@s.example")


def test_hearing_twice_or_late_does_no_harm() -> None:
    one, two = Replica("one"), Replica("two")
    one.at(0)
    first = one.told()
    one.at(400)
    second = one.told()
    for news in (second, first, second, first):
        two.hear(news, NOW + 400)
    assert two.at(401)
    assert [client.times for news in two.everything(NOW + 401) for client in news.clients] == [1]


def test_a_flood_of_strangers_makes_strangers_forgotten_and_nobody_else() -> None:
    one = Replica(most=10)
    one.at(0)
    assert one.at(400)
    for n in range(1000):
        one.at(400, f"{n}@s.example", network=f"10.0.{n % 256}.0/24")
    assert one.at(401)
    assert sum(len(news.triplets) for news in one.everything(NOW + 401)) <= 20


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 60 * DAY)), max_size=30))
def test_nobody_passes_whom_nobody_saw_before_the_delay(steps: list[tuple[int, float]]) -> None:
    rules = msgspec.structs.replace(RULES, whitelist_after=None)
    replicas = [Replica("one"), Replica("two")]
    earliest: dict[int, float] = {}
    for sender, after in sorted(steps, key=lambda step: step[1]):
        here, there = replicas[sender % 2], replicas[(sender + 1) % 2]
        passed = here.at(after, f"{sender}@s.example", rules=rules)
        assert not passed or after - earliest[sender] >= rules.delay_s
        earliest.setdefault(sender, after)
        there.hear(here.told(), NOW + after)
