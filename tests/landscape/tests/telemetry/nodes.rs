//! Several nodes on one etcd: whichever is asked answers for all, and names those that are away.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ninefold::fault;
use ninefold_proto::ninefold::monitor::v1::{
    CountLogsRequest, ForgetNodeRequest, GetServiceGraphRequest, GetTraceRequest, ListNodesRequest, LogFilter,
    SearchLogsRequest, SearchTracesRequest, TailLogsRequest,
};
use rustix::process::Signal;
use serde_json::Value;
use tests_landscape::authority::Authority;
use tests_landscape::tools::Etcd;
use tests_landscape::{Landscape, Surroundings, http, signal, until};

use super::sender::{Sender, trace_of};
use super::{WITHIN, monitor};

/// Memory goes to files soon, so that answers come from both.
const SETTINGS: &str = "[monitor]\nfile_every = \"200ms\"\n";

async fn nodes(house: &Landscape) -> Result<usize> {
    Ok(monitor(house).await?.list_nodes(ListNodesRequest {}).await?.into_inner().nodes.len())
}

fn of_pump() -> Option<LogFilter> {
    Some(LogFilter { service: "pump".to_owned(), ..LogFilter::default() })
}

/// Texts of all lines of the service, page by page, newest first.
async fn pages(house: &Landscape, page_size: i32) -> Result<Vec<String>> {
    let (mut bodies, mut page_token, mut last) = (Vec::new(), String::new(), None);
    loop {
        let request = SearchLogsRequest { filter: of_pump(), page_size, page_token, ..SearchLogsRequest::default() };
        let answer = monitor(house).await?.search_logs(request).await?.into_inner();
        ensure!(answer.missing_nodes.is_empty(), "{:?}", answer.missing_nodes);
        for record in answer.records {
            let time = record.time.map(|time| (time.seconds, time.nanos));
            ensure!(last.is_none() || time <= last, "newest first");
            last = time;
            bodies.push(record.body);
        }
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            return Ok(bodies);
        }
    }
}

async fn get(house: &Landscape, path: &str) -> Result<Value> {
    let answer = http::request(&house.address("platform"), "GET", path, &[], None).await?;
    ensure!(answer.status == 200, "{path}: {} {:?}", answer.status, answer.body);
    answer.json()
}

async fn pair(etcd: &Etcd, more: &[&str]) -> Result<(Landscape, Landscape)> {
    let arguments = [&["--store", "etcd", "--etcd", etcd.url.as_str()], more].concat();
    let first = Landscape::up_with_and(SETTINGS, &arguments).await?;
    let second = Landscape::up_with_and(SETTINGS, &arguments).await?;
    Ok((first, second))
}

/// Tells lines and a trace to two nodes, a part of it to each.
async fn tell(first: &Landscape, second: &Landscape) -> Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    for (house, parts) in [(first, 0..20_u64), (second, 20..47)] {
        let mut sender = Sender::connect(&house.address("otlpGrpc")).await?;
        for batch in parts {
            let body = format!("stroke {batch}");
            sender.lines("pump", std::slice::from_ref(&body)).await?;
            all.insert(body);
        }
    }
    let trace = trace_of(7, 7, 7);
    let mut one = Sender::connect(&first.address("otlpGrpc")).await?;
    let mut other = Sender::connect(&second.address("otlpGrpc")).await?;
    one.spans("door", trace, 1..=2, None).await?;
    other.spans("pump", trace, 3..=5, Some(2)).await?;
    one.trace(trace_of(8, 8, 8), 2).await?;
    Ok(all)
}

