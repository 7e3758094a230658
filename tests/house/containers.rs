//! `compose.yaml` and `deploy/Dockerfile` fit the tree: what they name exists, and they keep what they promise.
//!
//! No container engine is needed. Where `docker compose` is at hand, `check` asks it as well.

use std::collections::{BTreeMap, BTreeSet};

use serde_norway::{Mapping, Value};

use crate::tree;

/// What the stack is made of.
const SERVICES: &[&str] = &[
    "etcd",
    "postgres",
    "redis",
    "ninefold-1",
    "ninefold-2",
    "tokens",
    "product",
    "recommendation",
    "review",
    "product-composite",
];

/// Keys of a service that we use, of those that the compose specification knows.
const KEYS: &[&str] = &[
    "build",
    "cap_drop",
    "command",
    "depends_on",
    "deploy",
    "environment",
    "healthcheck",
    "image",
    "mem_limit",
    "ports",
    "read_only",
    "restart",
    "security_opt",
    "stop_grace_period",
    "tmpfs",
    "volumes",
];

fn compose() -> Mapping {
    let text = tree::read("compose.yaml").expect("compose.yaml is there");
    let mut compose: Value = serde_norway::from_str(&text).expect("compose.yaml is YAML");
    // What is merged may merge in turn; nothing here does so more than twice.
    for _ in 0..3 {
        compose.apply_merge().expect("what compose.yaml merges are mappings");
    }
    compose.as_mapping().cloned().expect("compose.yaml is a mapping")
}

fn services() -> BTreeMap<String, Mapping> {
    let services = compose().get("services").and_then(Value::as_mapping).cloned().expect("compose.yaml has services");
    let named = services.into_iter().map(|(name, service)| {
        let name = name.as_str().expect("a name is a text").to_owned();
        (name, service.as_mapping().cloned().expect("a service is a mapping"))
    });
    named.collect()
}

/// The texts of a list; nothing if it is not there.
fn list(service: &Mapping, key: &str) -> Vec<String> {
    let list = service.get(key).and_then(Value::as_sequence).cloned().unwrap_or_default();
    list.iter().map(|text| text.as_str().expect("lists hold texts").to_owned()).collect()
}

fn text<'a>(service: &'a Mapping, path: &[&str]) -> Option<&'a str> {
    let (last, folders) = path.split_last()?;
    let mut inner = service;
    for folder in folders {
        inner = inner.get(*folder)?.as_mapping()?;
    }
    inner.get(*last)?.as_str()
}

#[test]
fn the_stack_is_complete_and_says_nothing_unknown() {
    let services = services();
    let names: BTreeSet<&str> = services.keys().map(String::as_str).collect();
    assert_eq!(names, SERVICES.iter().copied().collect());
    let compose = compose();
    assert!(compose.get("version").is_none(), "compose files have no version any more");
    for (name, service) in &services {
        for key in service.keys().filter_map(Value::as_str) {
            assert!(KEYS.contains(&key), "{name} has {key}, which this test does not know");
        }
        for key in ["image", "mem_limit", "restart"] {
            assert!(service.get(key).is_some(), "{name} has no {key}");
        }
        let image = text(service, &["image"]).expect("looked for above");
        assert!(image.contains(':') && !image.ends_with(":latest"), "{name} does not say which {image}");
    }
}

#[test]
fn who_waits_waits_for_somebody_who_can_be_healthy() {
    let services = services();
    for (name, service) in &services {
        let awaited = service.get("depends_on").and_then(Value::as_mapping).cloned().unwrap_or_default();
        for (other, how) in awaited {
            let other = other.as_str().expect("a name is a text");
            let other_service =
                services.get(other).unwrap_or_else(|| panic!("{name} waits for {other}, who is not there"));
            let condition = how.as_mapping().and_then(|how| text(how, &["condition"]));
            if text(other_service, &["restart"]) == Some("no") {
                // Something that is done once, and is waited for until it is.
                assert_eq!(condition, Some("service_completed_successfully"), "{name} waits for {other}");
                continue;
            }
            assert_eq!(condition, Some("service_healthy"), "{name} waits for {other}");
            let check = other_service.get("healthcheck").and_then(|check| check.get("test"));
            assert!(check.is_some(), "{name} waits for {other}, who is never asked for its health");
        }
    }
}

#[test]
fn nothing_is_published_beyond_this_machine() {
    let mut published = BTreeSet::new();
    for (name, service) in services() {
        for port in list(&service, "ports") {
            let parts: Vec<&str> = port.split(':').collect();
            assert_eq!((parts.len(), parts[0]), (3, "127.0.0.1"), "{name} publishes {port}");
            assert!(published.insert(parts[1].to_owned()), "{port} of {name} is published twice");
        }
    }
    assert!(published.contains("8080") && published.contains("9900"));
}

