"""A service of plain grpcio that knows nothing of Ninefold: it listens on PORT, and has health and reflection."""

import os
import signal
import sys
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from greeter.v1 import greeter_service_pb2 as words
from greeter.v1 import greeter_service_pb2_grpc as stubs

NAME = words.DESCRIPTOR.services_by_name["GreeterService"].full_name


class Greeter(stubs.GreeterServiceServicer):
    def Greet(self, request, context):
        print(f"greeting {request.name}", flush=True)
        print("WARN a line for people who read errors", file=sys.stderr, flush=True)
        return words.GreetResponse(text=f"Hello, {request.name}, from {os.getpid()}!")

    def Dismiss(self, request, context):
        # Only the second version of the contract has this method.
        return words.GreetResponse(text=f"Farewell, {request.name}, from {os.getpid()}!")


server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
stubs.add_GreeterServiceServicer_to_server(Greeter(), server)
probe = health.HealthServicer()
probe.set("", health_pb2.HealthCheckResponse.SERVING)
health_pb2_grpc.add_HealthServicer_to_server(probe, server)
reflection.enable_server_reflection([NAME, reflection.SERVICE_NAME], server)
server.add_insecure_port(f"127.0.0.1:{os.environ['PORT']}")
server.start()
signal.signal(signal.SIGTERM, lambda *_: server.stop(5))
server.wait_for_termination()
