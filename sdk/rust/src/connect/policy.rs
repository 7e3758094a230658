//! How a channel calls.

use std::time::Duration;

use crate::connect::breaker;

/// Which calls may be repeated although an instance may have begun to work on them.
///
/// A call that surely reached nobody is repeated whatever this says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idempotency {
    /// None, save those with the request extension [`Idempotent`](crate::connect::Idempotent).
    Never,
    /// Those whose method's name begins with Get, List, Watch, Check, Search, Match or Describe.
    Reads,
    /// All.
    All,
}

impl Idempotency {
    /// Whether the method at `path` ("/package.Service/Method") may be repeated.
    pub(crate) fn allows(self, path: &str) -> bool {
        const READS: [&str; 7] = ["Get", "List", "Watch", "Check", "Search", "Match", "Describe"];
        match self {
            Self::Never => false,
            Self::All => true,
            Self::Reads => {
                let method = path.rsplit('/').next().unwrap_or_default();
                READS.iter().any(|verb| method.starts_with(verb))
            }
        }
    }
}

/// How a channel calls. The default suits most services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How long to wait for response headers when neither the call nor the call around it has a deadline. It does not
    /// travel to the callee and does not cut a stream that has begun.
    pub deadline: Duration,
    /// How long a call waits for an instance when none is ready, at most; its deadline may be earlier.
    pub ready_wait: Duration,
    /// Most attempts of one call, the first included.
    pub attempts_max: u32,
    /// Which calls may be repeated although an instance may have begun to work on them.
    pub idempotent: Idempotency,
    /// Most bytes of a request kept for a repetition. A longer request is sent once.
    pub replay_bytes_max: usize,
    /// When to stop calling an instance.
    pub breaker: breaker::Policy,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(5),
            ready_wait: Duration::from_secs(3),
            attempts_max: 3,
            idempotent: Idempotency::Reads,
            replay_bytes_max: 64 * 1024,
            breaker: breaker::Policy::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Idempotency;

    #[test]
    fn reads_are_told_by_the_method_not_by_the_service() {
        assert!(Idempotency::Reads.allows("/shop.product.v1.ProductService/GetProduct"));
        assert!(!Idempotency::Reads.allows("/shop.product.v1.GetService/CreateProduct"));
        assert!(!Idempotency::Never.allows("/shop.product.v1.ProductService/GetProduct"));
        assert!(Idempotency::All.allows("/shop.product.v1.ProductService/CreateProduct"));
    }
}
