//! The control loop over real processes.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ninefold_control::Config;
use ninefold_proto::ninefold::control::v1::{Action, DeleteWorkloadRequest, Slot, SlotState};

use crate::house::{House, POLITE, is_alive, until, workload};

fn kill(slot: &Slot) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(slot.pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

fn ids(slots: &[Slot]) -> BTreeSet<String> {
    slots.iter().map(|slot| slot.instance_id.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wanted_runs_and_scales_up_and_down() {
    let house = House::new().await;
    let node = house.node("a").await;
    assert_eq!(node.put(workload(2, POLITE)).await.revision, 1);
    let two = node.runs(2).await;
    node.scale(3).await;
    let three = node.runs(3).await;
    assert!(ids(&three).is_superset(&ids(&two)), "those that ran were left alone");
    node.scale(1).await;
    let one = node.runs(1).await;
    assert_eq!(one[0].slot, 0, "the highest slots go first");
    assert_eq!(node.reasons(Action::Stop).await, ["1 wanted, 3 running", "1 wanted, 3 running"]);
    assert!(node.reasons(Action::Kill).await.is_empty(), "all left when asked");
    node.close().await;
    assert!(three.iter().all(|slot| !is_alive(slot.pid)));
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_instance_is_replaced_at_once_and_why_is_told() {
    let house = House::new().await;
    let node = house.node("a").await;
    node.put(workload(1, POLITE)).await;
    let before = node.runs(1).await.remove(0);
    kill(&before);
    std::fs::remove_file(house.board().join(&before.instance_id)).unwrap();
    let mut after = before.clone();
    until("another runs", async || {
        after = node.runs(1).await.remove(0);
        after.instance_id != before.instance_id
    })
    .await;
    assert_eq!((after.slot, after.restarts), (0, 1));
    let story: Vec<_> =
        node.decisions().await.into_iter().map(|decision| (decision.action(), decision.reason)).collect();
    let actions: Vec<_> = story.iter().map(|(action, _)| *action).collect();
    let expected = [
        Action::Accept,
        Action::Start,
        Action::ObserveServing,
        Action::ObserveExit,
        Action::BackOff,
        Action::Start,
        Action::ObserveServing,
    ];
    assert_eq!(actions, expected, "{story:?}");
    assert_eq!(story[3].1, "ended by signal 9 (SIGKILL)");
    assert_eq!(story[4].1, "next start in 0.0 s");
    assert_eq!(story[5].1, "restart 1: ended by signal 9 (SIGKILL)");
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loop_is_seen_and_ends_with_a_better_program() {
    let house = House::new().await;
    let config = Config { backoff_max: Duration::from_millis(50), ..Config::default() };
    let node = house.node_with("a", config).await;
    node.put(workload(1, "echo 'no water' >&2; exit 3")).await;
    let mut slot = Slot::default();
    until("it is a crash loop", async || {
        slot = node.slots().await.pop().unwrap_or_default();
        slot.state() == SlotState::CrashLoop
    })
    .await;
    assert!(slot.restarts >= 5 && slot.next_start_time.is_some() && slot.pid == 0, "{slot:?}");
    assert_eq!(slot.reason, "exited with code 3: no water");
    node.put(workload(1, POLITE)).await;
    let slot = node.runs(1).await.remove(0);
    assert_eq!(slot.restarts, 0);
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_not_there_backs_off() {
    let house = House::new().await;
    let node = house.node("a").await;
    let mut wish = workload(1, "");
    wish.command = vec!["/no/such/pump".into()];
    node.put(wish).await;
    until("it is told", async || {
        let exits = node.reasons(Action::ObserveExit).await;
        exits.iter().any(|reason| reason.starts_with("\"/no/such/pump\" cannot be started: No such file"))
    })
    .await;
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_program_replaces_instances_one_by_one() {
    let house = House::new().await;
    let node = house.node("a").await;
    node.put(workload(2, POLITE)).await;
    let old = ids(&node.runs(2).await);
    let mut better = workload(2, POLITE);
    better.environment.insert("COLOUR".into(), "green".into());
    node.put(better).await;
    let mut most = 0;
    until("all are new", async || {
        let slots = node.slots().await;
        let serving = slots.iter().filter(|slot| slot.state() == SlotState::Running).count();
        assert!(serving >= 2, "{slots:?}");
        most = most.max(slots.len());
        slots.len() == 2 && ids(&slots).is_disjoint(&old)
    })
    .await;
    assert_eq!(most, 3, "one more than wanted, no more");
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_will_not_leave_is_killed_and_that_is_told() {
    let house = House::new().await;
    let node = house.node("a").await;
    let mut stubborn = workload(1, &POLITE.replace("exit 0", "true"));
    stubborn.grace = Some(prost_types::Duration { seconds: 0, nanos: 200_000_000 });
    node.put(stubborn).await;
    let slot = node.runs(1).await.remove(0);
    node.client.clone().delete_workload(DeleteWorkloadRequest { service: "pump".into() }).await.unwrap();
    until("it is killed", async || !node.reasons(Action::Kill).await.is_empty()).await;
    assert!(!is_alive(slot.pid));
    assert_eq!(node.reasons(Action::Stop).await, ["no longer wanted"]);
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_never_serves_is_started_again() {
    let house = House::new().await;
    let config = Config { start_deadline: Duration::from_millis(300), ..Config::default() };
    let node = house.node_with("a", config).await;
    node.put(workload(1, "exec sleep 66")).await;
    until("it is restarted", async || node.reasons(Action::Start).await.len() >= 2).await;
    assert_eq!(node.reasons(Action::Stop).await[0], "not serving after 0.3 s");
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_registry_stops_nobody() {
    let house = House::new().await;
    let config = Config { start_deadline: Duration::from_millis(200), ..Config::default() };
    let node = house.node_with("a", config).await;
    node.put(workload(1, POLITE)).await;
    let before = node.runs(1).await;
    node.is_deaf.store(true, Ordering::SeqCst);
    kill(&before[0]);
    until("it is replaced all the same", async || node.reasons(Action::Start).await.len() == 2).await;
    let end = tokio::time::Instant::now() + Duration::from_millis(800);
    while tokio::time::Instant::now() < end {
        assert!(node.reasons(Action::Stop).await.is_empty());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    node.is_deaf.store(false, Ordering::SeqCst);
    node.runs(1).await;
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_does_not_join_is_given_to_the_runner() {
    let house = House::new().await;
    let node = house.node("a").await;
    let mut plain = workload(1, POLITE);
    plain.joins = false;
    node.put(plain).await;
    let slot = node.runs(1).await.remove(0);
    let args = std::fs::read_to_string(house.folder.path().join("runner.args")).unwrap();
    let expected = format!("run --name pump --instance-id {} --grace 10s -- sh -c ", slot.instance_id);
    assert!(args.starts_with(&expected), "{args}");
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_everything_is_started_again() {
    let house = House::new().await;
    let node = house.node("a").await;
    node.put(workload(2, POLITE)).await;
    let before = node.runs(2).await;
    node.close().await;
    assert!(before.iter().all(|slot| !is_alive(slot.pid)), "the platform left nothing behind");
    let node = house.node("a").await;
    let after = node.runs(2).await;
    assert!(ids(&after).is_disjoint(&ids(&before)));
    node.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_answers_for_a_workload_and_its_owner_acts() {
    let house = House::new().await;
    let (owner, other) = (house.node("a").await, house.node("b").await);
    owner.put(workload(1, POLITE)).await;
    let here = owner.runs(1).await;
    let there = other.runs(1).await;
    assert_eq!(ids(&here), ids(&there));
    other.scale(2).await;
    assert!(ids(&owner.runs(2).await).is_superset(&ids(&here)));
    assert!(other.decisions().await.is_empty(), "the other node did nothing");
    owner.close().await;
    until("nothing is shown of a node that is gone", async || other.slots().await.is_empty()).await;
    other.scale(1).await;
    other.runs(1).await;
    assert_eq!(other.reasons(Action::Accept).await, ["revision 3: 1 wanted"], "a write takes over what nobody holds");
    other.close().await;
}
