//! What the machine of a node has and uses: processors, memory, disks, network, and the room where its data lies. From `/proc`;
//! elsewhere, nothing but the room.

use std::path::PathBuf;

use ninefold::telemetry::{Measure, Measured, measure};

/// Ticks of the processors are told in this part of a second.
fn ticks_per_second() -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "ticks in a second are few")]
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    ticks.max(1.0)
}

/// Begins to measure the machine, and the room of the file system where the node's data lies.
pub(crate) fn watch(data: PathBuf) {
    let from = |path: &'static str, read: fn(&str) -> Vec<Measured>| {
        move || std::fs::read_to_string(path).map(|told| read(&told)).unwrap_or_default()
    };
    measure(
        "system_cpu_time_seconds_total",
        "Time of all processors of the machine, by what it was spent on",
        Measure::Total,
        from("/proc/stat", processors),
    );
    measure(
        "system_load_1m",
        "Tasks that run or wait to, averaged over a minute",
        Measure::State,
        from("/proc/loadavg", load),
    );
    measure(
        "system_memory_usage_bytes",
        "Memory of the machine, by its state",
        Measure::State,
        from("/proc/meminfo", memory),
    );
    measure(
        "system_memory_limit_bytes",
        "Memory that the machine has",
        Measure::State,
        from("/proc/meminfo", all_memory),
    );
    measure(
        "system_disk_io_bytes_total",
        "Bytes read from and written to disks of the machine",
        Measure::Total,
        from("/proc/diskstats", disks),
    );
    measure(
        "system_network_io_bytes_total",
        "Bytes received and sent by the machine, but for the loopback",
        Measure::Total,
        from("/proc/net/dev", network),
    );
    let room = move |pick: fn(&rustix::fs::StatVfs) -> u64| {
        let data = data.clone();
        move || {
            rustix::fs::statvfs(&data)
                .map(|told| vec![(vec![("of", "data".to_owned())], float(pick(&told)))])
                .unwrap_or_default()
        }
    };
    measure(
        "system_filesystem_usage_bytes",
        "Bytes that are taken of the file system where the node's data lies",
        Measure::State,
        room(|told| told.f_frsize.saturating_mul(told.f_blocks.saturating_sub(told.f_bavail))),
    );
    measure(
        "system_filesystem_limit_bytes",
        "Bytes of the file system where the node's data lies",
        Measure::State,
        room(|told| told.f_frsize.saturating_mul(told.f_blocks)),
    );
}

#[expect(clippy::cast_precision_loss, reason = "metrics know no other numbers")]
fn float(value: u64) -> f64 {
    value as f64
}

fn processors(told: &str) -> Vec<Measured> {
    let Some(line) = told.lines().find_map(|line| line.strip_prefix("cpu ")) else { return Vec::new() };
    let ticks = line.split_whitespace().map_while(|field| field.parse::<f64>().ok());
    let modes = ["user", "nice", "system", "idle", "iowait", "interrupt", "softirq", "steal"];
    modes
        .iter()
        .zip(ticks)
        .map(|(mode, ticks)| (vec![("mode", (*mode).to_owned())], ticks / ticks_per_second()))
        .collect()
}

fn load(told: &str) -> Vec<Measured> {
    told.split_whitespace().next().and_then(|one| one.parse().ok()).map(|load| (Vec::new(), load)).into_iter().collect()
}

fn field(told: &str, name: &str) -> Option<f64> {
    let line = told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse::<f64>().ok().map(|kib| kib * 1024.0)
}

fn memory(told: &str) -> Vec<Measured> {
    let (Some(all), Some(available), Some(free)) =
        (field(told, "MemTotal"), field(told, "MemAvailable"), field(told, "MemFree"))
    else {
        return Vec::new();
    };
    let states = [("used", all - available), ("free", free), ("cached", (available - free).max(0.0))];
    states.map(|(state, bytes)| (vec![("state", state.to_owned())], bytes)).into()
}

fn all_memory(told: &str) -> Vec<Measured> {
    field(told, "MemTotal").map(|bytes| (Vec::new(), bytes)).into_iter().collect()
}

/// Sectors of `/proc/diskstats` have 512 bytes, whatever the disk says.
const SECTOR_BYTES: u64 = 512;

fn disks(told: &str) -> Vec<Measured> {
    let (mut read, mut written) = (0_u64, 0_u64);
    for line in told.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or_default();
        // Parts of disks, and what is made of disks, would count twice.
        let name = fields.get(2).copied().unwrap_or_default();
        let is_whole = !["loop", "ram", "dm-", "md", "zram"].iter().any(|made| name.starts_with(made))
            && std::path::Path::new("/sys/block").join(name).exists();
        if is_whole {
            read += number(5) * SECTOR_BYTES;
            written += number(9) * SECTOR_BYTES;
        }
    }
    directed([("read", read), ("write", written)])
}

fn network(told: &str) -> Vec<Measured> {
    let (mut received, mut sent) = (0_u64, 0_u64);
    for line in told.lines() {
        let Some((device, rest)) = line.split_once(':').filter(|(device, _)| device.trim() != "lo") else { continue };
        let _ = device;
        let fields: Vec<u64> = rest.split_whitespace().filter_map(|field| field.parse().ok()).collect();
        received += fields.first().copied().unwrap_or_default();
        sent += fields.get(8).copied().unwrap_or_default();
    }
    directed([("receive", received), ("transmit", sent)])
}

fn directed(all: [(&str, u64); 2]) -> Vec<Measured> {
    all.map(|(direction, bytes)| (vec![("direction", direction.to_owned())], float(bytes))).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proc_tells_is_read() {
        let user = processors("cpu  200 0 100 700 0 0 0 0 0 0\ncpu0 1 1\n");
        assert_eq!(user.first(), Some(&(vec![("mode", "user".to_owned())], 200.0 / ticks_per_second())));
        let told = memory("MemTotal: 100 kB\nMemFree: 10 kB\nMemAvailable: 30 kB\n");
        assert_eq!(told.iter().map(|(_, bytes)| *bytes / 1024.0).collect::<Vec<_>>(), [70.0, 10.0, 20.0]);
        assert_eq!(load("0.50 0.1 0.1 1/2 3"), [(Vec::new(), 0.5)]);
        let told = network("a|b\n lo: 9 0 0 0 0 0 0 0 9\n eth0: 5 0 0 0 0 0 0 0 7 0\n");
        assert_eq!(told.iter().map(|(_, bytes)| *bytes).collect::<Vec<_>>(), [5.0, 7.0]);
    }
}
