//! How requests to a service are steered: how long they may take, which instances answer them, who hears of them besides,
//! and whether they are answered at all.
//!
//! Declared in settings (by service, and by method within it) or, for the time, in the contract's own options. Settings go
//! before options, a method before its service. Retries, hedging and breakers are the service's policy, which holds here as
//! it does for every caller.

pub(crate) mod mirror;
mod plan;
mod settings;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use ninefold::connect::{Channel, Discovery, Policy, Selector, Subset};

use crate::guard::{Promise, Requirement, limits};
use crate::routes::Route;
use crate::transcode::notation::Notation;
use mirror::Mirrors;
pub(crate) use plan::{Asker, Claims};
pub use settings::{Canary, Condition, Instances, Json, Maintenance, Method, Mirror, Service, Source, Unknown};

/// All that is declared, as requests look it up. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Traffic {
    pub(crate) all: All,
    pub(crate) mirrors: Mirrors,
    discovery: Discovery,
}

/// What is declared for all services. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct All(Arc<HashMap<String, Declared>>);

/// What is declared for one service.
#[derive(Debug)]
struct Declared {
    whole: Arc<Rules>,
    /// By name, the longest first.
    methods: Vec<(String, Arc<Rules>)>,
}

/// What is declared for a method.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    timeout: Option<Duration>,
    requirement: Option<Arc<Requirement>>,
    /// Where its limits stand in the settings.
    limits_at: String,
    maintenance: Option<Maintenance>,
    canaries: Vec<Aimed>,
    mirror: Option<Mirror>,
    json: Option<Json>,
    heard_by: Option<Heard>,
    /// Those that only get what is sent to them in particular.
    set_apart: Arc<[Selector]>,
}

/// Who hears of requests besides.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) channel: Channel,
    pub(crate) subset: Subset,
}

/// A canary, and the instances that it names.
#[derive(Debug)]
struct Aimed {
    canary: Canary,
    selector: Arc<Selector>,
}

/// Where a request goes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Steered {
    /// Longest time, where one is declared.
    pub(crate) timeout: Option<Duration>,
    /// Which instances answer; `None` for all.
    pub(crate) subset: Option<Subset>,
    /// Who else hears of it.
    pub(crate) mirror: Option<Heard>,
    /// What its message must hold to.
    pub(crate) promise: Option<Promise>,
    /// Number of the canary that it goes to, from one.
    pub(crate) canary: Option<usize>,
    /// How its JSON is read and written.
    pub(crate) notation: Notation,
}

impl Traffic {
    /// Nothing declared.
    pub(crate) fn new(mirrors: Mirrors, discovery: Discovery) -> Self {
        Self { all: All::default(), mirrors, discovery }
    }

    /// The same with other declarations.
    ///
    /// Services named in `plain` speak plain HTTP, and so does whoever hears of their requests.
    pub(crate) fn renewed(&self, declared: &BTreeMap<String, Service>, plain: &BTreeSet<&str>) -> Self {
        let services = declared.iter().map(|(name, service)| {
            let is_plain = plain.contains(name.as_str());
            let channel = |heard_by: &str| match is_plain {
                true => self.discovery.http_channel(heard_by, Policy::default()),
                false => self.discovery.channel(heard_by),
            };
            (name.clone(), Declared::new(name, service, &channel))
        });
        Self { all: All(Arc::new(services.collect())), ..self.clone() }
    }

    /// What is declared for a route, by settings.
    pub(crate) fn rules(&self, route: &Route) -> Option<&Arc<Rules>> {
        self.all.rules(route)
    }

    /// Where a request goes.
    ///
    /// # Errors
    /// What is declared instead of an answer.
    pub(crate) fn steer(&self, route: &Route, asker: &Asker<'_>) -> Result<Steered, Maintenance> {
        let declared = Steered { timeout: route.method.timeout, notation: route.method.notation, ..Steered::default() };
        match self.rules(route) {
            None => Ok(declared),
            Some(rules) => rules.steer(asker, Steered { notation: rules.notation(route), ..declared }),
        }
    }
}

