//! Hands what children print to the monitor.

use ninefold_control::lines::{Line, LineSink, Output};
use ninefold_monitor::{Copies, Printed, Stream};

/// The monitor's end of the children's output.
#[derive(Clone, Debug)]
pub(super) struct ToMonitor(pub(super) ninefold_monitor::LineSink);

impl LineSink for ToMonitor {
    fn line(&self, line: Line<'_>) {
        self.0.append(Printed {
            service: line.service.to_owned(),
            instance_id: line.instance_id.to_owned(),
            stream: match line.output {
                Output::Stdout => Stream::Stdout,
                Output::Stderr => Stream::Stderr,
            },
            copies: if line.delivers { Copies::OfSdk } else { Copies::Never },
            text: line.text.to_owned(),
            time: line.time,
        });
    }
}
