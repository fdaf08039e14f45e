"""The authenticated gate: TLS first, then AUTH, then mail to any domain; a client that does not start TLS is dropped.

Trusts a client only after its password, proof or certificate was verified, and then only to send mail. Reads what is kept of passwords (KV USERS),
never writes any.
Standards: RFC 6409 (submission), 3207 (STARTTLS), 8314 (implicit TLS), 8996 (TLS 1.2 or newer), 4954 (AUTH), 4616 (PLAIN), 5802 and 7677
(SCRAM-SHA-256), 4422 appendix A (EXTERNAL), 9106 (argon2id), and those of the anonymous gate.
"""
