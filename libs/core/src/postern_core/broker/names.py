"""What both the broker's configuration and its clients go by."""

from __future__ import annotations

from typing import Final

PROVISIONER: Final = "provisioner"
SERVICES: Final = ("ingress-anon", "ingress-auth", "screener", "delivery", "api")

SCREENER_CONSUMER: Final = "screener"
RECORDER_CONSUMER: Final = "recorder"


def inbox_prefix(user: str) -> str:
    """Each user has an inbox space of its own, so that none can listen to another's replies."""
    return f"_INBOX_{user.replace('-', '_')}"
