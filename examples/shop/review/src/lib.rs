//! The review service.
