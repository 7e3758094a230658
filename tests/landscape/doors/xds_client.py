"""A gRPC client as its users write it. Takes commands on standard input, answers each with a line of JSON.

    calls N      one after the other
    flood N      at once
    begin        calls steadily, until
    end          which tells what became of them
"""
import collections
import json
import sys
import threading
import time

import grpc

target, authority = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""
options = [("grpc.default_authority", authority)] if authority else []
channel = grpc.insecure_channel(target, options=options)
say = channel.unary_unary(
    "/doors.v1.EchoService/Say", request_serializer=lambda raw: raw, response_deserializer=lambda raw: raw
)


class Tally:
    def __init__(self):
        self.by, self.failed, self.words = collections.Counter(), collections.Counter(), []
        self.lock = threading.Lock()
        self.began = time.monotonic()

    def one(self):
        try:
            by = say(b"", timeout=60).decode()
            with self.lock:
                self.by[by] += 1
        except grpc.RpcError as error:
            with self.lock:
                self.failed[error.code().name] += 1
                if len(self.words) < 3:
                    self.words.append(error.details())

    def tell(self):
        seconds = time.monotonic() - self.began
        told = {"by": self.by, "failed": self.failed, "words": self.words, "seconds": seconds}
        print(json.dumps(told), flush=True)


steady, stop, thread = None, threading.Event(), None


def steadily(tally):
    while not stop.is_set():
        tally.one()
        time.sleep(0.005)


for line in sys.stdin:
    command, *rest = line.split()
    if command == "calls":
        tally = Tally()
        for _ in range(int(rest[0])):
            tally.one()
        tally.tell()
    elif command == "flood":
        tally = Tally()
        threads = [threading.Thread(target=tally.one) for _ in range(int(rest[0]))]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        tally.tell()
    elif command == "begin":
        stop.clear()
        steady = Tally()
        thread = threading.Thread(target=steadily, args=(steady,))
        thread.start()
        print("{}", flush=True)
    elif command == "end":
        stop.set()
        thread.join()
        steady.tell()
