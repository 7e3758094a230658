//! `ninefold query`: SQL over what happened.

use std::time::{Duration, SystemTime};

use clap::Args;
use ninefold_proto::ninefold::monitor::v1::sql_value::Kind;
use ninefold_proto::ninefold::monitor::v1::{ListSqlTablesRequest, QuerySqlRequest, QuerySqlResponse, SqlValue};
use serde_json::{Map, Value, json};

use crate::client::Platform;
use crate::exit::Failure;
use crate::output::{self, Format, Table};

/// What `query` takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct QueryArgs {
    /// A SELECT over logs, spans and samples. Without one: which columns they have.
    pub(crate) statement: Option<String>,
    /// Over the last while, such as 5m.
    #[arg(long, default_value = "1h", value_parser = ninefold::settings::duration::parse)]
    pub(crate) since: Duration,
    /// Up to so long ago, such as 2m [default: now].
    #[arg(long, value_parser = ninefold::settings::duration::parse)]
    pub(crate) until: Option<Duration>,
    /// Only log lines that this says, in the language of `ninefold logs --query`.
    #[arg(short, long, default_value = "", value_name = "QUERY")]
    pub(crate) lines: String,
    /// Only samples of series that this selects, in PromQL, such as '{job="cart"}'.
    #[arg(short, long, default_value = "", value_name = "SELECTOR")]
    pub(crate) samples: String,
    /// Most rows.
    #[arg(short = 'n', long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(crate) rows: u16,
}

/// Prints what a statement says, or what there is to ask.
pub(crate) async fn query(platform: &Platform, args: QueryArgs, format: Format) -> Result<(), Failure> {
    let Some(statement) = args.statement else { return tables(platform, format).await };
    let before = |past: Duration| SystemTime::now().checked_sub(past).map(prost_types::Timestamp::from);
    let request = QuerySqlRequest {
        statement,
        start_time: before(args.since),
        end_time: args.until.and_then(before),
        query: args.lines,
        selector: args.samples,
        rows_max: i32::from(args.rows),
    };
    let answer = platform.search(platform.sql().query_sql(request)).await?;
    output::missing(&answer.missing_nodes);
    if answer.truncated {
        output::talk(format!("there are more rows than these {}", answer.rows.len()));
    }
    if format == Format::Csv {
        return csv(&answer);
    }
    if answer.rows.is_empty() {
        output::talk(format!("no rows, of {} records", answer.records));
    }
    output::print(format, &objects(&answer), || {
        let head: Vec<String> = answer.columns.iter().map(|name| output::cell(name)).collect();
        let mut table = Table::new(&head.iter().map(String::as_str).collect::<Vec<_>>());
        for row in &answer.rows {
            table.row(row.values.iter().map(|value| text(value, "-")));
        }
        table.render()
    })
}

async fn tables(platform: &Platform, format: Format) -> Result<(), Failure> {
    let tables = platform.ask(platform.sql().list_sql_tables(ListSqlTablesRequest {})).await?.tables;
    output::print(format, &output::json_all("ninefold.monitor.v1.SqlTable", &tables), || {
        let mut told = Table::new(&["TABLE", "COLUMN", "TYPE", "WHAT IT HOLDS"]);
        for table in &tables {
            for column in &table.columns {
                told.row([&table.name, &column.name, &column.r#type, &column.about]);
            }
        }
        told.render()
    })
}

/// Rows as objects by column. Where two columns have one name, the later bears a number.
fn objects(answer: &QuerySqlResponse) -> Value {
    let mut names: Vec<String> = Vec::with_capacity(answer.columns.len());
    for name in &answer.columns {
        let free = (1_u32..).map(|turn| if turn == 1 { name.clone() } else { format!("{name}_{turn}") });
        names.extend(free.into_iter().find(|name| !names.contains(name)));
    }
    let row =
        |values: &[SqlValue]| -> Map<String, Value> { names.iter().cloned().zip(values.iter().map(plain)).collect() };
    answer.rows.iter().map(|of| Value::Object(row(&of.values))).collect()
}

fn plain(value: &SqlValue) -> Value {
    match &value.kind {
        None => Value::Null,
        Some(Kind::Integer(number)) => json!(number),
        Some(Kind::Real(number)) => json!(number),
        Some(Kind::Text(text)) => json!(text),
        Some(Kind::Blob(blob)) => json!(hex(blob)),
    }
}

fn text(value: &SqlValue, null: &str) -> String {
    match &value.kind {
        None => null.to_owned(),
        Some(Kind::Integer(number)) => number.to_string(),
        Some(Kind::Real(number)) => number.to_string(),
        Some(Kind::Text(text)) => text.clone(),
        Some(Kind::Blob(blob)) => hex(blob),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Rows as RFC 4180 has them, behind their head. NULL is empty.
fn csv(answer: &QuerySqlResponse) -> Result<(), Failure> {
    let line = |cells: Vec<String>| cells.iter().map(|cell| quoted(cell)).collect::<Vec<_>>().join(",");
    output::row(line(answer.columns.clone()))?;
    answer.rows.iter().try_for_each(|row| output::row(line(row.values.iter().map(|value| text(value, "")).collect())))
}

fn quoted(cell: &str) -> String {
    if cell.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_objects_and_a_name_that_is_there_twice_bears_a_number() {
        use ninefold_proto::ninefold::monitor::v1::SqlRow;
        let value = |kind| SqlValue { kind: Some(kind) };
        let values = vec![value(Kind::Integer(1)), value(Kind::Text("a\"b".to_owned())), SqlValue { kind: None }];
        let columns = ["n", "n", "x"].map(str::to_owned).to_vec();
        let answer = QuerySqlResponse { columns, rows: vec![SqlRow { values }], ..QuerySqlResponse::default() };
        assert_eq!(objects(&answer), json!([{"n": 1, "n_2": "a\"b", "x": null}]));
    }

    #[test]
    fn cells_are_quoted_where_they_must_be() {
        for (cell, told) in [("a", "a"), ("a,b", "\"a,b\""), ("a\"b", "\"a\"\"b\""), ("a\nb", "\"a\nb\"")] {
            assert_eq!(quoted(cell), told);
        }
    }
}
