//! The verbs, one file each.

pub(crate) mod alerts;
pub(crate) mod call;
pub(crate) mod config;
pub(crate) mod contract;
pub(crate) mod describe;
pub(crate) mod doctor;
pub(crate) mod key;
pub(crate) mod logs;
pub(crate) mod metrics;
pub(crate) mod nodes;
pub(crate) mod overrides;
pub(crate) mod policy;
pub(crate) mod ps;
pub(crate) mod query;
pub(crate) mod routes;
pub(crate) mod run;
pub(crate) mod scale;
pub(crate) mod token;
pub(crate) mod top;
pub(crate) mod trace;
pub(crate) mod up;
pub(crate) mod why;
pub(crate) mod xds;
