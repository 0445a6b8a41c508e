"""Real TLS on loopback: who gets in, who does not, and what each is told."""

from __future__ import annotations

import datetime
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from runner.client.transfer import upload
from runner.errors import (
    AuthenticationError,
    CoordinatorUnreachableError,
    InternalError,
    ProtocolViolationError,
    UnschedulableError,
)
from runner.objects.serialization import serialize
from runner.rpc.channels import (
    client_channel,
    client_port_credentials,
    fleet_channel,
    fleet_port_credentials,
    peer_machine,
    server_options,
    token_metadata,
)
from runner.rpc.gen import client_pb2, client_pb2_grpc, fleet_pb2, fleet_pb2_grpc
from runner.rpc.guard import Guard
from runner.rpc.limits import MESSAGE_BYTES_MAX
from runner.rpc.security import Authority, fingerprint, make_csr, new_token
from runner.rpc.status import from_rpc_error

TIMEOUT_S = 10.0


class ClientService(client_pb2_grpc.ClientServicer):
    async def GetStatus(self, request, context):
        return client_pb2.GetStatusReply(cluster_id="c-1")

    async def RemoveMachine(self, request, context):
        raise UnschedulableError("no machine has 9 GPUs", task_id="t-1")

    async def AddMachines(self, request, context):
        raise ValueError("secret text")

    async def Watch(self, request, context):
        for seq in range(3):
            yield client_pb2.WatchReply(next_seq=seq)
        raise UnschedulableError("the log ended")

    async def Session(self, request_iterator, context):
        async for request in request_iterator:
            await context.write(client_pb2.SessionReply(frame=client_pb2.ServerFrame(acked_seq=request.frame.seq)))

    async def ListTasks(self, request, context):
        return client_pb2.ListTasksReply(next_page_token="x" * (MESSAGE_BYTES_MAX + 1))


class JoinService(fleet_pb2_grpc.JoinServicer):
    async def Register(self, request, context):
        return fleet_pb2.RegisterReply(cluster_id="c-1")


class FleetService(fleet_pb2_grpc.FleetServicer):
    async def Assignments(self, request, context):
        machine = peer_machine(context.auth_context())
        yield fleet_pb2.AgentCommands(acked_report_seq=machine.generation)


@dataclass
class Cluster:
    authority: Authority
    token: str
    address: str
    fleet_address: str
    channels: list[grpc.aio.Channel] = field(default_factory=list)

    def client(self, *, ca: bytes = b"", token: str | None = None, address: str = "") -> Any:
        return client_pb2_grpc.ClientStub(self.channel(ca=ca, token=token, address=address))

    def channel(self, *, ca: bytes = b"", token: str | None = None, address: str = "") -> grpc.aio.Channel:
        channel = client_channel(
            address or self.address, ca or self.authority.ca_pem, self.token if token is None else token
        )
        self.channels.append(channel)
        return channel

    async def assignments(self, key_pem: bytes, cert_pem: bytes) -> fleet_pb2.AgentCommands:
        channel = fleet_channel(self.fleet_address, self.authority.ca_pem, key_pem, cert_pem)
        self.channels.append(channel)
        call = fleet_pb2_grpc.FleetStub(channel).Assignments(fleet_pb2.AssignmentsRequest(), timeout=TIMEOUT_S)
        return await call.read()


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    authority, token = Authority.create(), new_token()
    clients = grpc.aio.server(options=server_options(), interceptors=[Guard(token)])
    client_pb2_grpc.add_ClientServicer_to_server(ClientService(), clients)
    fleet_pb2_grpc.add_JoinServicer_to_server(JoinService(), clients)
    fleet = grpc.aio.server(options=server_options(), interceptors=[Guard(None)])
    fleet_pb2_grpc.add_FleetServicer_to_server(FleetService(), fleet)
    port = clients.add_secure_port("127.0.0.1:0", client_port_credentials(authority))
    fleet_port = fleet.add_secure_port("127.0.0.1:0", fleet_port_credentials(authority))
    await clients.start()
    await fleet.start()
    made = Cluster(authority, token, f"127.0.0.1:{port}", f"127.0.0.1:{fleet_port}")
    yield made
    for channel in made.channels:
        await channel.close(None)
    await clients.stop(None)
    await fleet.stop(None)


