"""An xDS client that refuses what it is told, as one of another version might. Prints how often it was told."""
import sys
import queue
import time

import grpc
from envoy.config.core.v3 import core_pb2
from envoy.service.discovery.v3 import ads_pb2, ads_pb2_grpc
from google.rpc import status_pb2

TYPE = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
asked = queue.Queue()
node = core_pb2.Node(id="picky", user_agent_name="test")
asked.put(ads_pb2.DiscoveryRequest(node=node, type_url=TYPE, resource_names=["pump"]))
stub = ads_pb2_grpc.AggregatedDiscoveryServiceStub(grpc.insecure_channel(sys.argv[1]))
told = stub.StreamAggregatedResources(iter(asked.get, None), timeout=5)
count = 0
try:
    for response in told:
        count += 1
        why = status_pb2.Status(code=3, message="cluster pump: [field:lb_policy error:not supported]")
        asked.put(
            ads_pb2.DiscoveryRequest(
                type_url=TYPE, resource_names=["pump"], response_nonce=response.nonce, error_detail=why
            )
        )
except grpc.RpcError as error:
    if error.code() != grpc.StatusCode.DEADLINE_EXCEEDED:
        raise
print(count)
