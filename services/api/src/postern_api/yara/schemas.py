"""YARA files at the HTTP edge."""

from __future__ import annotations

import hashlib

from pydantic import Field

from postern_api.fields import Body, examples
from postern_core.policy import YaraFile


class YaraFileView(Body):
    """A file, without its text."""

    model_config = examples({"name": "documents.yar", "bytes": 1830, "sha256": "9f86d081884c7d65"})

    name: str
    bytes: int
    sha256: str

    @classmethod
    def of(cls, file: YaraFile) -> YaraFileView:
        source = file.source.encode()
        return cls(name=file.name, bytes=len(source), sha256=hashlib.sha256(source).hexdigest())


class YaraRuleView(Body):
    """A rule in a file: what a condition `yara` names."""

    name: str
    tags: list[str]


class YaraUploadView(YaraFileView):
    """A file that was taken, and what is in it."""

    model_config = examples(
        {
            "name": "documents.yar",
            "bytes": 1830,
            "sha256": "9f86d081884c7d65",
            "rules": [{"name": "MacroDropper", "tags": ["macro"]}],
        }
    )

    rules: list[YaraRuleView] = Field(description="What conditions can name.")
