//! A statement is asked of lines, spans and samples, and refused where it may not be.

use rusqlite::types::Value;

use super::*;
use crate::hot::Hot;
use crate::model::{Level, Line, Origin, Span, SpanId, SpanKind, TraceId};

const SECOND: u64 = 1_000_000_000;

fn line(second: u64, service: &str, level: Level, body: &str) -> Line {
    Line {
        time: Nanos(second * SECOND),
        origin: Arc::new(Origin { service: service.to_owned(), ..Origin::default() }),
        level,
        body: body.to_owned(),
        attributes: vec![("http.route".to_owned(), "/a".to_owned()), ("n".to_owned(), second.to_string())],
        ..Line::default()
    }
}

fn span(id: u8, nanos: u64) -> Span {
    Span {
        trace_id: TraceId([id; 16]),
        span_id: SpanId([id; 8]),
        parent: None,
        name: "pay".to_owned(),
        origin: Arc::new(Origin { service: "cart".to_owned(), ..Origin::default() }),
        kind: SpanKind::Server,
        start: Nanos(10 * SECOND),
        end: Nanos(10 * SECOND + nanos),
        failed: id == 2,
        status_message: String::new(),
        attributes: Vec::new(),
    }
}

/// Statements, and what they are asked of.
struct House {
    sql: Sql,
    question: Question,
}

impl House {
    async fn answer(&self, asked: Asked) -> Result<(Rows, u64), Error> {
        self.sql.answer(asked, &self.question).await
    }
}

async fn sql(config: Config) -> House {
    let tier = Arc::new(Hot::new(&config));
    let lines = (0..100).map(|second| {
        let level = if second % 10 == 0 { Level::Error } else { Level::Info };
        line(second, if second < 60 { "cart" } else { "shop" }, level, "it went")
    });
    tier.append_lines(lines.collect(), usize::MAX).await.expect("memory takes all");
    tier.append_spans(vec![span(1, 2_000_000), span(2, 4_000_000)], usize::MAX).await.expect("memory takes all");
    House { sql: Sql::new(Arc::new(Metrics::new(&config)), &config), question: Question::alone(tier) }
}

fn asked(statement: &str, (start, end): (u64, u64)) -> Asked {
    let (start, end) = (Nanos(start * SECOND), Nanos(end * SECOND));
    let lines = LineFilter { start: Some(start), end: Some(end), ..LineFilter::default() };
    Asked { statement: statement.to_owned(), start, end, lines, selector: String::new(), rows_max: 1000 }
}

