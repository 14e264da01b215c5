"""The gRPC face of the simulated ChirpStack: the real services of chirpstack-api, as many methods as a client needs.

What is not implemented answers UNIMPLEMENTED. Every call needs `authorization: Bearer <token>`.
"""

import hmac
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from chirpstack_api.api import (
    application_pb2,
    device_pb2,
    device_profile_pb2,
    gateway_pb2,
    internal_pb2,
    multicast_group_pb2,
)
from google.protobuf.message_factory import GetMessageClass

from radios.clock import Clock
from radios.simulated.chirpstack.model import ApiCode, ApiError
from radios.simulated.chirpstack.network import NetworkServer
from radios.simulated.chirpstack.services import (
    application_methods,
    device_methods,
    device_profile_methods,
    gateway_methods,
)
from radios.simulated.chirpstack.services_multicast import multicast_methods

Method = Callable[[Any], Any]
"""A request message in, a response message out; ApiError becomes the call's status."""


class ChirpStackServer:
    """Listens on `host` (a free port when `port` is 0) between `start` and `stop`."""

    def __init__(
        self, network: NetworkServer, clock: Clock, token: str, changed: Callable[[], None], host: str, port: int
    ) -> None:
        self._network = network
        self._clock = clock
        self._expected = f"Bearer {token}"
        self._changed = changed
        self._host = host
        self._port = port
        self._server: Any = None
        self.calls = 0

    @property
    def target(self) -> str:
        return f"{self._host}:{self._port}"

    async def start(self) -> None:
        server = grpc.aio.server()
        network = self._network
        services = (
            (application_pb2, "ApplicationService", application_methods(network)),
            (device_pb2, "DeviceService", device_methods(network)),
            (device_profile_pb2, "DeviceProfileService", device_profile_methods(network)),
            (gateway_pb2, "GatewayService", gateway_methods(network)),
            (internal_pb2, "InternalService", {"GetVersion": _version}),
            (multicast_group_pb2, "MulticastGroupService", multicast_methods(network)),
        )
        server.add_generic_rpc_handlers(tuple(self._service(*service) for service in services))
        self._port = server.add_insecure_port(f"{self._host}:{self._port}")
        await server.start()
        self._server = server

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(grace=None)
            self._server = None

    def _service(self, module: Any, name: str, methods: dict[str, Method]) -> Any:
        descriptor = module.DESCRIPTOR.services_by_name[name]
        handlers = {}
        for method_name, method in methods.items():
            rpc = descriptor.methods_by_name[method_name]
            handlers[method_name] = grpc.unary_unary_rpc_method_handler(
                self._handler(method),
                request_deserializer=GetMessageClass(rpc.input_type).FromString,
                response_serializer=GetMessageClass(rpc.output_type).SerializeToString,
            )
        return grpc.method_handlers_generic_handler(descriptor.full_name, handlers)

    def _handler(self, method: Method) -> Callable[[Any, Any], Awaitable[Any]]:
        async def handle(request: Any, context: Any) -> Any:
            self.calls += 1
            metadata = dict(context.invocation_metadata() or ())
            given = str(metadata.get("authorization", ""))
            if not hmac.compare_digest(given.encode(), self._expected.encode()):
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, "authentication failed")
            self._network.advance(self._clock.now())
            try:
                return method(request)
            except ApiError as error:
                await context.abort(_STATUS[error.code], error.detail)
            finally:
                self._changed()

        return handle


def _version(request: Any) -> Any:
    del request
    return internal_pb2.GetVersionResponse(version="4.20.0-simulated")


_STATUS = {
    ApiCode.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    ApiCode.INVALID_ARGUMENT: grpc.StatusCode.INVALID_ARGUMENT,
    ApiCode.INTERNAL: grpc.StatusCode.INTERNAL,
    ApiCode.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
}
