//! Changes how packages are held, and accepts what was refused. Who and why is kept.

use ninefold_proto::ninefold::contract::v1 as proto;
use proto::change_package_request::Change as Wish;
use proto::{AcceptContractRequest, ChangePackageRequest, Deprecate, Level, Restore, Retire};

use super::{HeldArgs, Strictness, check, show};
use crate::client::Platform;
use crate::commands::config::author;
use crate::exit::Failure;
use crate::output::{self, Format};

async fn change(platform: &Platform, held: HeldArgs, wish: Wish, format: Format) -> Result<(), Failure> {
    let HeldArgs { package, reason } = held;
    let request = ChangePackageRequest { package, author: author(), reason, change: Some(wish) };
    let answer = platform.ask(platform.packages().change_package(request)).await?;
    let package = answer.package.unwrap_or_default();
    output::print(format, &output::json(show::PACKAGE, &package), || show::table(std::slice::from_ref(&package)))
}

/// Tells that a package is to be left.
pub(super) async fn deprecate(
    platform: &Platform,
    held: HeldArgs,
    sunset: Option<String>,
    format: Format,
) -> Result<(), Failure> {
    let sunset_time = sunset.map(|date| day(&date)).transpose()?;
    change(platform, held, Wish::Deprecate(Deprecate { sunset_time }), format).await
}

/// A day as a moment: its beginning in UTC.
fn day(date: &str) -> Result<prost_types::Timestamp, Failure> {
    let full = if date.contains('T') { date.to_owned() } else { format!("{date}T00:00:00Z") };
    full.parse().map_err(|_| Failure::Usage(format!("{date:?} is no day such as 2027-01-31")))
}

/// Tells that a package is not to be offered any more.
pub(super) async fn retire(platform: &Platform, held: HeldArgs, force: bool, format: Format) -> Result<(), Failure> {
    change(platform, held, Wish::Retire(Retire { force }), format).await
}

/// Takes both back.
pub(super) async fn restore(platform: &Platform, held: HeldArgs, format: Format) -> Result<(), Failure> {
    change(platform, held, Wish::Restore(Restore {}), format).await
}

/// Holds a package more or less strictly.
pub(super) async fn level(
    platform: &Platform,
    held: HeldArgs,
    strictness: Strictness,
    format: Format,
) -> Result<(), Failure> {
    let level = match strictness {
        Strictness::Default => Level::Unspecified,
        Strictness::Runtime => Level::Runtime,
        Strictness::Strict => Level::Strict,
        Strictness::Warn => Level::Warn,
        Strictness::Off => Level::Off,
    };
    change(platform, held, Wish::Level(level.into()), format).await
}

/// Gives a package to another service.
pub(super) async fn own(platform: &Platform, held: HeldArgs, service: String, format: Format) -> Result<(), Failure> {
    change(platform, held, Wish::Owner(service), format).await
}

/// Accepts what was refused, by its digest or by its service.
pub(super) async fn accept(platform: &Platform, contract: &str, reason: String, format: Format) -> Result<(), Failure> {
    let digest = if contract.starts_with("sha256:") { contract.to_owned() } else { latest(platform, contract).await? };
    let request = AcceptContractRequest { digest, author: author(), reason };
    let answer = platform.ask(platform.packages().accept_contract(request)).await?;
    output::print(format, &output::json("ninefold.contract.v1.AcceptContractResponse", &answer), || {
        let contract = answer.contract.clone().unwrap_or_default();
        let lines: Vec<String> = answer.findings.iter().map(check::line).collect();
        format!("accepted {} of {} although:\n{}", contract.digest, contract.service, lines.join("\n"))
    })
}

async fn latest(platform: &Platform, service: &str) -> Result<String, Failure> {
    let changes = platform.changes(service, "").await?;
    let refused = changes.into_iter().find(|change| change.kind() == proto::ChangeKind::Refused);
    refused.map(|change| change.contract_digest).ok_or_else(|| {
        Failure::NotFound(format!("no contract of {service} was refused; `ninefold contract log {service}`"))
    })
}
