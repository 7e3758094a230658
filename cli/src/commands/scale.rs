//! `ninefold scale`: how many instances are to run.

use std::time::Duration;

use ninefold_proto::ninefold::control::v1::{GetWorkloadRequest, ScaleWorkloadRequest, SlotState};

use crate::client::Platform;
use crate::exit::Failure;
use crate::output::{self, Format};

/// How long to wait until as many run as are wanted.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// How often to look.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Changes the wish, and waits until it is met unless told otherwise.
pub(crate) async fn scale(
    platform: &Platform,
    service: &str,
    instances: u32,
    no_wait: bool,
    format: Format,
) -> Result<(), Failure> {
    let mut control = platform.control();
    let request = ScaleWorkloadRequest { service: service.to_owned(), instances };
    let workload = platform.ask(control.scale_workload(request)).await?.workload.unwrap_or_default();
    if !no_wait {
        let met = tokio::time::timeout(WAIT_MAX, until_met(platform, service, instances)).await;
        met.map_err(|_| {
            Failure::Unhealthy(format!(
                "{service} does not run {instances} times after 60 s; `ninefold why {service}` tells why"
            ))
        })??;
    }
    output::print(format, &output::json("ninefold.control.v1.Workload", &workload), || {
        format!("{service} runs {} time{}", instances, if instances == 1 { "" } else { "s" })
    })
}

async fn until_met(platform: &Platform, service: &str, instances: u32) -> Result<(), Failure> {
    let mut control = platform.control();
    loop {
        let request = GetWorkloadRequest { service: service.to_owned() };
        let status = platform.ask(control.get_workload(request)).await?.status.unwrap_or_default();
        let running = status.slots.iter().filter(|slot| slot.state() == SlotState::Running).count();
        if running == status.slots.len() && u32::try_from(running) == Ok(instances) {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
