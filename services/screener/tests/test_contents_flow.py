"""Attachments that are looked into, by a worker on a real broker and by the sandbox with its small memory."""

from __future__ import annotations

import base64
import gzip
from typing import Any

import pytest

from fixtures.archives import PROGRAM, by_libarchive, need_libarchive, tar_of, zip_of
from postern_core.policy import AttachmentCondition, AttachmentMatch, KeywordCondition, KeywordScope, Rule, ScreeningPolicy
from postern_core.verdict import Action, Decision
from postern_screener.ruleset import compile_policy
from postern_screener.sandbox import Sandbox, default_command

need_libarchive()
RULES = (
    Rule(
        id="programs",
        name="no programs",
        condition=AttachmentCondition(match=AttachmentMatch.REAL_TYPE, values=("program",), inside=True),
        action=Action.HOLD,
    ),
    Rule(
        id="unopened",
        name="nothing unopened",
        condition=AttachmentCondition(match=AttachmentMatch.UNOPENED),
        action=Action.HOLD,
    ),
    Rule(
        id="words",
        name="no lotteries",
        condition=KeywordCondition(phrases=("the lottery",), scope=KeywordScope.ATTACHMENTS),
        action=Action.HOLD,
    ),
)


def mail(name: str, content: bytes) -> bytes:
    encoded = base64.encodebytes(content).replace(b"\n", b"\r\n")
    head = f'From: x@sender.example\r\nContent-Type: application/zip; name="{name}"\r\nContent-Transfer-Encoding: base64\r\n\r\n'
    return head.encode() + encoded


HIDDEN = mail("a.zip", zip_of({"b.7z": by_libarchive("7zip", {"holiday.jpg": PROGRAM})}))
WORDS = mail("a.zip", zip_of({"b.tgz": tar_of({"c.txt": b"win the lottery"}, "w:gz")}))
BOMB = mail("a.gz", gzip.compress(gzip.compress(bytes(1 << 28))))


async def test_a_program_deep_in_archives_is_held_and_its_place_is_told(mailbag: Any, screener: Any) -> None:
    await mailbag.put_policy(*RULES)
    hidden = await mailbag.send(HIDDEN, "a@relay.example")
    words = await mailbag.send(WORDS, "a@relay.example")
    bomb = await mailbag.send(BOMB, "a@relay.example")
    clean = await mailbag.send(mail("a.zip", zip_of({"note.txt": b"hello"})), "a@relay.example")
    await mailbag.screened()
    [(held, body)] = await mailbag.held(hidden.id)
    assert [(finding.rule_id, finding.part, finding.chain) for finding in held.verdict.findings] == [
        ("programs", "1", ("a.zip", "b.7z", "holiday.jpg"))
    ]
    assert body == HIDDEN
    [(held, _)] = await mailbag.held(words.id)
    [finding] = held.verdict.findings
    assert (finding.rule_id, finding.part, finding.offset, finding.length) == ("words", "1", 4, 11)
    assert finding.chain == ("a.zip", "b.tgz", "c.txt")
    [(held, _)] = await mailbag.held(bomb.id)
    assert held.verdict.findings[0].rule_id == "unopened"
    assert len(await mailbag.jobs(clean.id)) == 1


@pytest.mark.parametrize(("body", "rule_id"), [(HIDDEN, "programs"), (BOMB, "unopened"), (WORDS, "words")])
async def test_a_suspect_is_looked_into_in_the_sandbox_too(an_envelope: Any, body: bytes, rule_id: str) -> None:
    ruleset = compile_policy(ScreeningPolicy(revision=1, rules=RULES))
    verdict = (await Sandbox(default_command(512)).inspect(an_envelope(), body, ruleset, 20, 20)).verdict
    assert (verdict.decision, verdict.findings[0].rule_id) == (Decision.HOLD, rule_id)
