//! The same questions to the same samples, asked of a real Prometheus and of ours.
//!
//! The one at hand may be older than Prometheus 3, which left the left end of a range out of it and no longer draws a counter
//! out to zero across a gap. So times of evaluation meet no sample and no step of a subquery, and counters begin high.
//! Samples are made from a seed that is printed.

#[path = "prometheus/queries.rs"]
mod queries;
#[path = "prometheus/server.rs"]
mod server;

use ninefold_promql::{Answer, Labels, Limits, NAME, Point, Query, STALE, Sample, Series, Span};

use server::{Prometheus, Told};

/// First sample, in milliseconds since 1970.
const BEGIN: i64 = 1_700_000_000_000;
const EVERY: i64 = 15_000;
const COUNT: i64 = 160;

/// Samples of counters that are reset, gauges with odd values, buckets, and series that begin late or end early.
fn samples(seed: u64, reset_to: f64) -> Vec<Series> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut all = Vec::new();
    let mut series = |labels: &[(&str, &str)], make: &mut dyn FnMut(i64) -> Option<f64>| {
        let samples = (0..COUNT).filter_map(|n| {
            // Never on a whole second, so that no evaluation meets a sample.
            Some(Sample { at: BEGIN + n * EVERY + 137, point: Point::Float(make(n)?) })
        });
        all.push(Series { labels: Labels::new(labels.iter().copied()), samples: samples.collect() });
    };
    for (service, instance) in [("cart", "a"), ("cart", "b"), ("pay", "a"), ("pay", "b")] {
        for code in ["200", "500"] {
            let mut value = 5000.0;
            let labels = [(NAME, "requests_total"), ("service", service), ("instance", instance), ("code", code)];
            series(&labels, &mut |n| {
                // A reset beside a gap would be drawn out to zero by the one and not by the other.
                value = if random.u32(0..60) == 0 && instance == "a" {
                    reset_to
                } else {
                    value + f64::from(random.u32(0..20))
                };
                let is_gap = instance == "b" && (40..70).contains(&n);
                (!is_gap && (code == "200" || n > 20)).then_some(value)
            });
        }
        for (share, bound) in [(0.2, "0.1"), (0.5, "0.25"), (0.8, "1"), (0.95, "2.5"), (1.0, "+Inf")] {
            let labels =
                [(NAME, "latency_seconds_bucket"), ("service", service), ("instance", instance), ("le", bound)];
            let mut value: f64 = 0.0;
            series(&labels, &mut |n| {
                value += (share * f64::from(u8::try_from(n % 9).unwrap_or_default())).round();
                Some(value)
            });
        }
        let labels = [(NAME, "service_info"), ("service", service), ("instance", instance), ("version", "1.2")];
        series(&labels, &mut |n| (n < 120 || instance == "a").then_some(1.0));
    }
    for room in ["north", "south", "10", "9"] {
        let mut value: f64 = 20.0;
        series(&[(NAME, "temperature"), ("room", room)], &mut |n| {
            value += random.f64() * 2.0 - 1.0;
            match (room, n % 40) {
                ("south", 7) => Some(f64::NAN),
                ("south", 21) => Some(f64::INFINITY),
                ("9", _) => Some(-2.5),
                _ => Some(value),
            }
        });
    }
    all
}

fn ours(all: &[Series], query: &str, span: Span) -> Result<Vec<Told>, String> {
    let limits = Limits::default();
    let query = Query::parse(query).map_err(|error| error.to_string())?;
    let data = query.needs(span, &limits).into_iter().map(|selection| {
        let found = all.iter().filter(|series| selection.matches(&series.labels)).cloned().collect();
        (selection, found)
    });
    let (answer, _) = query.answer(span, &limits, &data.collect()).map_err(|error| error.to_string())?;
    let told = |series: Series| Told {
        labels: series.labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        values: series.samples.iter().map(|sample| (sample.at, sample.point.float().expect("a float"))).collect(),
    };
    Ok(match answer {
        Answer::Series(all) | Answer::Raw(all) => all.into_iter().map(told).collect(),
        Answer::Scalar(values) => vec![Told { labels: Vec::new(), values }],
        Answer::Text(text) => panic!("a text: {text}"),
    })
}

fn is_near(left: f64, right: f64) -> bool {
    left.to_bits() == right.to_bits()
        || left.is_nan() && right.is_nan()
        || (left - right).abs() <= 1e-9 * left.abs().max(right.abs()).max(1e-6)
}

