//! Masks secrets and personal data before anything is written. Pure.
//!
//! Every text of a record is looked at: a line's body, a span's status, the values of attributes, those of the sender too.
//! An attribute whose name says that it is a secret is masked as a whole. What is masked is gone: it is in no journal, no
//! file and no answer.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use regex::{Captures, Regex};
use serde::Deserialize;

use crate::model::Attributes;
use crate::pattern::Pattern;

/// What stands where something was masked.
pub const MASKED: &str = "[masked]";
/// Most rules of one's own.
pub const RULES_MAX: usize = 64;

/// A rule that is shipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shipped {
    /// What follows `authorization`, and cookies.
    Authorization,
    /// Tokens after the word `bearer`.
    Bearer,
    /// Passwords, keys and tokens in `name=value`, `name: value` and JSON.
    Password,
    /// The password of a URL.
    Url,
    /// Numbers of payment cards: the length and the beginning of one, and a right check digit.
    Card,
    /// Addresses of e-mail. Not on unless it is asked for.
    Email,
}

impl Shipped {
    /// All, in the order in which they are applied.
    pub const ALL: [Self; 6] = [Self::Authorization, Self::Bearer, Self::Password, Self::Url, Self::Card, Self::Email];

    /// Its name, as settings and counts have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Authorization => "authorization",
            Self::Bearer => "bearer",
            Self::Password => "password",
            Self::Url => "url",
            Self::Card => "card",
            Self::Email => "email",
        }
    }
}

/// A rule of one's own.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What is masked.
    pub pattern: Pattern,
    /// What stands in its place; `$1` or `${name}` is a group of the pattern.
    #[serde(default = "masked")]
    pub with: String,
}

fn masked() -> String {
    MASKED.to_owned()
}

/// What is masked.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Rules that are shipped, and are on: authorization, bearer, password, url, card, email.
    pub shipped: BTreeSet<Shipped>,
    /// Rules of one's own, by name. At most 64.
    pub rules: BTreeMap<String, Rule>,
}

impl Default for Config {
    fn default() -> Self {
        let shipped = Shipped::ALL.into_iter().filter(|rule| *rule != Shipped::Email).collect();
        Self { shipped, rules: BTreeMap::new() }
    }
}

impl Config {
    /// What cannot work, although it can be read.
    pub fn mistakes(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.rules.len() > RULES_MAX {
            wrong.push(format!("mask.rules: there are {}, more than {RULES_MAX}", self.rules.len()));
        }
        let shadowed = self.rules.keys().filter(|name| Shipped::ALL.iter().any(|rule| rule.name() == name.as_str()));
        wrong.extend(shadowed.map(|name| format!("mask.rules.{name}: a rule of this name is shipped")));
        let empty = self.rules.iter().filter(|(_, rule)| rule.pattern.is_in(""));
        wrong.extend(
            empty.map(|(name, _)| format!("mask.rules.{name}.pattern: it is in every text, even an empty one")),
        );
        wrong
    }
}

/// How often rules masked something.
pub type Counts = BTreeMap<String, u64>;

/// Rules, ready to be applied.
#[derive(Clone, Debug, Default)]
pub struct Masks {
    config: Config,
}

