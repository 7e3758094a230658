//! Those who vouch for callers: their keys, kept fresh in the background, and what their tokens must say.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use http::Uri;
use ninefold::fetch::Fetcher;
use ninefold::lifecycle::{Scope, Stop};
use ring::digest;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

use super::caller::{Caller, Proof};
use super::jws::{Keys, Token};
use super::settings::{self, ANY_AUDIENCE, Auth, Issuer};

/// An unknown key has keys asked for at once, but no more often than this, however many strangers make keys up.
const MISS_PAUSE: Duration = Duration::from_secs(10);
/// How soon keys are asked for again after they could not be had.
const RETRY: Duration = Duration::from_secs(5);
/// Longest wait of a request for keys that are being asked for.
const KEYS_WAIT: Duration = Duration::from_secs(3);
/// How long a token that was verified is believed without another look at its signature.
const BELIEVED: Duration = Duration::from_secs(60);
/// Most tokens that are remembered. More, and the newcomers are verified each time.
const TOKENS_MAX: usize = 10_000;

/// Why a token is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It is not worth it.
    Token(&'static str),
    /// Nobody can say: this issuer's keys are not there.
    Away(String),
}

/// All issuers. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Issuers {
    sources: Arc<HashMap<String, Arc<Source>>>,
    leeway: Duration,
    /// Shared with nobody who has other settings.
    believed: Arc<Mutex<HashMap<[u8; 32], Believed>>>,
}

#[derive(Debug)]
struct Believed {
    caller: Arc<Caller>,
    until: Instant,
    /// Keys that verified it, by their number.
    round: u64,
}

/// One issuer and its keys.
#[derive(Debug)]
struct Source {
    settings: Issuer,
    keys: ArcSwapOption<Keys>,
    /// Counts how often keys were asked for.
    rounds: watch::Sender<u64>,
    missed: Arc<Notify>,
}

impl Issuers {
    /// Nobody.
    pub(crate) fn none() -> Self {
        Self { sources: Arc::default(), leeway: Duration::ZERO, believed: Arc::default() }
    }

