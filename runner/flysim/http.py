"""The API over HTTP: decodes, holds both sides to the description, and loses what is to be lost."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from runner.flysim.admin import Admin
from runner.flysim.answers import Answer, ApiError, bad_request
from runner.flysim.calls import Call
from runner.flysim.driver import Driver
from runner.flysim.execution import execute
from runner.flysim.gate import CutError, Loss
from runner.flysim.openapi import Description, Operation
from runner.flysim.world import EXEC, WAIT

log = logging.getLogger(__name__)

_PREFIX = "/v1"
_RAW_SEND = "runner.flysim.send"
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


class FlyApi:
    """The ASGI application. `violations`: answers of ours that broke the description; tests demand that there are none."""

    def __init__(
        self,
        driver: Driver,
        description: Description,
        admin: Admin,
        mark_of: Callable[[str], Mapping[str, str] | None],
    ) -> None:
        """`mark_of`: the environment that marks a machine's processes; None where the machine is imagined."""
        self._driver = driver
        self._mark_of = mark_of
        self._description = description
        self._serial = itertools.count(1)
        self.violations: list[str] = admin.violations
        self._app = Starlette(
            routes=[
                *admin.routes(),
                Route(_PREFIX + "/{rest:path}", self._serve, methods=_METHODS),
            ]
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[_RAW_SEND] = send  # the framework hands its own ones on
        await self._app(scope, receive, send)

    async def _serve(self, request: Request) -> Response:
        path = request.url.path.removeprefix(_PREFIX)
        found = self._description.find(request.method, path)
        if found is None:
            return JSONResponse({"error": f"no such endpoint: {request.method} {path}"}, 404)
        operation, parameters = found
        try:
            answer, loss = await self._answer(operation, request, parameters)
        except CutError:
            return _Cut()
        answer = self._checked(operation, answer)
        if loss is Loss.TIMEOUT and "408" in operation.responses:
            answer = ApiError(408, "request timed out").answer()
        elif loss is not Loss.NONE:
            return _Cut()
        headers = {**answer.headers, "fly-request-id": f"sim-{next(self._serial):08d}"}
        if answer.body is None:
            return Response(status_code=answer.status, headers=headers)
        return JSONResponse(answer.body, answer.status, headers)

    async def _answer(self, operation: Operation, request: Request, parameters: dict[str, str]) -> tuple[Answer, Loss]:
        world, driver = self._driver.world, self._driver
        query = {name: request.query_params.getlist(name) for name in request.query_params}
        call = Call(parameters, query, {}, {name.lower(): value for name, value in request.headers.items()})
        try:
            raw = await request.body()
            world.enter(operation.name, call, driver.now_s())
            await asyncio.sleep(world.cloud.draw("api_delay"))
            self._check_request(operation, call, raw)
            if operation.name == WAIT:
                return await driver.wait(call), Loss.NONE
            answer = world.perform(operation.name, call, driver.now_s())
            driver.pump()
            mark = self._mark_of(parameters["machine_id"]) if operation.name == EXEC else None
            if mark is not None:
                answer = await execute(call.body, mark)
            loss = world.loss_of_reply(is_change=operation.is_change)
            driver.pump()
            await asyncio.sleep(answer.after_s)
            return answer, loss
        except ApiError as error:
            driver.pump()
            return error.answer(), Loss.NONE

    def _check_request(self, operation: Operation, call: Call, raw: bytes) -> None:
        body: Any = None
        if raw:
            try:
                body = json.loads(raw)
            except ValueError:
                raise bad_request("the body is not JSON") from None
        faults = self._description.request_faults(operation, call.query, call.headers, body, has_body=bool(raw))
        if faults:
            raise bad_request("; ".join(faults))
        if isinstance(body, dict):
            call.body = body

    def _checked(self, operation: Operation, answer: Answer) -> Answer:
        faults = self._description.answer_faults(
            operation, answer.status, answer.body, has_body=answer.body is not None
        )
        if not faults:
            return answer
        text = f"the simulator's own answer to {operation.name} breaks the description: {'; '.join(faults)}"
        log.error("%s", text)
        self.violations.append(text)
        return ApiError(500, text).answer()


class _Cut(Response):
    """No answer: the connection ends with not a byte said, as where a network fails.

    The server's object behind `send` holds the transport; the interface between server and application has no word for this.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        transport = getattr(scope[_RAW_SEND], "__self__").transport  # noqa: B009  a bound method of uvicorn's request
        transport.abort()
        while (await receive())["type"] != "http.disconnect":
            pass  # until the server knows it too: else it would answer 500 for us
