"""The retry schedule at the HTTP edge: the fields of `postern_core.policy.RetrySchedule`, in seconds."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, Strict

from postern_api.fields import Body, Seconds
from postern_core.policy import RetrySchedule

_DEFAULTS = RetrySchedule()


class ScheduleBody(Body):
    """When to try again, in seconds; the last interval repeats."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"intervals_s": [900, 1800, 3600, 14400], "delay_notice_s": 43200, "expiry_s": 172800}]}
    )

    intervals_s: Annotated[
        list[Annotated[float, Strict(), Field(ge=0.1, le=30 * 86400, allow_inf_nan=False)]], Field(min_length=1, max_length=100)
    ]
    delay_notice_s: Seconds | None = Field(
        default=_DEFAULTS.delay_notice_s, description="After acceptance the sender is told of the delay; null: never."
    )
    expiry_s: Seconds = Field(default=_DEFAULTS.expiry_s, description="After acceptance the mail goes back to its sender.")

    def to_object(self) -> RetrySchedule:
        return RetrySchedule(intervals_s=tuple(self.intervals_s), delay_notice_s=self.delay_notice_s, expiry_s=self.expiry_s)

    @classmethod
    def of(cls, schedule: RetrySchedule) -> ScheduleBody:
        return cls(intervals_s=list(schedule.intervals_s), delay_notice_s=schedule.delay_notice_s, expiry_s=schedule.expiry_s)