async fn whole_answers(house: &Landscape, all: &BTreeSet<String>) -> Result<()> {
    for page_size in [7, 1000] {
        let told = pages(house, page_size).await?;
        ensure!(told.len() == all.len() && told.iter().all(|body| all.contains(body)), "{told:?}");
    }
    let mut client = monitor(house).await?;
    let counted =
        CountLogsRequest { filter: of_pump(), fields: vec!["body".to_owned()], ..CountLogsRequest::default() };
    let counted = client.count_logs(counted).await?.into_inner();
    let others = counted.facets.first().map(|facet| facet.others + facet.values.len() as u64);
    ensure!(counted.lines == 47 && others == Some(47), "{counted:?}");
    let trace_id = format!("{:032x}", trace_of(7, 7, 7));
    let trace = client.get_trace(GetTraceRequest { trace_id: trace_id.clone() }).await?.into_inner();
    ensure!(trace.spans.len() == 5 && trace.summary.as_ref().is_some_and(|summary| summary.spans == 5), "{trace:?}");
    let asked = SearchTracesRequest { service: "pump".to_owned(), page_size: 10, ..SearchTracesRequest::default() };
    let found = client.search_traces(asked).await?.into_inner().traces;
    let whole = found.iter().find(|summary| summary.trace_id == trace_id).context("the trace is found")?;
    ensure!(whole.spans == 5 && whole.services == ["door", "pump"] && whole.service == "door", "{found:?}");
    let graph = client.get_service_graph(GetServiceGraphRequest::default()).await?.into_inner();
    let call = graph.edges.iter().find(|edge| edge.caller == "door" && edge.callee == "pump");
    ensure!(call.is_some_and(|edge| edge.calls == 3), "a call from one node's service to the other's: {graph:?}");
    Ok(())
}

