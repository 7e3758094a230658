//! The contract `ninefold.monitor.v1.SqlService`: decode, ask, encode.

use std::sync::Arc;
use std::time::SystemTime;

use ninefold::fault;
use ninefold::tonic::{Request, Response, Status, async_trait};
use ninefold_proto::ninefold::monitor::v1 as proto;
use ninefold_proto::ninefold::monitor::v1::sql_service_server::SqlService;
use rusqlite::types::Value;

use super::desk::Rows;
use super::tables::{Column, Table};
use super::{Asked, Sql};
use crate::captured::nanos;
use crate::error::Error;
use crate::model::Nanos;
use crate::neighbours::{ALONE, Neighbours};
use crate::wire::query;

/// How long the time is that is asked about where nobody says.
const TIME_NANOS: u64 = 3600 * 1_000_000_000;
/// Rows of an answer, where nobody says, and at most.
const ROWS: (usize, usize) = (1000, 10_000);

/// Answers the contract.
#[derive(Debug)]
pub(crate) struct Service(pub(crate) Arc<Sql>, pub(crate) Arc<Neighbours>);

fn read(request: proto::QuerySqlRequest, now: Nanos) -> Result<Asked, Error> {
    let filter = proto::LogFilter {
        query: request.query,
        start_time: request.start_time,
        end_time: request.end_time,
        ..proto::LogFilter::default()
    };
    let mut lines = query::line_filter(Some(filter))?;
    let end = lines.end.unwrap_or(Nanos(now.0.saturating_add(1)));
    let start = lines.start.unwrap_or(Nanos(end.0.saturating_sub(TIME_NANOS)));
    (lines.start, lines.end) = (Some(start), Some(end));
    let rows_max = match usize::try_from(request.rows_max) {
        Ok(0) => ROWS.0,
        Ok(rows) => rows.min(ROWS.1),
        Err(_) => return Err(query::wrong("rows_max", "must not be negative")),
    };
    Ok(Asked { statement: request.statement, start, end, lines, selector: request.selector, rows_max })
}

fn encoded((rows, records): (Rows, u64), missing_nodes: Vec<proto::MissingNode>) -> proto::QuerySqlResponse {
    use proto::sql_value::Kind;
    let value = |value: Value| proto::SqlValue {
        kind: match value {
            Value::Null => None,
            Value::Integer(number) => Some(Kind::Integer(number)),
            Value::Real(number) => Some(Kind::Real(number)),
            Value::Text(text) => Some(Kind::Text(text)),
            Value::Blob(blob) => Some(Kind::Blob(blob)),
        },
    };
    let row = |row: Vec<Value>| proto::SqlRow { values: row.into_iter().map(value).collect() };
    proto::QuerySqlResponse {
        columns: rows.columns,
        rows: rows.rows.into_iter().map(row).collect(),
        truncated: rows.is_cut_off,
        records,
        missing_nodes,
    }
}

#[async_trait]
impl SqlService for Service {
    async fn query_sql(
        &self,
        request: Request<proto::QuerySqlRequest>,
    ) -> Result<Response<proto::QuerySqlResponse>, Status> {
        let question = self.1.question(request.metadata().contains_key(ALONE)).await;
        let asked = read(request.into_inner(), nanos(SystemTime::now())).map_err(|error| fault::status(&error))?;
        let answer = self.0.answer(asked, &question).await.map_err(|error| fault::status(&error))?;
        Ok(Response::new(encoded(answer, question.missing())))
    }

    async fn list_sql_tables(
        &self,
        _: Request<proto::ListSqlTablesRequest>,
    ) -> Result<Response<proto::ListSqlTablesResponse>, Status> {
        let column = |(name, kind, about): &Column| proto::SqlTableColumn {
            name: (*name).to_owned(),
            r#type: (*kind).to_owned(),
            about: (*about).to_owned(),
        };
        let table = |table: &Table| proto::SqlTable {
            name: table.name().to_owned(),
            columns: table.columns().iter().map(column).collect(),
        };
        Ok(Response::new(proto::ListSqlTablesResponse { tables: Table::ALL.iter().map(table).collect() }))
    }
}
