//! `ninefold drain`, `undrain` and `override`: what an operator decides of one instance.

use clap::{Args, ValueEnum};
use ninefold_proto::ninefold::registry::v1::{
    BreakerForce, ClearOverrideRequest, Instance, Override, SetOverrideRequest,
};

use crate::client::{Platform, within};
use crate::commands::ps;
use crate::exit::Failure;
use crate::output::{self, Format};

/// What `override` takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct OverrideArgs {
    /// Id of the instance.
    instance: String,
    /// Its service, where several have an instance of that id, or it is away.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Take no new calls.
    #[arg(long)]
    drain: bool,
    /// Share of calls instead of its own, 0 to 10000; 100 is usual.
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    weight: Option<u32>,
    /// What callers' breakers do about it.
    #[arg(long, value_enum, value_name = "STATE")]
    breaker: Option<Force>,
    /// Take back everything that was decided.
    #[arg(long, conflicts_with_all = ["drain", "weight", "breaker"])]
    clear: bool,
    /// Why.
    #[arg(long, default_value = "")]
    reason: String,
}

/// What breakers are made to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Force {
    /// No calls.
    Open,
    /// Calls, whatever comes of them.
    Closed,
    /// As they find right.
    Auto,
}

/// Takes an instance out of rotation, or puts it back. What else was decided of it stays.
pub(crate) async fn drain(
    platform: &Platform,
    (instance, service): (&str, Option<&str>),
    drain: bool,
    reason: &str,
    format: Format,
) -> Result<(), Failure> {
    let found = find(platform, instance, service).await?;
    let change = |decided: Override| Override { drain, ..decided };
    decide(platform, found, change, reason, format).await
}

/// Decides of an instance what the arguments name. What else was decided of it stays.
pub(crate) async fn set(platform: &Platform, args: OverrideArgs, format: Format) -> Result<(), Failure> {
    let found = find(platform, &args.instance, args.service.as_deref()).await?;
    if args.clear {
        return decide(platform, found, |_| Override::default(), &args.reason, format).await;
    }
    if !args.drain && args.weight.is_none() && args.breaker.is_none() {
        return Err(Failure::Usage("name what is decided: --drain, --weight, --breaker or --clear".to_owned()));
    }
    let change = |decided: Override| Override {
        drain: decided.drain || args.drain,
        weight: args.weight.or(decided.weight),
        force: match args.breaker {
            None => decided.force,
            Some(Force::Open) => BreakerForce::Open.into(),
            Some(Force::Closed) => BreakerForce::Closed.into(),
            Some(Force::Auto) => BreakerForce::Unspecified.into(),
        },
        ..decided
    };
    decide(platform, found, change, &args.reason, format).await
}

/// The instance of this id. One that is away is known by its name alone.
async fn find(platform: &Platform, id: &str, service: Option<&str>) -> Result<Instance, Failure> {
    let mut found = platform.instances(service.unwrap_or_default()).await?;
    found.retain(|instance| instance.instance_id == id);
    match (found.len(), service) {
        (1, _) => Ok(found.swap_remove(0)),
        (0, Some(service)) => Ok(Instance {
            namespace: platform.namespace().to_owned(),
            service: service.to_owned(),
            instance_id: id.to_owned(),
            ..Instance::default()
        }),
        (0, None) => Err(Failure::NotFound(format!(
            "no instance is called {id:?}; `ninefold ps` lists them, --service names the service of one that is away"
        ))),
        _ => Err(Failure::Usage(format!("several services have an instance {id:?}: name one with --service"))),
    }
}

async fn decide(
    platform: &Platform,
    found: Instance,
    change: impl FnOnce(Override) -> Override,
    reason: &str,
    format: Format,
) -> Result<(), Failure> {
    let Instance { namespace, service, instance_id, .. } = found;
    let before = found.r#override.unwrap_or_default();
    let change = change(before);
    let decides_nothing = !change.drain && change.weight.is_none() && change.force() == BreakerForce::Unspecified;
    let mut registry = platform.registry();
    let now = if decides_nothing {
        let request = ClearOverrideRequest { service, instance_id: instance_id.clone(), namespace };
        platform.ask(registry.clear_override(within(request))).await?.instance
    } else {
        let author = std::env::var("USER").unwrap_or_default();
        let decided = Some(Override { author, reason: reason.to_owned(), ..change });
        let request = SetOverrideRequest { service, instance_id: instance_id.clone(), r#override: decided, namespace };
        platform.ask(registry.set_override(within(request))).await?.instance
    };
    let value = now.as_ref().map_or(serde_json::Value::Null, |now| output::json("ninefold.registry.v1.Instance", now));
    output::print(format, &value, || match &now {
        Some(now) => format!("{instance_id} is {}{}", ps::state(now), ps::decided(now)),
        None => format!("{instance_id} is away; this holds when it comes back"),
    })
}
