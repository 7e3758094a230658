//! The product-composite service.
