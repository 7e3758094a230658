//! Turns `proto/` into Rust and into one raw descriptor set. Needs no protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    ninefold_build::compile("proto")
}
