//! Between the contract's messages and the model, both ways.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ninefold::fault::Violation;
use ninefold_proto::ninefold::control::v1 as proto;

use crate::error::Error;
use crate::model::{GRACE_DEFAULT, GRACE_MAX, INSTANCES_MAX, Phase, Program, Slot, Workload};

/// Longest name of a service.
const NAME_CHARS_MAX: usize = 63;
/// Most words of a command.
const COMMAND_WORDS_MAX: usize = 256;
/// Most variables of a workload.
const VARIABLES_MAX: usize = 256;
/// Most bytes of a command and its variables together; systems refuse more at about 128 KiB a word.
const PROGRAM_BYTES_MAX: usize = 64 * 1024;

/// Reads a workload that a caller sent.
pub(crate) fn workload(sent: &proto::Workload) -> Result<Workload, Error> {
    let mut wrong = Vec::new();
    name(&sent.service, "workload.service", &mut wrong);
    instances(sent.instances, "workload.instances", &mut wrong);
    command(&sent.command, &mut wrong);
    environment(sent, &mut wrong);
    if sent.working_directory.contains('\0') {
        wrong.push(Violation::new("workload.working_directory", "must not hold a zero character"));
    }
    let program_bytes: usize = sent.command.iter().map(String::len).sum::<usize>()
        + sent.environment.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
    if program_bytes > PROGRAM_BYTES_MAX {
        let text = format!("and environment must have at most {PROGRAM_BYTES_MAX} bytes together, not {program_bytes}");
        wrong.push(Violation::new("workload.command", text));
    }
    let grace = match sent.grace.map(Duration::try_from) {
        None => GRACE_DEFAULT,
        Some(Ok(grace)) if grace <= GRACE_MAX => grace,
        Some(_) => {
            wrong.push(Violation::new("workload.grace", "must be between 0 s and 10 min"));
            GRACE_DEFAULT
        }
    };
    if !wrong.is_empty() {
        return Err(Error::Invalid { service: sent.service.clone(), violations: wrong });
    }
    let folder = Some(&sent.working_directory).filter(|folder| !folder.is_empty());
    let program = Program {
        command: sent.command.clone(),
        environment: sent.environment.clone().into_iter().collect::<BTreeMap<_, _>>(),
        working_directory: folder.map(PathBuf::from),
        joins: sent.joins,
    };
    Ok(Workload {
        service: sent.service.clone(),
        instances: sent.instances,
        program: Arc::new(program),
        grace,
        revision: sent.revision,
    })
}

/// Checks the number of a request to scale.
pub(crate) fn scale(request: &proto::ScaleWorkloadRequest) -> Result<(), Error> {
    let mut wrong = Vec::new();
    instances(request.instances, "instances", &mut wrong);
    if wrong.is_empty() { Ok(()) } else { Err(Error::Invalid { service: request.service.clone(), violations: wrong }) }
}

/// Checks an expected revision.
pub(crate) fn expected(request: &proto::PutWorkloadRequest) -> Result<Option<i64>, Error> {
    match request.expected_revision {
        Some(negative) if negative < 0 => {
            let violations = vec![Violation::new("expected_revision", "must be 0 or more")];
            let service = request.workload.as_ref().map(|workload| workload.service.clone()).unwrap_or_default();
            Err(Error::Invalid { service, violations })
        }
        expected => Ok(expected),
    }
}

fn name(sent: &str, field: &str, wrong: &mut Vec<Violation>) {
    let is_plain = sent.chars().all(|letter| matches!(letter, 'a'..='z' | '0'..='9' | '-'));
    if sent.is_empty() || sent.len() > NAME_CHARS_MAX || !is_plain {
        wrong.push(Violation::new(field, "must be 1 to 63 lowercase letters, digits and hyphens"));
    }
}

