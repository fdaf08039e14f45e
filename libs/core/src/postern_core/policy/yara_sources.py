"""YARA sources → compiled rules, for whoever has yara-x installed: the screener, and the api's check of an upload.

Rules are an administrator's, and still may not read files of the machine: includes are refused. Rules of one file cannot see those of another.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from postern_core.policy.engines import YaraFile


class YaraSourceError(ValueError):
    """A file does not compile. `line` and `column` count from 1; 0: the file as a whole."""

    def __init__(self, name: str, line: int, column: int, reason: str) -> None:
        self.name, self.line, self.column, self.reason = name, line, column, reason
        super().__init__(f"YARA file {name!r}, line {line}, column {column}: {reason}")


def compile_yara(files: Iterable[YaraFile]) -> Any:
    """`yara_x.Rules`, in which each file is a namespace. YaraSourceError for the first that does not compile."""
    import yara_x  # 6 MB of memory, and 14 more with the first compilation: only where there are rules

    compiler = yara_x.Compiler()
    compiler.enable_includes(False)
    for file in files:
        compiler.new_namespace(file.name)
        try:
            compiler.add_source(file.source, origin=file.name)
        except yara_x.CompileError as error:
            found = (compiler.errors() or [{}])[-1]
            reason = found.get("title") or str(error).partition("\n")[0]
            if labels := found.get("labels"):
                reason = f"{reason}: {labels[0].get('text', '')}".rstrip(": ")
            raise YaraSourceError(file.name, found.get("line", 0), found.get("column", 0), reason) from error
    return compiler.build()
