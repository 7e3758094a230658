//! What is told of packages.

use std::path::Path;

use ninefold_proto::ninefold::contract::v1 as proto;
use proto::{
    DiffRevisionsRequest, ExportPackageRequest, GetDocumentationRequest, GetDocumentationResponse, GetPackageRequest,
    GetPackageResponse, ListCallersRequest, ListPackagesRequest, Package,
};
use serde_json::json;

use super::{Form, check};
use crate::client::Platform;
use crate::exit::Failure;
use crate::output::{self, Format, Table};

pub(super) const PACKAGE: &str = "ninefold.contract.v1.Package";

/// Lists packages.
pub(super) async fn list(platform: &Platform, owner: String, format: Format) -> Result<(), Failure> {
    let client = platform.packages();
    let packages = platform
        .gather(|page_token| {
            let (mut client, owner) = (client.clone(), owner.clone());
            async move {
                let request = ListPackagesRequest { owner, page_size: 1000, page_token, ..Default::default() };
                let answer = client.list_packages(request).await?.into_inner();
                Ok((answer.packages, answer.next_page_token))
            }
        })
        .await?;
    output::print(format, &output::json_all(PACKAGE, &packages), || table(&packages))
}

/// Packages for people.
pub(super) fn table(packages: &[Package]) -> String {
    let mut table = Table::new(&["PACKAGE", "OWNER", "STATE", "LEVEL", "REVISIONS", "CHANGED"]);
    for one in packages {
        let sunset = one.sunset_time.map(|time| format!(" until {}", &time.to_string()[..10])).unwrap_or_default();
        let state = format!("{}{sunset}", output::word(one.state().as_str_name(), "PACKAGE_STATE_"));
        let level = output::word(one.level().as_str_name(), "LEVEL_");
        table.row([
            one.package.clone(),
            one.owner.clone(),
            state,
            level,
            one.revisions.to_string(),
            output::ago(one.update_time.as_ref()),
        ]);
    }
    table.render()
}

/// Documents a package.
pub(super) async fn show(platform: &Platform, package: String, revision: i64, format: Format) -> Result<(), Failure> {
    let request = GetPackageRequest { package: package.clone() };
    let state = platform.ask(platform.packages().get_package(request)).await?;
    let request = GetDocumentationRequest { package, revision };
    let documented = platform.ask(platform.packages().get_documentation(request)).await?;
    let value = json!({
        "package": output::json("ninefold.contract.v1.GetPackageResponse", &state),
        "documentation": output::json("ninefold.contract.v1.GetDocumentationResponse", &documented),
    });
    output::print(format, &value, || page(&state, &documented))
}

fn page(state: &GetPackageResponse, documented: &GetDocumentationResponse) -> String {
    let package = state.package.clone().unwrap_or_default();
    let mut text = table(std::slice::from_ref(&package));
    let long = match state.unused_days {
        0 => "less than a day, as is asked here".to_owned(),
        1 => "a day".to_owned(),
        days => format!("{days} days"),
    };
    for method in &state.deletable_methods {
        text.push_str(&format!("{method} may go: deprecated, and nobody has called it for {long}\n"));
    }
    if state.retirable {
        let name = &package.package;
        text.push_str(&format!("nobody has called it for {long}: ninefold contract retire {name} --reason ...\n"));
    }
    text.push_str(&format!("\nrevision {} of {}\n", documented.revision, package.package));
    for one in &documented.history {
        let by =
            if one.author.is_empty() { String::new() } else { format!(", accepted by {}: {}", one.author, one.reason) };
        let when = output::ago(one.create_time.as_ref());
        text.push_str(&format!("  {}  {when} ago from {}{by}\n", one.number, one.service));
    }
    documented.services.iter().for_each(|service| service_page(&mut text, service));
    for message in &documented.messages {
        comment(&mut text, "", &message.comment);
        text.push_str(&format!("message {}{}\n", message.name, gone(message.deprecated)));
        for field in &message.fields {
            let about = field.comment.replace('\n', " ");
            text.push_str(&format!(
                "  {} {} = {}{}  {about}\n",
                field.r#type,
                field.name,
                field.number,
                gone(field.deprecated)
            ));
        }
        text.push('\n');
    }
    for one in &documented.enums {
        comment(&mut text, "", &one.comment);
        text.push_str(&format!("enum {}\n", one.name));
        for value in &one.values {
            text.push_str(&format!("  {} = {}  {}\n", value.name, value.number, value.comment.replace('\n', " ")));
        }
        text.push('\n');
    }
    text
}

