"""Routes at the HTTP edge. The password is write-only."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, JsonValue

from postern_api.errors import InvalidError
from postern_api.fields import Body, Flag, Line, Seconds, Whole, examples
from postern_api.policy.addresses import checked_host, shown_host
from postern_api.policy.objects import RouteObject
from postern_core.bus.topology import checked_route_name
from postern_core.policy import NextHop, RouteTls

_EXAMPLE: JsonValue = {
    "name": "main",
    "smart_hosts": [{"host": "mail.example.com", "port": 25}, {"host": "[192.0.2.1]", "port": 25}],
    "tls": "opportunistic",
    "default": True,
}
_WITH_PASSWORD: JsonValue = {
    "name": "provider",
    "smart_hosts": [{"host": "smtp.provider.example", "port": 587}],
    "tls": "verify",
    "user": "relay",
    "password": "correct horse battery staple",
}


class SmartHost(Body):
    """One smart host of a route; they are tried in order."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"host": "mail.example.com", "port": 25}]})

    host: Line = Field(description="A name, or an IP address in brackets.")
    port: Whole = Field(default=25, ge=1, le=65535)


class _RouteFields(Body):
    name: Line = Field(description="1 to 32 of a-z, 0-9 and '-'; it cannot be changed.")
    smart_hosts: Annotated[list[SmartHost], Field(min_length=1, max_length=20)]
    tls: RouteTls = Field(
        default=RouteTls.OPPORTUNISTIC,
        description="STARTTLS: `off`, `opportunistic` (when offered), `required`, or `verify` (required, with a valid certificate).",
    )
    user: Line = Field(default="", description="User for AUTH at the smart host; empty: none. Needs TLS.")
    use_helo: Flag = Field(default=False, description="HELO instead of EHLO.")
    default: Flag = Field(default=False, description="Take what no domain routes elsewhere. The first route is it anyway.")
    max_connections: Whole = Field(default=20, ge=1, le=1000, description="Connections to its smart hosts at once.")
    max_messages_per_connection: Whole | None = Field(
        default=20, ge=1, description="Then the connection is closed; null: no limit."
    )
    max_recipients: Whole = Field(
        default=100, ge=1, le=10_000, description="Recipients a transaction; the rest goes in further ones."
    )
    timeout_s: Seconds = Field(
        default=600,
        ge=10,
        le=3600,
        description="For a smart host's reply to the end of a message's data; RFC 5321 section 4.5.3.2.6 asks for 600. Mail that gets no "
        "reply is sent again, and may then arrive twice.",
    )


class RouteBody(_RouteFields):
    """A way out."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE, _WITH_PASSWORD]})

    password: str | None = Field(
        default=None,
        max_length=1000,
        repr=False,
        description="Password for AUTH; never shown again. Needed when `user` is new or changed; absent: it stays as it is.",
    )
    password_set: bool | None = Field(
        default=None, description="As shown; ignored here, so that what was read can be written back."
    )

    def to_object(self) -> RouteObject:
        """InvalidError for what cannot be a route."""
        try:
            name = checked_route_name(self.name)
        except ValueError as error:
            raise InvalidError("invalid_route_name", str(error)) from error
        if self.password and not self.user:
            raise InvalidError("user_missing", "there is a password, and no user that it belongs to")
        if self.user and self.tls is RouteTls.OFF:
            raise InvalidError("tls_needed", "a password is sent inside TLS only: set tls to required or verify")
        return RouteObject(
            name=name,
            smart_hosts=tuple(NextHop(host=checked_host(each.host), port=each.port) for each in self.smart_hosts),
            tls=self.tls,
            user=self.user,
            use_helo=self.use_helo,
            default=self.default,
            max_connections=self.max_connections,
            max_messages_per_connection=self.max_messages_per_connection,
            max_recipients=self.max_recipients,
            timeout_s=self.timeout_s,
        )


class RouteView(_RouteFields):
    """A route as it is shown."""

    model_config = examples(
        {"name": "main", "smart_hosts": [{"host": "mail.example.com", "port": 25}], "default": True, "password_set": False}
    )

    password_set: bool = Field(
        description="Whether a password is stored for `user`; after a rollback it may have to be set again."
    )

    @classmethod
    def of(cls, route: RouteObject, secret_user: str | None) -> RouteView:
        """`secret_user` is the user whose password is stored for this route."""
        return cls(
            name=route.name,
            smart_hosts=[SmartHost(host=shown_host(hop.host), port=hop.port) for hop in route.smart_hosts],
            tls=route.tls,
            user=route.user,
            use_helo=route.use_helo,
            default=route.default,
            max_connections=route.max_connections,
            max_messages_per_connection=route.max_messages_per_connection,
            max_recipients=route.max_recipients,
            timeout_s=route.timeout_s,
            password_set=bool(route.user) and secret_user == route.user,
        )
