"""Postfix with amavisd-new as its content filter (queue, scan, queue again), without antivirus.

Debian's settings, plus our rules: extensions as banned names, senders as a blacklist, phrases as body rules of SpamAssassin, whose own rules
are not loaded. What is caught is discarded. The processes are twice the cores, with as many connections from Postfix.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import postfix
from bench.measure import Running
from bench.processes import running
from bench.rules import Rules
from fixtures.ports import free_port

_USER = "amavis"
_CONF = """\
use strict;
$myhostname = 'amavis.bench.example';
$mydomain = 'bench.example';
@local_domains_maps = ([ '.relay.example' ]);
$MYHOME = '{home}';
$TEMPBASE = '{home}/tmp';
$db_home = '{home}/db';
$QUARANTINEDIR = undef;
$lock_file = '{home}/amavisd.lock';
$pid_file = '{home}/amavisd.pid';
$unix_socketname = undef;
$inet_socket_bind = '127.0.0.1';
$inet_socket_port = {port};
@inet_acl = ('127.0.0.0/8');
$forward_method = 'smtp:[127.0.0.1]:{back}';
$notify_method = $forward_method;
$max_servers = {servers};
$max_requests = 1000;
$DO_SYSLOG = 0;
$LOGFILE = '{home}/amavis.log';
$enable_db = 0;
@bypass_virus_checks_maps = (1);
@av_scanners = ();
@av_scanners_backup = ();
$sa_configpath = '{rules}';
$sa_siteconfigpath = '{rules}';
$sa_userprefs_file = '{rules}/user_prefs';
$sa_local_tests_only = 1;
$sa_mail_body_size_limit = 200*1024;
$sa_tag_level_deflt = 100;
$sa_tag2_level_deflt = 100;
$sa_kill_level_deflt = 50;
$final_spam_destiny = D_DISCARD;
$final_banned_destiny = D_DISCARD;
$final_bad_header_destiny = D_PASS;
$spam_quarantine_method = undef;
$banned_files_quarantine_method = undef;
$spam_admin = undef;
$banned_admin = undef;
$enable_dkim_verification = 0;
@blacklist_sender_maps = ({ {senders} });
$banned_filename_re = new_RE(qr'\\.(?:{extensions})$'i);
1;
"""


@contextmanager
def with_amavis(directory: Path, sink_port: int, rules: Rules) -> Iterator[Running]:
    """Both, each counted as a service of its own."""
    port, filter_port, back = free_port(), free_port(), free_port()
    servers = 2 * (os.cpu_count() or 1)
    home = directory / "amavis"
    configuration = _configuration(home, filter_port, back, servers, rules)
    settings = (
        f"content_filter = bench-amavis:[127.0.0.1]:{filter_port}\nbench-amavis_destination_concurrency_limit = {servers}\n"
    )
    services = [
        f"bench-amavis unix - - n - {servers} smtp",
        "  -o smtp_send_xforward_command=yes",
        f"127.0.0.1:{back} inet n - n - - smtpd",
        "  -o content_filter=",
        "  -o receive_override_options=no_header_body_checks,no_unknown_recipient_checks",
    ]
    command = ["amavisd", "-u", _USER, "-g", _USER, "-c", str(configuration), "foreground"]
    with running(command, directory / "amavis.out", cwd=directory) as scanner:
        postfix.wait_for_greeting(filter_port, "amavis", 60)
        with postfix.running_postfix(directory / "postfix", port, sink_port, settings=settings, services=services) as master:
            yield Running(port, {"postfix": [master], "amavis": [scanner]}, f"{postfix.version()}, {version()}")


def version() -> str:
    """Of amavis and of the SpamAssassin that it matches phrases with."""
    shown = subprocess.run(["amavisd", "-V"], capture_output=True, text=True, check=False)
    spam = subprocess.run(
        ["perl", "-MMail::SpamAssassin", "-e", "print Mail::SpamAssassin::Version()"], capture_output=True, text=True, check=True
    )
    return f"{' '.join((shown.stdout + shown.stderr).split()[:2])}, SpamAssassin {spam.stdout}"


def _configuration(home: Path, port: int, back: int, servers: int, rules: Rules) -> Path:
    patterns = home / "rules"
    for folder in (home, home / "tmp", home / "db", patterns):
        folder.mkdir()
        shutil.chown(folder, _USER, _USER)
    lines = ["use_bayes 0"]
    for number, group in enumerate(rules.phrase_groups()):
        lines += [f"body BENCH_{number} /(?:{'|'.join(group)})/i", f"score BENCH_{number} 100"]
    (patterns / "bench.pre").write_text("loadplugin Mail::SpamAssassin::Plugin::Check\n")
    (patterns / "bench.cf").write_text("\n".join(lines) + "\n")
    (patterns / "user_prefs").write_text("")
    values = {
        "home": str(home),
        "port": str(port),
        "back": str(back),
        "servers": str(servers),
        "rules": str(patterns),
        "senders": ", ".join(f"'{sender}' => 1" for sender in (*rules.addresses, *rules.domains)),
        "extensions": "|".join(rules.extensions),
    }
    text = _CONF
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    configuration = home.with_name("amavisd.conf")  # amavis refuses one from a folder that it can write to
    configuration.write_text(text)
    return configuration
