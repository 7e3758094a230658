//! What a program and all in its process group use of the machine, from `/proc`. Elsewhere than on Linux: nothing.

use std::collections::BTreeMap;

/// Use of a process group, followed from look to look.
#[derive(Debug)]
pub(super) struct Group {
    group: i32,
    /// Processor time of each process when it was last seen, in ticks.
    ticks: BTreeMap<i32, u64>,
    /// Processor time of all, those that have ended included, in ticks.
    total: u64,
}

/// What a group uses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Usage {
    /// Processor time since the beginning, in seconds.
    pub(super) cpu_seconds: f64,
    pub(super) memory_bytes: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Member {
    pid: i32,
    group: i32,
    ticks: u64,
    pages: u64,
}

impl Group {
    pub(super) fn new(pid: u32) -> Self {
        Self { group: i32::try_from(pid).unwrap_or_default(), ticks: BTreeMap::new(), total: 0 }
    }

    /// Looks at the group now. Reads `/proc` and must not be called where blocking for milliseconds hurts.
    pub(super) fn look(&mut self) -> Option<Usage> {
        let stats = std::fs::read_dir("/proc").ok()?.flatten();
        let stats = stats.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
        let members: Vec<_> =
            stats.filter_map(|stat| member(&stat)).filter(|member| member.group == self.group).collect();
        if members.is_empty() {
            return None;
        }
        self.take_in(&members);
        let pages: u64 = members.iter().map(|member| member.pages).sum();
        #[expect(clippy::cast_precision_loss, reason = "a program does not run for 2^53 ticks")]
        let cpu_seconds = self.total as f64 / rustix::param::clock_ticks_per_second() as f64;
        let page_bytes = u64::try_from(rustix::param::page_size()).ok()?;
        Some(Usage { cpu_seconds, memory_bytes: i64::try_from(pages.checked_mul(page_bytes)?).ok()? })
    }

    fn take_in(&mut self, members: &[Member]) {
        for member in members {
            let before = self.ticks.get(&member.pid).copied().unwrap_or_default();
            self.total += member.ticks.saturating_sub(before);
        }
        self.ticks = members.iter().map(|member| (member.pid, member.ticks)).collect();
    }
}

/// Reads the fields of `/proc/<pid>/stat` as proc(5) numbers them.
fn member(stat: &str) -> Option<Member> {
    // The name in parentheses may hold anything; the fields go on after the last one, with number 3.
    let (head, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3);
    Some(Member {
        pid: head.split_once(' ')?.0.parse().ok()?,
        group: field(5)?.parse().ok()?,
        ticks: field(14)?.parse::<u64>().ok()?.checked_add(field(15)?.parse().ok()?)?,
        pages: field(24)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_those_that_ended_is_kept() {
        let process = |pid, ticks| Member { pid, group: 1, ticks, pages: 1 };
        let mut group = Group::new(1);
        group.take_in(&[process(1, 10), process(2, 5)]);
        group.take_in(&[process(1, 12)]);
        group.take_in(&[process(1, 12), process(3, 4)]);
        assert_eq!(group.total, 21);
    }

    #[test]
    fn this_process_is_found() {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let me = member(&stat).unwrap();
        assert_eq!(u32::try_from(me.pid), Ok(std::process::id()));
        assert!(me.pages > 0);
        let mut group = Group::new(u32::try_from(me.group).unwrap());
        assert!(group.look().unwrap().memory_bytes > 0);
    }
}
