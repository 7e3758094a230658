//! Starts the processes of workloads on this machine.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ninefold::settings::duration;

use crate::Passes;
use crate::error::Error;
use crate::lines::{Discard, LineSink};
use crate::model::Workload;
use crate::process::{Process, Spawner, Spec};

/// How much longer than its program a runner may take to leave: it drains, stops the program, deregisters.
const RUNNER_MARGIN: Duration = Duration::from_secs(5);

/// Starts the processes of workloads.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) spawner: Spawner,
    /// What children show to the platform.
    pub(crate) passes: Arc<dyn Passes>,
    /// Given to every child.
    pub(crate) environment: BTreeMap<String, String>,
    /// Registers and drains programs that do not join by themselves.
    pub(crate) runner: PathBuf,
    pub(crate) logs: Arc<dyn LineSink>,
}

impl Driver {
    /// Starts an instance of a workload.
    pub(crate) async fn start(&self, workload: &Workload, instance_id: &str) -> Result<Process, Error> {
        let program = &workload.program;
        let (command, lines): (_, Arc<dyn LineSink>) = if program.joins {
            (program.command.clone(), self.logs.clone())
        } else {
            // The runner sends what its program prints; what it prints itself is that again.
            (self.run_by_runner(workload, instance_id), Arc::new(Discard))
        };
        let spec = Spec {
            service: workload.service.clone(),
            instance_id: instance_id.to_owned(),
            command,
            environment: self.environment(workload, instance_id),
            withheld: withheld(),
            working_directory: program.working_directory.clone(),
            grace: Self::grace(workload),
            delivers: true,
        };
        self.spawner.spawn(spec, lines).await
    }

    /// How long a process of the workload may take to leave.
    pub(crate) fn grace(workload: &Workload) -> Duration {
        workload.grace + if workload.program.joins { Duration::ZERO } else { RUNNER_MARGIN }
    }

    fn run_by_runner(&self, workload: &Workload, instance_id: &str) -> Vec<String> {
        let grace = duration::format(workload.grace);
        let runner = self.runner.to_string_lossy();
        let words =
            [&*runner, "run", "--name", &workload.service, "--instance-id", instance_id, "--grace", &grace, "--"];
        words.into_iter().map(str::to_owned).chain(workload.program.command.iter().cloned()).collect()
    }

    fn environment(&self, workload: &Workload, instance_id: &str) -> BTreeMap<String, String> {
        let mut environment = self.environment.clone();
        environment.extend(workload.program.environment.clone());
        environment.extend(self.passes.pass(&workload.service));
        let attributes = environment.remove("OTEL_RESOURCE_ATTRIBUTES").filter(|attributes| !attributes.is_empty());
        let attributes = attributes.map(|attributes| format!(",{attributes}")).unwrap_or_default();
        let identity = [
            ("NINEFOLD_SERVICE", workload.service.clone()),
            ("NINEFOLD_INSTANCE_ID", instance_id.to_owned()),
            ("OTEL_SERVICE_NAME", workload.service.clone()),
            ("OTEL_RESOURCE_ATTRIBUTES", format!("service.instance.id={instance_id}{attributes}")),
        ];
        environment.extend(identity.map(|(name, value)| (name.to_owned(), value)));
        environment
    }
}

/// The platform's own settings, which mean something else to a child: a service told to listen where the platform does
/// would not start.
fn withheld() -> Vec<String> {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    names.filter(|name| name.starts_with("NINEFOLD_") || name == "PORT").collect()
}
