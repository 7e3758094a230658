//! How a browser shows a token: typed into a page once, kept in a cookie that no script and no other site can read or use.

use std::time::Duration;

use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY, SET_COOKIE,
};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use tonic::body::Body;

/// Where the token is sent to.
pub(crate) const PATH: &str = "/login";
/// Name of the cookie.
const COOKIE: &str = "ninefold_token";
/// How long a browser keeps it, in seconds: a day's work.
const KEPT_SECONDS: u32 = 12 * 60 * 60;
/// Largest form, and the longest time that it may take.
const FORM_BYTES_MAX: usize = 8 * 1024;
const FORM_WAIT: Duration = Duration::from_secs(10);

/// Whether somebody with a browser wants to see a page.
pub(crate) fn is_wanted(head: &Parts) -> bool {
    let accepted = head.headers.get(ACCEPT).and_then(|accepted| accepted.to_str().ok()).unwrap_or_default();
    head.method == Method::GET && accepted.contains("text/html")
}

/// Answers at [`PATH`].
pub(crate) async fn answer(
    head: &Parts,
    body: Body,
    is_own_page: bool,
    is_secure: bool,
    is_valid: impl Fn(&str) -> bool,
) -> Response<Body> {
    if head.method != Method::POST {
        return page("");
    }
    let read = Limited::new(body, FORM_BYTES_MAX).collect();
    let form = match tokio::time::timeout(FORM_WAIT, read).await {
        Ok(Ok(form)) => form.to_bytes(),
        Ok(Err(_)) | Err(_) => return page("The form was too long, or did not come."),
    };
    let form = String::from_utf8_lossy(&form);
    // Tokens have no letters that forms write differently.
    let token = form.split('&').find_map(|field| field.strip_prefix("token=")).unwrap_or_default().trim();
    if !is_own_page || !is_valid(token) {
        return page("That token is not valid, or not any more.");
    }
    let secure = if is_secure { "; Secure" } else { "" };
    let cookie = format!("{COOKIE}={token}; HttpOnly; SameSite=Strict; Path=/; Max-Age={KEPT_SECONDS}{secure}");
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    response.headers_mut().insert(LOCATION, HeaderValue::from_static("/"));
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}

/// The token in a browser's cookies.
pub(crate) fn token_in(cookies: &HeaderValue) -> Option<String> {
    let pairs = cookies.to_str().ok()?.split(';').filter_map(|pair| pair.trim().split_once('='));
    pairs.into_iter().find(|(name, _)| *name == COOKIE).map(|(_, token)| token.to_owned())
}

/// The page that asks for a token.
pub(crate) fn page(problem: &'static str) -> Response<Body> {
    let html = include_str!("login/page.html").replace("{{problem}}", problem);
    let mut response = Response::new(Body::new(Full::from(html)));
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    let policy = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'";
    for (name, value) in [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, policy),
        (REFERRER_POLICY, "same-origin"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
