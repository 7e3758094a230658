//! The life of a breaker, with held time.

mod slow;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn breaker() -> Breaker {
    Breaker::new(Arc::default(), 7)
}

fn give_back(breaker: &Breaker, now: Duration, permit: Permit, verdict: Verdict<'_>) -> Option<Transition> {
    breaker.record(now, permit, verdict, Duration::ZERO, || true)
}

fn call(breaker: &Breaker, now: Duration, verdict: Verdict<'_>) -> Option<Transition> {
    let permit = breaker.admit(|| now).expect("the breaker lets calls through");
    give_back(breaker, now, permit, verdict)
}

fn opened(now: Duration) -> Breaker {
    let breaker = breaker();
    for _ in 0..5 {
        let _ = breaker.refused(now, "refused");
    }
    assert_eq!(breaker.phase(), Phase::Open);
    breaker
}

#[test]
fn failures_in_a_row_open_it_and_say_why() {
    let breaker = breaker();
    for _ in 0..4 {
        assert_eq!(call(&breaker, SECOND, Verdict::Failure("connection refused")), None);
    }
    let transition = call(&breaker, SECOND, Verdict::Failure("connection refused")).unwrap();
    assert_eq!(transition.to, Phase::Open);
    assert_eq!(transition.reason, "5 failures in a row: connection refused");
    assert!(breaker.admit(|| SECOND).is_none());
}

#[test]
fn a_success_in_between_ends_a_row() {
    let breaker = breaker();
    for _ in 0..4 {
        for _ in 0..5 {
            assert_eq!(call(&breaker, SECOND, Verdict::Success), None);
        }
        for _ in 0..4 {
            assert_eq!(call(&breaker, SECOND, Verdict::Failure("no")), None);
        }
    }
    assert_eq!(breaker.phase(), Phase::Closed);
}

#[test]
fn half_of_many_calls_failing_opens_it() {
    let breaker = breaker();
    for turn in 0..19 {
        let verdict = if turn % 2 == 0 { Verdict::Overload("busy") } else { Verdict::Success };
        assert_eq!(call(&breaker, SECOND, verdict), None);
    }
    let transition = call(&breaker, SECOND, Verdict::Overload("busy")).unwrap();
    assert_eq!(transition.reason, "11 of 20 calls failed: busy");
}

#[test]
fn overload_alone_does_not_open_it_in_a_row() {
    let breaker = breaker();
    for _ in 0..19 {
        assert_eq!(call(&breaker, SECOND, Verdict::Overload("busy")), None);
    }
}

#[test]
fn failures_outside_the_window_are_forgotten() {
    let breaker = breaker();
    for turn in 0..10_u32 {
        for _ in 0..4 {
            assert_eq!(call(&breaker, SECOND * turn * 11, Verdict::Failure("no")), None);
        }
        assert_eq!(call(&breaker, SECOND * turn * 11, Verdict::Success), None);
    }
}

#[test]
fn cancelled_calls_count_nothing() {
    let breaker = breaker();
    for _ in 0..4 {
        call(&breaker, SECOND, Verdict::Failure("no"));
    }
    for _ in 0..100 {
        assert_eq!(call(&breaker, SECOND, Verdict::Nothing), None);
    }
    assert!(call(&breaker, SECOND, Verdict::Failure("no")).is_some());
}

#[test]
fn a_probe_lets_three_trials_through_and_their_success_closes_it() {
    let breaker = opened(SECOND);
    assert_eq!(breaker.probed(SECOND * 3, true).unwrap().to, Phase::HalfOpen);
    let permits: Vec<_> = std::iter::from_fn(|| breaker.admit(|| SECOND * 3)).take(9).collect();
    assert_eq!(permits.len(), 3);
    let last =
        permits.into_iter().filter_map(|permit| give_back(&breaker, SECOND * 3, permit, Verdict::Success)).last();
    assert_eq!(last.unwrap(), Transition { to: Phase::Closed, reason: "3 trial calls succeeded".to_owned() });
}

#[test]
fn a_failed_trial_opens_it_for_longer() {
    let breaker = opened(SECOND);
    let first = breaker.probe_at().unwrap() - SECOND;
    breaker.probed(SECOND * 3, true);
    let transition = call(&breaker, SECOND * 3, Verdict::Failure("still ill")).unwrap();
    assert_eq!(transition.reason, "a trial call failed: still ill");
    let second = breaker.probe_at().unwrap() - SECOND * 3;
    assert!(second > first, "{second:?} > {first:?}");
}

#[test]
fn a_failed_probe_waits_longer_up_to_the_most() {
    let breaker = opened(SECOND);
    let mut now = SECOND;
    for _ in 0..40 {
        let at = breaker.probe_at().unwrap();
        assert!(at - now >= SECOND.mul_f64(0.8) && at - now <= (SECOND * 60).mul_f64(1.2), "{:?}", at - now);
        now = at;
        assert_eq!(breaker.probed(now, false), None);
    }
    assert!(breaker.probe_at().unwrap() - now >= (SECOND * 60).mul_f64(0.8));
}

