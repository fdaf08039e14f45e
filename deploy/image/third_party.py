"""Writes what each part of the workspace needs from others, read from the pyproject.toml of each, as one requirements file a part.

Usage: third_party.py WORKSPACE OUTPUT. A part's file names its own dependencies and those of our parts that it builds on; the pins are in
constraints.txt. So an image installs other people's packages in a layer that our own code does not change.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def third_party(part: str, dependencies: dict[str, list[str]]) -> set[str]:
    """Requirements of `part` that are not ours, those of the parts below it included."""
    found: set[str] = set()
    for requirement in dependencies[part]:
        found |= third_party(requirement, dependencies) if requirement in dependencies else {requirement}
    return found


def main(workspace: Path, output: Path) -> None:
    """One file `<project name>.txt` for each part."""
    projects = [tomllib.loads(path.read_text())["project"] for path in sorted(workspace.glob("*/*/pyproject.toml"))]
    dependencies = {project["name"]: project["dependencies"] for project in projects}
    output.mkdir(parents=True, exist_ok=True)
    for part in dependencies:
        lines = sorted(third_party(part, dependencies))
        (output / f"{part}.txt").write_text("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
