//! `ninefold trace ID --compare ID`: two traces beside each other, step by step.

use std::time::Duration;

use ninefold_proto::ninefold::monitor::v1::{CompareTracesRequest, CompareTracesResponse, StepTime, TraceSummary};

use super::{duration, millis};
use crate::client::Platform;
use crate::exit::Failure;
use crate::output::{self, Format, Table};

/// Prints what two traces have of each step.
pub(super) async fn compare(platform: &Platform, one: String, other: String, format: Format) -> Result<(), Failure> {
    let request = CompareTracesRequest { trace_id: one, other_trace_id: other };
    let answer = platform.search(platform.monitor().compare_traces(request)).await?;
    output::missing(&answer.missing_nodes);
    if answer.truncated {
        output::talk("the traces are larger than is compared; the latest is left out");
    }
    output::print(format, &output::json("ninefold.monitor.v1.CompareTracesResponse", &answer), || table(&answer))
}

fn table(answer: &CompareTracesResponse) -> String {
    let summary = |summary: &Option<TraceSummary>| {
        let summary = summary.clone().unwrap_or_default();
        format!("{}  {}  {} spans\n", summary.trace_id, millis(duration(summary.duration.as_ref())), summary.spans)
    };
    let mut table = Table::new(&["STEP", "SPANS", "DURATION", "OWN", "SPANS", "DURATION", "OWN", "CHANGE"]);
    for step in &answer.steps {
        let depth = usize::try_from(step.depth).unwrap_or(0).min(16);
        let (one, other) = (step.one.unwrap_or_default(), step.other.unwrap_or_default());
        let name = format!("{}{} {}", "  ".repeat(depth), step.service, step.name);
        table.row([name].into_iter().chain(cells(&one)).chain(cells(&other)).chain([change(&one, &other)]));
    }
    format!("{}{}\n{}", summary(&answer.one), summary(&answer.other), table.render())
}

fn cells(time: &StepTime) -> [String; 3] {
    if time.spans == 0 {
        return ["-", "-", "-"].map(str::to_owned);
    }
    let failed = if time.failed > 0 { format!(" ({} failed)", time.failed) } else { String::new() };
    let took = |time: Option<&prost_types::Duration>| millis(duration(time));
    [format!("{}{failed}", time.spans), took(time.duration.as_ref()), took(time.own_duration.as_ref())]
}

/// How much longer the other took, or which of the two has the step alone.
fn change(one: &StepTime, other: &StepTime) -> String {
    match (one.spans, other.spans) {
        (0, _) => "only the other".to_owned(),
        (_, 0) => "only the one".to_owned(),
        _ => {
            let took = |time: &StepTime| -> Duration { duration(time.duration.as_ref()) };
            format!("{:+.2} ms", (took(other).as_secs_f64() - took(one).as_secs_f64()) * 1e3)
        }
    }
}