fn instances(sent: u32, field: &str, wrong: &mut Vec<Violation>) {
    if sent > INSTANCES_MAX {
        wrong.push(Violation::new(field, format!("must be at most {INSTANCES_MAX}, not {sent}")));
    }
}

fn command(words: &[String], wrong: &mut Vec<Violation>) {
    if words.first().is_none_or(String::is_empty) {
        wrong.push(Violation::new("workload.command", "must begin with a program"));
    }
    if words.len() > COMMAND_WORDS_MAX {
        wrong.push(Violation::new("workload.command", format!("must have at most {COMMAND_WORDS_MAX} words")));
    }
    for (index, word) in words.iter().enumerate() {
        if word.contains('\0') {
            wrong.push(Violation::new(format!("workload.command[{index}]"), "must not hold a zero character"));
        }
    }
}

fn environment(sent: &proto::Workload, wrong: &mut Vec<Violation>) {
    if sent.environment.len() > VARIABLES_MAX {
        wrong.push(Violation::new("workload.environment", format!("must have at most {VARIABLES_MAX} variables")));
    }
    let variables: BTreeMap<_, _> = sent.environment.iter().collect();
    for (name, value) in variables {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            let text = "must have a name without \"=\", and no zero characters";
            wrong.push(Violation::new(format!("workload.environment[{name:?}]"), text));
        }
    }
}

/// Where a page of workloads goes on: after this service.
pub(crate) fn service_token(token: &str) -> Result<Option<&str>, Error> {
    if token.is_empty() {
        return Ok(None);
    }
    let mut wrong = Vec::new();
    name(token, "page_token", &mut wrong);
    if wrong.is_empty() { Ok(Some(token)) } else { Err(Error::PageToken(token.to_owned())) }
}

/// Where a page of decisions goes on: before this number.
pub(crate) fn number_token(token: &str) -> Result<Option<u64>, Error> {
    if token.is_empty() {
        return Ok(None);
    }
    token.parse().map(Some).map_err(|_| Error::PageToken(token.to_owned()))
}

/// Writes a workload.
pub(crate) fn workload_message(workload: &Workload) -> proto::Workload {
    let program = &workload.program;
    proto::Workload {
        service: workload.service.clone(),
        instances: workload.instances,
        command: program.command.clone(),
        environment: program.environment.clone().into_iter().collect(),
        working_directory: program
            .working_directory
            .as_ref()
            .map(|folder| folder.to_string_lossy().into_owned())
            .unwrap_or_default(),
        grace: prost_types::Duration::try_from(workload.grace).ok(),
        joins: program.joins,
        revision: workload.revision,
    }
}

/// Writes what is there of a slot. `pid` is that of its process.
pub(crate) fn slot_message(number: u32, slot: &Slot, pid: Option<u32>) -> proto::Slot {
    let (state, next_start) = match slot.phase {
        Phase::Up { is_serving: false, .. } => (proto::SlotState::Starting, None),
        Phase::Up { is_serving: true, .. } => (proto::SlotState::Running, None),
        Phase::Stopping { .. } => (proto::SlotState::Stopping, None),
        // Decided within the same turn; nobody sees it for long.
        Phase::Ended { .. } => (proto::SlotState::BackingOff, None),
        Phase::Waiting { is_crash_loop: false, until_time, .. } => (proto::SlotState::BackingOff, Some(until_time)),
        Phase::Waiting { is_crash_loop: true, until_time, .. } => (proto::SlotState::CrashLoop, Some(until_time)),
    };
    let has_process = matches!(slot.phase, Phase::Up { .. } | Phase::Stopping { .. });
    proto::Slot {
        slot: number,
        instance_id: if has_process { slot.instance_id.clone() } else { String::new() },
        pid: pid.unwrap_or_default(),
        state: state.into(),
        restarts: slot.restarts,
        next_start_time: next_start.map(prost_types::Timestamp::from),
        reason: slot.reason.clone(),
        change_time: Some(slot.change_time.into()),
    }
}
