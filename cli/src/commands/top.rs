//! `ninefold top`: services and instances, how they are called and what they use, drawn again and again.

mod facts;

use std::cmp::Ordering;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::client::Platform;
use crate::commands::ps::{self, View};
use crate::exit::Failure;
use crate::output::{self, Format, Table};
use facts::{Calls, Facts, Uses};

/// Another screen, without a cursor; and the old one again.
const OPEN: &str = "\x1b[?1049h\x1b[?25l";
const CLOSE: &str = "\x1b[?25h\x1b[?1049l";
/// Rows and columns where nobody tells.
const SCREEN: (usize, usize) = (24, 80);

/// What `top` takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct TopArgs {
    /// Only this service.
    #[arg(default_value = "")]
    service: String,
    /// What is on top.
    #[arg(short, long, value_enum, default_value_t = Sort::Cpu)]
    sort: Sort,
    /// Draw once and end, as it is done where the output is no terminal.
    #[arg(long)]
    once: bool,
    /// How often it is drawn.
    #[arg(long, default_value = "2s", value_parser = ninefold::settings::duration::parse)]
    every: Duration,
}

/// By what rows are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Sort {
    /// By name.
    Name,
    /// Most processor time first.
    Cpu,
    /// Most memory first.
    Memory,
    /// Most calls first.
    Calls,
    /// Most failed calls first.
    Errors,
    /// Slowest first.
    Latency,
}

impl Sort {
    fn order(self, one: &Row, other: &Row) -> Ordering {
        let more = |of: fn(&Row) -> Option<f64>| of(other).unwrap_or(-1.0).total_cmp(&of(one).unwrap_or(-1.0));
        let first = match self {
            Self::Name => Ordering::Equal,
            Self::Cpu => more(|row| row.uses.cpu_cores),
            Self::Memory => more(|row| row.uses.memory_bytes),
            Self::Calls => more(|row| row.calls.rate),
            Self::Errors => more(|row| row.calls.failing),
            Self::Latency => more(|row| row.calls.p95_seconds),
        };
        first.then_with(|| one.name.cmp(&other.name))
    }
}

/// A service, or an instance.
#[derive(Clone, Debug, Default)]
struct Row {
    name: String,
    state: String,
    age: String,
    calls: Calls,
    uses: Uses,
}

impl Row {
    fn json(&self, key: &str) -> Value {
        json!({
            key: self.name, "state": self.state,
            "callsPerSecond": self.calls.rate, "failingPerSecond": self.calls.failing,
            "p50Seconds": self.calls.p50_seconds, "p95Seconds": self.calls.p95_seconds,
            "cpuCores": self.uses.cpu_cores, "memoryBytes": self.uses.memory_bytes,
            "openFiles": self.uses.open_files, "threads": self.uses.threads, "inFlight": self.uses.in_flight,
        })
    }

    fn cells(&self) -> Vec<String> {
        let told = |value: Option<f64>, show: fn(f64) -> String| value.map_or_else(|| "-".to_owned(), show);
        let share = match (self.calls.rate, self.calls.failing) {
            (Some(rate), Some(failing)) if rate > 0.0 => format!("{:.1}%", failing / rate * 100.0),
            _ => "-".to_owned(),
        };
        vec![
            self.name.clone(),
            self.state.clone(),
            told(self.calls.rate, |rate| format!("{rate:.1}")),
            share,
            told(self.calls.p50_seconds, millis),
            told(self.calls.p95_seconds, millis),
            told(self.uses.in_flight, whole),
            told(self.uses.cpu_cores, |cores| format!("{:.1}%", cores * 100.0)),
            told(self.uses.memory_bytes, |bytes| format!("{:.0} MiB", bytes / 1_048_576.0)),
            told(self.uses.open_files, whole),
            told(self.uses.threads, whole),
            self.age.clone(),
        ]
    }
}

fn whole(number: f64) -> String {
    format!("{number:.0}")
}

fn millis(seconds: f64) -> String {
    format!("{:.1} ms", seconds * 1e3)
}

/// What is drawn.
#[derive(Clone, Debug, Default)]
struct Frame {
    services: Vec<Row>,
    instances: Vec<Row>,
}

impl Frame {
    async fn of(platform: &Platform, args: &TopArgs) -> Result<Self, Failure> {
        let (view, facts) = futures_util::future::join(View::of(platform, &args.service), Facts::of(platform)).await;
        let (view, facts) = (view?, facts?);
        let mut frame = Self { services: services(&view, &facts), instances: instances(&view, &facts) };
        frame.services.sort_by(|one, other| args.sort.order(one, other));
        frame.instances.sort_by(|one, other| args.sort.order(one, other));
        Ok(frame)
    }

    fn json(&self) -> Value {
        let all = |rows: &[Row], key: &str| rows.iter().map(|row| row.json(key)).collect::<Vec<_>>();
        json!({ "services": all(&self.services, "service"), "instances": all(&self.instances, "instanceId") })
    }

