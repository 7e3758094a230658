//! What belongs to a program: its group, and all it started that left the group.
//!
//! Membership is read from `/proc`. Where there is none (elsewhere than on Linux) only the group is known.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::time::Instant;

/// How long the system may take to remove what was killed.
const KILL_GRACE: Duration = Duration::from_secs(2);
/// How often it is looked at meanwhile.
const KILL_POLL: Duration = Duration::from_millis(5);

/// One process, as `/proc/<pid>/stat` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Member {
    pid: i32,
    parent: i32,
    group: i32,
    /// Ended, but not yet taken note of by its parent.
    is_zombie: bool,
}

/// Whether a process of the group runs. One that has ended but was not taken note of does not count.
pub(super) async fn is_alive(group: Pid) -> bool {
    // In most cases the group is empty, and one system call tells.
    if rustix::process::test_kill_process_group(group).is_err() {
        return false;
    }
    match members().await {
        Some(members) => members.iter().any(|member| member.group == group.as_raw_nonzero().get() && !member.is_zombie),
        None => true,
    }
}

/// Kills a program, its group, and all its descendants, wherever they went. The program must not have been waited for.
pub(super) async fn kill(leader: Pid) {
    let members = members().await.unwrap_or_default();
    let _ = rustix::process::kill_process_group(leader, Signal::KILL);
    for pid in descendants(&members, leader.as_raw_nonzero().get()) {
        if let Some(pid) = Pid::from_raw(pid) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}

/// Kills a group and waits until nothing of it runs.
pub(super) async fn kill_group(group: Pid) {
    let end = Instant::now() + KILL_GRACE;
    while is_alive(group).await {
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
        if Instant::now() > end {
            tracing::warn!(group = group.as_raw_nonzero().get(), "a process group is still there after SIGKILL");
            return;
        }
        tokio::time::sleep(KILL_POLL).await;
    }
}

fn descendants(members: &[Member], ancestor: i32) -> BTreeSet<i32> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for member in members {
        children.entry(member.parent).or_default().push(member.pid);
    }
    let mut found = BTreeSet::new();
    let mut next = vec![ancestor];
    while let Some(parent) = next.pop() {
        for child in children.get(&parent).into_iter().flatten() {
            if found.insert(*child) {
                next.push(*child);
            }
        }
    }
    found
}

async fn members() -> Option<Vec<Member>> {
    tokio::task::spawn_blocking(|| {
        let folder = std::fs::read_dir("/proc").ok()?;
        let stats = folder
            .flatten()
            .filter(|entry| entry.file_name().as_encoded_bytes().first().is_some_and(u8::is_ascii_digit));
        Some(
            stats
                .filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok())
                .filter_map(|stat| member(&stat))
                .collect(),
        )
    })
    .await
    .ok()
    .flatten()
}

/// Reads `pid (name) state parent group …`. The name may hold anything, parentheses included.
fn member(stat: &str) -> Option<Member> {
    let (head, rest) = stat.rsplit_once(')')?;
    let pid = head.split_once(' ')?.0.parse().ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    Some(Member { pid, parent, group, is_zombie: matches!(state, "Z" | "X") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let read = member("12 (a) b) (c) S 3 7 7 0 -1").unwrap();
        assert_eq!(read, Member { pid: 12, parent: 3, group: 7, is_zombie: false });
        assert!(member("12 (dead) Z 3 7 7").unwrap().is_zombie);
        assert_eq!(member("garbage"), None);
    }

    #[test]
    fn descendants_are_found_through_generations() {
        let process = |pid, parent| Member { pid, parent, group: pid, is_zombie: false };
        let members = [process(2, 1), process(3, 2), process(4, 3), process(5, 1)];
        assert_eq!(descendants(&members, 2), BTreeSet::from([3, 4]));
    }
}