async fn told(sql: &House, statement: &str) -> Result<Vec<Vec<Value>>, Error> {
    sql.answer(asked(statement, (0, 1000))).await.map(|(rows, _)| rows.rows)
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

#[tokio::test]
async fn lines_and_spans_are_counted_joined_and_taken_apart() {
    let sql = sql(Config::default()).await;
    let rows = told(&sql, "select service, level, count(*) from logs group by 1, 2 order by 3 desc").await.unwrap();
    assert_eq!(rows[0], [text("cart"), text("info"), Value::Integer(54)]);
    assert_eq!(rows.len(), 4);
    let rows =
        told(&sql, "SELECT count(*), sum(attributes ->> 'n') FROM logs WHERE attributes ->> 'http.route' = '/a'");
    assert_eq!(rows.await.unwrap(), [[Value::Integer(100), Value::Integer(4950)]]);
    let rows =
        told(&sql, "with s as (select * from spans) select name, avg(duration_ms), sum(failed) from s group by 1");
    assert_eq!(rows.await.unwrap(), [[text("pay"), Value::Real(3.0), Value::Integer(1)]]);
    let rows =
        told(&sql, "select strftime('%M', time) as minute, min(time), count(*) from logs group by 1").await.unwrap();
    assert_eq!(rows[1], [text("01"), text("1970-01-01T00:01:00.000000000Z"), Value::Integer(40)]);
    let rows = told(&sql, "select key, value from logs, json_each(logs.attributes) limit 1").await.unwrap();
    assert_eq!(rows, [[text("http.route"), text("/a")]]);
    for join in ["using (service)", "on logs.service = spans.service"] {
        let statement = format!("select count(*) from logs join spans {join}");
        assert_eq!(told(&sql, &statement).await.unwrap(), [[Value::Integer(120)]], "{join}");
    }
    let natural =
        told(&sql, "select count(*) from (select service from logs) natural join (select SERVICE from spans)");
    assert_eq!(natural.await.unwrap(), [[Value::Integer(120)]]);
    let (rows, records) = sql.answer(asked("select time from logs", (10, 20))).await.unwrap();
    assert_eq!((rows.rows.len(), records, rows.columns), (10, 10, vec!["time".to_owned()]));
    let (rows, records) = sql.answer(asked("select 1", (0, 1000))).await.unwrap();
    assert_eq!((rows.rows.len(), records), (1, 0));
}

#[tokio::test]
async fn a_statement_that_does_more_than_select_is_refused() {
    let sql = sql(Config::default()).await;
    for (statement, why) in [
        ("delete from logs", "must be one SELECT"),
        ("select 1; select 2", "must be one statement"),
        ("", "must be one SELECT"),
        ("attach 'x.db' as x", "must be one SELECT"),
        ("vacuum into 'x.db'", "must be one SELECT"),
        ("pragma query_only", "must be one SELECT"),
        ("with a as (select 1) insert into logs (body) select 'x' from a", "must be one SELECT"),
        ("create temp table t as select 1", "must be one SELECT"),
        ("select * from pragma_database_list", ""),
        ("select load_extension('x')", ""),
        ("with recursive t(x) as (select 1 union all select x + 1 from t) select x from t", "RECURSIVE"),
        ("select servce from logs", "no such column: servce"),
        ("selec 1", "at byte 0: near \"selec\": syntax error"),
        ("select * from people", "no such table: people"),
    ] {
        match told(&sql, statement).await {
            Err(Error::QueryInvalid(problems)) => {
                assert!(format!("{problems:?}").contains(&why.replace('"', "\\\"")), "{statement}: {problems:?}");
            }
            other => panic!("{statement}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_statement_beyond_its_bounds_is_refused() {
    let small = sql(Config { sql_records_max: 50, ..Config::default() }).await;
    let too_many = told(&small, "select count(*) from logs").await;
    assert!(matches!(&too_many, Err(Error::SqlTooCostly(what)) if what.starts_with("50 records")), "{too_many:?}");
    assert_eq!(small.answer(asked("select count(*) from logs", (0, 50))).await.unwrap().1, 50);
    let small = sql(Config { sql_bytes_max: 1000, ..Config::default() }).await;
    assert!(matches!(told(&small, "select body from logs").await, Err(Error::SqlTooCostly(_))));
    let large = sql(Config::default()).await;
    assert!(matches!(told(&large, "select hex(zeroblob(1000000))").await, Err(Error::SqlTooCostly(_))));
    let endless = "select count(*) from logs a, logs b, logs c, logs d, logs e, logs f, logs g, logs h";
    let short = sql(Config { query_wait: Duration::from_millis(300), ..Config::default() }).await;
    assert!(matches!(told(&short, endless).await, Err(Error::QueryTooSlow(_))));
    let cut = large.answer(Asked { rows_max: 3, ..asked("select body from logs", (0, 1000)) }).await.unwrap().0;
    assert_eq!((cut.rows.len(), cut.is_cut_off), (3, true));
}

#[tokio::test]
async fn a_statement_ends_when_nobody_waits_for_it() {
    let sql = Arc::new(sql(Config { query_wait: Duration::from_secs(600), ..Config::default() }).await);
    let endless = "select count(*) from logs a, logs b, logs c, logs d, logs e, logs f, logs g, logs h";
    let waited = tokio::time::timeout(Duration::from_millis(200), sql.answer(asked(endless, (0, 1000)))).await;
    assert!(waited.is_err(), "it does not end by itself");
    // The next one gets its turn although the first had ten minutes.
    let next = tokio::time::timeout(Duration::from_secs(60), told(&sql, "select 1")).await;
    assert!(next.is_ok_and(|rows| rows.is_ok()), "the thread went on for nobody");
}
