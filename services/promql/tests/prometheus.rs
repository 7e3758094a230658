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
fn samples(seed: u64) -> Vec<Series> {
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
                value = if random.u32(0..60) == 0 { 0.0 } else { value + f64::from(random.u32(0..20)) };
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
    let all = samples(seed);
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
    let all = samples(1);
    let span = Span { from: BEGIN, to: BEGIN + 1_000_000_000, step: 1 };
    let error = ours(&all, "requests_total", span).expect_err("too many steps");
    assert!(error.contains("steps") && error.contains("longer step"), "{error}");
}
