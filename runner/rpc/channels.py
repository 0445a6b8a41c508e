"""gRPC channels and servers, with the same limits and keepalive on both ends.

Calls below TLS 1.3 are refused by what the connection's auth context says
(`require_tls13`). The handshake itself cannot be told: Python gRPC has no
setting for the TLS version. GRPC_SSL_CIPHER_SUITES could leave TLS 1.2 without
a usable suite, but gRPC reads it when it is imported, for all credentials of
the process and its forks, so user code in executors would have it too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import grpc
import grpc.aio

from runner.errors import AuthenticationError
from runner.rpc.limits import MESSAGE_BYTES_MAX
from runner.rpc.security import SERVER_NAME, Authority, MachineIdentity, tokens_equal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

KEEPALIVE_S = 10.0
KEEPALIVE_TIMEOUT_S = 10.0
RECONNECT_BACKOFF_S_MAX = 2.0
# In the initial metadata of both services' Upload: what was announced is accepted, it may follow.
UPLOAD_ACCEPTED = "runner-upload-accepted"
# In the metadata of Client.Upload: an UploadStart.
UPLOAD_START = "runner-upload-bin"

Options = list[tuple[str, Any]]

_AUTHORIZATION = "authorization"


def client_channel(address: str, ca_pem: bytes, token: str = "") -> grpc.aio.Channel:
    """A channel to the coordinator's client port; it connects at the first call.

    Every call carries `token` when one is given. Must be made inside the event
    loop that uses it.
    """
    credentials = grpc.ssl_channel_credentials(root_certificates=ca_pem)
    channel = grpc.aio.secure_channel(address, credentials, options=channel_options())
    return TokenChannel(channel, token) if token else channel


def fleet_channel(
    address: str, ca_pem: bytes, key_pem: bytes, cert_pem: bytes, *, server_name: str = SERVER_NAME
) -> grpc.aio.Channel:
    """A channel to the coordinator's fleet port, or to the machine of that name, with the machine's own certificate."""
    credentials = grpc.ssl_channel_credentials(
        root_certificates=ca_pem, private_key=key_pem, certificate_chain=cert_pem
    )
    return grpc.aio.secure_channel(address, credentials, options=channel_options(server_name))


class TokenChannel(grpc.aio.Channel):
    """A channel whose calls all carry a token.

    gRPC's own call credentials would do the same on a thread of its core, which costs
    0.1 to 0.4 ms a call and is one more thread at a fork.
    """

    def __init__(self, channel: grpc.aio.Channel, token: str) -> None:
        self._channel = channel
        self._metadata = token_metadata(token)

    async def __aenter__(self) -> Self:
        await self._channel.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """Close the connection; open calls get `grace` seconds."""
        await self._channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """As the inner channel's."""
        return self._channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """As the inner channel's."""
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """As the inner channel's."""
        await self._channel.channel_ready()

    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        """As the inner channel's, with the token in each call."""
        return self._with_token(self._channel.unary_unary(*args, **kwargs))

    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        """As the inner channel's, with the token in each call."""
        return self._with_token(self._channel.unary_stream(*args, **kwargs))

    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        """As the inner channel's, with the token in each call."""
        return self._with_token(self._channel.stream_unary(*args, **kwargs))

    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        """As the inner channel's, with the token in each call."""
        return self._with_token(self._channel.stream_stream(*args, **kwargs))

    def _with_token(self, start: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, metadata: Iterable[tuple[str, str | bytes]] | None = None, **kwargs: Any) -> Any:
            given = ((key, value) for key, value in metadata or () if key != _AUTHORIZATION)
            return start(*args, metadata=(*given, *self._metadata), **kwargs)

        return call


def token_metadata(token: str) -> tuple[tuple[str, str], ...]:
    """Call metadata with `token`, for calls on a channel that was made without it."""
    return ((_AUTHORIZATION, f"Bearer {token}"),)


