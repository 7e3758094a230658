//! Calls that take too long, and calls that have not ended yet.

use super::*;

const MILLI: Duration = Duration::from_millis(1);

fn judging(policy: &Policy) -> Breaker {
    Breaker::new(Arc::new(Policy { slow_call: Some(300 * MILLI), ..policy.clone() }), 7)
}

fn begin(breaker: &Breaker, now: Duration) -> Permit {
    let mut permit = breaker.admit(|| now).expect("the breaker lets calls through");
    breaker.begin(now, &mut permit);
    permit
}

fn end(breaker: &Breaker, began: Duration, took: Duration, permit: Permit, verdict: Verdict<'_>) -> Option<Transition> {
    breaker.record(began + took, permit, verdict, took, || true)
}

/// Opens it by three calls that hang, and lets the probe succeed.
fn half_open(breaker: &Breaker) -> Vec<Permit> {
    let hanging = (0..3).map(|_| begin(breaker, SECOND)).collect();
    assert_eq!(breaker.sweep(SECOND + 400 * MILLI, || true).unwrap().to, Phase::Open);
    assert_eq!(breaker.probed(SECOND * 3, true).unwrap().to, Phase::HalfOpen);
    hanging
}

#[test]
fn a_share_of_slow_calls_opens_it() {
    let breaker = judging(&Policy { slow_calls_in_a_row: 0, ..Policy::default() });
    let call = |took| end(&breaker, SECOND, took, begin(&breaker, SECOND), Verdict::Success);
    for _ in 0..4 {
        assert_eq!(call(MILLI), None);
    }
    for _ in 0..15 {
        assert_eq!(call(SECOND), None);
    }
    assert_eq!(call(300 * MILLI).unwrap().reason, "16 of 20 calls were slow");
    assert!(breaker.is_partly_open());
}

#[test]
fn calls_that_hang_open_it_within_a_second() {
    let breaker = judging(&Policy::default());
    for call in 0..1000 {
        let at = SECOND + call * MILLI;
        assert_eq!(end(&breaker, at, 5 * MILLI, begin(&breaker, at), Verdict::Success), None);
    }
    let turned = SECOND * 2;
    let _hanging: Vec<_> = (0..5).map(|call| begin(&breaker, turned + call * 20 * MILLI)).collect();
    let opened = (0..10).find_map(|look| {
        let at = turned + look * 100 * MILLI;
        breaker.sweep(at, || true).map(|transition| (at, transition))
    });
    let (at, transition) = opened.expect("within a second");
    assert!(at - turned <= 500 * MILLI, "{:?}", at - turned);
    assert_eq!(transition.reason, "4 calls in a row took longer than 300ms");
    assert!(breaker.is_partly_open());
}

#[test]
fn slow_calls_in_a_row_open_it_only_by_leave() {
    let breaker = judging(&Policy::default());
    for _ in 0..3 {
        let permit = begin(&breaker, SECOND);
        assert_eq!(breaker.record(SECOND * 2, permit, Verdict::Success, SECOND, || false), None);
    }
    assert!(breaker.sweep(SECOND * 2, || true).is_some());
}

#[test]
fn a_method_that_is_slow_by_nature_is_no_row_among_quick_ones() {
    let breaker = judging(&Policy::default());
    for round in 1..20 {
        let at = SECOND * round;
        let _hanging: Vec<_> = (0..5).map(|_| begin(&breaker, at)).collect();
        for call in 0..80 {
            let at = at + call * 10 * MILLI;
            assert_eq!(end(&breaker, at, MILLI, begin(&breaker, at), Verdict::Success), None);
            assert_eq!(breaker.sweep(at, || true), None);
        }
    }
}

#[test]
fn a_call_that_hung_counts_once() {
    let breaker = judging(&Policy { slow_calls_in_a_row: 0, failures_in_a_row: 0, ..Policy::default() });
    let hanging: Vec<_> = (0..15).map(|_| begin(&breaker, SECOND)).collect();
    assert_eq!(breaker.sweep(SECOND * 2, || true), None);
    let counted = |now| breaker.window.sums(nanos(now));
    assert_eq!((counted(SECOND * 2).calls, counted(SECOND * 2).slow), (15, 15));
    for (call, permit) in hanging.into_iter().enumerate() {
        let verdict = if call % 3 == 0 { Verdict::Failure("late") } else { Verdict::Success };
        assert_eq!(end(&breaker, SECOND, SECOND * 2, permit, verdict), None);
    }
    let sums = counted(SECOND * 3);
    assert_eq!((sums.calls, sums.failures, sums.slow), (15, 5, 15));
}

#[test]
fn a_stream_is_judged_until_it_begins_to_be_answered() {
    let breaker = judging(&Policy { calls_min: 1, ..Policy::default() });
    for _ in 0..10 {
        let mut permit = begin(&breaker, SECOND);
        breaker.answered(&mut permit, 5 * MILLI);
        assert_eq!(breaker.sweep(SECOND * 9, || true), None);
        assert_eq!(end(&breaker, SECOND, SECOND * 8, permit, Verdict::Success), None);
    }
}

#[test]
fn a_slow_trial_opens_it_again() {
    let breaker = judging(&Policy::default());
    let _hanging = half_open(&breaker);
    let permit = begin(&breaker, SECOND * 3);
    let transition = end(&breaker, SECOND * 3, 350 * MILLI, permit, Verdict::Success).unwrap();
    assert_eq!((transition.to, transition.reason.as_str()), (Phase::Open, "a trial call was slow"));
}

#[test]
fn a_trial_that_hangs_opens_it_again() {
    let breaker = judging(&Policy::default());
    let hanging = half_open(&breaker);
    assert_eq!(breaker.sweep(SECOND * 3, || true), None, "those from before say nothing");
    let _trial = begin(&breaker, SECOND * 3);
    for permit in hanging {
        assert_eq!(end(&breaker, SECOND, SECOND * 2, permit, Verdict::Success), None);
    }
    let transition = breaker.sweep(SECOND * 3 + 500 * MILLI, || true).unwrap();
    assert_eq!(transition.reason, "a trial call was not answered within 300ms");
}

#[test]
fn what_is_slow_may_come_from_others_and_go_again() {
    let breaker = breaker();
    breaker.set_slow_call(Some(500 * MILLI));
    let hanging: Vec<_> = (0..3).map(|_| begin(&breaker, SECOND)).collect();
    breaker.set_slow_call(None);
    assert_eq!(breaker.sweep(SECOND * 2, || true), None);
    breaker.set_slow_call(Some(600 * MILLI));
    assert_eq!(breaker.sweep(SECOND * 2, || true).unwrap().reason, "3 calls in a row took longer than 600ms");
    drop(hanging);
}
