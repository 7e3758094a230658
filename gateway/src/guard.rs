//! The strict layer: what a request must look like before anything reads it, and which headers cross the edge.

mod addresses;
mod caller;
mod doorkeeper;
mod external;
pub(crate) mod inspector;
mod introspect;
mod issuers;
mod jws;
mod keys;
pub(crate) mod limits;
mod passport;
mod requirement;
mod settings;

use http::header::{self, HeaderName};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Version};

use crate::config::Config;
use crate::error::Error;
use crate::path::{self, Path};

pub(crate) use addresses::Origin;
pub use addresses::{Addresses, Network};
pub(crate) use doorkeeper::{Doorkeeper, Known, Promise};
pub use external::{External, Refusal};
pub use introspect::Introspection;
pub use jws::Algorithm;
pub use requirement::{ClaimRule, Lack, Requirement};
pub use settings::{Auth, Issuer};

/// Whether a header ends at the edge, in both directions: it speaks of one connection, or of a body that is framed anew.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "content-length"
    )
}

/// Headers of gRPC that a caller may send; the others of its kind say what only servers or proxies know.
const GRPC_ALLOWED: [&str; 3] = ["grpc-timeout", "grpc-encoding", "grpc-accept-encoding"];

/// Headers that say where a request came from. Nobody outside is believed about that.
const FORWARDED: [&str; 6] =
    ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-port", "x-real-ip"];

/// Headers that the edge adds to a call, at most; there is room for them from the beginning.
const ADDED_MAX: usize = 10;

/// Checks a request's head and gives its path.
///
/// # Errors
/// [`Error::RequestMalformed`], [`Error::TargetTooLong`], [`Error::HeadersTooLarge`].
pub(crate) fn check(parts: &Parts, config: &Config) -> Result<Path, Error> {
    let target = parts.uri.path_and_query().ok_or(Error::RequestMalformed("the target has no path"))?;
    if target.as_str().len() > config.target_bytes_max {
        return Err(Error::TargetTooLong(config.target_bytes_max));
    }
    let headers = &parts.headers;
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
    if bytes > config.headers_bytes_max || headers.len() > config.headers_max {
        return Err(Error::HeadersTooLarge(config.headers_bytes_max));
    }
    check_host(parts)?;
    check_framing(headers)?;
    Path::parse(target.path()).map_err(|path::Malformed(why)| Error::RequestMalformed(why))
}

/// Exactly one host, however it is said.
fn check_host(parts: &Parts) -> Result<(), Error> {
    let mut hosts = parts.headers.get_all(header::HOST).into_iter();
    let (first, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err(Error::RequestMalformed("more than one Host"));
    }
    let authority = parts.uri.authority().map(http::uri::Authority::as_str);
    let host = first.map(|host| host.to_str().unwrap_or_default());
    match (host, authority) {
        (None, None) if parts.version == Version::HTTP_10 => return Ok(()),
        (None, None) => return Err(Error::RequestMalformed("no Host")),
        (Some(host), Some(authority)) if !host.eq_ignore_ascii_case(authority) => {
            return Err(Error::RequestMalformed("the Host differs from the target's"));
        }
        _ => {}
    }
    let named = host.or(authority).unwrap_or_default();
    let is_authority = named.parse::<http::uri::Authority>().is_ok() && !named.contains(['@', ',']);
    if is_authority { Ok(()) } else { Err(Error::RequestMalformed("the Host is malformed")) }
}

/// One statement about where the body ends. What hyper resolves by itself, the [`inspector`] sees before it.
fn check_framing(headers: &HeaderMap) -> Result<(), Error> {
    let count = |name: HeaderName| headers.get_all(name).into_iter().count();
    let (lengths, encodings) = (count(header::CONTENT_LENGTH), count(header::TRANSFER_ENCODING));
    if lengths > 1 {
        return Err(Error::RequestMalformed("more than one Content-Length"));
    }
    if lengths > 0 && encodings > 0 {
        return Err(Error::RequestMalformed("both Content-Length and Transfer-Encoding"));
    }
    let is_chunked = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"chunked");
    if encodings > 1 || !headers.get(header::TRANSFER_ENCODING).is_none_or(is_chunked) {
        return Err(Error::RequestMalformed("the Transfer-Encoding is not chunked alone"));
    }
    Ok(())
}

/// The headers that `Connection` names, which are of one connection too.
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(header::CONNECTION).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok()).collect()
}

/// Removes the headers of one connection, also those that `Connection` names.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    // Nearly always there is none, and to look is cheaper than to remove.
    if !headers.keys().any(|name| is_hop_by_hop(name.as_str())) {
        return;
    }
    let mut refused = named_by_connection(headers);
    refused.extend(headers.keys().filter(|name| is_hop_by_hop(name.as_str())).cloned());
    for name in refused {
        headers.remove(name);
    }
}