    /// Those that settings name. Who was there before keeps its keys; newcomers' are asked for in tasks of `scope`, which
    /// end some time after nobody holds the issuers any more.
    pub(crate) fn renewed(&self, auth: &Auth, scope: &Scope) -> Self {
        let source = |issuer: &Issuer| match self.sources.get(&issuer.issuer) {
            Some(known) if known.settings == *issuer => known.clone(),
            Some(_) | None => Source::start(issuer.clone(), scope),
        };
        let sources = auth.issuers.iter().map(|issuer| (issuer.issuer.clone(), source(issuer))).collect();
        Self { sources: Arc::new(sources), leeway: auth.leeway, believed: Arc::default() }
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// Whether a token says that it is of one of them. It is not believed by that.
    pub(crate) fn knows(&self, text: &str) -> bool {
        let issuer = Token::parse(text).ok();
        issuer.is_some_and(|token| token.text("iss").is_some_and(|issuer| self.sources.contains_key(issuer)))
    }

    /// Who the bearer of a token is. Waits for keys that nobody has seen yet, for three seconds at most.
    ///
    /// # Errors
    /// Why it is not believed.
    pub(crate) async fn verify(&self, text: &str) -> Result<Arc<Caller>, Refused> {
        let digest = digest::digest(&digest::SHA256, text.as_bytes());
        let digest: [u8; 32] = digest.as_ref().try_into().unwrap_or_default();
        let now = Instant::now();
        if let Some(caller) = self.remembered(&digest, now) {
            return Ok(caller);
        }
        let token = Token::parse(text).map_err(Refused::Token)?;
        let source = token.text("iss").and_then(|issuer| self.sources.get(issuer));
        let source = source.ok_or(Refused::Token("the token's issuer is not known"))?;
        if !source.settings.algorithms.contains(&token.algorithm) {
            return Err(Refused::Token("the token's algorithm is not taken"));
        }
        let round = source.verify(&token).await?;
        let caller = self.read(&source.settings, token)?;
        self.remember(digest, &caller, now, round);
        Ok(caller)
    }

    fn remembered(&self, digest: &[u8; 32], now: Instant) -> Option<Arc<Caller>> {
        let believed = self.believed.lock().unwrap_or_else(PoisonError::into_inner);
        let known = believed.get(digest).filter(|known| known.until > now)?;
        let source = self.sources.get(&known.caller.issuer)?;
        // New keys may lack the one that signed it.
        (*source.rounds.borrow() == known.round).then(|| known.caller.clone())
    }

    fn remember(&self, digest: [u8; 32], caller: &Arc<Caller>, now: Instant, round: u64) {
        let left = caller.expires.and_then(|end| end.duration_since(SystemTime::now()).ok()).unwrap_or_default();
        let until = now + left.min(BELIEVED);
        let mut believed = self.believed.lock().unwrap_or_else(PoisonError::into_inner);
        if believed.len() >= TOKENS_MAX {
            believed.retain(|_, known| known.until > now);
        }
        if believed.len() < TOKENS_MAX {
            believed.insert(digest, Believed { caller: caller.clone(), until, round });
        }
    }

    /// Reads a token whose signature holds.
    fn read(&self, issuer: &Issuer, token: Token<'_>) -> Result<Arc<Caller>, Refused> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // What is there and is no number says nothing, which must not be read as no limit.
        let moment = |claim: &str| match token.claims.get(claim) {
            None => Ok(None),
            Some(value) => match value.as_f64().filter(|seconds| (0.0..1e12).contains(seconds)) {
                Some(seconds) => Ok(Some(Duration::from_secs_f64(seconds))),
                None => Err(Refused::Token("the token's times are malformed")),
            },
        };
        let expires = moment("exp")?.ok_or(Refused::Token("the token never expires"))? + self.leeway;
        if now >= expires {
            return Err(Refused::Token("the token has expired"));
        }
        if moment("nbf")?.is_some_and(|begins| begins > now + self.leeway)
            || moment("iat")?.is_some_and(|made| made > now + self.leeway)
        {
            return Err(Refused::Token("the token is not valid yet"));
        }
        let is_ours = |audience: &Value| {
            audience.as_str().is_some_and(|audience| issuer.audiences.iter().any(|wanted| wanted == audience))
        };
        let is_for_us = match token.claims.get("aud") {
            _ if issuer.audiences.iter().any(|wanted| wanted == ANY_AUDIENCE) => true,
            Some(Value::Array(audiences)) => audiences.iter().any(is_ours),
            Some(audience) => is_ours(audience),
            None => false,
        };
        if !is_for_us {
            return Err(Refused::Token("the token is for somebody else"));
        }
        let scopes = token.claims.get(&issuer.scope_claim).map(scopes).unwrap_or_default();
        let subject = token.text("sub").unwrap_or_default().to_owned();
        let expires = UNIX_EPOCH.checked_add(expires);
        let claims = Arc::new(token.claims);
        let issuer = issuer.issuer.clone();
        let proof = Proof::Token;
        Ok(Arc::new(Caller { proof, subject, issuer, scopes, claims, expires, ..Caller::default() }))
    }
}

/// Scopes in a list, or with spaces between.
pub(super) fn scopes(claim: &Value) -> BTreeSet<String> {
    match claim {
        Value::String(words) => words.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect(),
        Value::Array(words) => words.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => BTreeSet::new(),
    }
}

impl Source {
    fn start(settings: Issuer, scope: &Scope) -> Arc<Self> {
        let keys = settings.jwks.as_ref().and_then(|json| Keys::read(json.as_bytes()).ok()).map(Arc::new);
        let has_keys = keys.is_some();
        let source = Arc::new(Self {
            settings,
            keys: ArcSwapOption::new(keys),
            rounds: watch::Sender::new(0),
            missed: Arc::default(),
        });
        if !has_keys {
            let (weak, missed) = (Arc::downgrade(&source), source.missed.clone());
            scope.run("gateway.follow_issuer", |stop| follow(weak, missed, stop));
        }
        source
    }

    /// Looks whether the issuer signed a token; gives the number of the keys that say so.
    async fn verify(&self, token: &Token<'_>) -> Result<u64, Refused> {
        let mut rounds = self.rounds.subscribe();
        for is_last in [false, true] {
            let round = *rounds.borrow_and_update();
            let keys = self.keys.load_full();
            match keys.as_ref().and_then(|keys| keys.verify(token)) {
                Some(true) => return Ok(round),
                Some(false) => return Err(Refused::Token("the token's signature does not hold")),
                None if is_last || self.settings.jwks.is_some() => {
                    return Err(match keys {
                        Some(_) => Refused::Token("the token's key is not known"),
                        None => Refused::Away(self.settings.issuer.clone()),
                    });
                }
                None => {}
            }
            self.missed.notify_one();
            // Whether it changed or not is seen on the second look.
            let _ = timeout(KEYS_WAIT, rounds.changed()).await;
        }
        Err(Refused::Away(self.settings.issuer.clone()))
    }