/// Whether one of the rules for words may apply: one look, before each rule takes its own.
static WORDS: LazyLock<Regex> = LazyLock::new(|| {
    known(
        r"(?i-u)bearer|authorization|cookie|passw|passphrase|pwd|secret|(?:api|access|private)[_-]?key|token|session[_-]?id",
    )
});
static AUTHORIZATION: LazyLock<Regex> = LazyLock::new(|| {
    known(
        r#"(?i)((?:authorization|cookie)["']?\s*[:=]\s*["']?(?:(?:basic|bearer|digest|token|negotiate|apikey)\s+)?)([^\s"',;\[]+)"#,
    )
});
static BEARER: LazyLock<Regex> = LazyLock::new(|| known(r"(?i)\b(bearer\s+)([a-z0-9\-._~+/]{8,}=*)"));
static PASSWORD: LazyLock<Regex> = LazyLock::new(|| {
    known(
        r#"(?i)((?:passw(?:or)?d|passphrase|pwd|secret|(?:api|access|private)[_-]?key|secret[_-]?key|(?:api|auth|access|refresh|id)[_-]?token|\btoken|session[_-]?id)["']?\s*[=:]\s*)("(?:[^"\\]|\\.)+"|'[^']+'|[^\s"',;&)}\]\[]+)"#,
    )
});
static URL: LazyLock<Regex> = LazyLock::new(|| known(r"(://[^/\s:@]*:)([^/\s@\[]+)(@)"));
static CARD: LazyLock<Regex> = LazyLock::new(|| known(r"\b\d(?:[ -]?\d){12,18}\b"));
static EMAIL: LazyLock<Regex> =
    LazyLock::new(|| known(r"(?i)\b[a-z0-9._%+-]{1,64}@(?:[a-z0-9-]{1,63}\.)+[a-z]{2,24}\b"));

fn known(text: &str) -> Regex {
    Regex::new(text).expect("a pattern that is shipped can be read")
}

impl Masks {
    /// Takes rules.
    pub const fn new(config: Config) -> Self {
        Self { config }
    }

    /// Whether there is nothing to do.
    pub fn are_none(&self) -> bool {
        self.config.shipped.is_empty() && self.config.rules.is_empty()
    }

    /// Masks a text in place.
    pub fn text(&self, text: &mut String, counts: &mut Counts) {
        let signs = Signs::of(text);
        for rule in &self.config.shipped {
            let may_apply = match rule {
                Shipped::Authorization | Shipped::Bearer | Shipped::Password => signs.words,
                Shipped::Url => signs.at && text.contains("://"),
                Shipped::Card => signs.digits,
                Shipped::Email => signs.at,
            };
            if may_apply {
                let times = apply(*rule, text);
                count(counts, rule.name(), times);
            }
        }
        for (name, rule) in &self.config.rules {
            let regex = rule.pattern.regex();
            if regex.is_match(text) {
                count(counts, name, regex.find_iter(text).count());
                *text = regex.replace_all(text, rule.with.as_str()).into_owned();
            }
        }
    }

    /// Masks values of attributes in place.
    pub fn attributes(&self, attributes: &mut Attributes, counts: &mut Counts) {
        for (name, value) in attributes {
            match secret(name).filter(|rule| self.config.shipped.contains(rule)) {
                Some(_) if value.is_empty() || value == MASKED => {}
                Some(rule) => {
                    MASKED.clone_into(value);
                    count(counts, rule.name(), 1);
                }
                None => self.text(value, counts),
            }
        }
    }
}

fn count(counts: &mut Counts, rule: &str, times: usize) {
    if times > 0 {
        let times = times as u64;
        match counts.get_mut(rule) {
            Some(known) => *known += times,
            None => drop(counts.insert(rule.to_owned(), times)),
        }
    }
}

/// What a text has in it, so that rules that cannot apply are not tried.
struct Signs {
    words: bool,
    at: bool,
    digits: bool,
}

impl Signs {
    fn of(text: &str) -> Self {
        let (mut at, mut digits) = (false, false);
        let (mut run, mut gap) = (0_u8, 0_u8);
        for byte in text.bytes() {
            match byte {
                b'0'..=b'9' => {
                    run += 1;
                    gap = 0;
                    digits |= run >= 13;
                    run = run.min(13);
                }
                b' ' | b'-' if gap == 0 && run > 0 => gap = 1,
                byte => {
                    at |= byte == b'@';
                    run = 0;
                    gap = 0;
                }
            }
        }
        Self { words: WORDS.is_match(text), at, digits }
    }
}