#[test]
fn nobody_in_the_stack_is_let_in_unasked() {
    let services = services();
    for node in ["ninefold-1", "ninefold-2"] {
        let command = list(&services[node], "command");
        assert!(command.iter().any(|word| word == "--auth=token"), "{node} asks nobody who they are");
        assert!(!command.iter().any(|word| word == "--insecure"), "{node} is open");
    }
    for service in ["product", "recommendation", "review", "product-composite"] {
        let file = text(&services[service], &["environment", "NINEFOLD_TOKEN_FILE"]);
        assert_eq!(file, Some("/tokens/shop"), "{service} has no token");
        let made = list(&services["tokens"], "command");
        assert!(made.contains(&format!("--service={service}")), "the shop's token does not name {service}");
    }
    let dockerfile = tree::read("deploy/Dockerfile").expect("deploy/Dockerfile is there");
    assert!(dockerfile.contains("\"--auth=token\""), "a container that is started by itself is open");
}

#[test]
fn every_service_of_the_shop_has_a_database_of_its_own() {
    let services = services();
    let urls: BTreeSet<&str> = ["product", "recommendation", "review"]
        .iter()
        .map(|name| text(&services[*name], &["environment", "DATABASE_URL"]).expect("a backend has a database"))
        .collect();
    assert_eq!(urls.len(), 3, "{urls:?}");
    assert!(text(&services["product-composite"], &["environment", "DATABASE_URL"]).is_none());
    let script = tree::read("deploy/postgres/init.sh").expect("the script is there");
    for url in urls {
        let database = url.rsplit('/').next().expect("a URL has a path");
        assert!(script.contains(database), "nobody makes the database {database}");
    }
}

#[test]
fn what_is_mounted_exists() {
    let compose = compose();
    let volumes = compose.get("volumes").and_then(Value::as_mapping).cloned().unwrap_or_default();
    for (name, service) in services() {
        for mount in list(&service, "volumes") {
            let source = mount.split(':').next().expect("splitting yields at least one part");
            let exists = match source.strip_prefix("./") {
                Some(path) => tree::root().join(path).exists(),
                None => volumes.contains_key(source),
            };
            assert!(exists, "{name} mounts {source}, which is not there");
        }
    }
}

#[test]
fn the_flags_that_containers_use_are_the_command_lines() {
    let sources: String =
        tree::files(".rs").into_iter().filter(|file| file.path.starts_with("cli/src/")).map(|file| file.text).collect();
    let dockerfile = tree::read("deploy/Dockerfile").expect("deploy/Dockerfile is there");
    let mut words: Vec<String> = dockerfile.split('"').skip(1).step_by(2).map(ToOwned::to_owned).collect();
    for service in services().values().filter(|service| service.get("build").is_some()) {
        words.extend(list(service, "command"));
    }
    for word in words {
        if let Some(flag) = word.strip_prefix("--") {
            let flag = flag.split('=').next().unwrap_or_default();
            let field = format!("{}:", flag.replace('-', "_"));
            // clap names a flag after its field, unless it is told a name.
            assert!(
                sources.contains(&field) || sources.contains(&format!("\"{flag}\"")),
                "the command line has no --{flag}"
            );
        }
    }
}

#[test]
fn the_image_is_small_runs_as_nobody_and_checks_itself() {
    let dockerfile = tree::read("deploy/Dockerfile").expect("deploy/Dockerfile is there");
    let lines: Vec<&str> = dockerfile.lines().map(str::trim).filter(|line| !line.starts_with('#')).collect();
    let last = lines.iter().rposition(|line| line.starts_with("FROM ")).expect("an image begins somewhere");
    let (build, image) = lines.split_at(last);
    assert!(build.iter().any(|line| line.contains("cargo build --release --locked -p ninefold-cli")));
    let stages: Vec<&str> = build.iter().filter_map(|line| line.split_once(" AS ").map(|(_, name)| name)).collect();
    for copy in image.iter().filter_map(|line| line.strip_prefix("COPY ")) {
        let from = copy.strip_prefix("--from=").and_then(|from| from.split(' ').next());
        assert!(from.is_some_and(|from| stages.contains(&from)), "{copy} is not from a stage of the build");
    }
    assert!(image.contains(&"USER nonroot"), "the image runs as root");
    assert!(!image.iter().any(|line| line.starts_with("RUN ")), "the final image has no shell to run anything");
    let check = r#"CMD ["/ninefold", "doctor", "--self", "-q"]"#;
    assert!(image.iter().any(|line| line.starts_with("HEALTHCHECK ") && line.ends_with(check)));
}

#[test]
fn the_image_is_built_with_a_compiler_that_is_new_enough() {
    let manifest = tree::read("Cargo.toml").expect("the workspace has a manifest");
    let dockerfile = tree::read("deploy/Dockerfile").expect("deploy/Dockerfile is there");
    let after = |text: &str, before: &str| -> Vec<u32> {
        let rest = text.split_once(before).expect("the version is told").1;
        let version = rest.split(|letter: char| !(letter.is_ascii_digit() || letter == '.')).next().unwrap_or_default();
        version.split('.').filter_map(|part| part.parse().ok()).collect()
    };
    assert!(after(&dockerfile, "FROM rust:") >= after(&manifest, "rust-version = \""));
}
