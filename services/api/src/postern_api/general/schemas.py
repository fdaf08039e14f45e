"""General settings at the HTTP edge."""

from __future__ import annotations

import msgspec
from pydantic import ConfigDict, Field

from postern_api.fields import Body, Flag, Line, Seconds, Whole
from postern_api.policy.addresses import checked_address, checked_domain
from postern_api.policy.objects import GeneralSettings


class SettingsBody(Body):
    """What concerns the relay as a whole."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "hostname": "mx.example.com",
                    "postmaster": "postmaster@example.com",
                    "ndr_copy_to": "",
                    "max_deliveries": 4,
                    "screening_timeout_s": 10,
                    "excerpts": True,
                    "archive": False,
                }
            ]
        }
    )

    hostname: Line = Field(description="In the banner, in Received:, in EHLO, and as Reporting-MTA.")
    postmaster: Line = Field(default="", description="From: of notices; empty: postmaster@<hostname>.")
    ndr_copy_to: Line = Field(default="", description="Gets a copy of each NDR; empty: nobody.")
    max_deliveries: Whole = Field(
        default=4, ge=1, le=100, description="Screening that failed this often holds a message as poison."
    )
    screening_timeout_s: Seconds = Field(default=10.0, le=600, description="Seconds for one message.")
    excerpts: Flag = Field(
        default=True, description="Store a short excerpt of what a rule matched on; false: no text of any message."
    )
    archive: Flag = Field(
        default=False,
        description="Keep a copy of each message that was screened for a while, to rehearse rules with (operate/screening.md).",
    )

    def to_object(self) -> GeneralSettings:
        """InvalidError for what is no host name or address."""
        return GeneralSettings(
            hostname=checked_domain(self.hostname),
            postmaster=checked_address(self.postmaster) if self.postmaster else "",
            ndr_copy_to=checked_address(self.ndr_copy_to) if self.ndr_copy_to else "",
            max_deliveries=self.max_deliveries,
            screening_timeout_s=self.screening_timeout_s,
            excerpts=self.excerpts,
            archive=self.archive,
        )

    @classmethod
    def of(cls, settings: GeneralSettings) -> SettingsBody:
        return cls(**msgspec.structs.asdict(settings))
