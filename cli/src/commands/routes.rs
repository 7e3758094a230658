//! `ninefold routes`: what the edge lets through.

use ninefold_proto::ninefold::gateway::v1::MatchRouteRequest;

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
    let request = MatchRouteRequest { verb: verb.to_uppercase(), path: path.to_owned() };
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