fn same(left: &[Told], right: &[Told]) -> bool {
    left.len() == right.len()
        && left.iter().zip(right).all(|(left, right)| {
            let values = left.values.iter().zip(&right.values);
            left.labels == right.labels && left.values.len() == right.values.len() && { values }
                .all(|(left, right)| left.0 == right.0 && is_near(left.1, right.1))
        })
}

#[test]
fn a_real_prometheus_answers_the_same() {
    let seed = 42;
    println!("seed {seed}");
    let all = samples(seed, 0.0);
    let prometheus = Prometheus::start(&all);
    let late = BEGIN + 1_800_061;
    let range = Span { from: BEGIN + 60_061, to: BEGIN + 2_700_000, step: 47_000 };
    let mut wrong = Vec::new();
    let mut asked = 0;
    for query in queries::all() {
        for span in [Span::instant(late), range] {
            if span == range && queries::is_sorted(query) {
                continue;
            }
            asked += 1;
            let (mut theirs, mut mine) = (prometheus.ask(query, span), ours(&all, query, span));
            if !queries::is_sorted(query) {
                for told in [&mut theirs, &mut mine].into_iter().flatten() {
                    told.sort_by(|left, right| left.labels.cmp(&right.labels));
                }
            }
            let fits = match (&theirs, &mine) {
                (Ok(theirs), Ok(mine)) => same(theirs, mine),
                (Err(_), Err(_)) => true,
                _ => false,
            };
            if !fits {
                wrong.push(format!("{query}\n  prometheus: {theirs:.3?}\n  ours:       {mine:.3?}"));
            }
        }
    }
    let shown: Vec<String> = wrong.iter().map(|text| text.chars().take(900).collect()).collect();
    assert!(wrong.is_empty(), "{} of {asked} answers differ:\n{}", wrong.len(), shown.join("\n"));
}

/// What differs of two answers, for people.
fn apart(theirs: &Result<Vec<Told>, String>, mine: &Result<Vec<Told>, String>) -> (String, String) {
    let (Ok(left), Ok(right)) = (theirs, mine) else { return (format!("{theirs:.3?}"), format!("{mine:.3?}")) };
    let only = |some: &[Told], others: &[Told]| {
        let differs =
            |told: &&Told| !others.iter().any(|other| same(std::slice::from_ref(told), std::slice::from_ref(other)));
        let shown = some.iter().filter(differs).map(|told| {
            let others = others.iter().find(|other| other.labels == told.labels);
            let same = |value: &&(i64, f64)| {
                others.is_some_and(|other| {
                    other.values.iter().any(|other| other.0 == value.0 && is_near(other.1, value.1))
                })
            };
            let values: Vec<_> = told.values.iter().filter(|value| !same(value)).collect();
            format!("{:?} {values:?}", told.labels)
        });
        shown.collect::<Vec<_>>().join("\n              ")
    };
    (only(left, right), only(right, left))
}

