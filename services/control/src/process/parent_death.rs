//! The signal that Linux sends to a child when its parent dies.
#![cfg_attr(
    target_os = "linux",
    expect(unsafe_code, reason = "no safe crate lets a child call prctl between fork and exec; the proof is below")
)]

use tokio::process::Command;

/// Has the child get SIGTERM when the thread that starts it ends, and not run at all if that is already so. Elsewhere
/// than on Linux there is no such signal, and nothing is done.
pub(super) fn arm(command: &mut Command) {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

        let parent = getpid();
        let arm = move || {
            set_parent_process_death_signal(Some(Signal::TERM))?;
            // The parent may have died before the signal was armed; nothing would ever come then.
            if getppid() == Some(parent) { Ok(()) } else { Err(std::io::ErrorKind::NotConnected.into()) }
        };
        // SAFETY: the closure runs in the forked child, where only async-signal-safe calls are allowed, because another
        // thread may have held any lock at the fork. It makes two plain system calls, touches no memory but its own
        // captured copy of a process id, and allocates nothing: both error conversions only store a number.
        unsafe { command.pre_exec(arm) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = command;
}
