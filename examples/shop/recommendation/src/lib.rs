//! The recommendation service.
