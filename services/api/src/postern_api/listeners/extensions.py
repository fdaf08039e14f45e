"""The part `extensions` of a listener at the HTTP edge."""

from __future__ import annotations

import msgspec
from pydantic import Field

from postern_api.fields import Body, examples
from postern_core.policy import ListenerExtensions


class ExtensionsBody(Body):
    """ESMTP extensions that one gate offers; an absent field takes its default. What is off is not announced, and refused as if unknown."""

    model_config = examples({"binarymime": False}, {})

    chunking: bool = Field(default=True, description="RFC 3030: BDAT.")
    binarymime: bool = Field(default=True, description="RFC 3030: BODY=BINARYMIME; without chunking it is not offered either.")
    dsn: bool = Field(default=True, description="RFC 3461: RET, ENVID, NOTIFY and ORCPT.")
    smtputf8: bool = Field(default=True, description="RFC 6531: addresses and header fields in UTF-8.")
    requiretls: bool = Field(
        default=True, description="RFC 8689, announced inside TLS: on over verified TLS only, or back to the sender."
    )
    limits: bool = Field(default=True, description="RFC 9422: the limits on transactions, recipients and their domains are told.")

    def to_object(self) -> ListenerExtensions:
        return ListenerExtensions(**self.model_dump())

    @classmethod
    def of(cls, extensions: ListenerExtensions) -> ExtensionsBody:
        return cls(**msgspec.structs.asdict(extensions))
