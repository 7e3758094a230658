//! Reads what `/proc` and the control group tell of a process and its machine. Pure, but for reading files.

use std::path::Path;

/// Where control groups are.
const CONTROL_GROUPS: &str = "/sys/fs/cgroup";

/// A file, if it can be read.
pub(super) fn read(path: impl AsRef<Path>) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// Most open files, by `/proc/self/limits`.
pub(super) fn files_max(limits: &str) -> Option<i64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Most memory, in bytes: the least of what the control groups allow, or what the machine has.
pub(super) fn memory_max() -> Option<i64> {
    let group = read("/proc/self/cgroup");
    let group = group.as_deref().and_then(|groups| groups.lines().find_map(|line| line.strip_prefix("0::")));
    let path = format!("{CONTROL_GROUPS}{}", group.unwrap_or("/"));
    // What a group above allows binds too.
    let above = Path::new(&path).ancestors().take_while(|folder| folder.starts_with(CONTROL_GROUPS));
    let allowed = above.filter_map(|folder| read(folder.join("memory.max"))?.trim().parse().ok()).min();
    allowed.or_else(|| memory_total(&read("/proc/meminfo")?))
}

fn memory_total(told: &str) -> Option<i64> {
    let line = told.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<i64>().ok()?.checked_mul(1024)
}

/// Bytes read from and written to disks, by `/proc/self/io`.
pub(super) fn disk_io(told: &str) -> Option<[(&'static str, u64); 2]> {
    let of = |name: &str| told.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    Some([("read", of("read_bytes:")?), ("write", of("write_bytes:")?)])
}

/// Bytes received and sent, by `/proc/self/net/dev`, but for the loopback.
pub(super) fn network_io(told: &str) -> [(&'static str, u64); 2] {
    let mut sums = [("receive", 0_u64), ("transmit", 0)];
    for line in told.lines() {
        let Some((device, rest)) = line.split_once(':') else { continue };
        if device.trim() == "lo" {
            continue;
        }
        let fields: Vec<u64> = rest.split_whitespace().filter_map(|field| field.parse().ok()).collect();
        sums[0].1 += fields.first().copied().unwrap_or_default();
        sums[1].1 += fields.get(8).copied().unwrap_or_default();
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proc_tells_is_read() {
        let limits =
            "Limit Soft Hard Units\nMax open files            1024                 4096                 files \n";
        assert_eq!(files_max(limits), Some(1024));
        assert_eq!(memory_total("MemTotal:        1024 kB\nMemFree: 1 kB\n"), Some(1024 * 1024));
        let io = "rchar: 9\nread_bytes: 4096\nwrite_bytes: 512\n";
        assert_eq!(disk_io(io), Some([("read", 4096), ("write", 512)]));
        let net = " face |bytes\n lo: 9 1 0 0 0 0 0 0 9 1\n eth0: 100 1 0 0 0 0 0 0 200 1 0\n";
        assert_eq!(network_io(net), [("receive", 100), ("transmit", 200)]);
    }
}
