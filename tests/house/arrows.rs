//! Who may use whom.
//!
//! Arrows point down: words, manners, store and gateway, roles, the whole. Siblings share only words. A new arrow is a line
//! in this file, and that is where it is argued.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

use crate::tree;

/// Each crate, and which of ours it may use. Tests and benches may use anything in theirs.
const OURS: &[(&str, &[&str])] = &[
    // words
    ("ninefold-build", &[]),
    ("ninefold-proto", &["ninefold-build"]),
    // manners
    ("ninefold", &["ninefold-proto"]),
    // where things are kept, and the door; the door never sees the store
    ("ninefold-store", &["ninefold"]),
    ("ninefold-gateway", &["ninefold", "ninefold-proto"]),
    // roles: siblings, none uses another
    ("ninefold-contract", &["ninefold", "ninefold-proto", "ninefold-store"]),
    ("ninefold-registry", &["ninefold", "ninefold-proto", "ninefold-store"]),
    ("ninefold-config", &["ninefold", "ninefold-proto", "ninefold-store"]),
    // What PromQL means: pure, and used by whoever keeps series.
    ("ninefold-promql", &[]),
    ("ninefold-monitor", &["ninefold", "ninefold-proto", "ninefold-store", "ninefold-promql"]),
    // It reads queries before it lets anybody write them; it asks them of the monitor by contract.
    ("ninefold-alert", &["ninefold", "ninefold-proto", "ninefold-store", "ninefold-promql"]),
    ("ninefold-control", &["ninefold", "ninefold-proto", "ninefold-store"]),
    // Who may talk to the platform. It stands around every door but uses no other role: who may call a method is in the
    // method's own contract, and who calls travels to the roles as a `Caller`, which is a word of the SDK, because a
    // service behind mutual TLS asks the same question.
    ("ninefold-access", &["ninefold", "ninefold-proto", "ninefold-store"]),
    // Tells what the registry tells, and keeps nothing: it follows the registry through a link, as the gateway does. It
    // compiles Envoy's contracts beside its own code, so that nobody else waits for them.
    ("ninefold-dialect", &["ninefold", "ninefold-proto", "ninefold-build"]),
    // the sample landscape is built as a user would build it
    ("shop-backend", &["ninefold"]),
    ("shop-product", &["ninefold", "ninefold-build", "shop-backend"]),
    ("shop-recommendation", &["ninefold", "ninefold-build", "shop-backend"]),
    ("shop-review", &["ninefold", "ninefold-build", "shop-backend"]),
    ("shop-product-composite", &["ninefold", "ninefold-build"]),
    // the whole
    (
        "ninefold-cli",
        &[
            "ninefold",
            // `contract check` compiles a checkout as its build script does.
            "ninefold-build",
            "ninefold-proto",
            "ninefold-store",
            "ninefold-gateway",
            "ninefold-contract",
            "ninefold-registry",
            "ninefold-config",
            "ninefold-monitor",
            "ninefold-alert",
            "ninefold-control",
            "ninefold-access",
            "ninefold-dialect",
            "shop-product",
            "shop-recommendation",
            "shop-review",
            "shop-product-composite",
        ],
    ),
    // what tests and measures the whole
    ("tests-house", &[]),
    ("tests-landscape", &["ninefold", "ninefold-proto"]),
    ("bench-decide", &[]),
    ("bench-startup", &[]),
    // A node as its own process, spoken with by contract.
    ("bench-telemetry", &["ninefold-proto"]),
    ("bench-calls", &["ninefold", "ninefold-proto"]),
    ("bench-transcode", &["ninefold-gateway"]),
    // The service behind the proxies is built as a user would build it.
    // The edge alone, too, for what only it does: routes anew for one of a thousand services.
    ("bench-edge", &["ninefold", "ninefold-build", "ninefold-gateway"]),
    ("bench-contract", &["ninefold-contract"]),
    // One node in this process, and its watchers behind sockets.
    ("bench-registry", &["ninefold", "ninefold-proto", "ninefold-registry", "ninefold-store"]),
];

