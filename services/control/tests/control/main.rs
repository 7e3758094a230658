//! Stories of control: real processes, a real store, and a registry that believes what programs say.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the message")]

mod house;
mod processes;
mod reconciling;
mod service;
