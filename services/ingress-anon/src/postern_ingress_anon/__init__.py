"""The anonymous gate: takes mail from any MTA, without credentials, for relay domains and for nothing else, and stores it before it says 250.

Trusts nobody who connects, and the bus no further than to store. It never relays: what is not for a relay domain is refused at RCPT.
Standards: RFC 5321, 1870 (SIZE), 2034 and 3463 (enhanced codes), 2920 (PIPELINING), 3207 (STARTTLS, when it has a certificate), 3461 (DSN
parameters are carried on), 6152 (8BITMIME), 3030 (CHUNKING, BINARYMIME), 9422 (LIMITS).
"""
