//! Compiles the contract that the service keeps.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    ninefold_build::compile_files("../proto", &["shop/review/v1/review_service.proto"])
}
