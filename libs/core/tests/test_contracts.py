"""Saved samples of everything that travels on the bus: they decode for ever, and what is of a later version is refused by name."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from contract_samples import FRAMED, PLAIN

from postern_core.batch import unframe_all
from postern_core.contract import CONTRACT_VERSION, NotYetReadableError, decode
from postern_core.disposition import DispositionBatch
from postern_core.envelope import Envelope, frame, unframe
from postern_core.policy import SectionStruct, decode_section, encode_section

FOLDER = Path(__file__).parent / "contracts"
BATCH = "envelopes-1.batch"  # of these two
BATCHED = ("envelope-1.mail", "envelope-1-least.mail")
POLICIES = [name for name, value in PLAIN.items() if isinstance(value, SectionStruct)]
VERSIONED = [name for name, value in PLAIN.items() if "version" in value.__struct_fields__]


def test_every_sample_is_known_and_every_known_one_is_there() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {*FRAMED, *PLAIN, BATCH}


def test_every_head_says_its_version() -> None:
    """Was: it was left out as a default, so that a later version would have taken what is stored for its own."""
    for name in ("disposition-1.json", "event-batch-1.json", *POLICIES):
        assert msgspec.json.decode(msgspec.json.encode(PLAIN[name]))["version"] == CONTRACT_VERSION
    for head, body in FRAMED.values():
        assert b'{"version":1,' in frame(head, body)


@pytest.mark.parametrize("name", FRAMED)
def test_framed_mail_decodes_to_what_it_said_when_it_was_saved(name: str) -> None:
    expected, body = FRAMED[name]
    head, found = unframe((FOLDER / name).read_bytes(), type(expected))
    assert (head, bytes(found)) == (expected, body)


def test_a_batch_decodes_to_what_it_said_when_it_was_saved() -> None:
    found = [(head, bytes(body)) for head, body in unframe_all((FOLDER / BATCH).read_bytes(), Envelope)]
    assert found == [FRAMED[name] for name in BATCHED]


@pytest.mark.parametrize("name", PLAIN)
def test_plain_json_decodes_to_what_it_said_when_it_was_saved(name: str) -> None:
    expected = PLAIN[name]
    assert decode((FOLDER / name).read_bytes(), type(expected)) == expected


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_section_decodes_to_what_it_said_when_it_was_saved(name: str) -> None:
    expected: Any = PLAIN[name]
    assert decode_section(zlib.compress((FOLDER / name).read_bytes()), type(expected)) == expected


@pytest.mark.parametrize("name", FRAMED)
def test_framed_mail_survives_writing_and_reading(name: str) -> None:
    expected, body = FRAMED[name]
    head, found = unframe(frame(expected, body), type(expected))
    assert (head, bytes(found)) == (expected, body)


@pytest.mark.parametrize("name", PLAIN)
def test_plain_json_survives_writing_and_reading(name: str) -> None:
    assert decode(msgspec.json.encode(PLAIN[name]), type(PLAIN[name])) == PLAIN[name]


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_section_survives_writing_and_reading(name: str) -> None:
    section: Any = PLAIN[name]
    assert decode_section(encode_section(section), type(section)) == section


@pytest.mark.parametrize("name", FRAMED)
def test_what_an_older_program_left_without_a_version_is_version_one(name: str) -> None:
    expected, body = FRAMED[name]
    old = frame(expected, body).replace(b'"version":1,', b"")
    head_length = len(old) - len(body) - 8
    assert unframe(old[:4] + head_length.to_bytes(4) + old[8:], type(expected))[0] == expected


@pytest.mark.parametrize("name", FRAMED)
@pytest.mark.parametrize("changed", ["shape kept", "shape changed"])
def test_framed_mail_of_a_later_version_is_refused_by_name(name: str, changed: str) -> None:
    expected, body = FRAMED[name]
    later = msgspec.json.decode(msgspec.json.encode(expected)) | {"version": 2}
    if changed == "shape changed":
        later = {"version": 2, "new": True}
    with pytest.raises(ValueError, match="contract version 2, this program knows 1"):
        unframe(_frame(later, body), type(expected))


@pytest.mark.parametrize("name", ["job-1.mail", "held-message-1.mail", "badmail-1.mail"])
def test_a_later_envelope_inside_a_head_of_today_is_refused(name: str) -> None:
    expected, body = FRAMED[name]
    later = frame(expected, body).replace(b'"envelope":{"version":1', b'"envelope":{"version":2')
    with pytest.raises(ValueError, match=r"envelope\.version"):
        unframe(later, type(expected))


@pytest.mark.parametrize("changed", [(b'"version":1', b'"version":2'), (b'"kind":"', b'"kind":"tele')])
def test_what_a_newer_program_wrote_further_inside_is_told_from_rubbish(changed: tuple[bytes, bytes]) -> None:
    whole = msgspec.json.encode(DispositionBatch(dispositions=(PLAIN["disposition-1.json"],)))  # type: ignore[arg-type]
    head, inside = whole.split(b"[", 1)
    with pytest.raises(NotYetReadableError):
        decode(head + b"[" + inside.replace(*changed), DispositionBatch)
    for rubbish in (b"rubbish", whole[:-5], b"\xff"):
        with pytest.raises(ValueError, match="does not decode") as refused:
            decode(rubbish, DispositionBatch)
        assert not isinstance(refused.value, NotYetReadableError)


@pytest.mark.parametrize("name", VERSIONED)
def test_plain_json_of_a_later_version_is_refused_by_name(name: str) -> None:
    expected = PLAIN[name]
    later = msgspec.json.encode(msgspec.json.decode(msgspec.json.encode(expected)) | {"version": 2})
    with pytest.raises(ValueError, match="contract version 2, this program knows 1"):
        decode(later, type(expected))
    with pytest.raises(msgspec.DecodeError):  # whoever decodes without our help refuses it, too
        msgspec.json.decode(later, type=type(expected))


@pytest.mark.parametrize("name", PLAIN)
def test_a_field_that_is_new_is_no_new_version(name: str) -> None:
    newer = msgspec.json.encode(msgspec.json.decode(msgspec.json.encode(PLAIN[name])) | {"new_field": [1]})
    assert decode(newer, type(PLAIN[name])) == PLAIN[name]


def _frame(head: dict[str, object], body: bytes) -> bytes:
    encoded = msgspec.json.encode(head)
    return b"PSTN" + len(encoded).to_bytes(4) + encoded + body
