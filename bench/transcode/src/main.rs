//! What it costs to turn JSON into a message and back, at the edge and in the reflection library, in one run.
//!
//! Rounds of the two take turns, so that what else the machine does meets both. A figure is the median over the rounds.

use std::io::Write as _;
use std::time::Instant;

use anyhow::{Context as _, Result};
use ninefold_gateway::Codec;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};

const ROUNDS: usize = 41;
const BYTES_PER_ROUND: usize = 2_000_000;

fn descriptor_set() -> Result<Vec<u8>> {
    use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};
    struct Source;
    impl FileResolver for Source {
        fn open_file(&self, name: &str) -> Result<File, protox::Error> {
            match name {
                "order.proto" => File::from_source(name, include_str!("order.proto")),
                _ => Err(protox::Error::file_not_found(name)),
            }
        }
    }
    let mut resolver = ChainFileResolver::new();
    resolver.add(Source);
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).open_file("order.proto")?;
    Ok(compiler.encode_file_descriptor_set())
}

/// An order with so many lines.
fn order(lines: usize) -> String {
    let line = |at: usize| format!(r#"{{"sku":"SKU-{at:05}","quantity":{},"price":{}.25}}"#, at % 7 + 1, at * 3);
    let lines: Vec<_> = (0..lines).map(line).collect();
    format!(
        concat!(
            r#"{{"orderId":"2026-000147","customerId":"9007199254740993","createTime":"2026-11-23T10:15:30.250Z","#,
            r#""lines":[{}],"address":{{"name":"Ada Lovelace","street":"12 St James's Square","city":"London","#,
            r#""country":"GB"}},"shipping":"SHIPPING_EXPRESS","notes":{{"ring":"twice"}},"gift":true}}"#
        ),
        lines.join(",")
    )
}

/// Nanoseconds of one call, by round.
fn time(calls: usize, mut call: impl FnMut()) -> f64 {
    let begin = Instant::now();
    for _ in 0..calls {
        call();
    }
    begin.elapsed().as_secs_f64() * 1e9 / f64::from(u32::try_from(calls).unwrap_or(u32::MAX))
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn reflected(descriptor: &MessageDescriptor, text: &[u8]) -> DynamicMessage {
    let mut json = serde_json::Deserializer::from_slice(text);
    DynamicMessage::deserialize(descriptor.clone(), &mut json).expect("an order is an order")
}

/// The two ways through one body, there and back.
struct Ways {
    codec: Codec,
    descriptor: MessageDescriptor,
    text: Vec<u8>,
    wire: Vec<u8>,
}

impl Ways {
    fn read(&self, out: &mut Vec<u8>) {
        self.codec.read(&self.text, out).expect("an order is read");
    }

    fn read_reflecting(&self, out: &mut Vec<u8>) {
        reflected(&self.descriptor, &self.text).encode(out).expect("there is room");
    }

    fn write(&self, out: &mut Vec<u8>) {
        self.codec.write(&self.wire, out).expect("an order is written");
    }

    fn write_reflecting(&self, out: &mut Vec<u8>) {
        let message = DynamicMessage::decode(self.descriptor.clone(), self.wire.as_slice()).expect("an order is read");
        serde_json::to_writer(out, &message).expect("there is room");
    }
}

type Way = fn(&Ways, &mut Vec<u8>);

/// The edge's way and the library's, in turns; and how often each allocates.
fn compare(ways: &Ways, edge: Way, library: Way) -> ([f64; 2], [u64; 2]) {
    let mut buffer = Vec::with_capacity(2 * ways.text.len());
    let calls = BYTES_PER_ROUND / ways.text.len();
    let mut figures: [Vec<f64>; 2] = Default::default();
    for _ in 0..ROUNDS {
        for ((way, calls), figures) in [(edge, calls), (library, calls / 4)].into_iter().zip(&mut figures) {
            figures.push(time(calls, || {
                buffer.clear();
                way(ways, &mut buffer);
            }));
        }
    }
    let allocations = [edge, library].map(|way| {
        buffer.clear();
        allocation_counter::measure(|| way(ways, &mut buffer)).count_total
    });
    (figures.map(median), allocations)
}

fn main() -> Result<()> {
    let set = descriptor_set()?;
    let codec = Codec::new(&set, "bench.v1.Order").context("the order is described")?;
    let descriptor =
        DescriptorPool::decode(set.as_slice())?.get_message_by_name("bench.v1.Order").context("the order is there")?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{:>7}  {:<14} {:>10} {:>12} {:>7}  allocations", "JSON", "way", "edge", "reflection", "ratio")?;
    for lines in [2, 6, 200] {
        let text = order(lines).into_bytes();
        let wire = reflected(&descriptor, &text).encode_to_vec();
        let ways = Ways { codec: codec.clone(), descriptor: descriptor.clone(), text, wire };
        for (name, edge, library) in [
            ("JSON → message", Ways::read as Way, Ways::read_reflecting as Way),
            ("message → JSON", Ways::write, Ways::write_reflecting),
        ] {
            let ([edge, library], [few, many]) = compare(&ways, edge, library);
            writeln!(
                out,
                "{:>5} B  {name:<14} {:>7.2} µs {:>9.2} µs {:>6.1}x  {few} and {many}",
                ways.text.len(),
                edge / 1e3,
                library / 1e3,
                library / edge,
            )?;
        }
    }
    Ok(())
}
