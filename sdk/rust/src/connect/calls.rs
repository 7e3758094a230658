//! Counts which methods are called, for the platform: whoever wants to take a method away asks who still calls it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ninefold_proto::ninefold::contract::v1::package_service_client::PackageServiceClient;
use ninefold_proto::ninefold::contract::v1::{CallCount, ReportCallsRequest};
use tonic::Request;

use crate::connect::Discovery;
use crate::lifecycle::Stop;
use crate::link::Link;

/// Most methods that are counted between two reports; calls of others are left out. What the platform takes in one report.
const METHODS_MAX: usize = 1000;
/// How often counts are told.
const REPORT_EVERY: Duration = Duration::from_secs(5);
/// How long the platform may take to hear them.
const HEARD_WITHIN: Duration = Duration::from_secs(2);

/// How often each method was called, by path. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Calls(Arc<Mutex<HashMap<String, i64>>>);

impl Calls {
    /// Counts a call of `/package.Service/Method`.
    pub(crate) fn note(&self, path: &str) {
        self.add(path, 1);
    }

    fn add(&self, path: &str, count: i64) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = counts.get_mut(path) {
            *known = known.saturating_add(count);
        } else if counts.len() < METHODS_MAX {
            counts.insert(path.to_owned(), count);
        }
    }

    fn take(&self) -> HashMap<String, i64> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Tells the platform now and then which methods the channels of `discovery` called, in the name of `service`, until it is
/// asked to stop, and once more then. What cannot be told is told the next time; an older platform is not told again.
pub async fn report_calls(discovery: Discovery, platform: Link, service: String, stop: Stop) {
    let calls = discovery.calls();
    let mut client = PackageServiceClient::new(platform);
    loop {
        let is_last = tokio::select! {
            () = stop.asked() => true,
            () = tokio::time::sleep(REPORT_EVERY) => false,
        };
        let counts = calls.take();
        if !counts.is_empty() {
            let told = counts.iter().map(|(path, calls)| CallCount { method: name(path), calls: *calls }).collect();
            let mut request = Request::new(ReportCallsRequest { service: service.clone(), counts: told });
            request.set_timeout(HEARD_WITHIN);
            match client.report_calls(request).await {
                Ok(_) => {}
                Err(status) if status.code() == tonic::Code::Unimplemented => return,
                Err(_) => counts.iter().for_each(|(path, count)| calls.add(path, *count)),
            }
        }
        if is_last {
            return;
        }
    }
}

/// The full name of a method, from its path.
fn name(path: &str) -> String {
    path.trim_start_matches('/').replace('/', ".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_method_and_bounded() {
        let calls = Calls::default();
        (0..3).for_each(|_| calls.note("/shop.v1.Shop/Get"));
        (0..2 * METHODS_MAX).for_each(|number| calls.note(&format!("/shop.v1.Shop/Get{number}")));
        let counts = calls.take();
        assert_eq!((counts.len(), counts["/shop.v1.Shop/Get"]), (METHODS_MAX, 3));
        assert!(calls.take().is_empty());
        assert_eq!(name("/shop.v1.Shop/Get"), "shop.v1.Shop.Get");
    }
}
