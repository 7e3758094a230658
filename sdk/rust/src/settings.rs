//! Settings: how they are read from text.

pub mod duration;