fn service_page(text: &mut String, service: &proto::ServiceDocumentation) {
    text.push('\n');
    comment(text, "", &service.comment);
    text.push_str(&format!("service {}{}\n", service.name, gone(service.deprecated)));
    for method in &service.methods {
        text.push('\n');
        comment(text, "  ", &method.comment);
        let stream = |is_stream| if is_stream { "stream " } else { "" };
        text.push_str(&format!(
            "  rpc {}({}{}) returns ({}{}){}\n",
            method.name,
            stream(method.client_streaming),
            method.request,
            stream(method.server_streaming),
            method.response,
            gone(method.deprecated)
        ));
        for binding in &method.bindings {
            text.push_str(&format!("    {} {}\n", binding.verb, binding.path));
        }
        if let Some(examples) = &method.examples {
            for example in [&examples.ninefold, &examples.curl].into_iter().filter(|example| !example.is_empty()) {
                text.push_str(&format!("    $ {example}\n"));
            }
        }
    }
    text.push('\n');
}

fn gone(is_deprecated: bool) -> &'static str {
    if is_deprecated { " (deprecated)" } else { "" }
}

fn comment(text: &mut String, indent: &str, comment: &str) {
    for line in comment.lines() {
        text.push_str(&format!("{indent}// {line}\n"));
    }
}

/// Tells what was accepted, refused and changed.
pub(super) async fn log(platform: &Platform, name: &str, lines: usize, format: Format) -> Result<(), Failure> {
    // A package has a dot in its name, a service has none.
    let (service, package) = if name.contains('.') { ("", name) } else { (name, "") };
    let mut changes = platform.changes(service, package).await?;
    changes.truncate(lines);
    changes.reverse();
    output::print(format, &output::json_all("ninefold.contract.v1.Change", &changes), || {
        let mut table = Table::new(&["AGE", "WHAT", "PACKAGE", "SERVICE", "BY", "REASON"]);
        for change in &changes {
            table.row([
                output::ago(change.time.as_ref()),
                output::word(change.kind().as_str_name(), "CHANGE_KIND_"),
                change.package.clone(),
                change.service.clone(),
                change.author.clone(),
                change.reason.clone(),
            ]);
        }
        table.render()
    })
}

/// Tells what differs between two revisions.
pub(super) async fn diff(
    platform: &Platform,
    package: String,
    before: i64,
    after: i64,
    format: Format,
) -> Result<(), Failure> {
    let request = DiffRevisionsRequest { package, before, after };
    let answer = platform.ask(platform.packages().diff_revisions(request)).await?;
    output::print(format, &output::json("ninefold.contract.v1.DiffRevisionsResponse", &answer), || {
        let findings: String = answer.findings.iter().map(|finding| format!("{}\n", check::line(finding))).collect();
        format!("revision {} -> {}\n{}\n{findings}", answer.before, answer.after, answer.unified_diff)
    })
}

/// Tells who uses a package.
pub(super) async fn callers(
    platform: &Platform,
    package: String,
    method: String,
    format: Format,
) -> Result<(), Failure> {
    let request = ListCallersRequest { package: package.clone(), method };
    let callers = platform.ask(platform.packages().list_callers(request)).await?.callers;
    output::print(format, &output::json_all("ninefold.contract.v1.Caller", &callers), || {
        let mut table = Table::new(&["CALLER", "METHOD", "BUILT WITH", "CALLS", "SINCE", "LAST"]);
        for one in &callers {
            let method = one.method.strip_prefix(&format!("{package}.")).unwrap_or(&one.method);
            table.row([
                one.service.clone(),
                if method.is_empty() { "-".to_owned() } else { method.to_owned() },
                if one.declared { "yes" } else { "no" }.to_owned(),
                one.calls.to_string(),
                output::ago(one.first_time.as_ref()),
                output::ago(one.last_time.as_ref()),
            ]);
        }
        if callers.is_empty() { format!("nobody is known to use {package}") } else { table.render() }
    })
}

/// Saves a package as a file.
pub(super) async fn export(
    platform: &Platform,
    package: String,
    revision: i64,
    form: Form,
    file: Option<&Path>,
) -> Result<(), Failure> {
    let form = match form {
        Form::Set => proto::ExportForm::DescriptorSet,
        Form::Proto => proto::ExportForm::ProtoFiles,
        Form::Buf => proto::ExportForm::BufModule,
    };
    let request = ExportPackageRequest { package, revision, form: form.into() };
    let answer = platform.ask(platform.packages().export_package(request)).await?;
    let name = file.unwrap_or_else(|| Path::new(&answer.file_name));
    if name.as_os_str() == "-" {
        use std::io::Write as _;
        return std::io::stdout().lock().write_all(&answer.content).map_err(|_| Failure::ReaderGone);
    }
    std::fs::write(name, &answer.content)
        .map_err(|error| Failure::Failed(format!("cannot write {}: {error}", name.display())))?;
    output::talk(format!("{}: {} bytes", name.display(), answer.content.len()));
    Ok(())
}
