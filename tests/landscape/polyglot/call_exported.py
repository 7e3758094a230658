"""Calls a method with stubs that were generated from what the landscape handed out."""

import sys

import grpc

from shop.review.v1 import review_service_pb2 as words
from shop.review.v1 import review_service_pb2_grpc as stubs

with grpc.insecure_channel(sys.argv[1]) as channel:
    answer = stubs.ReviewServiceStub(channel).ListReviews(words.ListReviewsRequest(product_id=1), timeout=10)
    print(f"{len(answer.reviews)} reviews from {answer.service_address}")
