"""Trials at the HTTP edge."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, JsonValue, model_validator

from postern_api.fields import Body, Line, examples
from postern_api.messages.verdict_schemas import OUTCOME, VERDICT_EXAMPLE, RuleOutcomeView, VerdictView
from postern_api.rules.schemas import RuleBody
from postern_core.trial import TrialPlace, Tried

_A_PLACE: dict[str, JsonValue] = {
    "rule_ids": ["draft-1"],
    "part": "header",
    "offset": 14,
    "length": 7,
    "chain": [],
    "excerpt": "invoice",
}
_A_MESSAGE = base64.b64encode(b"From: x@sender.example\r\nSubject: Your invoice\r\n\r\nHello.\r\n").decode()


def _from_base64(value: object) -> object:
    if not isinstance(value, str):
        return value  # the message itself, as message/rfc822
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("is no base64") from error


Content = Annotated[bytes, BeforeValidator(_from_base64), Field(min_length=1, json_schema_extra={"format": "base64"})]


class EnvelopeBody(Body):
    """Who would have handed the message in, and for whom."""

    gate: Literal["anon", "auth"] = "anon"
    reverse_path: Annotated[Line, Field(max_length=320)] = Field(default="", description="Empty: the null reverse-path.")
    recipients: list[Annotated[Line, Field(max_length=320)]] = Field(default_factory=list, max_length=100)
    client: Line = Field(default="127.0.0.1", description="Address of the client.")
    user: Annotated[Line, Field(max_length=320)] = Field(default="", description="Who has authenticated, at gate `auth`.")


class TestBody(Body):
    """A message, and the policy to try it under. The message by itself may be sent as `message/rfc822`, with the rest as query."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"message": _A_MESSAGE},
                {
                    "message": _A_MESSAGE,
                    "envelope": {"gate": "anon", "reverse_path": "x@sender.example", "recipients": ["alice@example.com"]},
                    "rules": [
                        {"name": "invoices", "condition": {"type": "keyword", "phrases": ["invoice"]}, "action": "hold"},
                    ],
                },
            ]
        }
    )

    message: Content = Field(description="The whole message as received, in base64.")
    envelope: EnvelopeBody | None = None
    revision: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = Field(default=None, description="Default: the newest.")
    rules: list[RuleBody] | None = Field(
        default=None, max_length=10_000, description="In place of those of the revision; those of an `id` of their own keep it."
    )

    @model_validator(mode="before")
    @classmethod
    def _as_it_is(cls, data: Any) -> Any:
        return {"message": data} if isinstance(data, bytes) else data


class PlaceFound(Body):
    """One place in the message at which a condition holds."""

    rule_ids: list[str] = Field(description="The rules that have that condition.")
    part: str
    offset: int
    length: int
    chain: list[str] = Field(description="Inside an archive: the names down to the place, as in a verdict.")
    excerpt: str

    @classmethod
    def of(cls, place: TrialPlace) -> PlaceFound:
        return cls(
            rule_ids=list(place.rule_ids),
            part=place.part,
            offset=place.offset,
            length=place.length,
            chain=list(place.chain),
            excerpt=place.excerpt,
        )


class ShareFound(Body):
    """What would come of the message for some of its recipients."""

    recipients: list[str]
    verdict: VerdictView


class TestResult(Body):
    """What would come of the message."""

    model_config = examples(
        {
            "revision": 42,
            "draft": True,
            "verdict": VERDICT_EXAMPLE,
            "shares": [],
            "failure": "",
            "deferral": "",
            "subject": "Your invoice",
            "places": [_A_PLACE],
            "rules": [OUTCOME],
            "compile_ms": 12.5,
            "steps_ms": {"screen": 0.21, "cpu": 0.2, "parse": 0.05},
        }
    )

    revision: int
    draft: bool = Field(description="The rules were those of the request, and the rest of the policy that of this revision.")
    verdict: VerdictView | None = Field(
        description="null: the inspection failed (`failure` says how: live mail like it would become poison), or got no processor in time."
    )
    shares: list[ShareFound] = Field(
        description="Where rules differ between recipients: each verdict; `verdict` and `rules` are those of the first."
    )
    failure: str
    deferral: str = Field(
        description="Why live mail like it would wait for an engine that failed; `verdict` is then for when it has waited long enough."
    )
    subject: str
    places: list[PlaceFound] = Field(
        description="All places where a condition of some rule holds, 500 at most, in the order of the message."
    )
    rules: list[RuleOutcomeView] | None = Field(description="What came of each rule; null when too much matched to tell.")
    compile_ms: float = Field(description="Milliseconds that compiling the rules took; 0: they were compiled before.")
    steps_ms: dict[str, float] = Field(
        description="Milliseconds of the inspection, those of them in which it had the processor, and of parsing alone, at the lowest priority."
    )

    @classmethod
    def of(
        cls, revision: int, *, draft: bool, tried: Tried, rules: list[RuleOutcomeView] | None, compile_ms: float
    ) -> TestResult:
        return cls(
            revision=revision,
            draft=draft,
            verdict=None if tried.verdict is None else VerdictView.of(tried.verdict),
            shares=[
                ShareFound(recipients=list(share.recipients), verdict=VerdictView.of(share.verdict)) for share in tried.shares
            ],
            failure=tried.failure,
            deferral=tried.deferral,
            subject=tried.subject,
            places=[PlaceFound.of(place) for place in tried.places],
            rules=rules,
            compile_ms=compile_ms,
            steps_ms=tried.steps_ms,
        )
