//! The words of Ninefold: every contract as generated Rust, and the raw descriptors they were generated from.
//!
//! No logic lives here. What the words mean is written in the `.proto` files, which are the documentation.

#![expect(missing_docs, clippy::all)]

/// Contracts of the roles, one module a package.
pub mod ninefold {
    pub mod registry {
        pub mod v1 {
            tonic::include_proto!("ninefold.registry.v1");
        }
    }
    pub mod contract {
        pub mod v1 {
            tonic::include_proto!("ninefold.contract.v1");
        }
    }
    pub mod config {
        pub mod v1 {
            tonic::include_proto!("ninefold.config.v1");
        }
    }
    pub mod monitor {
        pub mod v1 {
            tonic::include_proto!("ninefold.monitor.v1");
        }
    }
    pub mod alert {
        pub mod v1 {
            tonic::include_proto!("ninefold.alert.v1");
        }
    }
    pub mod control {
        pub mod v1 {
            tonic::include_proto!("ninefold.control.v1");
        }
    }
    pub mod access {
        pub mod v1 {
            tonic::include_proto!("ninefold.access.v1");
        }
    }
    pub mod gateway {
        pub mod v1 {
            tonic::include_proto!("ninefold.gateway.v1");
        }
    }
    pub mod dialect {
        pub mod v1 {
            tonic::include_proto!("ninefold.dialect.v1");
        }
    }
}

/// The serialized `google.protobuf.FileDescriptorSet` of all contracts of the platform, with imports, options and source
/// info.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor_set.binpb"));
