//! All limits, by their places in the settings, and who is counted by which.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;

use super::caller::Caller;
use crate::config::Config;
use crate::error::Error;
use crate::limit::{By, Counters, Limit, Limiter, Shared, Subject, Verdict, Window};

/// Place of the limits of all requests.
const EVERYWHERE: &str = "limits";

/// One limit and its counters.
#[derive(Clone, Debug)]
struct Counted {
    limit: Limit,
    limiter: Arc<Limiter>,
}

/// All limits. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    counters: Counters,
    shared: Option<Arc<Shared>>,
    /// By place, then by name.
    counted: Arc<HashMap<String, BTreeMap<String, Counted>>>,
    /// What keys bring along, by day and by month.
    quotas: Arc<[Limiter; 2]>,
}

/// The place of a service's limits, or of a method's own.
pub(crate) fn place(service: &str, method: Option<&str>) -> String {
    match method {
        None => format!("traffic.{service}"),
        Some(method) => format!("traffic.{service}.{method}"),
    }
}

fn quotas(shared: Option<&Arc<Shared>>) -> Arc<[Limiter; 2]> {
    Arc::new(
        [("key-day", Window::Day), ("key-month", Window::Month)]
            .map(|(name, window)| Limiter::of_quotas(name, window, shared.cloned())),
    )
}

impl Limits {
    /// None.
    pub(crate) fn none() -> Self {
        Self { counters: Counters::default(), shared: None, counted: Arc::default(), quotas: quotas(None) }
    }

    /// Those that settings name. What was counted stays where neither the limit nor the place of counting changed.
    ///
    /// # Errors
    /// [`Error::SettingsInvalid`] for a malformed address of Redis.
    pub(crate) fn renewed(&self, config: &Config) -> Result<Self, Error> {
        let counters = config.counters.clone();
        let stays = counters == self.counters;
        let shared = |url: &str| Shared::new("counters.redis", url, counters.redis_timeout).map(Arc::new);
        let shared = if stays { self.shared.clone() } else { counters.redis.as_deref().map(shared).transpose()? };
        let quotas = if stays { self.quotas.clone() } else { quotas(shared.as_ref()) };
        let mut counted = HashMap::new();
        let mut add = |place: String, limits: &BTreeMap<String, Limit>| {
            let one = |(name, limit): (&String, &Limit)| {
                let known = self.counted.get(&place).and_then(|known| known.get(name));
                let known = known.filter(|known| stays && known.limit == *limit).map(|known| known.limiter.clone());
                let at = format!("{place}.{name}");
                let limiter = known.unwrap_or_else(|| Arc::new(Limiter::of(name, &at, limit, shared.clone())));
                (name.clone(), Counted { limit: limit.clone(), limiter })
            };
            if !limits.is_empty() {
                counted.insert(place.clone(), limits.iter().map(one).collect());
            }
        };
        add(EVERYWHERE.to_owned(), &config.limits);
        for (service, traffic) in &config.traffic {
            add(place(service, None), traffic.limits.as_ref().unwrap_or(&BTreeMap::new()));
            for (name, method) in &traffic.methods {
                let name = name.replace('/', ".");
                add(place(service, Some(&name)), method.limits.as_ref().unwrap_or(&BTreeMap::new()));
            }
        }
        Ok(Self { counters, shared, counted: Arc::new(counted), quotas })
    }

    /// Counts a request against all that holds for it, and notes what is left.
    ///
    /// # Errors
    /// [`Error::RateLimited`] and [`Error::QuotaSpent`] by the first that it is too much for.
    pub(crate) async fn admit(
        &self,
        place: Option<&str>,
        caller: Option<&Caller>,
        address: IpAddr,
        verdicts: &mut Vec<Verdict>,
    ) -> Result<(), Error> {
        for place in [Some(EVERYWHERE), place].into_iter().flatten() {
            for counted in self.counted.get(place).into_iter().flat_map(BTreeMap::values) {
                let verdict = counted.limiter.admit(subject(&counted.limit.by, caller, address)).await;
                let held = verdict.held();
                verdicts.push(verdict);
                held?;
            }
        }
        if let Some((key, quota)) = caller.and_then(|caller| Some((caller.key.as_deref()?, caller.quota?))) {
            for (limiter, max) in self.quotas.iter().zip([quota.day_max, quota.month_max]) {
                if max > 0 {
                    let verdict = limiter.admit_up_to(Subject::named(&["key", key]), Some(max)).await;
                    let held = verdict.held();
                    verdicts.push(verdict);
                    held?;
                }
            }
        }
        Ok(())
    }

    /// What holds at a place, in sentences.
    pub(crate) fn words(&self, place: Option<&str>) -> Vec<String> {
        let places = [Some(EVERYWHERE), place].into_iter().flatten();
        let limits = places.flat_map(|place| self.counted.get(place)).flatten();
        limits.map(|(name, counted)| format!("{name}: {}", counted.limit.words())).collect()
    }
}

fn subject(by: &By, caller: Option<&Caller>, address: IpAddr) -> Subject {
    let named = match (by, caller) {
        (By::All, _) => return Subject::Everybody,
        (By::Address, _) | (_, None) => None,
        (By::Caller, Some(caller)) => {
            Some(Subject::named(&["caller", caller.proof.name(), &caller.issuer, &caller.subject]))
        }
        (By::Key, Some(caller)) => caller.key.as_ref().map(|key| Subject::named(&["key", key])),
        (By::Claim(claim), Some(caller)) => caller.claims.get(claim).map(|value| {
            let text = match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            Subject::named(&["claim", claim, &text])
        }),
    };
    named.unwrap_or_else(|| Subject::address(address))
}
