//! The registry as its users meet it: through its gRPC face, with time held where that can be.

mod cluster;
mod embedded;
mod etcd;
mod health;
mod held;
mod house;
mod life;
mod lists;
mod memory;
mod nodes;
mod sessions;
mod simulation;
mod sockets;
mod watches;
