//! A real Prometheus with samples of ours.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ninefold_promql::{NAME, Series, Span, show};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);

/// A series of an answer.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) labels: Vec<(String, String)>,
    /// Milliseconds since 1970, and value.
    pub(crate) values: Vec<(i64, f64)>,
}

/// A Prometheus, until it is dropped.
pub(crate) struct Prometheus {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn metrics(all: &[Series]) -> String {
    let mut text = String::new();
    let mut names: Vec<&str> = all.iter().map(|series| series.labels.get(NAME)).collect();
    names.dedup();
    for series in all {
        let name = series.labels.get(NAME);
        let labels: Vec<String> = series
            .labels
            .iter()
            .filter(|(label, _)| *label != NAME)
            .map(|(label, value)| format!("{label}={value:?}"))
            .collect();
        for sample in &series.samples {
            let value = show(sample.point.float().expect("a float"));
            let (seconds, millis) = (sample.at.div_euclid(1000), sample.at.rem_euclid(1000));
            writeln!(text, "{name}{{{}}} {value} {seconds}.{millis:03}", labels.join(",")).expect("into memory");
        }
    }
    text + "# EOF\n"
}

impl Prometheus {
    pub(crate) fn start(all: &[Series]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (input, data) = (folder.path().join("samples"), folder.path().join("data"));
        std::fs::write(&input, metrics(all)).expect("a file");
        std::fs::write(folder.path().join("prometheus.yml"), "global: {}\n").expect("a file");
        let made = Command::new("promtool")
            .args(["tsdb", "create-blocks-from", "openmetrics"])
            .args([&input, &data])
            .output()
            .expect("promtool is not installed: apt-get install prometheus, or run ./check");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        // Taken by another between this and the start: then the start fails, and says so.
        let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
        let child = Command::new("prometheus")
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data", "--storage.tsdb.retention.time=100y"])
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus is not installed: apt-get install prometheus, or run ./check");
        let prometheus = Self { child, port, _folder: folder };
        let end = Instant::now() + PATIENCE;
        while prometheus.get("/-/ready").is_none_or(|(code, _)| code != 200) {
            assert!(Instant::now() < end, "prometheus is not ready in time");
            std::thread::park_timeout(Duration::from_millis(50));
        }
        prometheus
    }

    /// Sends a request and reads the whole answer.
    fn get(&self, target: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        write!(stream, "GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    /// What it answers.
    ///
    /// # Errors
    /// What it says of a query that it refuses.
    pub(crate) fn ask(&self, query: &str, span: Span) -> Result<Vec<Told>, String> {
        let mut escaped = String::new();
        for byte in query.bytes() {
            write!(escaped, "%{byte:02X}").expect("into memory");
        }
        let seconds = |millis: i64| format!("{}.{:03}", millis / 1000, millis % 1000);
        let target = if span.from == span.to {
            format!("/api/v1/query?query={escaped}&time={}", seconds(span.from))
        } else {
            let (from, to, step) = (seconds(span.from), seconds(span.to), seconds(span.step));
            format!("/api/v1/query_range?query={escaped}&start={from}&end={to}&step={step}")
        };
        let (_, body) = self.get(&target).expect("prometheus answers");
        let answer: serde_json::Value = serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?;
        if answer["status"] != "success" {
            return Err(answer["error"].to_string());
        }
        let value = |pair: &serde_json::Value| {
            let at = (pair[0].as_f64().expect("a time") * 1000.0).round();
            let text = pair[1].as_str().expect("a value").replace("Inf", "inf");
            (format!("{at}").parse().expect("a time"), text.parse().expect("a value"))
        };
        let result = &answer["data"]["result"];
        if answer["data"]["resultType"] == "scalar" {
            return Ok(vec![Told { labels: Vec::new(), values: vec![value(result)] }]);
        }
        let series = result.as_array().expect("series").iter().map(|series| {
            let labels = series["metric"].as_object().expect("labels").iter();
            let mut labels: Vec<(String, String)> =
                labels.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned())).collect();
            labels.sort();
            let values = match series.get("values") {
                Some(values) => values.as_array().expect("values").iter().map(value).collect(),
                None => vec![value(&series["value"])],
            };
            Told { labels, values }
        });
        Ok(series.collect())
    }
}
