//! What a backend is told: when it starts, and while it runs.

use std::path::PathBuf;
use std::time::Duration;

use ninefold::settings::duration;
use ninefold::{Error, Mistake};
use serde::{Deserialize, Deserializer};

/// Elements of a page if neither the caller nor the configuration says.
const PAGE_SIZE: i32 = 20;

/// A share of calls, from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Share(f64);

impl Share {
    fn parse(number: f64) -> Result<Self, String> {
        if (0.0..=1.0).contains(&number) { Ok(Self(number)) } else { Err(format!("{number} is not from 0 to 1")) }
    }

    /// Draws: true for this share of draws.
    pub fn draw(self) -> bool {
        fastrand::f64() < self.0
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(f64::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// What may change while a backend runs: its document in the central configuration.
///
/// `ninefold config set review delay=2s fail=0.5` makes every call to `review` two seconds slow and every other one fail:
/// watch the breaker open. What the document does not say is as the program was started.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tuning {
    /// How long every call waits before it is answered.
    #[serde(deserialize_with = "optional_duration")]
    pub delay: Option<Duration>,
    /// Share of calls that fail.
    pub fail: Option<Share>,
    /// Elements of a page if the caller does not say; at most 100 count.
    pub page_size: Option<u16>,
}

impl Tuning {
    /// What this tuning says, and `other` where it says nothing.
    pub fn or(&self, other: &Self) -> Self {
        Self {
            delay: self.delay.or(other.delay),
            fail: self.fail.or(other.fail),
            page_size: self.page_size.or(other.page_size),
        }
    }

    /// Elements of a page if the caller does not say.
    pub fn page_size(&self) -> i32 {
        self.page_size.map_or(PAGE_SIZE, i32::from)
    }
}

fn optional_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| duration::parse(&text)).transpose().map_err(serde::de::Error::custom)
}

/// What a backend is told when it starts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// URL of the database: `--database`, `SHOP_DATABASE_URL` or `DATABASE_URL`. A SQLite file of its own if nothing is said.
    pub database: Option<String>,
    /// Folder of that file: `NINEFOLD_DATA`. The temporary folder if nothing is said.
    pub data: Option<PathBuf>,
    /// `--delay` or `SHOP_DELAY`, `--fail` or `SHOP_FAIL`.
    pub tuning: Tuning,
}

impl Settings {
    /// Reads the settings of this process.
    ///
    /// # Errors
    /// [`Error::Settings`] with all mistakes.
    pub fn of_process() -> Result<Self, Error> {
        Self::read(std::env::args().skip(1), |name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// Reads settings from arguments and variables; an argument counts more. Words that are no option are left to whoever
    /// dispatched them, such as `ninefold demo-service review`.
    fn read(
        arguments: impl IntoIterator<Item = String>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Error> {
        let mut mistakes = Vec::new();
        let mut mistake = |setting: &str, value: &str, problem: &str| {
            mistakes.push(Mistake { setting: setting.into(), value: value.into(), problem: problem.into() });
        };
        let mut database = variable("SHOP_DATABASE_URL").or_else(|| variable("DATABASE_URL"));
        let mut delay = variable("SHOP_DELAY").map(|value| ("SHOP_DELAY".to_owned(), value));
        let mut fail = variable("SHOP_FAIL").map(|value| ("SHOP_FAIL".to_owned(), value));

        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            if !argument.starts_with("--") {
                continue;
            }
            let (name, value) = match argument.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (argument, arguments.next()),
            };
            match (name.as_str(), value) {
                ("--database", Some(value)) => database = Some(value),
                ("--delay", Some(value)) => delay = Some((name, value)),
                ("--fail", Some(value)) => fail = Some((name, value)),
                ("--database" | "--delay" | "--fail", None) => mistake(&name, "", "needs a value"),
                (_, value) => {
                    mistake(&name, &value.unwrap_or_default(), "is not known: use --database, --delay or --fail");
                }
            }
        }

        let delay = delay.and_then(|(name, value)| {
            duration::parse(&value).map_err(|error| mistake(&name, &value, &error.to_string())).ok()
        });
        let fail = fail.and_then(|(name, value)| {
            let share = value.parse().map_err(|_| "is not a number".to_owned()).and_then(Share::parse);
            share.map_err(|error| mistake(&name, &value, &format!("{error}; write a share such as 0.3"))).ok()
        });
        if !mistakes.is_empty() {
            return Err(Error::Settings(mistakes));
        }
        let data = variable("NINEFOLD_DATA").map(|folder| PathBuf::from(folder).join("shop"));
        Ok(Self { database, data, tuning: Tuning { delay, fail, page_size: None } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Settings, Error> {
        Settings::read(arguments.iter().map(ToString::to_string), |name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn an_argument_counts_more_than_a_variable() {
        let settings =
            read(&["demo-service", "review", "--delay", "200ms", "--fail=0.3"], &[("SHOP_DELAY", "1s")]).unwrap();
        assert_eq!(settings.tuning.delay, Some(Duration::from_millis(200)));
        assert_eq!(settings.tuning.fail, Some(Share(0.3)));
        let settings = read(&[], &[("DATABASE_URL", "postgres://shop")]).unwrap();
        assert_eq!(settings.database.as_deref(), Some("postgres://shop"));
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let Err(Error::Settings(mistakes)) =
            read(&["--delay", "soon", "--fial", "1", "--database"], &[("SHOP_FAIL", "2")])
        else {
            panic!("the settings were taken")
        };
        assert_eq!(mistakes.len(), 4, "{mistakes:?}");
    }

    #[test]
    fn the_central_configuration_counts_where_it_speaks() {
        let central: Tuning = serde_json::from_str(r#"{"delay": "2s", "page_size": 5}"#).unwrap();
        let started = Tuning { delay: Some(Duration::from_millis(1)), fail: Some(Share(0.5)), page_size: None };
        let both = central.or(&started);
        assert_eq!(both, Tuning { delay: Some(Duration::from_secs(2)), fail: Some(Share(0.5)), page_size: Some(5) });
        assert!(serde_json::from_str::<Tuning>(r#"{"fial": 0.5}"#).is_err());
        assert!(serde_json::from_str::<Tuning>(r#"{"fail": 1.5}"#).is_err());
    }
}
