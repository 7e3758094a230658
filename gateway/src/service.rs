//! `GatewayService`: tells what the edge lets through.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use ninefold::connect::Discovery;
use ninefold::fault;
use ninefold::tonic::{Request, Response, Status};
use ninefold_proto::ninefold::gateway::v1::gateway_service_server::GatewayService;
use ninefold_proto::ninefold::gateway::v1::{
    CheckSettingsRequest, CheckSettingsResponse, ListRoutesRequest, ListRoutesResponse, MatchRouteRequest,
    MatchRouteResponse, Route,
};

use crate::config::Config;
use crate::edge::Edge;
use crate::error::Error;
use crate::explain;
use crate::live;
use crate::path::{self, Path};

/// Answers `GatewayService`.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) edge: Arc<ArcSwap<Edge>>,
    /// What the node was told at its start.
    pub(crate) base: Arc<Config>,
    pub(crate) discovery: Discovery,
}

#[ninefold::tonic::async_trait]
impl GatewayService for Service {
    async fn list_routes(&self, request: Request<ListRoutesRequest>) -> Result<Response<ListRoutesResponse>, Status> {
        let request = request.into_inner();
        let edge = self.edge.load_full();
        let published = edge.published.load_full();
        let routes = published.routes.words(&request.service, edge.proxies.words(&request.service));
        let size = ninefold::page::size(request.page_size).map_err(|error| fault::status(&error))?;
        let page = page(routes, size, &request.page_token).map_err(|error| fault::status(&error))?;
        let refusals = &published.routes.refusals;
        let refusals = refusals.iter().filter(|one| request.service.is_empty() || one.service == request.service);
        let (routes, next_page_token) = page;
        Ok(Response::new(ListRoutesResponse { routes, next_page_token, refusals: refusals.cloned().collect() }))
    }

    async fn check_settings(
        &self,
        request: Request<CheckSettingsRequest>,
    ) -> Result<Response<CheckSettingsResponse>, Status> {
        let overlaid = live::overlay(&self.base, &request.into_inner().content);
        let mut config = overlaid.map_err(|error| fault::status(&error))?;
        config.hide();
        let effective = serde_json::to_string(&config);
        let effective = effective.map_err(|error| fault::status(&Error::SettingsInvalid(vec![error.to_string()])))?;
        Ok(Response::new(CheckSettingsResponse { effective }))
    }

    async fn match_route(&self, request: Request<MatchRouteRequest>) -> Result<Response<MatchRouteResponse>, Status> {
        let request = request.into_inner();
        if request.explain {
            let view = self.discovery.landscape().borrow().clone();
            let explained = explain::explain(&self.edge.load(), &view, request);
            return explained.map(Response::new).map_err(|error| fault::status(&error));
        }
        let MatchRouteRequest { verb, path, .. } = request;
        let edge = self.edge.load_full();
        let published = edge.published.load_full();
        let raw = path.split(['?', '#']).next().unwrap_or_default();
        let found = Path::parse(raw)
            .map_err(|path::Malformed(why)| Error::invalid("path", why))
            .and_then(|parsed| {
                let unknown = || Error::RouteUnknown { verb: verb.clone(), path: raw.chars().take(256).collect() };
                let plain = edge.proxies.find(&parsed).filter(|proxy| proxy.prefix.takes(&verb));
                let plain = plain.and_then(|proxy| proxy.words().pop()).map(|route| (route, HashMap::new()));
                published.routes.matching(&verb, parsed).or(plain).ok_or_else(unknown)
            })
            .map_err(|error| fault::status(&error))?;
        let (route, bindings) = found;
        Ok(Response::new(MatchRouteResponse { route: Some(route), bindings, ..MatchRouteResponse::default() }))
    }
}

/// One page of routes. The token names the last route of the page before, so that pages stay right when routes change.
fn page(routes: Vec<Route>, size: usize, token: &str) -> Result<(Vec<Route>, String), Error> {
    let after = match token.splitn(3, ' ').collect::<Vec<_>>()[..] {
        [""] => None,
        [protocol, verb, template] if template.starts_with('/') => {
            let protocol = protocol.parse::<i32>().map_err(|_| Error::PageTokenInvalid(token.to_owned()))?;
            Some((template, verb, protocol))
        }
        _ => return Err(Error::PageTokenInvalid(token.to_owned())),
    };
    let place = |route: &Route| (route.template.clone(), route.verb.clone(), route.protocol);
    let mut rest = routes.into_iter().filter(|route| {
        after.is_none_or(|(template, verb, protocol)| place(route) > (template.to_owned(), verb.to_owned(), protocol))
    });
    let page: Vec<Route> = rest.by_ref().take(size).collect();
    let next = match (rest.next(), page.last()) {
        (Some(_), Some(last)) => format!("{} {} {}", last.protocol, last.verb, last.template),
        _ => String::new(),
    };
    Ok((page, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_without_gap_or_overlap() {
        let route = |at: usize| Route { template: format!("/v1/{at:03}"), verb: "GET".into(), ..Route::default() };
        let all: Vec<Route> = (0..10).map(route).collect();
        let (mut token, mut seen) = (String::new(), Vec::new());
        loop {
            let (page, next) = page(all.clone(), 3, &token).unwrap();
            seen.extend(page);
            if next.is_empty() {
                break;
            }
            token = next;
        }
        assert_eq!(seen, all);
        assert!(matches!(page(all, 3, "nonsense"), Err(Error::PageTokenInvalid(_))));
    }
}
