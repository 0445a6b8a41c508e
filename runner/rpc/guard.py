"""What stands before every call: TLS 1.3, the token, and errors as typed statuses."""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from runner.errors import AuthenticationError
from runner.rpc.channels import require_tls13, require_token
from runner.rpc.status import abort_status

_log = logging.getLogger(__name__)

# A machine that wants to join has no token yet: its join token is in the request.
_WITHOUT_TOKEN = ("/runner.v1.Join/",)

_Behaviour = Callable[[Any, Any], Any]


class Guard(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Refuses calls over old TLS, and without `token` unless that is None (the fleet port, where certificates tell).

    A RunnerError that a handler raises reaches the caller as the same error;
    any other exception as an InternalError, with the traceback in the log here.
    """

    def __init__(self, token: str | None) -> None:
        self._token = token

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """Wrap the handler; a refused call never gets to its request."""
        handler: Any = await continuation(handler_call_details)
        if handler is None:  # no such method: gRPC answers UNIMPLEMENTED
            return None  # type: ignore[return-value]
        refusal = self._refusal(handler_call_details)
        make, behaviour = _kind(handler)
        guarded = _guarded(behaviour, refusal, handler.response_streaming)
        decode = handler.request_deserializer if refusal is None else None
        return make(guarded, decode, handler.response_serializer)  # type: ignore[no-any-return]

    def _refusal(self, details: grpc.HandlerCallDetails) -> AuthenticationError | None:
        if self._token is None or details.method.startswith(_WITHOUT_TOKEN):
            return None
        try:
            require_token(details.invocation_metadata, self._token)
        except AuthenticationError as error:
            return error
        return None


def _kind(handler: Any) -> tuple[Callable[..., Any], _Behaviour]:
    if handler.request_streaming and handler.response_streaming:
        return grpc.stream_stream_rpc_method_handler, handler.stream_stream
    if handler.request_streaming:
        return grpc.stream_unary_rpc_method_handler, handler.stream_unary
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler, handler.unary_stream
    return grpc.unary_unary_rpc_method_handler, handler.unary_unary


def _guarded(behaviour: _Behaviour, refusal: AuthenticationError | None, response_streaming: bool) -> _Behaviour:
    # Both styles of a streaming handler keep theirs: one that calls context.write() pays nothing per message.
    if response_streaming and inspect.isasyncgenfunction(behaviour):

        async def generate(request: Any, context: Any) -> AsyncIterator[Any]:
            try:
                _admit(context, refusal)
                async with contextlib.aclosing(behaviour(request, context)) as replies:
                    async for reply in replies:
                        yield reply
            except Exception as error:
                await _abort(context, error)

        return generate

    async def call(request: Any, context: Any) -> Any:
        try:
            _admit(context, refusal)
            return await behaviour(request, context)
        except Exception as error:
            await _abort(context, error)

    return call


def _admit(context: Any, refusal: AuthenticationError | None) -> None:
    require_tls13(context.auth_context())
    if refusal is not None:
        raise refusal


async def _abort(context: Any, error: Exception) -> None:
    if isinstance(error, grpc.aio.AbortError):  # the handler has chosen its status itself
        raise error
    code, detail = abort_status(error)
    if code is grpc.StatusCode.INTERNAL:
        _log.error("call failed: %s", error, exc_info=error)
    await context.abort(code, detail)