/// Questions put together at random out of what all versions of Prometheus know.
fn made(random: &mut fastrand::Rng, depth: u8) -> String {
    let mut pick = |some: &[&str]| some[random.usize(0..some.len())].to_owned();
    // What versions draw out to zero, or make of numbers that are none, differs.
    let selector = pick(&[
        "requests_total",
        "temperature{room!=\"south\"}",
        "service_info",
        "requests_total{code=\"200\"}",
        "requests_total{service=~\"ca.*\"}",
        "temperature{room=~\"n.*|9\"}",
    ]);
    let moved = pick(&["", "", "", " offset 3m", " offset -1m", " @ 1700001207", " @ end()"]);
    let of_counters = ["rate", "increase"];
    let of_all = [
        "delta",
        "irate",
        "idelta",
        "deriv",
        "changes",
        "resets",
        "avg_over_time",
        "sum_over_time",
        "min_over_time",
        "max_over_time",
        "count_over_time",
        "last_over_time",
        "stddev_over_time",
        "present_over_time",
    ];
    let over =
        if selector.starts_with("requests") && pick(&["a", "b"]) == "a" { pick(&of_counters) } else { pick(&of_all) };
    let number = pick(&["2", "0.5", "-3", "20"]);
    let (jumps, holds) = (pick(&["ceil", "floor", "sgn"]), pick(&["> bool", "== bool", "!= bool", "<", ">="]));
    let range = pick(&["2m1ms", "5m1ms", "11m1ms"]);
    if depth == 0 {
        return match random.u8(0..6) {
            0 => format!("{selector}{moved}"),
            // What jumps is asked only of what was measured, and not of what was added up, or compared with what was: no two
            // engines add up in the same order, and the last digit of a sum would become a jump.
            1 => format!("{jumps}({selector}{moved})"),
            2 => format!("{selector}{moved} {holds} {selector}"),
            3 => format!("{selector}{moved} % {number}"),
            _ => format!("{over}({selector}[{range}]{moved})"),
        };
    }
    let fold = pick(&["sum", "avg", "min", "max", "count", "group"]);
    let by = pick(&["", " by (service)", " without (instance)", " by (service, code, room)"]);
    let plain = pick(&["abs", "-", "exp", "sqrt"]);
    let sign = pick(&["+", "-", "*", "/", "and", "or", "unless"]);
    let compared = pick(&["+", "*", ">", "<=", "== bool", "!= bool", "> bool"]);
    let odd = pick(&["2.0001", "0.50003", "-3.1", "20.007"]);
    let step = pick(&["43s", "1m7s"]);
    match random.u8(0..6) {
        0 => format!("{fold}{by} ({})", made(random, depth - 1)),
        1 => format!("{plain}({})", made(random, depth - 1)),
        2 => format!("({}) {sign} ({})", made(random, depth - 1), made(random, depth - 1)),
        3 => format!("({}) {compared} {odd}", made(random, depth - 1)),
        4 => format!("max_over_time(({})[{range}:{step}])", made(random, depth - 1)),
        _ => format!("{fold}{by} ({}) {sign} {fold}{by} ({})", made(random, depth - 1), made(random, depth - 1)),
    }
}

