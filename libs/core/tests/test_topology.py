"""Subjects, stream settings and sizes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.js.api import AckPolicy, DiscardPolicy, RetentionPolicy, StorageType, StreamConfig

from postern_core.batch import MOST_MEMBERS, batch_token
from postern_core.bus.provision import fitting
from postern_core.bus.topology import (
    BusLimits,
    archive_subject,
    badmail_subject,
    body_subject,
    checked_route_name,
    consumers,
    deferred_subject,
    delivery_consumer,
    disposition_subject,
    dispositions_subject,
    event_subject,
    intake_subject,
    outbound_subject,
    quarantine_subject,
    route_consumer,
    streams,
)
from postern_core.envelope import Gate
from postern_core.ids import QueueId

ID = QueueId("01m872jv7bexwrfkmpb6w2jh6c")
BY_NAME = {str(config.name): config for config in streams(BusLimits())}
MAIL = ("INTAKE", "OUTBOUND", "DEFERRED", "QUARANTINE", "BADMAIL", "BODIES")


def owner(subject: str) -> list[str]:
    """The streams that take `subject`."""

    def takes(pattern: str) -> bool:
        wanted, tokens = pattern.split("."), subject.split(".")
        if wanted[-1] == ">":
            return len(tokens) >= len(wanted) and wanted[:-1] == tokens[: len(wanted) - 1]
        return len(wanted) == len(tokens) and all(w in ("*", t) for w, t in zip(wanted, tokens, strict=True))

    return [name for name, config in BY_NAME.items() if any(takes(pattern) for pattern in config.subjects or ())]


@pytest.mark.parametrize(
    ("subject", "stream"),
    [
        (intake_subject(Gate.ANON, ID), "INTAKE"),
        (intake_subject(Gate.AUTH, ID), "INTAKE"),
        (outbound_subject("main", ID), "OUTBOUND"),
        (deferred_subject(f"{ID}-main-0"), "DEFERRED"),
        (quarantine_subject(ID), "QUARANTINE"),
        (badmail_subject(f"{ID}-main-0"), "BADMAIL"),
        (intake_subject(Gate.ANON, batch_token([ID] * MOST_MEMBERS)), "INTAKE"),
        (outbound_subject("main", batch_token([ID] * MOST_MEMBERS)), "OUTBOUND"),
        (disposition_subject(ID, 17), "DISPOSITIONS"),
        (dispositions_subject(ID, 2, "0123456789abcdef"), "DISPOSITIONS"),
        (event_subject("ingress-anon", "trace"), "EVENTS"),
        (archive_subject(ID), "ARCHIVE"),
        (body_subject(f"delivery.{ID}-main-0", 3), "BODIES"),
        ("$KV.POLICY.gates", "KV_POLICY"),
        ("$KV.USERS.user.mfxg4", "KV_USERS"),
        ("$KV.SECRETS.route.main", "KV_SECRETS"),
        ("$KV.STATUS.screener.one", "KV_STATUS"),
    ],
)
def test_each_subject_belongs_to_one_stream(subject: str, stream: str) -> None:
    assert owner(subject) == [stream]


@given(st.text(max_size=40) | st.text("abc019-", max_size=40))
def test_a_route_name_is_one_token_that_can_neither_match_nor_split_a_subject(name: str) -> None:
    try:
        checked = checked_route_name(name)
    except ValueError as error:
        assert "cannot name a route" in str(error)  # noqa: PT017  (both ways are right)
        return
    assert checked == name
    assert 1 <= len(name) <= 32
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert name.strip("-") == name
    assert owner(outbound_subject(name, ID)) == ["OUTBOUND"]


@pytest.mark.parametrize("name", ["", "-", "a-", "-a", "A", "a.b", "*", ">", "a b", "a\n", "ä", "a" * 33])
def test_what_cannot_name_a_route_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a route"):
        checked_route_name(name)
    with pytest.raises(ValueError, match="cannot name a route"):
        route_consumer(name, BusLimits())


@pytest.mark.parametrize("name", MAIL)
def test_a_stream_of_mail_refuses_when_full_and_forgets_nothing(name: str) -> None:
    config = BY_NAME[name]
    assert (config.discard, config.max_age, config.storage) == (DiscardPolicy.NEW, 0, StorageType.FILE)
    assert (config.max_bytes or 0) > 0
    assert (config.max_msgs or -1) == -1  # a limit of messages would discard or refuse by another rule
    assert (config.duplicate_window or 0) >= 1800
    assert config.deny_purge is (name != "BODIES")


def test_only_what_is_taken_by_one_consumer_is_a_work_queue() -> None:
    queues = {name for name, config in BY_NAME.items() if config.retention == RetentionPolicy.WORK_QUEUE}
    assert queues == {"INTAKE", "OUTBOUND"}
    assert all(BY_NAME[name].deny_delete for name in queues)


def test_a_stored_body_cannot_be_overwritten_by_the_settings_of_its_stream() -> None:
    assert (BY_NAME["BODIES"].max_msgs_per_subject, BY_NAME["BODIES"].discard_new_per_subject) == (1, True)


@pytest.mark.parametrize("bucket", ["KV_POLICY", "KV_USERS", "KV_SECRETS", "KV_STATUS"])
def test_a_bucket_cannot_be_rolled_up_and_secrets_are_told_to_nobody(bucket: str) -> None:
    config = BY_NAME[bucket]
    assert (config.allow_rollup_hdrs, config.deny_purge, config.deny_delete) == (False, True, True)
    assert (config.republish is None) is (bucket in ("KV_USERS", "KV_SECRETS"))


@pytest.mark.parametrize("config", [config for _, config in consumers(BusLimits())] + [route_consumer("main", BusLimits())])
def test_no_consumer_ever_gives_a_message_up(config: object) -> None:
    assert (config.ack_policy, config.max_deliver) == (AckPolicy.EXPLICIT, -1)  # type: ignore[attr-defined]
    assert config.durable_name  # type: ignore[attr-defined]


def test_consumers_of_two_routes_share_nothing() -> None:
    one, other = route_consumer("a", BusLimits()), route_consumer("a-b", BusLimits())
    assert (one.filter_subject, other.filter_subject) == ("outbound.a.*", "outbound.a-b.*")
    assert delivery_consumer("a") != delivery_consumer("a-b")


@given(st.integers(1, 2**50), st.floats(0.01, 100))
def test_limits_fit_the_store_with_a_tenth_to_spare_and_keep_their_proportions(store: int, factor: float) -> None:
    limits = BusLimits().scaled(factor)
    fitted = fitting(limits, store)
    if limits.total_bytes <= store * 0.9:
        assert fitted == limits
    else:
        # 9 streams: rounding, and never nothing, since 0 would be no limit at all
        assert fitted.total_bytes <= store * 0.9 + 9
        assert fitted.intake_bytes <= fitted.bodies_bytes <= limits.bodies_bytes
    assert all(_limit(config) > 0 for config in streams(fitted) if not str(config.name).startswith("KV_"))


def test_limits_stay_where_the_size_of_the_store_is_unknown() -> None:
    assert fitting(BusLimits(), None) == BusLimits()


def _limit(config: StreamConfig) -> int:
    return config.max_bytes or 0