#[test]
fn a_cancelled_trial_gives_its_permit_back() {
    let breaker = opened(SECOND);
    breaker.probed(SECOND * 3, true);
    for _ in 0..10 {
        assert_eq!(call(&breaker, SECOND * 3, Verdict::Nothing), None);
    }
}

#[test]
fn a_trial_that_never_ends_does_not_hold_the_breaker_for_good() {
    let breaker = opened(SECOND);
    breaker.probed(SECOND * 3, true);
    for _ in 0..3 {
        let _stream = breaker.admit(|| SECOND * 3).unwrap();
    }
    assert!(breaker.admit(|| SECOND * 4).is_none());
    assert!(breaker.admit(|| SECOND * 13).is_some());
}

#[test]
fn an_old_call_says_nothing_about_a_new_phase() {
    let breaker = breaker();
    let slow = breaker.admit(|| SECOND).unwrap();
    for _ in 0..5 {
        breaker.refused(SECOND, "refused");
    }
    breaker.probed(SECOND * 3, true);
    assert_eq!(give_back(&breaker, SECOND * 3, slow, Verdict::Failure("timed out")), None);
    assert_eq!(breaker.phase(), Phase::HalfOpen);
}

#[test]
fn without_a_probe_a_trial_waits_for_the_first_wait_only() {
    let breaker = opened(SECOND);
    assert!(breaker.admit_unprobed(SECOND + SECOND / 2).is_none());
    breaker.probed(SECOND * 2, false);
    let (permit, transition) = breaker.admit_unprobed(SECOND * 3).unwrap();
    assert_eq!(transition.to, Phase::HalfOpen);
    give_back(&breaker, SECOND * 3, permit, Verdict::Success);
}

#[test]
fn the_only_instance_is_tried_soon_however_often_its_breaker_opened() {
    let breaker = opened(SECOND);
    let mut now = SECOND;
    for _ in 0..20 {
        now += SECOND.mul_f64(1.2);
        let (permit, _) = breaker.admit_unprobed(now).expect("a trial after the first wait");
        give_back(&breaker, now, permit, Verdict::Failure("still ill"));
        assert!(breaker.probe_at().unwrap() > now, "others are still called first");
    }
    assert!(breaker.probe_at().unwrap() > now + SECOND * 20, "the probe's wait has grown");
}

/// Whatever happens, an open breaker lets nothing through, a half-open one at most its trials, and phases follow each
/// other as drawn.
#[test]
fn no_history_breaks_the_rules() {
    let mut random = fastrand::Rng::with_seed(42);
    for seed in 0..200 {
        let breaker = Breaker::new(Arc::default(), seed);
        let mut now = Duration::ZERO;
        let mut out = Vec::new();
        for _ in 0..500 {
            now += Duration::from_millis(random.u64(0..300));
            let before = breaker.phase();
            let verdicts = [Verdict::Success, Verdict::Failure("a"), Verdict::Overload("b"), Verdict::Nothing];
            let transition = match random.u8(0..5) {
                0 | 1 => {
                    out.extend(breaker.admit(|| now));
                    assert!(before != Phase::Open || breaker.admit(|| now).is_none());
                    None
                }
                2 if !out.is_empty() => {
                    let permit = out.swap_remove(random.usize(0..out.len()));
                    give_back(&breaker, now, permit, verdicts[random.usize(0..4)])
                }
                3 => breaker.refused(now, "c"),
                _ => breaker.probed(now, random.bool()),
            };
            let allowed = match transition.map(|transition| transition.to) {
                None => breaker.phase() == before,
                Some(Phase::Open) => before != Phase::Open,
                Some(Phase::HalfOpen) => before == Phase::Open,
                Some(Phase::Closed) => before == Phase::HalfOpen,
            };
            assert!(allowed, "{before:?} -> {:?}", breaker.phase());
        }
    }
}

#[test]
fn a_share_opens_it_only_by_leave_and_a_row_always() {
    let breaker = breaker();
    for turn in 0..60 {
        let permit = breaker.admit(|| SECOND).expect("no leave, no opening");
        let verdict = if turn % 4 == 3 { Verdict::Success } else { Verdict::Failure("no") };
        assert_eq!(breaker.record(SECOND, permit, verdict, Duration::ZERO, || false), None);
    }
    assert_eq!(breaker.sweep(SECOND, || false), None);
    assert_eq!(breaker.sweep(SECOND, || true).unwrap().reason, "45 of 60 calls failed");
    let breaker = opened(SECOND);
    assert!(!breaker.is_partly_open());
}

#[test]
fn without_calls_a_row_and_a_share_are_forgotten() {
    let breaker = breaker();
    for _ in 0..4 {
        call(&breaker, SECOND, Verdict::Failure("no"));
    }
    assert_eq!(breaker.sweep(SECOND * 5, || true), None);
    assert_eq!(breaker.sweep(SECOND * 12, || true), None);
    for _ in 0..4 {
        assert_eq!(call(&breaker, SECOND * 12, Verdict::Failure("no")), None);
    }
}

