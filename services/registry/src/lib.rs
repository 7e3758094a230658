//! Keeps who is alive, and where.
