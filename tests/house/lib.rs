//! The rules of the house live in `tests/`.
