"""The systems that are compared: what each needs, and how it starts."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from bench import amavis, haraka, postern, postfix, rspamd
from bench.measure import Running
from bench.rules import Rules

# node_modules of peers that npm installs
NPM = Path(__file__).resolve().parents[2] / "var/bench/npm"
_APT = ("apt-get", "--quiet", "-o", "DPkg::Lock::Timeout=300")


class MissingError(Exception):
    """The system cannot run here; says why."""


@dataclass(frozen=True, slots=True)
class System:
    """One that can be measured. `start` takes a private directory, the sink's port and the rules.

    `programs` are what shows that it is installed (paths, or names to be found on PATH), `packages` Debian's names of what brings them,
    `npm` the npm packages. `root`: it changes users, which only root can.
    """

    title: str
    start: Callable[[Path, int, Rules], AbstractContextManager[Running]]
    screened: bool = True
    programs: Sequence[str] = ()
    packages: Sequence[str] = ()
    npm: Sequence[str] = ()
    root: bool = False

    def prepare(self, *, install: bool) -> None:
        """Return when it can start; MissingError when it cannot."""
        if self.root and os.geteuid() != 0:
            raise MissingError("needs root")
        if absent := [program for program in self.programs if not _present(program)]:
            if not install:
                raise MissingError(f"not installed: {' '.join(absent)}")
            if os.geteuid() != 0:
                raise MissingError(f"not installed, and apt-get needs root: {' '.join(self.packages)}")
            _install_debian(self.packages)
        if self.npm and not (NPM / "node_modules" / self.npm[0].rpartition("@")[0]).exists():
            if not install:
                raise MissingError(f"not installed: {self.npm[0]}")
            _install_npm(self.npm)


_POSTFIX = ("postfix", "/usr/lib/postfix/postfix-pcre.so")
SYSTEMS: dict[str, System] = {
    "postern": System("Postern", postern.postern),
    "postfix": System(
        "Postfix, no screening",
        postfix.plain,
        screened=False,
        programs=("postfix",),
        packages=("postfix",),
        root=True,
    ),
    "postfix-checks": System(
        "Postfix with header, MIME and body checks",
        postfix.with_checks,
        programs=_POSTFIX,
        packages=("postfix", "postfix-pcre"),
        root=True,
    ),
    "postfix-rspamd": System(
        "Postfix + rspamd",
        rspamd.with_rspamd,
        programs=("postfix", "rspamd"),
        packages=("postfix", "rspamd"),
        root=True,
    ),
    "postfix-amavis": System(
        "Postfix + amavisd-new",
        amavis.with_amavis,
        programs=("postfix", "amavisd", "/usr/share/perl5/Mail/SpamAssassin.pm"),
        packages=("postfix", "amavisd-new", "spamassassin"),
        root=True,
    ),
    "haraka": System(
        "Haraka",
        functools.partial(haraka.with_haraka, installed=NPM),
        programs=("node", "npm"),
        packages=("nodejs", "npm"),
        npm=haraka.PACKAGES,
    ),
}


def _present(program: str) -> bool:
    return Path(program).exists() if program.startswith("/") else shutil.which(program) is not None


def _install_debian(packages: Sequence[str]) -> None:
    """Install, start nothing of it as a service, and remove nothing for it (a machine's own mail server)."""
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    _run([*_APT, "update"], quiet)
    _run([*_APT, "install", "--yes", "--no-install-recommends", "--no-remove", *packages], quiet)


def _install_npm(packages: Sequence[str]) -> None:
    NPM.mkdir(parents=True, exist_ok=True)
    options = ("--prefix", str(NPM), "--no-audit", "--no-fund", "--ignore-scripts", "--omit=optional")
    _run(["npm", "install", *options, *packages], dict(os.environ))


def _run(command: Sequence[str], environment: dict[str, str]) -> None:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, check=False, timeout=600
        )
    except (OSError, subprocess.TimeoutExpired) as failed:
        raise MissingError(f"{command[0]}: {failed}") from failed
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise MissingError(f"{command[0]} could not install {' '.join(command[-3:])}: {lines[-1] if lines else done.returncode}")
