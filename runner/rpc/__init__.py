"""The wire: generated messages, channels, credentials, and errors as gRPC statuses."""

from runner.config import set_grpc_defaults

# Before anything below imports grpc, which reads them once.
set_grpc_defaults()
