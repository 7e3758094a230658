// Calls the shop through the edge with a generated client, by gRPC, gRPC-Web and Connect: node shop_client.js URL
import { Code, ConnectError, createClient, type Transport } from "@connectrpc/connect";
import { compressionGzip, createConnectTransport, createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { CompositeService } from "./gen/shop/composite/v1/composite_service_pb.js";

const baseUrl = process.argv[2]!;
const transports: [string, Transport][] = [
  ["grpc", createGrpcTransport({ baseUrl })],
  ["grpc-web", createGrpcWebTransport({ baseUrl, httpVersion: "1.1" })],
  ["connect", createConnectTransport({ baseUrl, httpVersion: "1.1" })],
  ["connect proto", createConnectTransport({ baseUrl, httpVersion: "2", useBinaryFormat: true })],
  ["connect get", createConnectTransport({ baseUrl, httpVersion: "1.1", useHttpGet: true })],
  ["connect gzip", createConnectTransport({ baseUrl, httpVersion: "2", sendCompression: compressionGzip, compressMinBytes: 1 })],
];

function check(condition: unknown, what: string): asserts condition {
  if (!condition) throw new Error(what);
}

for (const [name, transport] of transports) {
  const shop = createClient(CompositeService, transport);
  const answer = await shop.getProduct({ productId: 1 }, { timeoutMs: 10_000 });
  check(answer.product?.name, `${name}: the product has a name`);
  check(answer.serviceAddresses?.review, `${name}: review answered`);
  for await (const change of shop.watchReviews({ productId: 1 }, { timeoutMs: 10_000 })) {
    check(change.change.case === "added", `${name}: the first change is a review that is there`);
    break;
  }
  const error = await shop.getProduct({ productId: 99999 }).then(() => undefined, ConnectError.from);
  check(error?.code === Code.NotFound, `${name}: an unknown product is NOT_FOUND, not ${error}`);
}
console.log("typescript is content");
process.exit(0);
