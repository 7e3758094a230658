//! What the stories share: a landscape started from the real binary.