#[test]
fn questions_made_at_random_are_answered_the_same() {
    let seed = std::env::var("NINEFOLD_PROMQL_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(7);
    println!("NINEFOLD_PROMQL_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let all = samples(seed, 2000.0);
    let prometheus = Prometheus::start(&all);
    let spans = [Span::instant(BEGIN + 1_800_061), Span { from: BEGIN + 60_061, to: BEGIN + 2_300_000, step: 97_000 }];
    let (mut wrong, mut answered) = (Vec::new(), 0);
    for _ in 0..300 {
        let depth = random.u8(0..3);
        let query = made(&mut random, depth);
        for span in spans {
            let (mut theirs, mut mine) = (prometheus.ask(&query, span), ours(&all, &query, span));
            for told in [&mut theirs, &mut mine].into_iter().flatten() {
                told.sort_by(|left, right| left.labels.cmp(&right.labels));
            }
            answered += u32::from(mine.is_ok());
            let fits = match (&theirs, &mine) {
                (Ok(theirs), Ok(mine)) => same(theirs, mine),
                (Err(_), Err(_)) => true,
                _ => false,
            };
            if !fits {
                let (theirs, mine) = apart(&theirs, &mine);
                wrong.push(format!("{query} at {span:?}\n  prometheus: {theirs:.3?}\n  ours:       {mine:.3?}"));
            }
        }
    }
    let shown: Vec<String> = wrong.iter().take(12).map(|text| text.chars().take(2000).collect()).collect();
    assert!(wrong.is_empty(), "{} of {answered} answers differ:\n{}", wrong.len(), shown.join("\n"));
    assert!(answered > 300, "too few can be answered: {answered}");
}

#[test]
fn what_prometheus_3_alone_knows() {
    let series = |labels: &[(&str, &str)], values: &[f64]| {
        let samples = values.iter().zip(0..).map(|(value, at)| Sample { at: at * 1000, point: Point::Float(*value) });
        Series { labels: Labels::new(labels.iter().copied()), samples: samples.collect() }
    };
    let all = [
        series(&[(NAME, "m"), ("job", "cart"), ("instance", "a")], &[3.0, 9.0, 1.0, 4.0]),
        series(&[(NAME, "m"), ("job", "pay"), ("instance", "b")], &[2.0, 2.0, 2.0, 2.0]),
        series(
            &[(NAME, "target_info"), ("job", "cart"), ("instance", "a"), ("version", "1.2"), ("zone", "x")],
            &[1.0; 4],
        ),
        series(&[(NAME, "build_info"), ("job", "pay"), ("instance", "b"), ("version", "7")], &[1.0; 4]),
        series(&[(NAME, "h_bucket"), ("le", "1")], &[5.0; 4]),
        series(&[(NAME, "h_bucket"), ("le", "+Inf")], &[10.0; 4]),
    ];
    let told = |query: &str| -> Vec<(String, f64)> {
        let said = ours(&all, query, Span::instant(3000)).unwrap_or_else(|error| panic!("{query}: {error}"));
        let short = |one: Told| {
            let labels: Vec<String> = one.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            (labels.join(" "), one.values[0].1)
        };
        said.into_iter().map(short).collect()
    };
    let first = |query: &str| told(query).first().map(|(_, value)| *value);
    assert_eq!(told("info(m)")[0].0, "__name__=m instance=a job=cart version=1.2 zone=x");
    assert_eq!(told("info(m)")[1].0, "__name__=m instance=b job=pay");
    assert_eq!(told("info(m, {version=~\".+\"})"), [("__name__=m instance=a job=cart version=1.2".to_owned(), 4.0)]);
    assert_eq!(told("info(m, {__name__=\"build_info\"})")[1].0, "__name__=m instance=b job=pay version=7");
    assert_eq!((first("vector(max_of(2, 5))"), first("vector(min_of(2, 5))")), (Some(5.0), Some(2.0)));
    assert_eq!(first("ts_of_max_over_time(m{job=\"cart\"}[10s])"), Some(1.0));
    assert_eq!(first("ts_of_min_over_time(m{job=\"cart\"}[10s])"), Some(2.0));
    assert_eq!(first("ts_of_last_over_time(m[10s])"), Some(3.0));
    assert_eq!((first("first_over_time(m[10s])"), first("mad_over_time(m[10s])")), (Some(3.0), Some(1.5)));
    assert_eq!(told("limitk(1, m)").len(), 1);
    assert_eq!(told("limit_ratio(0.5, m)").len() + told("limit_ratio(-0.5, m)").len(), 2);
    let shares = told("histogram_quantiles(h_bucket, \"q\", 0.25, 0.5)");
    assert_eq!(shares, [("q=0.25".to_owned(), 0.5), ("q=0.5".to_owned(), 1.0)]);
    assert_eq!(told("sort_by_label_desc(m, \"job\")")[0].0, "__name__=m instance=b job=pay");
    assert!(first("double_exponential_smoothing(m[10s], 0.5, 0.5)").is_some());
}

#[test]
fn what_is_written_is_read_as_the_same() {
    let mut random = fastrand::Rng::with_seed(1);
    let all: Vec<String> = (0..2000).map(|_| made(&mut random, 2)).collect();
    for query in queries::all().map(str::to_owned).chain(all) {
        if let Ok(query) = Query::parse(&query) {
            assert_eq!(Query::parse(&query.text()).map(|again| again.text()), Ok(query.text()));
        }
    }
}

#[test]
fn the_end_of_a_series_is_seen_at_once() {
    let labels = Labels::new([(NAME, "up")]);
    let sample = |at, value| Sample { at, point: Point::Float(value) };
    let ended = Series { labels, samples: vec![sample(1_000, 1.0), sample(2_000, f64::from_bits(STALE))] };
    let at = |millis| ours(std::slice::from_ref(&ended), "up", Span::instant(millis)).expect("an answer").len();
    assert_eq!((at(1_500), at(2_000), at(9_000)), (1, 0, 0));
}

#[test]
fn ranges_and_lookback_are_open_to_the_left_as_in_prometheus_3() {
    let labels = Labels::new([(NAME, "m")]);
    let samples = (0..=4).map(|n| Sample { at: n * 60_000, point: Point::Float(1.0) }).collect();
    let series = [Series { labels, samples }];
    let count = |query: &str| ours(&series, query, Span::instant(240_000)).expect("an answer")[0].values[0].1;
    assert!((count("count_over_time(m[2m])") - 2.0).abs() < f64::EPSILON);
    assert!((count("count_over_time(m[2m:1m])") - 2.0).abs() < f64::EPSILON);
    assert!(ours(&series, "m", Span::instant(540_000)).expect("an answer").is_empty());
    assert_eq!(ours(&series, "m", Span::instant(539_999)).expect("an answer").len(), 1);
}

#[test]
fn too_much_is_refused_before_it_is_done() {
    let all = samples(1, 0.0);
    let span = Span { from: BEGIN, to: BEGIN + 1_000_000_000, step: 1 };
    let error = ours(&all, "requests_total", span).expect_err("too many steps");
    assert!(error.contains("steps") && error.contains("longer step"), "{error}");
}