def channel_options(server_name: str = SERVER_NAME) -> Options:
    """Options of every channel."""
    return [
        *_common_options(),
        ("grpc.ssl_target_name_override", server_name),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 1000),  # also the time a connection attempt may take
        ("grpc.max_reconnect_backoff_ms", _ms(RECONNECT_BACKOFF_S_MAX)),
        # Channels of a forked or second session must not share a connection.
        ("grpc.use_local_subchannel_pool", 1),
        # A proxy set for web traffic must not get in between.
        ("grpc.enable_http_proxy", 0),
        # Our own retries know what is safe to repeat.
        ("grpc.enable_retries", 0),
    ]


def server_options() -> Options:
    """Options of both servers."""
    return [
        *_common_options(),
        # The real key is `min_ping_interval_without_data_ms`: the spelling with `recv` is ignored.
        # Half the clients' interval, so that a late timer never counts as a flood of pings.
        ("grpc.http2.min_ping_interval_without_data_ms", _ms(KEEPALIVE_S / 2)),
        ("grpc.http2.max_ping_strikes", 0),
        # Else two coordinators could share a port and each get some of the calls.
        ("grpc.so_reuseport", 0),
    ]


def client_port_credentials(authority: Authority, hosts: Sequence[str] = ()) -> grpc.ServerCredentials:
    """Server TLS. `hosts` are more names or addresses that the certificate is to be valid for."""
    return grpc.ssl_server_credentials([authority.issue_server(hosts)])


def fleet_port_credentials(authority: Authority, hosts: Sequence[str] = ()) -> grpc.ServerCredentials:
    """Mutual TLS: only certificates signed by `authority` get in."""
    return grpc.ssl_server_credentials(
        [authority.issue_server(hosts)], root_certificates=authority.ca_pem, require_client_auth=True
    )


def peer_port_credentials(ca_pem: bytes, key_pem: bytes, cert_pem: bytes) -> grpc.ServerCredentials:
    """Mutual TLS for what a machine serves: only machines of the same cluster get in."""
    return grpc.ssl_server_credentials([(key_pem, cert_pem)], root_certificates=ca_pem, require_client_auth=True)


def require_tls13(auth_context: Mapping[str, Iterable[bytes]]) -> None:
    """Refuse a call whose connection is older than TLS 1.3.

    Raises:
        AuthenticationError: the version is lower, or not told.
    """
    versions = list(auth_context.get("ssl_tls_version", ()))
    if versions != [b"TLSv1.3"]:
        seen = versions[0].decode("ascii", "replace") if versions else "an unknown version"
        raise AuthenticationError(f"this connection uses {seen}; runner accepts TLS 1.3 only")


def require_token(metadata: Iterable[tuple[str, str | bytes]] | None, token: str) -> None:
    """Refuse a call without the cluster's token.

    Raises:
        AuthenticationError: there is none, or it is a different one.
    """
    given = [str(value) for key, value in metadata or () if key == _AUTHORIZATION]
    if not given:
        raise AuthenticationError(
            "the call carried no token; pass the cluster's token: runner.init(token=...) or RUNNER_TOKEN"
        )
    # gRPC joins nothing: more than one header means that someone added one on the way.
    if len(given) != 1 or not tokens_equal(given[0].removeprefix("Bearer "), token):
        raise AuthenticationError(
            "the token is not this cluster's; use the one that `runner up` printed the location of, "
            "in RUNNER_TOKEN or runner.init(token=...)"
        )


def peer_machine(auth_context: Mapping[str, Iterable[bytes]]) -> MachineIdentity:
    """Which machine is at the other end of a fleet connection, by its certificate.

    Raises:
        AuthenticationError: the certificate is no machine's.
    """
    names = [name.decode() for name in auth_context.get("x509_common_name", ())]
    uris = [MachineIdentity.from_uri(uri.decode()) for uri in auth_context.get("peer_uri", ())]
    identities = [identity for identity in uris if identity is not None]
    if len(identities) != 1 or [identities[0].machine_id] != names:
        raise AuthenticationError("the client certificate does not belong to a machine of this cluster")
    return identities[0]


def _common_options() -> Options:
    return [
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.keepalive_time_ms", _ms(KEEPALIVE_S)),
        ("grpc.keepalive_timeout_ms", _ms(KEEPALIVE_TIMEOUT_S)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
