"""Whether mail is from whom it says: SPF, DKIM, DMARC and ARC, evaluated once, and stamped as Authentication-Results.

    spf.py         may this address send for that domain? (RFC 7208)
    fields.py      a message as signatures see it: its header fields, its body's hash (RFC 6376 section 3.4)
    dkim.py        which domains signed it (RFC 6376, RFC 8301, RFC 8463)
    arc.py         what those say who changed it on its way (RFC 8617)
    dmarc.py       does one of these stand for the author's domain, and what does that domain ask for if not? (RFC 7489, tree walk)
    stamp.py       the Authentication-Results field; forged ones removed (RFC 8601)
    evaluation.py  all of it for one message, time-boxed, and what follows

Everything here is given a resolver; nothing here raises for anything in a message or in DNS. Signatures are checked by `cryptography`.
The rest is our own, since a gate must not stand still: the libraries there are work through a whole body in one step that no other
session interrupts, and some of their expressions take quadratic time on hostile white space.
"""
