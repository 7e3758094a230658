//! The product service.
