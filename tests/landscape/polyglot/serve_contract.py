"""A service of plain grpcio that answers every method of the modules it is given with an empty message."""

import importlib
import os
import signal
import sys
from concurrent import futures

import grpc
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection


class Anything:
    def __init__(self, service):
        for method in service.methods:
            setattr(self, method.name, self.answer(GetMessageClass(method.output_type), method.server_streaming))

    @staticmethod
    def answer(message, streams):
        return lambda request, context: iter([message()]) if streams else message()


server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
names = [reflection.SERVICE_NAME]
for module in sys.argv[1:]:
    words = importlib.import_module(f"{module}_pb2")
    stubs = importlib.import_module(f"{module}_pb2_grpc")
    for name, service in words.DESCRIPTOR.services_by_name.items():
        getattr(stubs, f"add_{name}Servicer_to_server")(Anything(service), server)
        names.append(service.full_name)
probe = health.HealthServicer()
probe.set("", health_pb2.HealthCheckResponse.SERVING)
health_pb2_grpc.add_HealthServicer_to_server(probe, server)
reflection.enable_server_reflection(names, server)
server.add_insecure_port(f"127.0.0.1:{os.environ['PORT']}")
server.start()
signal.signal(signal.SIGTERM, lambda *_: server.stop(5))
server.wait_for_termination()
