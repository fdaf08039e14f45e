"""Starts PostgreSQL with two databases, `queue` and `control`, each owned by a role of its name that can reach no other.

Promises: a cluster is made whole or not at all (it is built under another name and then renamed), so a start that was interrupted is
simply repeated. The passwords are read from the files at every start; change a file, start again, and it is the new one. Data of
another major version is refused, never converted or hidden: PostgreSQL cannot read it, and docs/operate/compose.md says how to move it.
Settings are the defaults, under which a commit is on disk before it is answered (fsync and synchronous_commit are on).

Administration is by the local socket only: `docker compose exec postgres psql -U postern queue`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

DATABASES = ("queue", "control")
CLUSTERS = Path("/var/lib/postgresql/clusters")
SECRETS = Path("/run/secrets/database")
SOCKETS = "/run/postgresql"
ADMINISTRATOR = "postern"  # the name of our uid: `peer` lets it in by the socket, and nobody by the network

ACCESS = f"""\
local all {ADMINISTRATOR} peer
host queue queue all scram-sha-256
host control control all scram-sha-256
"""


class RefusedError(Exception):
    """The server cannot start; the text says what to do."""


def newest_binaries(root: Path = Path("/usr/lib/postgresql")) -> Path:
    """The folder of PostgreSQL's programs, of the newest version that is installed."""
    folders = [path for path in root.glob("*/bin") if (path / "postgres").exists()]
    if not folders:
        raise RefusedError(f"no PostgreSQL below {root}")
    return max(folders, key=lambda path: int(path.parent.name))


def cluster_directory(clusters: Path, major: str) -> Path:
    """Where the data of `major` lies. RefusedError when there is data of another version and none of this one."""
    mine = clusters / major
    others = sorted(path.name for path in clusters.iterdir() if path.name.isdigit() and path.name != major)
    if others and not mine.exists():
        raise RefusedError(
            f"this image has PostgreSQL {major}, and the volume holds data of version {', '.join(others)}: "
            "dump it with the image that made it and load the dump into a new volume (docs/operate/compose.md, Update)"
        )
    return mine


def role_statements(password_files: Path) -> list[str]:
    """One SQL line each that makes a role's password what its file says."""
    statements = []
    for name in DATABASES:
        password = (password_files / f"{name}.password").read_text().strip()
        if not password or "\n" in password:
            raise RefusedError(f"{password_files / name}.password is not a password on one line")
        quoted = password.replace("'", "''")
        statements.append(f"ALTER ROLE {name} PASSWORD '{quoted}'")
    return statements


def make_cluster(binaries: Path, directory: Path, passwords: list[str]) -> None:
    """A new cluster at `directory` with both roles and databases."""
    building = directory.with_name(f"{directory.name}.building")
    shutil.rmtree(building, ignore_errors=True)  # a start that was interrupted; nobody ever used it
    options = ["--encoding=UTF8", "--locale=C.UTF-8", "--data-checksums", "--auth=peer", f"--username={ADMINISTRATOR}"]
    initdb = [str(binaries / "initdb"), "-D", str(building), *options]
    subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL)
    (building / "pg_hba.conf").write_text(ACCESS)
    statements = []
    for name in DATABASES:
        statements += [f"CREATE ROLE {name} LOGIN", f"CREATE DATABASE {name} OWNER {name}"]
        statements += [f"REVOKE ALL ON DATABASE {name} FROM PUBLIC"]
    run_statements(binaries, building, statements + passwords)
    os.sync()
    building.rename(directory)


def run_statements(binaries: Path, directory: Path, statements: list[str]) -> None:
    """Run SQL, a line each, in a server without network or clients. RefusedError at the first that fails."""
    single_user = [str(binaries / "postgres"), "--single", "-D", str(directory), "-c", "exit_on_error=true", "postgres"]
    text = "".join(f"{statement}\n" for statement in statements)
    done = subprocess.run(single_user, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if "STATEMENT" not in line and "PASSWORD" not in line]
        raise RefusedError("\n".join(lines[-5:]) or f"postgres --single ended with {done.returncode}")


def prepared_server() -> list[str]:
    """The server's command line, once its cluster is there and the passwords are those of the files."""
    binaries = newest_binaries()
    directory = cluster_directory(CLUSTERS, binaries.parent.name)
    passwords = role_statements(SECRETS)
    if directory.exists():
        run_statements(binaries, directory, passwords)
    else:
        make_cluster(binaries, directory, passwords)
    settings = ("listen_addresses=*", f"unix_socket_directories={SOCKETS}", "log_line_prefix=%m [%p] ")
    return [str(binaries / "postgres"), "-D", str(directory), *(word for setting in settings for word in ("-c", setting))]


def main() -> None:
    """Becomes the server; ends with 78 (EX_CONFIG) when it cannot."""
    try:
        command = prepared_server()
    except (RefusedError, OSError, subprocess.CalledProcessError) as error:
        print(f"postgres: {error}", file=sys.stderr)
        sys.exit(78)
    os.execv(command[0], command)  # noqa: S606  (signals are to reach the server itself)


if __name__ == "__main__":
    main()
