//! Keeps what services are to run with.