#[test]
fn an_operator_goes_before_everything() {
    let breaker = breaker();
    let forced = breaker.set_force(SECOND, Force::Open, "forced open by anna: a bad disk").unwrap();
    assert_eq!((forced.to, forced.reason.as_str()), (Phase::Open, "forced open by anna: a bad disk"));
    assert!(breaker.admit(|| SECOND * 999).is_none() && breaker.admit_unprobed(SECOND * 999).is_none());
    assert_eq!(breaker.probed(SECOND * 999, true), None);
    assert_eq!(breaker.set_force(SECOND, Force::Closed, "forced closed").unwrap().to, Phase::Closed);
    for _ in 0..100 {
        assert_eq!(call(&breaker, SECOND, Verdict::Failure("no")), None);
    }
    assert_eq!(breaker.set_force(SECOND, Force::None, "let go"), None);
    let opened = call(&breaker, SECOND, Verdict::Failure("no")).expect("it counted all the while");
    assert_eq!(opened.to, Phase::Open);
}

#[test]
fn another_policy_keeps_what_was_counted() {
    let breaker = breaker();
    for _ in 0..4 {
        call(&breaker, SECOND, Verdict::Failure("no"));
    }
    breaker.set_policy(SECOND, Arc::new(Policy { failures_in_a_row: 9, window: SECOND * 2, ..Policy::default() }));
    for _ in 0..4 {
        assert_eq!(call(&breaker, SECOND, Verdict::Failure("no")), None);
    }
    assert_eq!(call(&breaker, SECOND, Verdict::Failure("no")).unwrap().reason, "9 failures in a row: no");
    breaker.set_policy(SECOND, Arc::new(Policy { is_disabled: true, ..Policy::default() }));
    breaker.probed(SECOND * 3, true);
    for _ in 0..3 {
        call(&breaker, SECOND * 3, Verdict::Success);
    }
    for _ in 0..100 {
        assert_eq!(call(&breaker, SECOND * 3, Verdict::Failure("no")), None);
    }
}

#[test]
fn another_policy_shortens_the_wait_and_one_that_never_opens_ends_it() {
    let minutes = Policy { wait_min: SECOND * 600, wait_max: SECOND * 600, ..Policy::default() };
    let breaker = Breaker::new(Arc::new(minutes.clone()), 7);
    for _ in 0..5 {
        breaker.refused(SECOND, "refused");
    }
    let at = breaker.probe_at().unwrap();
    assert!(at > SECOND * 400);
    assert_eq!(breaker.set_policy(SECOND * 300, Arc::new(Policy { trials: 5, ..minutes.clone() })), None);
    assert_eq!(breaker.probe_at(), Some(at), "a wait begins once");
    assert_eq!(breaker.set_policy(SECOND * 301, Arc::default()), None);
    assert!(breaker.probe_at().unwrap() <= SECOND * 301 + SECOND.mul_f64(1.2));
    assert!(breaker.admit_unprobed(SECOND * 303).is_some());

    let disabled = Arc::new(Policy { is_disabled: true, ..minutes });
    for is_probed in [false, true] {
        let breaker = opened(SECOND);
        if is_probed {
            breaker.probed(SECOND * 2, true);
        }
        assert_eq!(breaker.set_policy(SECOND * 2, disabled.clone()).unwrap().to, Phase::Closed);
        assert_eq!(call(&breaker, SECOND * 2, Verdict::Failure("no")), None);
        assert_eq!(breaker.set_policy(SECOND * 2, disabled.clone()), None);
        breaker.set_force(SECOND * 3, Force::Open, "a bad disk");
        assert_eq!(breaker.set_policy(SECOND * 3, disabled.clone()), None, "an operator goes before everything");
        assert_eq!(breaker.phase(), Phase::Open);
    }
}

#[test]
fn a_doubt_opens_it_without_a_call_and_a_probe_closes_it_again() {
    let breaker = breaker();
    assert_eq!(breaker.doubted(SECOND, "they say so").unwrap().reason, "they say so");
    assert_eq!(breaker.doubted(SECOND, "they say so"), None, "it is open");
    assert!(breaker.admit(|| SECOND).is_none() && !breaker.is_partly_open());
    assert_eq!(breaker.probed(SECOND * 2, false), None);
    assert_eq!(breaker.probed(SECOND * 4, true).unwrap().to, Phase::Closed);
    // Once a call has failed, calls have to tell that it is well.
    breaker.doubted(SECOND * 5, "they say so").unwrap();
    let (trial, _) = breaker.admit_unprobed(SECOND * 300).unwrap();
    give_back(&breaker, SECOND * 300, trial, Verdict::Failure("ill")).unwrap();
    assert_eq!(breaker.probed(SECOND * 600, true).unwrap().to, Phase::HalfOpen);
    let never = Breaker::new(Arc::new(Policy { is_disabled: true, ..Policy::default() }), 1);
    assert_eq!(never.doubted(SECOND, "they say so"), None);
}
