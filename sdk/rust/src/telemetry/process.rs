//! Measures the process itself: time on the processor, memory, threads, open files. From `/proc`; elsewhere, nothing.

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;

use super::machine;

/// What `/proc/self` tells.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Usage {
    cpu_seconds: f64,
    memory_bytes: i64,
    threads: i64,
}

/// Registers the measurements. They are taken whenever measurements leave.
pub(super) fn measure(meter: &Meter) {
    meter
        .f64_observable_counter("process.cpu.time")
        .with_description("Time spent on the processor, by user and system together")
        .with_unit("s")
        .with_callback(|meter| {
            if let Some(usage) = usage() {
                meter.observe(usage.cpu_seconds, &[]);
            }
        })
        .build();
    meter
        .i64_observable_up_down_counter("process.memory.usage")
        .with_description("Memory that is resident")
        .with_unit("By")
        .with_callback(|meter| {
            if let Some(usage) = usage() {
                meter.observe(usage.memory_bytes, &[]);
            }
        })
        .build();
    meter
        .i64_observable_up_down_counter("process.thread.count")
        .with_description("Threads")
        .with_unit("{thread}")
        .with_callback(|meter| {
            if let Some(usage) = usage() {
                meter.observe(usage.threads, &[]);
            }
        })
        .build();
    meter
        .i64_observable_up_down_counter("process.unix.file_descriptor.count")
        .with_description("Open files")
        .with_unit("{file_descriptor}")
        .with_callback(|meter| {
            if let Some(open) =
                std::fs::read_dir("/proc/self/fd").ok().and_then(|files| i64::try_from(files.count()).ok())
            {
                meter.observe(open, &[]);
            }
        })
        .build();
    measure_limits(meter);
    measure_transfer(meter);
    measure_runtime(meter);
}

/// What the process may grow to.
fn measure_limits(meter: &Meter) {
    meter
        .i64_observable_up_down_counter("process.unix.file_descriptor.limit")
        .with_description("Most open files")
        .with_unit("{file_descriptor}")
        .with_callback(|meter| {
            if let Some(most) = machine::read("/proc/self/limits").as_deref().and_then(machine::files_max) {
                meter.observe(most, &[]);
            }
        })
        .build();
    meter
        .i64_observable_up_down_counter("process.memory.limit")
        .with_description("Most memory: what the control group allows, or what the machine has")
        .with_unit("By")
        .with_callback(|meter| {
            if let Some(most) = machine::memory_max() {
                meter.observe(most, &[]);
            }
        })
        .build();
}

/// What the process reads and writes.
fn measure_transfer(meter: &Meter) {
    meter
        .u64_observable_counter("process.disk.io")
        .with_description("Bytes read from and written to disks")
        .with_unit("By")
        .with_callback(|meter| {
            let told = machine::read("/proc/self/io").as_deref().and_then(machine::disk_io);
            for (direction, bytes) in told.into_iter().flatten() {
                meter.observe(bytes, &[KeyValue::new("disk.io.direction", direction)]);
            }
        })
        .build();
    meter
        .u64_observable_counter("process.network.io")
        .with_description("Bytes received and sent in the network namespace of the process, but for the loopback")
        .with_unit("By")
        .with_callback(|meter| {
            let told = machine::read("/proc/self/net/dev");
            for (direction, bytes) in told.as_deref().into_iter().flat_map(machine::network_io) {
                meter.observe(bytes, &[KeyValue::new("network.io.direction", direction)]);
            }
        })
        .build();
}

/// What the runtime has to do, where telemetry is started within one.
fn measure_runtime(meter: &Meter) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    let gauge = |name: &'static str, about: &'static str, look: fn(&tokio::runtime::RuntimeMetrics) -> usize| {
        let runtime = runtime.clone();
        meter
            .u64_observable_gauge(name)
            .with_description(about)
            .with_callback(move |meter| meter.observe(look(&runtime.metrics()) as u64, &[]))
            .build();
    };
    gauge("ninefold_runtime_workers", "Threads that run tasks", |runtime| runtime.num_workers());
    gauge("ninefold_runtime_tasks", "Tasks that are not over", |runtime| runtime.num_alive_tasks());
    gauge("ninefold_runtime_queued", "Tasks that wait for any thread", |runtime| runtime.global_queue_depth());
}

/// Seconds that this process has spent on the processors. `None` where nothing tells.
pub(crate) fn cpu_seconds() -> Option<f64> {
    usage().map(|usage| usage.cpu_seconds)
}

fn usage() -> Option<Usage> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    #[expect(clippy::cast_precision_loss, reason = "ticks in a second are few")]
    let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
    parse(&text, ticks_per_second, i64::try_from(rustix::param::page_size()).ok()?)
}

/// Reads the fields of `/proc/self/stat` as proc(5) numbers them.
fn parse(stat: &str, ticks_per_second: f64, page_bytes: i64) -> Option<Usage> {
    // The name in parentheses may hold spaces and parentheses; the fields go on after the last one, with number 3.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3);
    let ticks: f64 = field(14)?.parse::<f64>().ok()? + field(15)?.parse::<f64>().ok()?;
    Some(Usage {
        cpu_seconds: ticks / ticks_per_second,
        threads: field(20)?.parse().ok()?,
        memory_bytes: field(24)?.parse::<i64>().ok()?.checked_mul(page_bytes)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 4 0 100 1000 25 18446744073709551615";
        let usage = parse(stat, 100.0, 4096);
        assert_eq!(usage, Some(Usage { cpu_seconds: 2.0, memory_bytes: 102_400, threads: 4 }));
    }
}
