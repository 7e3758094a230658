//! Samples over deaths, from the journal, from files, and with little memory.

use std::path::Path;

use ninefold::lifecycle::Scope;
use ninefold_promql::{NAME, Point};

use super::*;

const NEVER: Duration = Duration::from_secs(3600);

fn config(folder: &Path, file_every: Duration) -> Config {
    Config { path: Some(folder.to_owned()), samples_file_every: file_every, ..Config::default() }
}

/// Opened without upkeep: what is dropped is dead.
fn open(config: &Config) -> Arc<Metrics> {
    let folder = config.path.clone().expect("a folder");
    Arc::new(Metrics::read_folder(config, &folder).expect("opened"))
}

fn reading(name: &str, at: i64, value: f64) -> Reading {
    Reading { labels: Labels::new([(NAME, name)]), at, point: Point::Float(value), is_added: false }
}

async fn put(metrics: &Arc<Metrics>, readings: Vec<Reading>) {
    assert_eq!(metrics.take(readings, BTreeMap::new()).await.expect("kept"), Unkept::default());
}

fn alone() -> Question {
    Question::alone(Arc::new(crate::hot::Hot::new(&Config::default())))
}

async fn asked(metrics: &Arc<Metrics>, query: &str, at: i64) -> f64 {
    let query = Query::parse(query).expect("a query");
    let (answer, remarks) =
        metrics.answer(query, Span::instant(at), Asked::default(), &alone()).await.expect("an answer");
    assert!(remarks.iter().all(|remark| !remark.contains("could not be read")), "{remarks:?}");
    let Answer::Series(series) = answer else { panic!("no series: {answer:?}") };
    series.first().map_or(f64::NAN, |one| one.samples[0].point.float().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_taken_is_there_after_a_death_from_the_journal_and_from_files_alike() {
    let folder = tempfile::tempdir().expect("a folder");
    let now = now();
    for round in 0..4_i64 {
        let metrics = open(&config(folder.path(), NEVER));
        for turn in 0..200_i64 {
            let at = now - 800_000 + (round * 200 + turn) * 1000;
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            put(&metrics, vec![reading("m", at, at as f64), reading("n_total", at, (round * 200 + turn) as f64)]).await;
            if round % 2 == 1 && turn % 30 == 7 {
                metrics.file().expect("filed");
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let whole = ((round + 1) * 200) as f64;
        assert!((asked(&metrics, "count_over_time(m[1h])", now).await - whole).abs() < 0.1);
    }
    let metrics = open(&config(folder.path(), NEVER));
    assert!((asked(&metrics, "count_over_time(m[1h])", now).await - 800.0).abs() < 0.1);
    assert!((asked(&metrics, "max_over_time(n_total[1h])", now).await - 799.0).abs() < 0.1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_memory_has_no_room_for_is_answered_from_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = Config { samples_bytes_max: 60_000, ..config(folder.path(), Duration::from_millis(5)) };
    let scope = Scope::root("test");
    let metrics = Metrics::open(&config, folder.path(), &scope).await.expect("opened");
    let now = now();
    let mut random = fastrand::Rng::with_seed(3);
    for turn in 0..400_i64 {
        let at = now - 8_000_000 + turn * 20_000;
        let readings: Vec<Reading> = (0..20)
            .map(|of| reading(&format!("noise_{of}"), at, random.f64()))
            .chain([reading("m", at, 1.0)])
            .collect();
        // Refused until files have room.
        while metrics.take(readings.clone(), BTreeMap::new()).await.is_err() {
            tokio::task::yield_now().await;
        }
    }
    assert!(metrics.sizes().bytes < 120_000, "{:?}", metrics.sizes());
    assert!((asked(&metrics, "count_over_time(m[3h])", now).await - 400.0).abs() < 0.1);
    assert!((asked(&metrics, "count_over_time(m[1h] offset 1h)", now).await - 180.0).abs() < 2.0);
    let mut selection = Query::parse("m").expect("a query").selector().expect("a selector");
    (selection.from, selection.to) = (i64::MIN, i64::MAX);
    let all = metrics.labels(vec![selection]).await.expect("labels");
    assert_eq!(all.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_added_goes_on_from_the_total_before_the_death() {
    let folder = tempfile::tempdir().expect("a folder");
    let now = now();
    let added = |at: i64, value: f64| Reading { is_added: true, ..reading("added_total", at, value) };
    for round in 0..3 {
        let metrics = open(&config(folder.path(), NEVER));
        put(&metrics, vec![added(now - 3000 + round * 1000, 5.0)]).await;
        if round == 0 {
            metrics.file().expect("filed");
        }
    }
    let metrics = open(&config(folder.path(), NEVER));
    assert!((asked(&metrics, "added_total", now).await - 15.0).abs() < 1e-9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_samples_and_those_said_twice_survive_filing() {
    let folder = tempfile::tempdir().expect("a folder");
    let now = now();
    let metrics = open(&config(folder.path(), NEVER));
    put(&metrics, vec![reading("m", now - 9000, 1.0), reading("m", now - 3000, 2.0)]).await;
    metrics.file().expect("filed");
    put(&metrics, vec![reading("m", now - 6000, 7.0), reading("m", now - 3000, 4.0)]).await;
    metrics.file().expect("filed");
    drop(metrics);
    let metrics = open(&config(folder.path(), NEVER));
    assert!((asked(&metrics, "sum_over_time(m[1m])", now).await - 12.0).abs() < 1e-9);
}

/// A summary, and a histogram with an exemplar, as OTLP tells them.
fn told(at: i64) -> Vec<ResourceMetrics> {
    use opentelemetry_proto::tonic::metrics::v1::metric::Data;
    use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
    use opentelemetry_proto::tonic::metrics::v1::{
        self as otlp, AggregationTemporality, HistogramDataPoint, Metric, ScopeMetrics, SummaryDataPoint, exemplar,
    };
    let time = u64::try_from(at).unwrap_or_default() * 1_000_000;
    let quantile = |(quantile, value)| ValueAtQuantile { quantile, value };
    let summary = SummaryDataPoint {
        time_unix_nano: time,
        count: 40,
        sum: 8.0,
        quantile_values: [(0.5, 0.1), (0.99, 0.7)].map(quantile).to_vec(),
        ..SummaryDataPoint::default()
    };
    let exemplar = otlp::Exemplar {
        time_unix_nano: time,
        trace_id: vec![7; 16],
        span_id: vec![7; 8],
        value: Some(exemplar::Value::AsDouble(0.3)),
        ..otlp::Exemplar::default()
    };
    let histogram = HistogramDataPoint {
        time_unix_nano: time,
        count: 1,
        sum: Some(0.3),
        bucket_counts: vec![0, 1],
        explicit_bounds: vec![0.2],
        exemplars: vec![exemplar],
        ..HistogramDataPoint::default()
    };
    let metric = |name: &str, data| Metric {
        name: name.to_owned(),
        unit: "s".to_owned(),
        description: "How long it took".to_owned(),
        data: Some(data),
        ..Metric::default()
    };
    let histogram = otlp::Histogram {
        data_points: vec![histogram],
        aggregation_temporality: AggregationTemporality::Cumulative.into(),
    };
    let metrics = vec![
        metric("gc.pause", Data::Summary(otlp::Summary { data_points: vec![summary] })),
        metric("took", Data::Histogram(histogram)),
    ];
    let scope_metrics = vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }];
    vec![ResourceMetrics { scope_metrics, ..ResourceMetrics::default() }]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn summaries_exemplars_and_what_metrics_are_survive_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let now = now();
    let config = config(folder.path(), NEVER);
    let check = async |metrics: &Arc<Metrics>| {
        for (query, value) in [
            ("gc_pause_seconds{quantile=\"0.5\"}", 0.1),
            ("gc_pause_seconds{quantile=\"0.99\"}", 0.7),
            ("gc_pause_seconds_count", 40.0),
            ("gc_pause_seconds_sum", 8.0),
            ("took_seconds_count", 1.0),
        ] {
            assert!((asked(metrics, query, now).await - value).abs() < 1e-9, "{query}");
        }
        let query = Query::parse("took_seconds_bucket").expect("a query");
        let found = metrics.exemplars(&query, (now - 60_000, now), &alone()).await.expect("exemplars");
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].1[0].labels.get("trace_id"), "07".repeat(16));
        let about = metrics.about(Some("gc_pause_seconds"));
        assert_eq!((about[0].1.of.word(), about[0].1.help.as_str()), ("summary", "How long it took"));
    };
    let scope = Scope::root("first");
    let metrics = Metrics::open(&config, folder.path(), &scope).await.expect("opened");
    assert_eq!(metrics.take_otlp(&told(now - 1000)).await.expect("kept"), Unkept::default());
    check(&metrics).await;
    scope.close(Duration::from_secs(60)).await;
    drop(metrics);
    let again = Metrics::open(&config, folder.path(), &Scope::root("second")).await.expect("opened");
    check(&again).await;
}