async def failure(call, cluster: Cluster, ca: bytes = b""):
    with pytest.raises(grpc.RpcError) as caught:
        await call
    return from_rpc_error(caught.value, cluster.address, ca_pem=ca or cluster.authority.ca_pem)


def expired(authority: Authority, cert_pem: bytes) -> bytes:
    """The same certificate, but it ended an hour ago."""
    cert = x509.load_pem_x509_certificate(cert_pem)
    key: Any = load_pem_private_key(authority.key_pem, None)
    builder = (
        x509.CertificateBuilder()
        .subject_name(cert.subject)
        .issuer_name(cert.issuer)
        .public_key(cert.public_key())
        .serial_number(cert.serial_number)
        .not_valid_before(cert.not_valid_before_utc)
        .not_valid_after(datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1))
    )
    for extension in cert.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


# ---- client port -------------------------------------------------------------


async def test_the_right_ca_and_token_get_in(cluster):
    reply = await cluster.client().GetStatus(client_pb2.GetStatusRequest(), timeout=TIMEOUT_S)
    assert reply.cluster_id == "c-1"


async def test_every_local_name_is_in_the_certificate(cluster):
    port = cluster.address.rpartition(":")[2]
    stub = cluster.client(address=f"localhost:{port}")
    assert (await stub.GetStatus(client_pb2.GetStatusRequest(), timeout=TIMEOUT_S)).cluster_id == "c-1"


async def test_a_token_in_the_call_works_as_well(cluster):
    stub = cluster.client(token="")
    reply = await stub.GetStatus(
        client_pb2.GetStatusRequest(), timeout=TIMEOUT_S, metadata=token_metadata(cluster.token)
    )
    assert reply.cluster_id == "c-1"


async def test_a_wrong_ca_is_told_which_one_was_expected(cluster):
    other = Authority.create()
    error = await failure(
        cluster.client(ca=other.ca_pem).GetStatus(client_pb2.GetStatusRequest(), timeout=TIMEOUT_S),
        cluster,
        other.ca_pem,
    )
    assert type(error) is AuthenticationError
    assert fingerprint(other.ca_pem) in str(error)
    assert "certificate verify failed" in str(error)


@pytest.mark.parametrize(("token", "seen"), [("wrong", "not this cluster's"), ("", "carried no token")])
async def test_a_wrong_or_missing_token_is_refused_on_every_kind_of_call(cluster, token, seen):
    channel = cluster.channel(token=token)
    stub: Any = client_pb2_grpc.ClientStub(channel)
    session = stub.Session(iter([client_pb2.SessionRequest()]), timeout=TIMEOUT_S)
    for call in (
        stub.GetStatus(client_pb2.GetStatusRequest(), timeout=TIMEOUT_S),
        stub.Watch(client_pb2.WatchRequest(), timeout=TIMEOUT_S).read(),
        upload(channel, "/runner.v1.Client/Upload", "o-1", serialize(b"value")),
        session.read(),
    ):
        error = await failure(call, cluster)
        assert type(error) is AuthenticationError
        assert seen in str(error)
        assert cluster.token not in str(error)


async def test_join_needs_no_token(cluster):
    stub = fleet_pb2_grpc.JoinStub(cluster.channel(token=""))
    assert (await stub.Register(fleet_pb2.RegisterRequest(), timeout=TIMEOUT_S)).cluster_id == "c-1"


async def test_an_expired_server_certificate_is_refused(cluster):
    key_pem, cert_pem = cluster.authority.issue_server()
    server = grpc.aio.server(options=server_options())
    credentials = grpc.ssl_server_credentials([(key_pem, expired(cluster.authority, cert_pem))])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    stub = cluster.client(address=f"127.0.0.1:{port}")
    error = await failure(stub.GetStatus(client_pb2.GetStatusRequest(), timeout=TIMEOUT_S), cluster)
    await server.stop(None)
    assert type(error) is AuthenticationError
    assert "expired" in str(error)


