"""Calls the shop through the edge with a generated client: python shop_client.py HOST:PORT"""

import sys

import grpc

from shop.composite.v1 import composite_service_pb2 as words
from shop.composite.v1 import composite_service_pb2_grpc as stubs

with grpc.insecure_channel(sys.argv[1]) as channel:
    shop = stubs.CompositeServiceStub(channel)
    answer = shop.GetProduct(words.GetProductRequest(product_id=1), timeout=10)
    assert answer.product.name, answer
    assert answer.service_addresses.review, answer
    first = next(iter(shop.WatchReviews(words.WatchReviewsRequest(product_id=1), timeout=10)))
    assert first.added.subject, first
    try:
        shop.GetProduct(words.GetProductRequest(product_id=99999), timeout=10)
        raise AssertionError("an unknown product must be NOT_FOUND")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND, error
    print("python is content")
