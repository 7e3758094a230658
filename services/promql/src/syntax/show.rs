//! Writes a query as it was understood, on one line.

use std::fmt::{self, Display, Formatter};

use super::{At, Binary, Edges, Expr, Grouping, Length, Many, Matcher, Selector, Sign, When};
use crate::model::show;

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(value) => f.write_str(&show(*value)),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Paren(inner) => write!(f, "({inner})"),
            Self::Negative(inner) => write!(f, "-{inner}"),
            Self::Positive(inner) => write!(f, "+{inner}"),
            Self::Binary(binary) => write!(f, "{} {}{} {}", binary.left, binary.op, Modifier(binary), binary.right),
            Self::Fold(fold) => {
                f.write_str(fold.name)?;
                match &fold.grouping {
                    None => {}
                    Some(Grouping::Only(labels)) => write!(f, " by ({}) ", names(labels))?,
                    Some(Grouping::Without(labels)) => write!(f, " without ({}) ", names(labels))?,
                }
                match &fold.param {
                    Some(param) => write!(f, "({param}, {})", fold.of),
                    None => write!(f, "({})", fold.of),
                }
            }
            Self::Call(call) => {
                let args: Vec<String> = call.args.iter().map(ToString::to_string).collect();
                write!(f, "{}({})", call.name, args.join(", "))
            }
            Self::Selector(selector) => write!(f, "{}{}", Bare(selector), Moved(&selector.when, selector.edges)),
            Self::Range(range) => {
                let moved = Moved(&range.selector.when, range.selector.edges);
                write!(f, "{}[{}]{moved}", Bare(&range.selector), range.length)
            }
            Self::Subquery(sub) => {
                let step = sub.step.as_ref().map(ToString::to_string).unwrap_or_default();
                write!(f, "{}[{}:{step}]{}", sub.of, sub.length, Moved(&sub.when, Edges::Open))
            }
        }
    }
}

fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|sign: char| sign.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn names(labels: &[String]) -> String {
    let all: Vec<String> =
        labels.iter().map(|name| if is_plain(name) { name.clone() } else { format!("{name:?}") }).collect();
    all.join(", ")
}

/// What stands behind an operator.
struct Modifier<'b>(&'b Binary);

impl Display for Modifier<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(binary) = self;
        if binary.is_bool {
            f.write_str(" bool")?;
        }
        match &binary.matching {
            Some(Grouping::Only(labels)) => write!(f, " on ({})", names(labels))?,
            Some(Grouping::Without(labels)) if !labels.is_empty() || binary.many != Many::Neither => {
                write!(f, " ignoring ({})", names(labels))?;
            }
            Some(Grouping::Without(_)) | None => {}
        }
        match binary.many {
            Many::Neither => {}
            Many::Left => write!(f, " group_left ({})", names(&binary.extra))?,
            Many::Right => write!(f, " group_right ({})", names(&binary.extra))?,
        }
        match binary.fill {
            [None, None] => Ok(()),
            [Some(left), Some(right)] if left.to_bits() == right.to_bits() => write!(f, " fill ({})", show(left)),
            [left, right] => {
                left.map_or(Ok(()), |left| write!(f, " fill_left ({})", show(left)))?;
                right.map_or(Ok(()), |right| write!(f, " fill_right ({})", show(right)))
            }
        }
    }
}

/// A selector without when it looks.
struct Bare<'s>(&'s Selector);

impl Display for Bare<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(selector) = self;
        let name = selector.name.as_deref().unwrap_or_default();
        let is_named = is_plain(&name.replace(':', "_"));
        let mut all: Vec<String> = selector.matchers.iter().map(ToString::to_string).collect();
        if is_named {
            f.write_str(name)?;
        } else if !name.is_empty() {
            all.insert(0, format!("{name:?}"));
        }
        if is_named && all.is_empty() { Ok(()) } else { write!(f, "{{{}}}", all.join(",")) }
    }
}

impl Display for Matcher {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let sign = match self.sign {
            Sign::Equal => "=",
            Sign::NotEqual => "!=",
            Sign::Like => "=~",
            Sign::NotLike => "!~",
        };
        match is_plain(&self.name) {
            true => write!(f, "{}{sign}{:?}", self.name, self.value),
            false => write!(f, "{:?}{sign}{:?}", self.name, self.value),
        }
    }
}

/// When something is looked at, and what stands at its edges.
struct Moved<'w>(&'w When, Edges);

impl Display for Moved<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.1 {
            Edges::Open => {}
            Edges::Anchored => f.write_str(" anchored")?,
            Edges::Smoothed => f.write_str(" smoothed")?,
        }
        match self.0.at {
            None => {}
            Some(At::Start) => f.write_str(" @ start()")?,
            Some(At::End) => f.write_str(" @ end()")?,
            Some(At::Time(at)) => write!(f, " @ {}.{:03}", at.div_euclid(1000), at.rem_euclid(1000))?,
        }
        self.0.offset.as_ref().map_or(Ok(()), |offset| write!(f, " offset {offset}"))
    }
}

impl Display for Length {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seconds(seconds, true) => f.write_str(&written(*seconds)),
            Self::Seconds(seconds, false) => f.write_str(&show(*seconds)),
            Self::Step => f.write_str("step()"),
            Self::Range => f.write_str("range()"),
            Self::Paren(inner) => write!(f, "({inner})"),
            Self::Negative(inner) => write!(f, "-{inner}"),
            Self::Made(op, pair) => write!(f, "{} {op} {}", pair[0], pair[1]),
            Self::Of(name, pair) => write!(f, "{name}({}, {})", pair[0], pair[1]),
        }
    }
}

fn written(seconds: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates; written durations are not negative"
    )]
    let mut millis = (seconds * 1000.0).round() as u64;
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, worth) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
        if millis >= worth {
            text.push_str(&format!("{}{unit}", millis / worth));
            millis %= worth;
        }
    }
    text
}