impl All {
    /// What is declared for a route, by settings.
    fn rules(&self, route: &Route) -> Option<&Arc<Rules>> {
        let declared = self.0.get(&*route.service)?;
        let name = route.method.name.as_str();
        let is_meant = |wanted: &str| {
            let rest = name.strip_suffix(wanted);
            rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        let own = declared.methods.iter().find(|(wanted, _)| is_meant(wanted));
        Some(own.map_or(&declared.whole, |(_, rules)| rules))
    }

    /// How the JSON of a route is read and written.
    pub(crate) fn notation(&self, route: &Route) -> Notation {
        self.rules(route).map_or(route.method.notation, |rules| rules.notation(route))
    }

    /// Whether the same is declared, by the same settings.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Declared {
    fn new(name: &str, service: &Service, channel: &dyn Fn(&str) -> Channel) -> Self {
        let rules = |own: &Method, at: Option<&str>| {
            let limits_at = limits::place(name, at.filter(|_| own.limits.is_some()));
            Arc::new(Rules::new(own.over(service), name, limits_at, channel))
        };
        let method = |(name, own): (&String, &Method)| {
            let name = name.replace('/', ".");
            let rules = rules(own, Some(&name));
            (name, rules)
        };
        let mut methods: Vec<_> = service.methods.iter().map(method).collect();
        methods.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        Self { whole: rules(&Method::default(), None), methods }
    }
}

impl Rules {
    fn new(method: Method, service: &str, limits_at: String, channel: &dyn Fn(&str) -> Channel) -> Self {
        let Method { timeout, requirement, limits: _, maintenance, canaries, mirror, json } = method;
        let aimed = |canary: Canary| Aimed { selector: Arc::new(canary.to.clone().into()), canary };
        let canaries: Vec<Aimed> = canaries.unwrap_or_default().into_iter().map(aimed).collect();
        let shadow = mirror.as_ref().filter(|mirror| mirror.service.is_none()).map(|mirror| mirror.to.clone().into());
        let set_apart = canaries.iter().map(|aimed| Selector::clone(&aimed.selector)).chain(shadow).collect();
        let heard_by = mirror.as_ref().map(|mirror| Heard {
            channel: channel(mirror.service.as_deref().unwrap_or(service)),
            subset: Subset { only: Some(Arc::new(mirror.to.clone().into())), is_strict: true, ..Subset::default() },
        });
        let requirement = requirement.map(Arc::new);
        Self { timeout, requirement, limits_at, maintenance, canaries, mirror, json, heard_by, set_apart }
    }

    fn steer(&self, asker: &Asker<'_>, declared: Steered) -> Result<Steered, Maintenance> {
        if let Some(maintenance) = &self.maintenance
            && !maintenance.except.iter().any(|condition| asker.meets(condition))
        {
            return Err(maintenance.clone());
        }
        let mut steered = Steered { timeout: self.timeout.or(declared.timeout), ..declared };
        let chosen = self.canaries.iter().enumerate().find(|(number, aimed)| asker.falls_to(&aimed.canary, *number));
        if let Some((number, aimed)) = chosen {
            let only = Some(aimed.selector.clone());
            steered.subset = Some(Subset { only, is_strict: aimed.canary.strict, ..Subset::default() });
            steered.canary = Some(number + 1);
        } else if !self.set_apart.is_empty() {
            steered.subset = Some(Subset { except: self.set_apart.clone(), ..Subset::default() });
        }
        if self.mirror.as_ref().is_some_and(|mirror| plan::draws(mirror.percent)) {
            steered.mirror.clone_from(&self.heard_by);
        }
        Ok(steered)
    }

    fn notation(&self, route: &Route) -> Notation {
        let by_contract = route.method.notation;
        self.json.as_ref().map_or(by_contract, |said| by_contract.with(said, route.method.is_server_streaming))
    }

    /// Where its limits stand in the settings.
    pub(crate) fn limits_at(&self) -> &str {
        &self.limits_at
    }

    /// What callers must show.
    pub(crate) const fn requirement(&self) -> Option<&Arc<Requirement>> {
        self.requirement.as_ref()
    }

    /// What is declared, in sentences.
    pub(crate) fn words(&self) -> Vec<(&'static str, String)> {
        let mut words = Vec::new();
        if let Some(timeout) = self.timeout {
            words.push(("timeout", format!("at most {}", ninefold::settings::duration::format(timeout))));
        }
        if let Some(maintenance) = &self.maintenance {
            words.push(("maintenance", format!("answered with 503: {}", maintenance.text)));
        }
        for (number, Aimed { canary, .. }) in self.canaries.iter().enumerate() {
            words.push(("canary", format!("{}: {}", number + 1, canary.words())));
        }
        if let Some(mirror) = &self.mirror {
            words.push(("mirror", mirror.words()));
        }
        words
    }
}
