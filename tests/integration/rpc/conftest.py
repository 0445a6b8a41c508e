"""grpc.aio makes its poller's sockets anew when no channel is left; here one test's are not the next one's leak."""

from __future__ import annotations

import grpc.aio

grpc.aio.init_grpc_aio()  # type: ignore[attr-defined]  # missing in the stubs
