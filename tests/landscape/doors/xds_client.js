// A gRPC client as its users write it, with the commands of xds_client.py.
const grpc = require("@grpc/grpc-js");
require("@grpc/grpc-js-xds").register();
const readline = require("node:readline");

const client = new grpc.Client(process.argv[2], grpc.credentials.createInsecure());
const raw = (bytes) => bytes;

class Tally {
  by = {};
  failed = {};
  words = [];
  began = performance.now();

  one() {
    return new Promise((done) => {
      const deadline = new Date(Date.now() + 20_000);
      client.makeUnaryRequest("/doors.v1.EchoService/Say", raw, raw, Buffer.alloc(0), { deadline }, (error, answer) => {
        if (error) {
          const code = grpc.status[error.code];
          this.failed[code] = (this.failed[code] ?? 0) + 1;
          if (this.words.length < 3) this.words.push(error.details);
        } else {
          const by = answer.toString();
          this.by[by] = (this.by[by] ?? 0) + 1;
        }
        done();
      });
    });
  }

  tell() {
    const { by, failed, words } = this;
    console.log(JSON.stringify({ by, failed, words, seconds: (performance.now() - this.began) / 1000 }));
  }
}

let steady, stopped, ended;

async function steadily(tally) {
  while (!stopped) {
    await tally.one();
    await new Promise((later) => setTimeout(later, 5));
  }
}

(async () => {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [command, count] = line.split(" ");
    const tally = new Tally();
    if (command === "calls") {
      for (let at = 0; at < Number(count); at++) await tally.one();
      tally.tell();
    } else if (command === "flood") {
      const all = [];
      for (let at = 0; at < Number(count); at++) {
        all.push(tally.one());
        // The library counts a call once its stream begins: more than a limit may be made in one turn of the loop.
        await new Promise((later) => setTimeout(later, 1));
      }
      await Promise.all(all);
      tally.tell();
    } else if (command === "begin") {
      [steady, stopped] = [tally, false];
      ended = steadily(steady);
      console.log("{}");
    } else if (command === "end") {
      stopped = true;
      await ended;
      steady.tell();
    }
  }
  process.exit(0);
})();