    fn text(&self) -> String {
        let table = |name: &str, state: &str, rows: &[Row]| {
            let head = ["CALLS/S", "ERRORS", "P50", "P95", "IN WORK", "CPU", "MEMORY", "FILES", "THREADS", "AGE"];
            let mut table = Table::new(&[&[name, state], &head[..]].concat());
            rows.iter().for_each(|row| table.row(row.cells()));
            table.render()
        };
        let services = table("SERVICE", "SERVING", &self.services);
        let instances = table("INSTANCE", "STATE", &self.instances);
        if services.is_empty() && instances.is_empty() {
            return "no instances yet\n".to_owned();
        }
        format!("{services}\n{instances}")
    }
}

fn instances(view: &View, facts: &Facts) -> Vec<Row> {
    let row = |instance: &ninefold_proto::ninefold::registry::v1::Instance| Row {
        name: instance.instance_id.clone(),
        state: ps::state(instance),
        age: output::ago(instance.start_time.as_ref()),
        calls: facts.calls_of(&instance.service, &instance.instance_id),
        uses: facts.uses_of(&instance.service, &instance.instance_id),
    };
    view.instances.iter().map(row).collect()
}

fn services(view: &View, facts: &Facts) -> Vec<Row> {
    let mut names: Vec<&str> = view.instances.iter().map(|instance| instance.service.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let row = |name: &str| {
        let own: Vec<_> = view.instances.iter().filter(|instance| instance.service == name).collect();
        let serving = own.iter().filter(|instance| ps::state(instance) == "serving").count();
        let uses = own.iter().map(|instance| facts.uses_of(name, &instance.instance_id));
        Row {
            name: name.to_owned(),
            state: format!("{serving}/{}", own.len()),
            age: "-".to_owned(),
            calls: facts.calls_of_service(name),
            uses: uses.fold(Uses::default(), Uses::and),
        }
    };
    names.into_iter().map(row).collect()
}

/// Draws until it is told to end.
pub(crate) async fn top(platform: &Platform, args: TopArgs, format: Format) -> Result<(), Failure> {
    if args.once || format != Format::Table || !std::io::stdout().is_terminal() {
        let frame = Frame::of(platform, &args).await?;
        return output::print(format, &frame.json(), || frame.text());
    }
    let screen = Screen::open();
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    let mut tick = tokio::time::interval(args.every.max(Duration::from_millis(100)));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last = Frame::default();
    loop {
        let drawn = async {
            tick.tick().await;
            Frame::of(platform, &args).await
        };
        let problem = tokio::select! {
            _ = &mut interrupt => return Ok(()),
            drawn = drawn => match drawn {
                Ok(frame) => {
                    last = frame;
                    String::new()
                }
                // What was last seen stays, under a line that says why.
                Err(failure) => format!("  {failure}"),
            },
        };
        let head = format!("{}  {}  by {:?}, ends at Ctrl-C{problem}", platform.endpoint(), clock(), args.sort);
        screen.draw(&format!("{}\n\n{}", head.lines().next().unwrap_or_default(), last.text()))?;
    }
}

fn clock() -> String {
    output::clock(Some(&std::time::SystemTime::now().into())).split('.').next().unwrap_or_default().to_owned()
}

/// The terminal, while it is drawn on.
struct Screen;

impl Screen {
    fn open() -> Self {
        let _ = write!(std::io::stdout(), "{OPEN}");
        Self
    }

    /// Draws what fits; lines are written over what was there, so that nothing flickers.
    fn draw(&self, text: &str) -> Result<(), Failure> {
        let size = terminal_size::terminal_size();
        let (rows, columns) = size.map_or(SCREEN, |(width, height)| (usize::from(height.0), usize::from(width.0)));
        let mut frame = String::from("\x1b[H");
        for line in text.lines().take(rows.saturating_sub(1)) {
            frame.extend(output::tame(line).chars().take(columns));
            frame.push_str("\x1b[K\n");
        }
        frame.push_str("\x1b[J");
        let mut out = std::io::stdout().lock();
        out.write_all(frame.as_bytes()).and_then(|()| out.flush()).map_err(|_| Failure::ReaderGone)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let mut out = std::io::stdout().lock();
        let _ = write!(out, "{CLOSE}").and_then(|()| out.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_is_on_top_and_what_nobody_measures_is_at_the_bottom() {
        let row = |name: &str, cpu: Option<f64>| Row {
            name: name.to_owned(),
            uses: Uses { cpu_cores: cpu, ..Uses::default() },
            ..Row::default()
        };
        let mut rows = [row("a", None), row("b", Some(0.1)), row("d", Some(0.5)), row("c", Some(0.5))];
        rows.sort_by(|one, other| Sort::Cpu.order(one, other));
        assert_eq!(rows.map(|row| row.name), ["c", "d", "b", "a"]);
    }
}
