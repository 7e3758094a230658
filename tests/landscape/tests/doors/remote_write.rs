//! Remote write 2.0, byte by byte, where no sender at hand speaks it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use tests_landscape::{Landscape, http, until};

const SOON: Duration = Duration::from_secs(60);
const VERSION_2: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";

/// A message of Protobuf on its way.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(mut self, mut value: u64) -> Self {
        while value >= 0x80 {
            self.0.push(u8::try_from(value & 0x7f).unwrap_or_default() | 0x80);
            value >>= 7;
        }
        self.0.push(u8::try_from(value).unwrap_or_default());
        self
    }

    fn whole(self, field: u64, value: u64) -> Self {
        self.varint(field << 3).varint(value)
    }

    fn double(self, field: u64, value: f64) -> Self {
        let mut message = self.varint(field << 3 | 1);
        message.0.extend(value.to_le_bytes());
        message
    }

    fn bytes(self, field: u64, value: &[u8]) -> Self {
        let mut message = self.varint(field << 3 | 2).varint(value.len() as u64);
        message.0.extend(value);
        message
    }

    fn places(self, field: u64, places: &[u64]) -> Self {
        let packed = places.iter().fold(Self::default(), |packed, place| packed.varint(*place));
        self.bytes(field, &packed.0)
    }

    /// As a block of Snappy that leaves all as it is.
    fn wrapped(&self) -> Vec<u8> {
        let mut block = Self::default().varint(self.0.len() as u64);
        for part in self.0.chunks(1 << 16) {
            let length = u16::try_from(part.len() - 1).unwrap_or(u16::MAX);
            block.0.push(61 << 2);
            block.0.extend(length.to_le_bytes());
            block.0.extend(part);
        }
        block.0
    }
}

fn millis() -> Result<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?)
}

/// A counter with its beginning and an exemplar, and a native histogram.
fn request(now: u64) -> Message {
    let symbols =
        ["", "__name__", "orders_total", "job", "till", "How many orders", "orders", "trace_id", "0af7", "took"];
    let request = symbols.iter().fold(Message::default(), |message, text| message.bytes(4, text.as_bytes()));
    let sample = Message::default().double(1, 42.0).whole(2, now).whole(3, now - 5000);
    let exemplar = Message::default().places(1, &[7, 8]).double(2, 3.0).whole(3, now - 10);
    let metadata = Message::default().whole(1, 1).whole(3, 5).whole(4, 6);
    let counter =
        Message::default().places(1, &[1, 2, 3, 4]).bytes(2, &sample.0).bytes(4, &exemplar.0).bytes(5, &metadata.0);
    // Two values between one and two, three between two and four: schema 0, runs from bucket 1, differences of counts.
    let run = Message::default().whole(1, 2).whole(2, 2);
    let histogram = Message::default().whole(1, 5).double(3, 11.5).bytes(11, &run.0).places(12, &[4, 2]).whole(15, now);
    let took = Message::default().places(1, &[1, 9, 3, 4]).bytes(3, &histogram.0);
    request.bytes(5, &counter.0).bytes(5, &took.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn remote_write_2_is_taken_in_beside_1() -> Result<()> {
    let house = Landscape::up(&[]).await?;
    let (otlp, platform) = (house.address("otlpHttp"), house.address("platform"));
    let send = async |kind: &str, body: Vec<u8>| {
        let headers = [("content-type", kind), ("content-encoding", "snappy")];
        http::request_bytes(&otlp, "POST", "/api/v1/write", &headers, body).await
    };
    let now = millis()?;
    let answer = send(VERSION_2, request(now).wrapped()).await?;
    ensure!(answer.status == 204, "{} {}", answer.status, answer.text());
    for (name, count) in [("samples", "1"), ("histograms", "1"), ("exemplars", "1")] {
        let header = format!("x-prometheus-remote-write-{name}-written");
        ensure!(answer.header(&header) == count, "{header}: {:?}", answer.header(&header));
    }
    let ask = async |path: &str| http::request(&platform, "GET", path, &[], None).await?.json();
    let value = async |query: &str| {
        let answer = ask(&format!("/api/v1/query?query={query}")).await?;
        anyhow::Ok(answer["data"]["result"][0]["value"][1].as_str().unwrap_or_default().to_owned())
    };
    until("it can be asked", SOON, || async { Ok(value("orders_total").await? == "42") }).await?;
    ensure!(
        !value("increase(orders_total%5B1m%5D)").await?.is_empty(),
        "with its beginning there is something to compare with"
    );
    ensure!(value("count_over_time(orders_total%5B1m%5D)").await? == "2", "the beginning is there once");
    ensure!(value("histogram_count(took)").await? == "5" && value("histogram_quantile(1,took)").await? == "4");
    let about = ask("/api/v1/metadata?metric=orders_total").await?;
    let about = &about["data"]["orders_total"][0];
    ensure!(about["type"] == "counter" && about["help"] == "How many orders" && about["unit"] == "orders", "{about}");
    let exemplars = ask("/api/v1/query_exemplars?query=orders_total").await?;
    ensure!(exemplars["data"][0]["exemplars"][0]["labels"]["trace_id"] == "0af7", "{exemplars}");

    // The same again changes nothing; a later one tells the beginning again, and it stays where it is.
    ensure!(send(VERSION_2, request(now).wrapped()).await?.status == 204);
    ensure!(value("count_over_time(orders_total%5B1m%5D)").await? == "2");

    let named = Message::default().bytes(4, b"").bytes(5, &Message::default().places(1, &[1, 9]).0);
    for (kind, body, status, word) in [
        (
            "application/x-protobuf;proto=io.prometheus.write.v3.Request",
            request(now).wrapped(),
            415,
            "write.v2.Request",
        ),
        ("application/json", request(now).wrapped(), 415, "application/x-protobuf"),
        (VERSION_2, named.wrapped(), 400, "no place"),
        (VERSION_2, b"\xff\xff".to_vec(), 400, ""),
    ] {
        let answer = send(kind, body).await?;
        ensure!(answer.status == status && answer.text().contains(word), "{kind}: {} {}", answer.status, answer.text());
    }
    let refused = send(VERSION_2, named.wrapped()).await?;
    let none = refused.header("x-prometheus-remote-write-samples-written");
    ensure!(none == "0", "what is refused says that nothing was written: {none}");
    house.stop().await
}