/// Applies a rule; answers how often it did something.
fn apply(rule: Shipped, text: &mut String) -> usize {
    let mut times = 0;
    let replaced = match rule {
        Shipped::Authorization => after_word(&AUTHORIZATION, text, &mut times),
        Shipped::Bearer => after_word(&BEARER, text, &mut times),
        Shipped::Password => after_word(&PASSWORD, text, &mut times),
        Shipped::Url => after_word(&URL, text, &mut times),
        Shipped::Card => CARD.replace_all(text, |found: &Captures<'_>| {
            if is_card(&found[0]) {
                times += 1;
                MASKED.to_owned()
            } else {
                found[0].to_owned()
            }
        }),
        Shipped::Email => EMAIL.replace_all(text, |_: &Captures<'_>| {
            times += 1;
            MASKED
        }),
    };
    if times > 0 {
        let replaced = replaced.into_owned();
        *text = replaced;
    }
    times
}

/// Masks the second group of a pattern, and keeps what is around it; quotes stay, so that JSON stays JSON.
fn after_word<'a>(pattern: &Regex, text: &'a str, times: &mut usize) -> Cow<'a, str> {
    pattern.replace_all(text, |found: &Captures<'_>| {
        let (before, value) = (&found[1], &found[2]);
        // Masked already, or the word before what is.
        let words = ["bearer", "basic", "digest", "token", "negotiate", "apikey"];
        if value.contains(MASKED) || words.iter().any(|word| value.eq_ignore_ascii_case(word)) {
            return found[0].to_owned();
        }
        *times += 1;
        let after = found.get(3).map_or("", |after| after.as_str());
        let quote = value.chars().next().filter(|letter| ['"', '\''].contains(letter) && value.len() > 1);
        quote.map_or_else(
            || format!("{before}{MASKED}{after}"),
            |quote| format!("{before}{quote}{MASKED}{quote}{after}"),
        )
    })
}

/// Whether digits, with blanks and dashes between them, are the number of a payment card: after ISO/IEC 7812, by the
/// beginnings and lengths that are in use, and Luhn's check digit.
fn is_card(text: &str) -> bool {
    let digits: Vec<u32> = text.chars().filter_map(|letter| letter.to_digit(10)).collect();
    let start = |count: usize| digits.iter().take(count).fold(0, |number, digit| number * 10 + digit);
    let is_issued = match digits.len() {
        13 | 19 => start(1) == 4,
        14 => matches!(start(2), 36 | 38 | 39) || matches!(start(3), 300..=305),
        15 => matches!(start(2), 34 | 37),
        16 => {
            start(1) == 4
                || matches!(start(2), 51..=55 | 65)
                || matches!(start(4), 2221..=2720 | 3528..=3589 | 6011)
                || matches!(start(3), 644..=649)
        }
        _ => false,
    };
    let doubled = |digit: u32| if digit > 4 { digit * 2 - 9 } else { digit * 2 };
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| if place % 2 == 1 { doubled(*digit) } else { *digit })
        .sum();
    is_issued && sum.is_multiple_of(10)
}

