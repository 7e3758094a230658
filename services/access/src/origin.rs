//! Where a request comes from: no web page reaches the platform through the browser of somebody who can. Pure.
//!
//! A page from elsewhere can make a browser send requests to this machine, and a name that its owner points to this
//! machine makes the answers readable too (DNS rebinding). The first has an `Origin` or `Sec-Fetch-Site` that tells, the
//! second a `Host` that is no name of ours.

use http::header::{AUTHORIZATION, HOST, HeaderName, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Version};

use crate::config::{Authentication, Config};
use crate::error::Error;

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// Whether a request may come from where it comes. The answer is the origin of a page that may read the answer although
/// it is from elsewhere.
pub(crate) fn check(head: &Parts, config: &Config) -> Result<Option<HeaderValue>, Error> {
    let authority = authority(head);
    // Nothing in a browser's hands is sent along unasked with a token in a header.
    let shows_token = config.authentication != Authentication::Off && head.headers.contains_key(AUTHORIZATION);
    if !shows_token && !is_out_of_reach(head) && !is_ours(host_of(&authority), &config.allowed_hosts) {
        return Err(Error::HostRefused(authority));
    }
    let allowed = match head.headers.get(ORIGIN) {
        None => None,
        Some(origin) => {
            let text = origin.to_str().unwrap_or_default();
            let is_allowed = config.allowed_origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(text));
            if !is_allowed && !is_same(text, &authority) {
                return Err(Error::OriginRefused(text.to_owned()));
            }
            is_allowed.then(|| origin.clone())
        }
    };
    let site = header(&head.headers, &FETCH_SITE);
    let is_elsewhere = site == "cross-site" || site == "same-site";
    // Following a link to the page itself is what links are for.
    let is_visit =
        head.method == Method::GET && header(&head.headers, &FETCH_MODE) == "navigate" && head.uri.path() == "/";
    if is_elsewhere && allowed.is_none() && !is_visit {
        return Err(Error::OriginRefused(format!("another site ({site})")));
    }
    Ok(allowed)
}

/// Whether a page of the platform itself has sent a request.
pub(crate) fn is_own_page(head: &Parts) -> bool {
    let origin = head.headers.get(ORIGIN).and_then(|origin| origin.to_str().ok());
    match origin {
        Some(origin) => is_same(origin, &authority(head)),
        None => matches!(head.method, Method::GET | Method::HEAD),
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// What the caller calls us, with the port.
fn authority(head: &Parts) -> String {
    let told = head.uri.authority().map(|authority| authority.as_str());
    told.unwrap_or_else(|| header(&head.headers, &HOST)).to_ascii_lowercase()
}

/// The host in an authority; nothing for one that names a user, which no browser sends.
fn host_of(authority: &str) -> &str {
    if authority.contains('@') {
        return "";
    }
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host.trim_end_matches('.')
}

/// Whether a host is a name of ours: an address cannot be rebound, `localhost` is this machine, the rest is a list.
fn is_ours(host: &str, allowed: &[String]) -> bool {
    host.parse::<std::net::IpAddr>().is_ok()
        || host == "localhost"
        || host.ends_with(".localhost")
        || allowed.iter().any(|name| name.eq_ignore_ascii_case(host))
}

/// HTTP/2, which no page can make a browser speak in clear text; and over TLS a name that was bound to this machine has no
/// certificate of ours.
fn is_out_of_reach(head: &Parts) -> bool {
    head.version == Version::HTTP_2
}

/// Whether an origin is the authority that was called. The scheme may differ: a proxy in front may have ended TLS.
fn is_same(origin: &str, authority: &str) -> bool {
    let Some((scheme, rest)) = origin.split_once("://") else { return false };
    let default = if scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" };
    let bare = |text: &str| text.strip_suffix(default).unwrap_or(text).to_ascii_lowercase();
    !rest.is_empty() && bare(rest) == bare(authority)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(config: &Config, uri: &str, headers: &[(&str, &str)]) -> Result<Option<HeaderValue>, Error> {
        let mut request = http::Request::builder().method("GET").uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        check(&request.body(()).unwrap().into_parts().0, config)
    }

    fn is_let_in(headers: &[(&str, &str)]) -> bool {
        told(&Config::default(), "/landscape.json", headers).is_ok()
    }

    #[test]
    fn a_name_that_was_bound_to_this_machine_is_refused() {
        for host in [
            "evil.example",
            "evil.example:9900",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "localhost:x@evil.example",
            "",
        ] {
            assert!(!is_let_in(&[("host", host)]), "{host}");
        }
        for host in ["localhost:9900", "LOCALHOST", "127.0.0.1:9900", "[::1]:9900", "10.1.2.3", "app.localhost"] {
            assert!(is_let_in(&[("host", host)]), "{host}");
        }
        let config = Config { allowed_hosts: vec!["nine.example".to_owned()], ..Config::default() };
        assert!(told(&config, "/", &[("host", "nine.example:9900")]).is_ok());
        assert!(told(&config, "/", &[("host", "x.nine.example")]).is_err());
    }

    #[test]
    fn a_page_from_elsewhere_is_refused() {
        let host = ("host", "127.0.0.1:9900");
        for origin in ["http://evil.example", "http://127.0.0.1:3000", "null", "http://127.0.0.1:9900.evil.example", ""]
        {
            assert!(!is_let_in(&[host, ("origin", origin)]), "{origin}");
        }
        assert!(is_let_in(&[host, ("origin", "http://127.0.0.1:9900")]));
        assert!(is_let_in(&[("host", "localhost:80"), ("origin", "http://localhost")]));
        assert!(!is_let_in(&[host, ("sec-fetch-site", "cross-site")]));
        assert!(!is_let_in(&[host, ("sec-fetch-site", "same-site"), ("sec-fetch-mode", "no-cors")]));
        assert!(is_let_in(&[host, ("sec-fetch-site", "same-origin")]));
        assert!(is_let_in(&[host, ("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate")]));
        // A link to the page may be followed, one to its data may not.
        let link = [host, ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")];
        assert!(told(&Config::default(), "/", &link).is_ok() && !is_let_in(&link));
    }

    #[test]
    fn a_page_that_is_allowed_may_read_the_answer() {
        let config = Config { allowed_origins: vec!["https://console.example".to_owned()], ..Config::default() };
        let headers =
            [("host", "127.0.0.1:9900"), ("origin", "https://console.example"), ("sec-fetch-site", "cross-site")];
        assert_eq!(told(&config, "/", &headers).unwrap().unwrap(), "https://console.example");
        assert!(told(&config, "/", &[headers[0], ("origin", "https://console.example.evil")]).is_err());
    }
}
