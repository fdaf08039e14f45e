"""Policy sections as bytes: deflated JSON, so that a snapshot with 100,000 phrases fits one broker message."""

from __future__ import annotations

import enum
import zlib
from typing import TypeVar

import msgspec

from postern_core.contract import decode
from postern_core.policy.delivery import DeliveryPolicy
from postern_core.policy.gates import GatePolicy
from postern_core.policy.screening import ScreeningPolicy

SectionStruct = GatePolicy | ScreeningPolicy | DeliveryPolicy
S = TypeVar("S", GatePolicy, ScreeningPolicy, DeliveryPolicy)

_MAX_DECODED_BYTES = 256 * 1024 * 1024


class Section(enum.StrEnum):
    """Keys in KV POLICY, one per audience."""

    GATES = "gates"  # ingress-anon, ingress-auth
    SCREENING = "screening"  # screener
    DELIVERY = "delivery"  # delivery


def encode_section(section: SectionStruct) -> bytes:
    """`section` as it is stored in KV POLICY."""
    return zlib.compress(msgspec.json.encode(section), 6)


def decode_section(data: bytes, kind: type[S]) -> S:
    """The section in `data`. ValueError when it is damaged, too large, or of a shape that this program does not know."""
    decompressor = zlib.decompressobj()
    try:
        raw = decompressor.decompress(data, _MAX_DECODED_BYTES)
    except zlib.error as error:
        raise ValueError(f"policy section is damaged: {error}") from error
    if decompressor.unconsumed_tail or not decompressor.eof:
        raise ValueError("policy section is cut short or larger than 256 MiB")
    try:
        return decode(raw, kind)
    except ValueError as error:
        raise ValueError(f"policy section: {error}") from error