async fn doors_of_others(house: &Landscape) -> Result<()> {
    let rows = house.ask(&["query", "select count(*) as n from logs where service = 'pump'"]).await?;
    ensure!(rows[0]["n"] == 47, "{rows}");
    let rows = house.ask(&["query", "select count(*) as n from spans where service in ('pump', 'door')"]).await?;
    ensure!(rows[0]["n"] == 7, "{rows}");
    let loki = get(house, "/loki/api/v1/query_range?query=%7Bservice_name%3D%22pump%22%7D&limit=1000").await?;
    let streams = loki["data"]["result"].as_array().context("streams")?;
    let lines: usize = streams.iter().filter_map(|stream| stream["values"].as_array()).map(Vec::len).sum();
    ensure!(lines == 47 && loki["warnings"].is_null(), "{loki}");
    let jaeger = get(house, &format!("/api/traces/{:032x}", trace_of(7, 7, 7))).await?;
    ensure!(jaeger["data"][0]["spans"].as_array().map(Vec::len) == Some(5), "{jaeger}");
    until("the measurements of both nodes are asked", WITHIN, || async {
        let path =
            "/api/v1/query?query=count(count+by+(instance)+(process_cpu_time_seconds_total%7Bjob%3D%22ninefold%22%7D))";
        Ok(get(house, path).await?["data"]["result"][0]["value"][1] == "2")
    })
    .await?;
    let rows = house
        .ask(&[
            "query",
            "select count(distinct instance) as n from samples where metric = 'process_cpu_time_seconds_total'",
        ])
        .await?;
    ensure!(rows[0]["n"] == 2, "{rows}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_answers_for_all_and_names_the_one_that_is_away() -> Result<()> {
    let etcd = Etcd::start().await?;
    let (first, second) = pair(&etcd, &[]).await?;
    for house in [&first, &second] {
        until("the nodes know each other", WITHIN, || async { Ok(nodes(house).await? == 2) }).await?;
    }
    let all = tell(&first, &second).await?;
    for house in [&first, &second] {
        whole_answers(house, &all).await?;
        doors_of_others(house).await?;
    }
    follows_both(&first, &second).await?;
    let told = second.run(&["logs", "pump", "--query", "there OR here", "--delete", "--yes"]).await?;
    let is_whole = told.code == 0 && told.stderr.is_empty();
    ensure!(is_whole && told.stdout.contains("\"lines\": 2"), "of both nodes: {told:?}");
    let trace = format!("{:032x}", trace_of(7, 7, 7));
    let told = first.ask(&["trace", &trace, "--service", "pump", "--delete", "--yes"]).await?;
    ensure!(told["spans"] == 5, "a trace goes whole: {told}");

    // A node that hangs is waited for no longer than whoever asks has time for.
    signal(first.pid(), Signal::STOP)?;
    for _ in 0..2 {
        let told = second.run(&["logs", "pump", "-n", "1000"]).await?;
        ensure!(told.code == 0 && told.stderr.contains("is missing: "), "{told:?}");
        ensure!(told.stdout.matches("stroke").count() == 27, "what the other has is told: {told:?}");
    }
    let told = second.run(&["metrics", "count(up)"]).await?;
    ensure!(told.code == 0 && told.stderr.contains("is missing"), "{told:?}");
    signal(first.pid(), Signal::CONT)?;
    until("it is asked again", WITHIN, || async { Ok(second.run(&["logs", "pump"]).await?.stderr.is_empty()) }).await?;

    let address = first.address("platform");
    first.kill().await?;
    let told = second.run(&["logs", "pump", "--by", "service"]).await?;
    ensure!(told.code == 0 && told.stderr.contains("warning: the part of node node-"), "{told:?}");
    let loki = get(&second, "/loki/api/v1/query_range?query=%7Bservice_name%3D%22pump%22%7D").await?;
    ensure!(loki["warnings"][0].as_str().is_some_and(|why| why.contains("is missing")), "{loki}");
    let mut client = monitor(&second).await?;
    let only_there = GetTraceRequest { trace_id: format!("{:032x}", trace_of(8, 8, 8)) };
    let refusal = client.get_trace(only_there.clone()).await.err().context("nobody has it")?;
    ensure!(fault::reason(&refusal).as_deref() == Some("NODES_MISSING"), "{refusal:?}");

    address_taken_over(&etcd, &second, &address).await?;

    // A node that will not come back is not missed for ever.
    let listed = client.list_nodes(ListNodesRequest {}).await?.into_inner().nodes;
    let gone = listed.into_iter().find(|node| !node.answering).context("the other is listed")?.node;
    client.forget_node(ForgetNodeRequest { node: gone }).await?;
    let refusal = client.get_trace(only_there).await.err().context("nobody has it")?;
    ensure!(fault::reason(&refusal).as_deref() == Some("TRACE_UNKNOWN"), "{refusal:?}");
    ensure!(second.run(&["logs", "pump"]).await?.stderr.is_empty(), "nobody is missed");
    second.stop().await
}

/// Another node at the address of one that is away is itself, and not that one, too.
async fn address_taken_over(etcd: &Etcd, asked: &Landscape, address: &str) -> Result<()> {
    let arguments = ["--store", "etcd", "--etcd", etcd.url.as_str(), "--listen", address];
    let heir = Landscape::up_with_and(SETTINGS, &arguments).await?;
    Sender::connect(&heir.address("otlpGrpc")).await?.lines("pump", &["stroke of another".to_owned()]).await?;
    until("all three are known", WITHIN, || async { Ok(nodes(asked).await? == 3) }).await?;
    let answer = || async {
        let request = SearchLogsRequest { filter: of_pump(), page_size: 1000, ..SearchLogsRequest::default() };
        Ok::<_, anyhow::Error>(monitor(asked).await?.search_logs(request).await?.into_inner())
    };
    let is_told = || async { Ok(answer().await?.records.iter().any(|record| record.body == "stroke of another")) };
    until("the new node is asked", WITHIN, is_told).await?;
    let answer = answer().await?;
    let once = answer.records.iter().filter(|record| record.body == "stroke of another").count();
    ensure!(once == 1 && answer.missing_nodes.len() == 1, "{once} times, {:?}", answer.missing_nodes);
    let name = answer.missing_nodes[0].node.clone();
    heir.stop().await?;
    let mut client = monitor(asked).await?;
    let listed = client.list_nodes(ListNodesRequest {}).await?.into_inner().nodes;
    let heirs = listed.into_iter().filter(|node| node.endpoint.contains(address) && node.node != name);
    for heir in heirs {
        client.forget_node(ForgetNodeRequest { node: heir.node }).await?;
    }
    Ok(())
}

async fn follows_both(first: &Landscape, second: &Landscape) -> Result<()> {
    let mut client = monitor(second).await?;
    let mut tail = client.tail_logs(TailLogsRequest { filter: of_pump(), backlog: 40 }).await?.into_inner();
    let backlog = tail.message().await?.context("the backlog comes first")?;
    ensure!(backlog.records.len() == 40 && backlog.missing_nodes.is_empty(), "{backlog:?}");
    let mut expected = BTreeSet::new();
    for (house, body) in [(first, "stroke there"), (second, "stroke here")] {
        Sender::connect(&house.address("otlpGrpc")).await?.lines("pump", &[body.to_owned()]).await?;
        expected.insert(body.to_owned());
    }
    let seen = async {
        while !expected.is_empty() {
            let message = tail.message().await?.context("the tail goes on")?;
            for record in message.records {
                expected.remove(&record.body);
            }
        }
        Ok::<_, anyhow::Error>(())
    };
    tokio::time::timeout(Duration::from_secs(60), seen).await.context("lines of both are seen")??;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_ask_each_other_where_everybody_has_to_say_who_they_are() -> Result<()> {
    let etcd = Etcd::start().await?;
    let (first, second) = pair(&etcd, &["--auth", "token"]).await?;
    // OTLP asks for a token too; what a node says of itself is enough here.
    until("the one node tells what the other says of itself", WITHIN, || async {
        let told = second.run(&["logs", "ninefold", "--by", "instance"]).await?;
        let known =
            told.stdout.matches("\"value\": \"node-").count() + told.stdout.matches("\"value\":\"node-").count();
        Ok(told.code == 0 && told.stderr.is_empty() && known == 2)
    })
    .await?;
    drop(first);
    second.stop().await
}

/// A node that shows its certificate to others as it asks it of them.
async fn certified(etcd: &Etcd, authority: &Authority, name: &str) -> Result<Landscape> {
    authority.sign(name, "127.0.0.1", Some(&format!("spiffe://test/nodes/{name}")))?;
    let (ca, cert) = (authority.path("ca.pem"), authority.path(&format!("{name}.crt")));
    let (key, config) = (authority.path(&format!("{name}.key")), authority.path("ninefold.toml"));
    let variables = [("NINEFOLD_CA_FILE", &ca), ("NINEFOLD_CERT_FILE", &cert), ("NINEFOLD_KEY_FILE", &key)];
    let variables = variables.map(|(variable, file)| (variable.to_owned(), file.clone())).to_vec();
    let around = Surroundings { variables, ..Surroundings::default() };
    let doors = ["--auth", "mtls", "--tls-cert", &cert, "--tls-key", &key, "--client-ca", &ca, "--config", &config];
    Landscape::up_in(around, &[&["--store", "etcd", "--etcd", etcd.url.as_str()], &doors[..]].concat()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_that_show_each_other_certificates_answer_one_question() -> Result<()> {
    let etcd = Etcd::start().await?;
    let authority = Authority::new()?;
    authority.sign("ops", "ops.test", None)?;
    let let_in =
        |name: &str| format!("[[access.identities]]\nname = \"{name}\"\nroles = [\"admin\"]\nnamespaces = [\"*\"]\n");
    let known = ["ops.test", "spiffe://test/nodes/one", "spiffe://test/nodes/two", "spiffe://test/nodes/three"];
    let known: String = known.map(let_in).concat();
    std::fs::write(authority.path("ninefold.toml"), format!("{known}{SETTINGS}"))?;
    let first = certified(&etcd, &authority, "one").await?;
    let second = certified(&etcd, &authority, "two").await?;
    let third = certified(&etcd, &authority, "three").await?;
    let (ca, cert, key) = (authority.path("ca.pem"), authority.path("ops.crt"), authority.path("ops.key"));
    let shown = [("NINEFOLD_CA_FILE", &*ca), ("NINEFOLD_CERT_FILE", &*cert), ("NINEFOLD_KEY_FILE", &*key)];
    let instances = async |house: &Landscape| {
        let told = house.run_as(&shown, &["logs", "ninefold", "--by", "instance"]).await?;
        let known = told.stdout.matches("\"value\": \"node-").count();
        anyhow::Ok((told.code, known, told.stderr))
    };
    for house in [&first, &second, &third] {
        until("each answers for all three", WITHIN, || async { Ok(instances(house).await? == (0, 3, String::new())) })
            .await?;
    }
    let query = "count(count by (instance) (process_cpu_time_seconds_total{job=\"ninefold\"}))";
    until("so it does for what is measured", WITHIN, || async {
        let told = second.run_as(&shown, &["metrics", query]).await?;
        let told: Value = serde_json::from_str(&told.stdout)?;
        Ok(told["series"][0]["points"][0]["number"] == 3.0)
    })
    .await?;

    let stranger = certified(&etcd, &authority, "stranger").await?;
    until("a node that nobody lets in is not told", WITHIN, || async {
        let (_, known, said) = instances(&stranger).await?;
        Ok(known <= 1 && said.matches("is missing").count() == 3)
    })
    .await?;
    stranger.kill().await?;
    third.kill().await?;
    until("one that is away is named", WITHIN, || async {
        let (code, known, said) = instances(&first).await?;
        Ok(code == 0 && known == 2 && said.contains("is missing"))
    })
    .await
}
