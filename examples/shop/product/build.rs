//! Compiles the contract that the service keeps.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    ninefold_build::compile_files("../proto", &["shop/product/v1/product_service.proto"])
}
