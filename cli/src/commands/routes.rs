//! `ninefold routes`: what the edge lets through.

use std::collections::HashMap;

use ninefold_proto::ninefold::gateway::v1::{MatchRouteRequest, MatchRouteResponse};

use crate::args::RouteTestArgs;
use crate::client::Platform;
use crate::exit::Failure;
use crate::output::{self, Format, Table};

/// Lists all routes; what was refused is told beside them.
pub(crate) async fn list(platform: &Platform, format: Format) -> Result<(), Failure> {
    let routes = platform.routes("").await?;
    if routes.is_empty() {
        output::talk("no routes yet: the edge shows what registered contracts expose");
    }
    for refusal in platform.refusals().await? {
        output::talk(format!("refused, of {}: {}", refusal.service, refusal.reason));
    }
    output::print(format, &output::json_all("ninefold.gateway.v1.Route", &routes), || {
        let mut table = Table::new(&["VERB", "PATH", "METHOD", "SERVICE"]);
        for route in &routes {
            table.row([&route.verb, &route.template, &route.method, &route.service]);
        }
        table.render()
    })
}

/// Tells which route a request would take.
pub(crate) async fn find(platform: &Platform, verb: &str, path: &str, format: Format) -> Result<(), Failure> {
    let request =
        MatchRouteRequest { verb: verb.to_uppercase(), path: path.to_owned(), ..MatchRouteRequest::default() };
    let answer = platform.ask(platform.gateway().match_route(request)).await?;
    output::print(format, &output::json("ninefold.gateway.v1.MatchRouteResponse", &answer), || {
        let route = answer.route.clone().unwrap_or_default();
        let mut text = format!("{} {}  ->  {} of {}\n", route.verb, route.template, route.method, route.service);
        let mut bindings: Vec<_> = answer.bindings.iter().collect();
        bindings.sort();
        for (field, value) in bindings {
            text.push_str(&format!("  {field} = {value}\n"));
        }
        text
    })
}

/// Tells what would become of a request, without sending it.
pub(crate) async fn test(platform: &Platform, args: RouteTestArgs, format: Format) -> Result<(), Failure> {
    let mut headers = HashMap::new();
    for line in &args.headers {
        let wrong = || Failure::Usage(format!("{line:?} is not NAME: VALUE"));
        let (name, value) = line.split_once(':').ok_or_else(wrong)?;
        headers.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
    }
    let mut claims = HashMap::new();
    for pair in &args.claims {
        let wrong = || Failure::Usage(format!("{pair:?} is not NAME=VALUE"));
        let (name, value) = pair.split_once('=').ok_or_else(wrong)?;
        claims.insert(name.to_owned(), value.to_owned());
    }
    let request = MatchRouteRequest {
        verb: args.verb.to_uppercase(),
        path: args.path,
        headers,
        body: args.data.unwrap_or_default(),
        claims,
        explain: true,
    };
    let answer = platform.ask(platform.gateway().match_route(request)).await?;
    output::print(format, &output::json("ninefold.gateway.v1.MatchRouteResponse", &answer), || explained(&answer))?;
    if answer.route.is_none() {
        return Err(Failure::NotFound("no route matches".to_owned()));
    }
    Ok(())
}

fn explained(answer: &MatchRouteResponse) -> String {
    let mut text = String::new();
    if let Some(route) = &answer.route {
        let method = if route.method.is_empty() { "plain HTTP" } else { &route.method };
        text.push_str(&format!("{} {}  ->  {method} of {}\n", route.verb, route.template, route.service));
        let mut bindings: Vec<_> = answer.bindings.iter().collect();
        bindings.sort();
        for (field, value) in bindings {
            text.push_str(&format!("  {field} = {value}\n"));
        }
    } else {
        text.push_str("no route\n");
    }
    if !answer.refusal.is_empty() {
        text.push_str(&format!("\nRefused:   {}\n", answer.refusal));
    }
    if !answer.request.is_empty() {
        text.push_str(&format!("\nSends:     {}\n", answer.request));
    }
    let part = |text: &mut String, title: &str, table: &Table, is_empty: bool| {
        if !is_empty {
            text.push_str(&format!("\n{title}\n{}", table.render()));
        }
    };
    let mut effects = Table::new(&["WHAT", "HOW"]);
    answer.effects.iter().for_each(|effect| effects.row([&effect.kind, &effect.text]));
    part(&mut text, "Declared:", &effects, answer.effects.is_empty());
    let mut candidates = Table::new(&["INSTANCE", "VERSION", "ADDRESS", "CHOSEN", "WHY NOT"]);
    for one in &answer.candidates {
        let chosen = if one.chosen { "yes" } else { "no" };
        candidates.row([&one.instance_id, &one.version, &one.address, chosen, &one.reason]);
    }
    part(&mut text, "Instances:", &candidates, answer.candidates.is_empty());
    let mut near = Table::new(&["VERB", "PATH", "METHOD", "WHY NOT"]);
    for miss in &answer.near_misses {
        let route = miss.route.clone().unwrap_or_default();
        near.row([route.verb, route.template, route.method, miss.reason.clone()]);
    }
    part(&mut text, "Not the one:", &near, answer.near_misses.is_empty());
    text
}
