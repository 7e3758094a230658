//! Keeps what services promise: raw descriptor sets by digest.