    async fn load(&self) -> Result<Keys, String> {
        let Issuer { issuer, jwks_url, jwks_file, ca, .. } = &self.settings;
        if let Some(path) = jwks_file {
            let read = tokio::fs::read(path).await.map_err(|error| format!("{}: {error}", path.display()))?;
            return Keys::read(&read).map_err(|why| format!("{} {why}", path.display()));
        }
        let fetcher = Fetcher::new(ca.clone());
        let at = match jwks_url {
            Some(at) => at.clone(),
            None => discover(&fetcher, issuer).await?,
        };
        let url: Uri = settings::url(&at).map_err(|why| format!("{at} {why}"))?;
        let answer = fetcher.get(&url).await.map_err(|why| format!("{at}: {why}"))?;
        Keys::read(&answer).map_err(|why| format!("{at} {why}"))
    }
}

/// Where an issuer's keys are, by OpenID Connect Discovery 1.0.
async fn discover(fetcher: &Fetcher, issuer: &str) -> Result<String, String> {
    #[derive(Deserialize)]
    struct Found {
        issuer: String,
        jwks_uri: String,
    }
    let at = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let url = settings::url(&at).map_err(|why| format!("{at} {why}"))?;
    let answer = fetcher.get(&url).await.map_err(|why| format!("{at}: {why}"))?;
    let found: Found = serde_json::from_slice(&answer).map_err(|error| format!("{at} is no discovery: {error}"))?;
    if found.issuer != issuer {
        return Err(format!("{at} speaks of another issuer, {:?}", found.issuer));
    }
    Ok(found.jwks_uri)
}

/// Keeps an issuer's keys fresh while anybody holds it. Keys that cannot be had leave those before them.
async fn follow(source: Weak<Source>, missed: Arc<Notify>, stop: Stop) {
    loop {
        let Some(held) = source.upgrade() else { return };
        let loaded = tokio::select! {
            loaded = held.load() => loaded,
            () = stop.asked() => return,
        };
        let wait = match loaded {
            Ok(keys) => {
                tracing::debug!(issuer = held.settings.issuer, "read an issuer's keys");
                held.keys.store(Some(Arc::new(keys)));
                held.settings.refresh
            }
            Err(error) => {
                tracing::warn!(issuer = held.settings.issuer, error, "an issuer's keys cannot be had");
                RETRY
            }
        };
        held.rounds.send_modify(|round| *round += 1);
        drop(held);
        let asked = Instant::now();
        loop {
            // Nothing is lost when an arm is dropped: a miss that was not heard of is told again by the next request.
            tokio::select! {
                () = stop.asked() => return,
                () = tokio::time::sleep_until(asked + wait) => break,
                () = missed.notified() => {
                    if asked.elapsed() >= MISS_PAUSE {
                        break;
                    }
                    // Nothing new; who waits need not.
                    source.upgrade().inspect(|held| held.rounds.send_modify(|_| {}));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::jws::tests::Signer;
    use super::*;

    fn now() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
    }

    fn issuers(signer: &Signer) -> Issuers {
        let auth = Auth { issuers: vec![Issuer::with_keys("https://id", "shop", signer.jwks("a"))], ..Auth::default() };
        assert!(auth.mistakes().is_empty());
        Issuers::none().renewed(&auth, &Scope::root("test"))
    }

    #[tokio::test]
    async fn a_token_must_say_for_whom_and_how_long_it_is() {
        let signer = Signer::new();
        let issuers = issuers(&signer);
        let good = json!({"iss": "https://id", "aud": ["x", "shop"], "sub": "u", "exp": now() + 100, "scope": "a b"});
        let header = json!({"alg": "EdDSA", "kid": "a"});
        for _ in 0..2 {
            let caller = issuers.verify(&signer.sign(&header, &good)).await.unwrap();
            assert_eq!((caller.subject.as_str(), caller.scopes.len()), ("u", 2));
        }
        for (claim, value) in [
            ("iss", json!("https://other")),
            ("iss", json!(["https://id"])),
            ("aud", json!("other")),
            ("aud", json!(null)),
            ("aud", json!({"shop": 1})),
            ("exp", json!(now() - 100)),
            ("exp", json!("9999999999")),
            ("exp", json!(null)),
            ("exp", json!(-1)),
            ("nbf", json!(now() + 100)),
            ("nbf", json!("soon")),
            ("iat", json!(now() + 1000)),
        ] {
            let mut claims = good.clone();
            claims[claim] = value;
            let refused = issuers.verify(&signer.sign(&header, &claims)).await;
            assert!(matches!(refused, Err(Refused::Token(_))), "{claims}");
        }
        let mut claims = good.clone();
        claims["exp"] = json!(now() - 30);
        assert!(issuers.verify(&signer.sign(&header, &claims)).await.is_ok(), "clocks may differ by a minute");
        claims.as_object_mut().unwrap().remove("exp");
        assert!(issuers.verify(&signer.sign(&header, &claims)).await.is_err(), "there must be an end");
        let strange = Signer::new().sign(&header, &good);
        assert_eq!(issuers.verify(&strange).await.unwrap_err(), Refused::Token("the token's signature does not hold"));
        let unknown = signer.sign(&json!({"alg": "EdDSA", "kid": "b"}), &good);
        assert_eq!(issuers.verify(&unknown).await.unwrap_err(), Refused::Token("the token's key is not known"));
    }
}