/// Libraries that have owners: replacing one means editing its owners, and nobody else. `*` ends a family's name.
const THEIRS: &[(&str, &[&str])] = &[
    ("protox", &["ninefold-build"]),
    ("tonic-prost-build", &["ninefold-build"]),
    ("protoc-bin-vendored", &["ninefold-proto"]),
    // The monitor takes what OTLP says; the SDK says it, and `ninefold run` in the name of programs that cannot.
    // The stories say it too, as exporters of others do, record by record.
    ("opentelemetry-proto", &["ninefold-monitor", "ninefold-cli", "tests-landscape"]),
    ("opentelemetry", &["ninefold"]),
    ("opentelemetry_sdk", &["ninefold"]),
    ("opentelemetry-otlp", &["ninefold"]),
    ("opentelemetry-appender-tracing", &["ninefold"]),
    ("tracing-opentelemetry", &["ninefold"]),
    ("tracing-subscriber", &["ninefold"]),
    // The SDK answers it; the registry asks it of instances that want to be asked.
    ("tonic-health", &["ninefold", "ninefold-registry"]),
    ("tonic-types", &["ninefold"]),
    // The command line asks other programs' reflection; the SDK answers it.
    ("tonic-reflection", &["ninefold", "ninefold-cli"]),
    // The door speaks it to the outside, the node to the page and the console.
    ("tonic-web", &["ninefold-gateway", "ninefold-cli"]),
    // Whoever listens or calls does so by way of the SDK.
    ("rustls", &["ninefold"]),
    ("tokio-rustls", &["ninefold"]),
    ("rustls-webpki", &["ninefold"]),
    ("etcd-client", &["ninefold-store"]),
    ("redb", &["ninefold-store"]),
    // Descriptors of strangers: checked at the store, turned into JSON at the door and at the terminal.
    ("prost-reflect", &["ninefold-contract", "ninefold-gateway", "ninefold-cli"]),
    // Pages talk through the door by WebSocket, and nobody else does.
    ("tokio-tungstenite", &["ninefold-gateway"]),
    ("bb8*", &["ninefold-gateway"]),
    // What rustls already stands on. The door verifies and signs tokens with it; services verify with it who calls.
    ("ring", &["ninefold-gateway", "ninefold"]),
    ("datafusion*", &["ninefold-monitor"]),
    ("jsonwebtoken", &["ninefold-gateway"]),
    // What the files of telemetry look like inside.
    ("arrow", &["ninefold-monitor"]),
    ("parquet", &["ninefold-monitor"]),
    // Where those files may lie beside the disk.
    ("object_store", &["ninefold-monitor"]),
    ("zstd", &["ninefold-monitor"]),
    // Alerts alone write letters.
    ("lettre", &["ninefold-alert"]),
    ("clickhouse", &["ninefold-monitor"]),
    ("sqlx", &["ninefold-monitor", "shop-backend", "shop-product", "shop-recommendation", "shop-review"]),
    // One statement of SQL, on the SQLite that sqlx brings: sqlx has no authorizer, and no limits.
    ("rusqlite", &["ninefold-monitor"]),
    ("terminal_size", &["ninefold-cli"]),
    ("bollard", &["ninefold-control"]),
    ("kube*", &["ninefold-control"]),
    ("axum", &["ninefold-monitor", "ninefold-alert", "ninefold-dialect", "ninefold-cli"]),
    ("hickory-proto", &["ninefold-dialect"]),
    ("clap*", &["ninefold-cli"]),
    // Elsewhere an error is an enum.
    ("anyhow", &["ninefold-cli", "tests-landscape"]),
];

struct Arrow {
    from: String,
    to: String,
}

/// All dependencies that end up in a crate or build it.
fn arrows() -> Vec<Arrow> {
    let manifest = tree::root().join("Cargo.toml");
    let metadata = MetadataCommand::new()
        .manifest_path(manifest)
        .no_deps()
        .other_options(["--offline".to_owned()])
        .exec()
        .expect("cargo describes the workspace");
    let mut arrows = Vec::new();
    for package in metadata.packages {
        for dependency in package.dependencies {
            if dependency.kind != DependencyKind::Development {
                arrows.push(Arrow { from: package.name.to_string(), to: dependency.name });
            }
        }
        // A crate without dependencies is in the table too.
        arrows.push(Arrow { from: package.name.to_string(), to: package.name.to_string() });
    }
    arrows
}

#[test]
fn every_crate_has_a_line_and_every_line_a_crate() {
    let crates: BTreeSet<String> = arrows().into_iter().map(|arrow| arrow.from).collect();
    let lines: BTreeSet<String> = OURS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(crates, lines);
}

#[test]
fn arrows_between_our_crates_point_down() {
    let allowed: BTreeMap<&str, &[&str]> = OURS.iter().copied().collect();
    let offences: Vec<String> = arrows()
        .iter()
        .filter(|arrow| allowed.contains_key(arrow.to.as_str()) && arrow.from != arrow.to)
        .filter(|arrow| !allowed.get(arrow.from.as_str()).is_some_and(|to| to.contains(&arrow.to.as_str())))
        .map(|arrow| format!("{} uses {}", arrow.from, arrow.to))
        .collect();
    tree::none("arrows that the table does not have", &offences);
}

#[test]
fn a_library_is_used_by_its_owners_only() {
    let is_owned = |pattern: &str, name: &str| match pattern.strip_suffix('*') {
        Some(family) => name.starts_with(family),
        None => name == pattern,
    };
    let mut offences = Vec::new();
    // A bench holds us against others' libraries, so it may use any.
    for arrow in arrows().into_iter().filter(|arrow| !arrow.from.starts_with("bench-")) {
        for (pattern, owners) in THEIRS {
            if is_owned(pattern, &arrow.to) && !owners.contains(&arrow.from.as_str()) {
                offences.push(format!("{} uses {}, which belongs to {}", arrow.from, arrow.to, owners.join(", ")));
            }
        }
    }
    tree::none("libraries in strange hands", &offences);
}

#[test]
fn floors_have_no_cycles() {
    let allowed: BTreeMap<&str, &[&str]> = OURS.iter().copied().collect();
    for (name, _) in OURS {
        let mut above = vec![*name];
        let mut seen = BTreeSet::new();
        while let Some(next) = above.pop() {
            for below in allowed.get(next).copied().unwrap_or_default() {
                assert_ne!(below, name, "{name} would use itself by way of {next}");
                if seen.insert(*below) {
                    above.push(below);
                }
            }
        }
    }
}
