//! Who a request falls to. Pure, but for chance.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, header};
use serde_json::{Map, Value};

use super::settings::{Canary, Condition, Source};

/// What was proven of a caller; an extension of a request that was let in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claims(pub(crate) Arc<Map<String, Value>>);

/// Who asks, as far as requests are steered by it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker<'r> {
    pub(crate) headers: &'r HeaderMap,
    pub(crate) claims: Option<&'r Claims>,
    pub(crate) address: IpAddr,
}

/// Whether chance says yes to `percent` of all.
pub(super) fn draws(percent: u32) -> bool {
    percent >= 100 || fastrand::u32(..100) < percent
}

impl Asker<'_> {
    /// Whether a condition holds.
    pub(super) fn meets(&self, condition: &Condition) -> bool {
        let said = match condition {
            Condition { header: Some(name), .. } => self.header(name),
            Condition { cookie: Some(name), .. } => self.cookie(name),
            Condition { claim: Some(name), .. } => return self.has_claim(name, condition.is.as_deref()),
            Condition { .. } => None,
        };
        match (&condition.is, said) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(wanted), Some(said)) => *wanted == said,
        }
    }

    /// Whether a request goes to a canary, which is the `number`th of its service.
    pub(super) fn falls_to(&self, canary: &Canary, number: usize) -> bool {
        if !canary.when.iter().all(|condition| self.meets(condition)) {
            return false;
        }
        let key = match &canary.sticky {
            Some(Source::Header(name)) => self.header(name),
            Some(Source::Cookie(name)) => self.cookie(name),
            Some(Source::Claim(name)) => self.claim(name),
            Some(Source::Address(_)) => Some(self.address.to_canonical().to_string()),
            None => None,
        };
        match key {
            // The same on every edge, and who is among ten percent is among twenty.
            Some(key) => {
                let mut hasher = DefaultHasher::new();
                (number, key).hash(&mut hasher);
                hasher.finish() % 100 < u64::from(canary.percent)
            }
            None => draws(canary.percent),
        }
    }

    fn header(&self, name: &str) -> Option<String> {
        Some(self.headers.get(name)?.to_str().ok()?.to_owned())
    }

    fn cookie(&self, name: &str) -> Option<String> {
        let lines = self.headers.get_all(header::COOKIE).into_iter().filter_map(|line| line.to_str().ok());
        let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(known, _)| *known == name).map(|(_, value)| value.trim_matches('"').to_owned())
    }

    fn claim(&self, name: &str) -> Option<String> {
        match self.claims?.0.get(name)? {
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }

    /// A claim that is a list holds each of its values.
    fn has_claim(&self, name: &str, wanted: Option<&str>) -> bool {
        let Some(value) = self.claims.and_then(|claims| claims.0.get(name)) else { return false };
        let is = |value: &Value, wanted: &str| match value {
            Value::String(text) => text == wanted,
            other => serde_json::from_str::<Value>(wanted).is_ok_and(|wanted| wanted == *other),
        };
        match (wanted, value) {
            (None, _) => true,
            (Some(wanted), Value::Array(values)) => values.iter().any(|value| is(value, wanted)),
            (Some(wanted), value) => is(value, wanted),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn asker<'r>(headers: &'r HeaderMap, claims: &'r Claims) -> Asker<'r> {
        Asker { headers, claims: Some(claims), address: [127, 0, 0, 1].into() }
    }

    fn canary(value: Value) -> Canary {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn conditions_are_of_headers_cookies_and_claims() {
        let headers = HeaderMap::from_iter([
            (http::HeaderName::from_static("x-beta"), "yes".parse().unwrap()),
            (header::COOKIE, "a=1; track=canary".parse().unwrap()),
        ]);
        let claims = Claims(Arc::new(json!({"groups": ["staff"], "level": 3}).as_object().unwrap().clone()));
        let asker = asker(&headers, &claims);
        for (condition, holds) in [
            (json!({"header": "x-beta"}), true),
            (json!({"header": "x-beta", "is": "no"}), false),
            (json!({"header": "x-gamma"}), false),
            (json!({"cookie": "track", "is": "canary"}), true),
            (json!({"cookie": "b"}), false),
            (json!({"claim": "groups", "is": "staff"}), true),
            (json!({"claim": "groups", "is": "guests"}), false),
            (json!({"claim": "level", "is": "3"}), true),
        ] {
            let condition: Condition = serde_json::from_value(condition).unwrap();
            assert_eq!(asker.meets(&condition), holds, "{condition:?}");
        }
    }

    #[test]
    fn who_is_among_a_share_stays_among_a_larger_one() {
        let claims = Claims::default();
        let (mut few, mut many) = (0, 0);
        for user in 0..1000 {
            let headers = HeaderMap::from_iter([(http::HeaderName::from_static("x-user"), user.into())]);
            let asker = asker(&headers, &claims);
            let falls = |percent: u32| {
                let value = json!({"to": {"version": "2"}, "percent": percent, "sticky": {"header": "x-user"}});
                asker.falls_to(&canary(value), 0)
            };
            assert_eq!(falls(10), falls(10));
            assert!(!falls(10) || falls(30), "user {user} was among ten percent and not among thirty");
            few += u32::from(falls(10));
            many += u32::from(falls(30));
        }
        assert!((50..200).contains(&few) && (200..400).contains(&many), "{few} and {many} of 1000");
    }
}