/// The headers of an answer that are of no one connection.
pub(crate) fn let_out(headers: &HeaderMap) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
    let named = named_by_connection(headers);
    headers.iter().filter(move |(name, _)| !is_hop_by_hop(name.as_str()) && !named.contains(name))
}

/// The headers of a request that may go on to a service, without those that `except` names.
///
/// What a caller may not say to a service: where it is from, what only the platform knows, what is no ASCII, and names with
/// an underscore, which some servers read as a hyphen.
pub(crate) fn let_in(headers: &HeaderMap, except: &[HeaderName]) -> HeaderMap {
    let named = named_by_connection(headers);
    let mut kept = HeaderMap::with_capacity(headers.len() + ADDED_MAX);
    for (name, value) in headers {
        if may_enter(name.as_str(), value) && !except.contains(name) && !named.contains(name) {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}

fn may_enter(name: &str, value: &HeaderValue) -> bool {
    let is_refused = is_hop_by_hop(name)
        || name == "host"
        || name.starts_with("x-ninefold-")
        || (name.starts_with("grpc-") && !GRPC_ALLOWED.contains(&name))
        || FORWARDED.contains(&name)
        || name.contains('_');
    !is_refused && value.to_str().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_request(build: impl FnOnce(http::request::Builder) -> http::request::Builder) -> Result<Path, Error> {
        let request = build(http::Request::builder().uri("/v1/x").header("host", "a")).body(()).unwrap();
        check(&request.into_parts().0, &Config::default())
    }

    #[test]
    fn a_plain_request_passes() {
        assert_eq!(check_request(|request| request).unwrap().segments(), ["v1", "x"]);
    }

    #[test]
    fn rule_26_headers_end_at_the_edge_or_cross_it() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, x-secret"),
            ("x-secret", "1"),
            ("te", "trailers"),
            ("content-length", "3"),
            ("grpc-timeout", "1S"),
            ("grpc-status", "0"),
            ("x-ninefold-identity", "admin"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x_forwarded_for", "1.2.3.4"),
            ("authorization", "Bearer x"),
            ("trace-bin", "AAE"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers.insert("x-odd", HeaderValue::from_bytes(b"\xe4").unwrap());
        let names = |headers: &HeaderMap| {
            let mut names: Vec<_> = headers.keys().map(|name| name.as_str().to_owned()).collect();
            names.sort_unstable();
            names
        };
        assert_eq!(names(&let_in(&headers, &[])), ["authorization", "grpc-timeout", "trace-bin"]);
        assert_eq!(names(&let_in(&headers, &[header::AUTHORIZATION])), ["grpc-timeout", "trace-bin"]);
        let out: HeaderMap = let_out(&headers).map(|(name, value)| (name.clone(), value.clone())).collect();
        strip_hop_by_hop(&mut headers);
        assert_eq!(names(&headers), names(&out));
        assert!(!names(&out).iter().any(|name| matches!(name.as_str(), "x-secret" | "te" | "content-length")));
    }

    #[test]
    fn a_host_is_said_once() {
        assert!(check_request(|request| request.header("host", "b")).is_err());
        assert!(check_request(|request| request.uri("http://b/v1/x")).is_err());
        assert!(check_request(|request| request.uri("http://A/v1/x")).is_ok());
        let request = http::Request::builder().uri("/v1/x").body(()).unwrap();
        assert!(check(&request.into_parts().0, &Config::default()).is_err());
        for host in ["", "a b", "user@a", "a/b", "a,b"] {
            let request = http::Request::builder().uri("/").header("host", host).body(()).unwrap();
            assert!(check(&request.into_parts().0, &Config::default()).is_err(), "{host}");
        }
    }

    #[test]
    fn a_body_ends_in_one_way() {
        for (name, value) in [("content-length", "1"), ("transfer-encoding", "gzip, chunked")] {
            let framed =
                |request: http::request::Builder| request.header("transfer-encoding", "chunked").header(name, value);
            assert!(check_request(framed).is_err(), "{name}: {value}");
        }
        assert!(check_request(|request| request.header("transfer-encoding", "gzip")).is_err());
        assert!(check_request(|request| request.header("transfer-encoding", "Chunked")).is_ok());
    }

    #[test]
    fn limits_hold() {
        let long = format!("/{}", "x".repeat(9000));
        assert!(matches!(check_request(|request| request.uri(long)), Err(Error::TargetTooLong(_))));
        let large = "x".repeat(40_000);
        assert!(matches!(check_request(|request| request.header("x", large)), Err(Error::HeadersTooLarge(_))));
    }
}
