//! Compiles the contract of the service behind the proxies.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    ninefold_build::compile("proto")
}
