//! The life of a breaker, with held time.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn breaker() -> Breaker {
    Breaker::new(Policy::default(), 7)
}

fn call(breaker: &mut Breaker, now: Duration, verdict: Verdict<'_>) -> Option<Transition> {
    let permit = breaker.admit(now).expect("the breaker lets calls through");
    breaker.record(now, permit, verdict)
}

fn opened(now: Duration) -> Breaker {
    let mut breaker = breaker();
    for _ in 0..5 {
        let _ = breaker.refused(now, "refused");
    }
    assert_eq!(breaker.phase(), Phase::Open);
    breaker
}

#[test]
fn failures_in_a_row_open_it_and_say_why() {
    let mut breaker = breaker();
    for _ in 0..4 {
        assert_eq!(call(&mut breaker, SECOND, Verdict::Failure("connection refused")), None);
    }
    let transition = call(&mut breaker, SECOND, Verdict::Failure("connection refused")).unwrap();
    assert_eq!(transition.to, Phase::Open);
    assert_eq!(transition.reason, "5 failures in a row: connection refused");
    assert!(breaker.admit(SECOND).is_none());
}

#[test]
fn a_success_in_between_ends_a_row() {
    let mut breaker = breaker();
    for _ in 0..4 {
        for _ in 0..5 {
            assert_eq!(call(&mut breaker, SECOND, Verdict::Success), None);
        }
        for _ in 0..4 {
            assert_eq!(call(&mut breaker, SECOND, Verdict::Failure("no")), None);
        }
    }
    assert_eq!(breaker.phase(), Phase::Closed);
}

#[test]
fn half_of_many_calls_failing_opens_it() {
    let mut breaker = breaker();
    for turn in 0..19 {
        let verdict = if turn % 2 == 0 { Verdict::Overload("busy") } else { Verdict::Success };
        assert_eq!(call(&mut breaker, SECOND, verdict), None);
    }
    let transition = call(&mut breaker, SECOND, Verdict::Overload("busy")).unwrap();
    assert_eq!(transition.reason, "11 of 20 calls failed: busy");
}

#[test]
fn overload_alone_does_not_open_it_in_a_row() {
    let mut breaker = breaker();
    for _ in 0..19 {
        assert_eq!(call(&mut breaker, SECOND, Verdict::Overload("busy")), None);
    }
}

#[test]
fn failures_outside_the_window_are_forgotten() {
    let mut breaker = breaker();
    for turn in 0..10_u32 {
        for _ in 0..4 {
            assert_eq!(call(&mut breaker, SECOND * turn * 11, Verdict::Failure("no")), None);
        }
        assert_eq!(call(&mut breaker, SECOND * turn * 11, Verdict::Success), None);
    }
}

#[test]
fn cancelled_calls_count_nothing() {
    let mut breaker = breaker();
    for _ in 0..4 {
        call(&mut breaker, SECOND, Verdict::Failure("no"));
    }
    for _ in 0..100 {
        assert_eq!(call(&mut breaker, SECOND, Verdict::Nothing), None);
    }
    assert!(call(&mut breaker, SECOND, Verdict::Failure("no")).is_some());
}

#[test]
fn a_probe_lets_three_trials_through_and_their_success_closes_it() {
    let mut breaker = opened(SECOND);
    assert_eq!(breaker.probed(SECOND * 3, true).unwrap().to, Phase::HalfOpen);
    let permits: Vec<_> = std::iter::from_fn(|| breaker.admit(SECOND * 3)).take(9).collect();
    assert_eq!(permits.len(), 3);
    let last = permits.into_iter().filter_map(|permit| breaker.record(SECOND * 3, permit, Verdict::Success)).last();
    assert_eq!(last.unwrap(), Transition { to: Phase::Closed, reason: "3 trial calls succeeded".to_owned() });
}

#[test]
fn a_failed_trial_opens_it_for_longer() {
    let mut breaker = opened(SECOND);
    let first = breaker.probe_at().unwrap() - SECOND;
    breaker.probed(SECOND * 3, true);
    let transition = call(&mut breaker, SECOND * 3, Verdict::Failure("still ill")).unwrap();
    assert_eq!(transition.reason, "a trial call failed: still ill");
    let second = breaker.probe_at().unwrap() - SECOND * 3;
    assert!(second > first, "{second:?} > {first:?}");
}

#[test]
fn a_failed_probe_waits_longer_up_to_the_most() {
    let mut breaker = opened(SECOND);
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
    let mut breaker = opened(SECOND);
    breaker.probed(SECOND * 3, true);
    for _ in 0..10 {
        assert_eq!(call(&mut breaker, SECOND * 3, Verdict::Nothing), None);
    }
}

#[test]
fn a_trial_that_never_ends_does_not_hold_the_breaker_for_good() {
    let mut breaker = opened(SECOND);
    breaker.probed(SECOND * 3, true);
    for _ in 0..3 {
        let _stream = breaker.admit(SECOND * 3).unwrap();
    }
    assert!(breaker.admit(SECOND * 4).is_none());
    assert!(breaker.admit(SECOND * 13).is_some());
}

#[test]
fn an_old_call_says_nothing_about_a_new_phase() {
    let mut breaker = breaker();
    let slow = breaker.admit(SECOND).unwrap();
    for _ in 0..5 {
        breaker.refused(SECOND, "refused");
    }
    breaker.probed(SECOND * 3, true);
    assert_eq!(breaker.record(SECOND * 3, slow, Verdict::Failure("timed out")), None);
    assert_eq!(breaker.phase(), Phase::HalfOpen);
}

#[test]
fn without_a_probe_a_trial_waits_for_the_first_wait_only() {
    let mut breaker = opened(SECOND);
    assert!(breaker.admit_unprobed(SECOND + SECOND / 2).is_none());
    breaker.probed(SECOND * 2, false);
    let (permit, transition) = breaker.admit_unprobed(SECOND * 3).unwrap();
    assert_eq!(transition.to, Phase::HalfOpen);
    breaker.record(SECOND * 3, permit, Verdict::Success);
}

#[test]
fn the_only_instance_is_tried_soon_however_often_its_breaker_opened() {
    let mut breaker = opened(SECOND);
    let mut now = SECOND;
    for _ in 0..20 {
        now += SECOND.mul_f64(1.2);
        let (permit, _) = breaker.admit_unprobed(now).expect("a trial after the first wait");
        breaker.record(now, permit, Verdict::Failure("still ill"));
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
        let mut breaker = Breaker::new(Policy::default(), seed);
        let mut now = Duration::ZERO;
        let mut out = Vec::new();
        for _ in 0..500 {
            now += Duration::from_millis(random.u64(0..300));
            let before = breaker.phase();
            let verdicts = [Verdict::Success, Verdict::Failure("a"), Verdict::Overload("b"), Verdict::Nothing];
            let transition = match random.u8(0..5) {
                0 | 1 => {
                    out.extend(breaker.admit(now));
                    assert!(before != Phase::Open || breaker.admit(now).is_none());
                    None
                }
                2 if !out.is_empty() => {
                    let permit = out.swap_remove(random.usize(0..out.len()));
                    breaker.record(now, permit, verdicts[random.usize(0..4)])
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
