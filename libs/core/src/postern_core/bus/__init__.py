"""The bus: durable publishing, pulling, bodies, policy and status over NATS JetStream.

Nothing here loses mail by default: a publish returns only after the broker's acknowledgement and raises otherwise; a pulled message
is let go only by the handler's explicit `ack`, which waits for the broker's confirmation.
"""

from postern_core.bus.bodies import BodyMissing, BodyStore
from postern_core.bus.collector import Collector
from postern_core.bus.connection import Bus, connect
from postern_core.bus.consumer import Consumer
from postern_core.bus.delivered import Delivered
from postern_core.bus.dispositions import DispositionLog
from postern_core.bus.event_sink import EventSink
from postern_core.bus.group_commit import GroupCommit
from postern_core.bus.notice_sink import NoticeSink
from postern_core.bus.policy import PolicyWatch
from postern_core.bus.session_log_sink import SessionLogSink
from postern_core.bus.status import StatusReporter, instance_token

__all__ = [
    "BodyMissing",
    "BodyStore",
    "Bus",
    "Collector",
    "Consumer",
    "Delivered",
    "DispositionLog",
    "EventSink",
    "GroupCommit",
    "NoticeSink",
    "PolicyWatch",
    "SessionLogSink",
    "StatusReporter",
    "connect",
    "instance_token",
]
