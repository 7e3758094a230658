//! DNS for programs that know nothing else: addresses and ports of services that serve.

pub(crate) mod answer;
pub(crate) mod server;