async def test_a_client_without_tls_is_refused(cluster):
    async with grpc.aio.insecure_channel(cluster.address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        call = client_pb2_grpc.ClientStub(channel).GetStatus(client_pb2.GetStatusRequest(), timeout=TIMEOUT_S)
        error = await failure(call, cluster)
    assert type(error) is CoordinatorUnreachableError


async def test_nobody_there_is_told_at_once_with_the_address(cluster):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(grpc.RpcError) as caught:
        await cluster.client(address=address).GetStatus(client_pb2.GetStatusRequest(), timeout=TIMEOUT_S)
    error = from_rpc_error(caught.value, address)
    assert type(error) is CoordinatorUnreachableError
    assert address in str(error)
    assert "Connection refused" in str(error)


# ---- typed errors through real calls ------------------------------------------


async def test_errors_in_handlers_arrive_as_themselves(cluster):
    stub = cluster.client()
    error = await failure(stub.RemoveMachine(client_pb2.RemoveMachineRequest(), timeout=TIMEOUT_S), cluster)
    assert type(error) is UnschedulableError
    assert (str(error), error.task_id) == ("no machine has 9 GPUs", "t-1")


async def test_a_bug_in_a_handler_is_an_internal_error_without_its_text(cluster, caplog):
    error = await failure(cluster.client().AddMachines(client_pb2.AddMachinesRequest(), timeout=TIMEOUT_S), cluster)
    assert type(error) is InternalError
    assert "secret text" not in str(error)
    assert "Traceback" in caplog.text


async def test_a_stream_that_fails_gives_what_it_had_first(cluster):
    call = cluster.client().Watch(client_pb2.WatchRequest(), timeout=TIMEOUT_S)
    seen = []

    async def read_all():
        async for reply in call:
            seen.append(reply.next_seq)  # noqa: PERF401  what came before the failure counts

    error = await failure(read_all(), cluster)
    assert seen == [0, 1, 2]
    assert type(error) is UnschedulableError


async def test_a_session_stream_works_through_the_guard(cluster):
    call = cluster.client().Session(timeout=TIMEOUT_S)
    for seq in (1, 2):
        await call.write(client_pb2.SessionRequest(frame=client_pb2.ClientFrame(seq=seq)))
        assert (await call.read()).frame.acked_seq == seq
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF  # type: ignore[attr-defined]  # missing in the stubs


async def test_a_message_above_the_limit_is_a_protocol_violation(cluster):
    error = await failure(cluster.client().ListTasks(client_pb2.ListTasksRequest(), timeout=TIMEOUT_S), cluster)
    assert type(error) is ProtocolViolationError


# ---- fleet port ---------------------------------------------------------------


async def test_a_machine_with_its_certificate_gets_in_and_is_known(cluster):
    key_pem, csr_pem = make_csr("m-1")
    reply = await cluster.assignments(key_pem, cluster.authority.sign_csr(csr_pem, "m-1", generation=7))
    assert reply.acked_report_seq == 7


async def test_without_a_client_certificate_the_fleet_port_is_closed(cluster):
    stub = fleet_pb2_grpc.FleetStub(cluster.channel(address=cluster.fleet_address))
    error = await failure(stub.Assignments(fleet_pb2.AssignmentsRequest(), timeout=TIMEOUT_S).read(), cluster)
    assert type(error) is CoordinatorUnreachableError
    assert "refused client certificate" in str(error)


async def test_a_foreign_cas_client_certificate_is_refused(cluster):
    key_pem, csr_pem = make_csr("m-1")
    error = await failure(cluster.assignments(key_pem, Authority.create().sign_csr(csr_pem, "m-1")), cluster)
    assert type(error) is CoordinatorUnreachableError


async def test_an_expired_client_certificate_is_refused(cluster):
    key_pem, csr_pem = make_csr("m-1")
    cert_pem = expired(cluster.authority, cluster.authority.sign_csr(csr_pem, "m-1"))
    error = await failure(cluster.assignments(key_pem, cert_pem), cluster)
    assert type(error) is CoordinatorUnreachableError


async def test_the_coordinators_own_certificate_is_no_machines(cluster):
    error = await failure(cluster.assignments(*cluster.authority.issue_server()), cluster)
    assert type(error) in (AuthenticationError, CoordinatorUnreachableError)


async def test_two_servers_cannot_share_a_port(cluster):
    port = cluster.address.rpartition(":")[2]
    second = grpc.aio.server(options=server_options())
    with pytest.raises(RuntimeError, match="bind"):
        second.add_secure_port(f"127.0.0.1:{port}", client_port_credentials(cluster.authority))
    await second.stop(None)