/// The rule by which an attribute is masked for its name alone.
fn secret(name: &str) -> Option<Shipped> {
    const NAMES: [(&str, Shipped); 17] = [
        ("authorization", Shipped::Authorization),
        ("proxy-authorization", Shipped::Authorization),
        ("cookie", Shipped::Authorization),
        ("set-cookie", Shipped::Authorization),
        ("x-api-key", Shipped::Password),
        ("password", Shipped::Password),
        ("passwd", Shipped::Password),
        ("passphrase", Shipped::Password),
        ("pwd", Shipped::Password),
        ("secret", Shipped::Password),
        ("client_secret", Shipped::Password),
        ("api_key", Shipped::Password),
        ("apikey", Shipped::Password),
        ("access_token", Shipped::Password),
        ("refresh_token", Shipped::Password),
        ("private_key", Shipped::Password),
        ("token", Shipped::Password),
    ];
    let last = name.rsplit('.').next().unwrap_or(name);
    NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(last)).map(|(_, rule)| *rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked_by(config: Config, text: &str) -> (String, Counts) {
        let (mut text, mut counts) = (text.to_owned(), Counts::new());
        Masks::new(config).text(&mut text, &mut counts);
        (text, counts)
    }

    #[test]
    fn secrets_are_masked_and_the_rest_stays() {
        for (text, expected) in [
            ("GET / authorization: Bearer eyJhbGciOi.J9.x-_ ok", "GET / authorization: Bearer [masked] ok"),
            ("Authorization=Basic dXNlcjpwYXNz", "Authorization=Basic [masked]"),
            ("sent bearer abcdefgh12345 to it", "sent bearer [masked] to it"),
            ("bearer of bad news", "bearer of bad news"),
            ("login user=ann password=hunter2 ok", "login user=ann password=[masked] ok"),
            (r#"{"user":"ann","Password":"a \"b\" c","n":1}"#, r#"{"user":"ann","Password":"[masked]","n":1}"#),
            ("db_pwd='x y', api-key: 12ab", "db_pwd='[masked]', api-key: [masked]"),
            ("POST /?access_token=abc&x=1", "POST /?access_token=[masked]&x=1"),
            ("postgres://shop:s3cret@db:5432/x", "postgres://shop:[masked]@db:5432/x"),
            ("paid by 4111 1111 1111 1111.", "paid by [masked]."),
            ("paid by 4111-1111-1111-1112.", "paid by 4111-1111-1111-1112."),
            ("at 1700000000000000000 ns, 4000000000000 B", "at 1700000000000000000 ns, 4000000000000 B"),
            ("the secret of passwords", "the secret of passwords"),
            ("mail to ann@example.org", "mail to ann@example.org"),
        ] {
            let (once, counts) = masked_by(Config::default(), text);
            assert_eq!(once, expected);
            assert_eq!(counts.is_empty(), text == expected, "{text}: {counts:?}");
            let (twice, again) = masked_by(Config::default(), &once);
            assert_eq!((twice.as_str(), again.len()), (expected, 0), "masked twice");
        }
    }

    #[test]
    fn what_is_asked_for_is_masked_too() {
        let config: Config = serde_json::from_str(
            r#"{"shipped":["email"],"rules":{"customer":{"pattern":"cust-(\\d)\\d+","with":"cust-${1}…"}}}"#,
        )
        .unwrap();
        let (text, counts) = masked_by(config, "ann@example.org is cust-1234, cust-99, password=x");
        assert_eq!(text, "[masked] is cust-1…, cust-9…, password=x");
        assert_eq!(counts, Counts::from([("customer".to_owned(), 2), ("email".to_owned(), 1)]));
    }

    #[test]
    fn an_attribute_is_masked_by_its_name() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut attributes =
            vec![pair("http.request.header.authorization", "[\"x\"]"), pair("note", "pwd=1"), pair("user", "ann")];
        let mut counts = Counts::new();
        Masks::default().attributes(&mut attributes, &mut counts);
        let values: Vec<_> = attributes.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(values, [MASKED, "pwd=[masked]", "ann"]);
        assert_eq!(counts.len(), 2);
    }

    #[test]
    fn rules_that_cannot_work_are_told() {
        assert!(serde_json::from_str::<Config>(r#"{"rules":{"a":{"pattern":"("}}}"#).is_err());
        let config: Config = serde_json::from_str(r#"{"rules":{"card":{"pattern":"a*"}}}"#).unwrap();
        assert_eq!(config.mistakes().len(), 2);
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_masked_once_has_nothing_left_to_mask(text in "[a-z0-9=: @\"'./-]{0,60}") {
            let (once, _) = masked_by(Config::default(), &text);
            let (twice, _) = masked_by(Config::default(), &once);
            proptest::prop_assert!(twice.len() <= once.len() + text.len());
        }
    }
}
