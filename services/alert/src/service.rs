//! The contract `ninefold.alert.v1.AlertService`: decode, ask, encode.

use std::sync::Arc;

use ninefold::fault;
use ninefold::tonic::{Request, Response, Status, async_trait};
use ninefold_proto::ninefold::alert::v1 as proto;
use ninefold_proto::ninefold::alert::v1::alert_service_server::AlertService;
use prost_types::{Duration, Timestamp};
use tokio::sync::watch;

use crate::document::{self, Document, Texts};
use crate::error::Error;
use crate::shipped::Pace;
use crate::state::Alert;
use crate::tell::{inhibition_of, silence_of};
use crate::watch::{Board, Known, rules};

/// Answers the contract.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) board: Arc<Board>,
    pub(crate) document: watch::Receiver<Arc<Document>>,
    pub(crate) pace: Pace,
}

#[async_trait]
impl AlertService for Service {
    async fn list_alerts(
        &self,
        _: Request<proto::ListAlertsRequest>,
    ) -> Result<Response<proto::ListAlertsResponse>, Status> {
        let document = self.document.borrow().clone();
        let mut alerts: Vec<proto::Alert> = Vec::new();
        let board = self.board.read();
        let all = board.values().flat_map(|known| known.alerts.values());
        let firing: Vec<Texts> = all.filter(|one| one.firing.is_some()).map(|one| one.labels.clone()).collect();
        for (rule, known) in board {
            alerts.extend(known.alerts.into_values().map(|one| alert(&rule, one, &document, &firing)));
        }
        alerts.sort_by_key(|alert| (alert.firing_since.is_none(), alert.active_since.map(|since| since.seconds)));
        Ok(Response::new(proto::ListAlertsResponse { alerts }))
    }

    async fn list_rules(
        &self,
        _: Request<proto::ListRulesRequest>,
    ) -> Result<Response<proto::ListRulesResponse>, Status> {
        let rules = self.board.read().into_iter().map(|(name, known)| rule(name, known)).collect();
        Ok(Response::new(proto::ListRulesResponse { rules }))
    }

    async fn check_alerts(
        &self,
        request: Request<proto::CheckAlertsRequest>,
    ) -> Result<Response<proto::CheckAlertsResponse>, Status> {
        let read = document::read(&request.into_inner().document);
        let document = read.map_err(|wrong| fault::status(&Error::Invalid(wrong)))?;
        let rules = u32::try_from(rules(&document, self.pace).len()).unwrap_or(u32::MAX);
        Ok(Response::new(proto::CheckAlertsResponse { rules }))
    }
}

fn alert(rule: &str, alert: Alert, document: &Document, firing: &[Texts]) -> proto::Alert {
    let firing: Vec<&Texts> = firing.iter().collect();
    let inhibited_by = inhibition_of(document, &alert.labels, &firing).unwrap_or_default().to_owned();
    let state = if alert.firing.is_some() { proto::AlertState::Firing } else { proto::AlertState::Pending };
    proto::Alert {
        rule: rule.to_owned(),
        state: state.into(),
        silenced_by: silence_of(document, &alert.labels).unwrap_or_default().to_owned(),
        inhibited_by,
        labels: alert.labels.into_iter().collect(),
        annotations: alert.annotations.into_iter().collect(),
        value: alert.value,
        active_since: Some(time(alert.active)),
        firing_since: alert.firing.map(time),
    }
}

fn rule(name: String, known: Known) -> proto::Rule {
    let logs = known.rule.logs.map(|logs| {
        let within = ninefold::settings::duration::format(logs.within);
        let searched = if logs.query.is_empty() { String::new() } else { format!(" found by {:?}", logs.query) };
        format!(
            "more than {} lines of {:?} at {:?} with {:?}{searched} within {within}",
            logs.above, logs.service, logs.level, logs.text
        )
    });
    let instances = known.rule.instances.map(|asked| {
        let within = ninefold::settings::duration::format(asked.within);
        format!("instances of {:?} that are silent, or went without a word within {within}", asked.service)
    });
    proto::Rule {
        name,
        instances: instances.unwrap_or_default(),
        expr: known.rule.expr.unwrap_or_default(),
        logs: logs.unwrap_or_default(),
        r#for: Duration::try_from(known.rule.wait).ok(),
        keep_firing_for: Duration::try_from(known.rule.keep_firing_for).ok(),
        shipped: known.is_shipped,
        evaluated: known.evaluated.map(time),
        problem: known.problem,
        record: known.rule.record.unwrap_or_default(),
        alerts: u32::try_from(known.alerts.len()).unwrap_or(u32::MAX),
    }
}

const fn time(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanos: 0 }
}
