//! The registry as its users meet it: through its gRPC face, with time held where that can be.

mod embedded;
mod etcd;
mod held;
mod house;
mod lists;
mod memory;
mod nodes;
mod sessions;
mod sockets;
mod watches;
