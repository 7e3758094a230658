//! Whether the parts of a query fit each other.

use super::functions::{self, Kind};
use super::{Binary, Call, Edges, Expr, Length, Selector};
use crate::error::Error;
use crate::model::Span;

/// What a part is.
pub(crate) fn kind(expr: &Expr) -> Kind {
    match expr {
        Expr::Number(_) => Kind::Scalar,
        Expr::Text(_) => Kind::Text,
        Expr::Paren(inner) | Expr::Negative(inner) | Expr::Positive(inner) => kind(inner),
        Expr::Binary(binary) => match (kind(&binary.left), kind(&binary.right)) {
            (Kind::Scalar, Kind::Scalar) => Kind::Scalar,
            _ => Kind::Vector,
        },
        Expr::Fold(_) | Expr::Selector(_) => Kind::Vector,
        Expr::Call(call) => functions::function(call.name).map_or(Kind::Vector, |function| function.gives),
        Expr::Range(_) | Expr::Subquery(_) => Kind::Range,
    }
}

fn wants(place: &str, wanted: Kind, expr: &Expr) -> Result<(), Error> {
    let given = kind(expr);
    if given == wanted {
        return Ok(());
    }
    Err(Error::Type { place: place.to_owned(), wanted: wanted.name(), given: given.name() })
}

/// Checks a part and all in it.
///
/// # Errors
/// [`Error::Type`], [`Error::Argument`] or [`Error::Syntax`] with what does not fit.
pub(crate) fn check(expr: &Expr) -> Result<(), Error> {
    match expr {
        Expr::Number(_) | Expr::Text(_) | Expr::Paren(_) => {}
        Expr::Negative(inner) | Expr::Positive(inner) => {
            if !matches!(kind(inner), Kind::Scalar | Kind::Vector) {
                return Err(Error::Type {
                    place: "-".to_owned(),
                    wanted: "a number or a vector",
                    given: kind(inner).name(),
                });
            }
        }
        Expr::Binary(binary) => operator(binary)?,
        Expr::Fold(fold) => {
            let param = functions::fold(fold.name).and_then(|(_, param)| param);
            wants(fold.name, Kind::Vector, &fold.of)?;
            match (param, &fold.param) {
                (Some(kind), Some(param)) => wants(fold.name, kind, param)?,
                (None, None) => {}
                _ => {
                    let what = "takes a parameter and a vector, or a vector alone".to_owned();
                    return Err(Error::Argument { function: fold.name.to_owned(), what });
                }
            }
        }
        Expr::Call(call) => return arguments(call),
        Expr::Selector(selector) => selects(selector)?,
        Expr::Range(range) => selects(&range.selector)?,
        Expr::Subquery(sub) => {
            if kind(&sub.of) != Kind::Vector {
                let given = kind(&sub.of).name();
                return Err(Error::Type { place: "a subquery".to_owned(), wanted: "an instant vector", given });
            }
        }
    }
    expr.parts().into_iter().try_for_each(check)
}

fn selects(selector: &Selector) -> Result<(), Error> {
    if selector.selects() {
        return Ok(());
    }
    Err(Error::Syntax(format!("{} must say at least one label that is not empty", Expr::Selector(selector.clone()))))
}

fn operator(binary: &Binary) -> Result<(), Error> {
    let (left, right) = (kind(&binary.left), kind(&binary.right));
    let is_set = matches!(binary.op, "and" | "or" | "unless");
    let is_comparison = matches!(binary.op, "==" | "!=" | ">" | "<" | ">=" | "<=");
    let syntax = |what: String| Err(Error::Syntax(what));
    for given in [left, right] {
        let fits = matches!(given, Kind::Vector) || !is_set && given == Kind::Scalar;
        if !fits {
            let wanted = if is_set { "two instant vectors" } else { "scalars and instant vectors" };
            return Err(Error::Type { place: binary.op.to_owned(), wanted, given: given.name() });
        }
    }
    let both = left == Kind::Vector && right == Kind::Vector;
    if binary.is_bool && !is_comparison {
        return syntax(format!("bool stands only after a comparison, not after {}", binary.op));
    }
    if is_comparison && left == Kind::Scalar && right == Kind::Scalar && !binary.is_bool {
        return syntax(format!("{} between scalars needs bool", binary.op));
    }
    let is_filled = binary.fill.iter().any(Option::is_some);
    if !both && (binary.matching.is_some() || is_filled) {
        return syntax("on, ignoring and fill stand only between vectors".to_owned());
    }
    if is_set && (binary.many != super::Many::Neither || is_filled) {
        return syntax(format!("no grouping and no fill stands after {}", binary.op));
    }
    if let Some(super::Grouping::Only(on)) = &binary.matching
        && let Some(twice) = binary.extra.iter().find(|name| on.contains(name))
    {
        return syntax(format!("the label {twice:?} must not stand in both on and group"));
    }
    Ok(())
}

fn arguments(call: &Call) -> Result<(), Error> {
    let Some(function) = functions::function(call.name) else { return Err(Error::Unsupported(call.name.to_owned())) };
    let least = function.takes.len() - function.optional;
    let most = function.takes.len().saturating_add(function.more);
    if !(least..=most).contains(&call.args.len()) {
        let what = match most {
            _ if least == most => format!("takes {least} arguments"),
            usize::MAX => format!("takes at least {least} arguments"),
            _ => format!("takes {least} to {most} arguments"),
        };
        let what = format!("{what}, and was given {}", call.args.len());
        return Err(Error::Argument { function: call.name.to_owned(), what });
    }
    for (at, arg) in call.args.iter().enumerate() {
        let wanted = function.takes.get(at).or(function.takes.last()).copied().unwrap_or(Kind::Vector);
        wants(call.name, wanted, arg)?;
        // Of whom something is known need not be said: the name of the metric is.
        if call.name == "info" && at == 1 && matches!(arg, Expr::Selector(_)) {
            continue;
        }
        check(arg)?;
    }
    edges(call)
}

/// Which functions look past the edges of a range, so that the edges have a meaning for them.
fn edges(call: &Call) -> Result<(), Error> {
    for arg in &call.args {
        let Expr::Range(range) = arg.bare() else { continue };
        let (word, fits) = match range.selector.edges {
            Edges::Open => continue,
            Edges::Anchored => ("anchored", &["changes", "delta", "increase", "rate", "resets"][..]),
            Edges::Smoothed => ("smoothed", &["delta", "increase", "rate"][..]),
        };
        if !fits.contains(&call.name) {
            let what = format!("{word} stands only in {}", fits.join(", "));
            return Err(Error::Argument { function: call.name.to_owned(), what });
        }
    }
    Ok(())
}

/// Checks the lengths of time, for a query at the times of a span.
///
/// # Errors
/// [`Error::Syntax`] if a range or a step is not longer than nothing.
pub(crate) fn lengths(expr: &Expr, whole: Span) -> Result<(), Error> {
    let positive = |length: &Length| {
        if length.millis(whole) > 0 {
            return Ok(());
        }
        Err(Error::Syntax(format!("the duration {length} must be longer than nothing")))
    };
    match expr {
        Expr::Range(range) => positive(&range.length)?,
        Expr::Subquery(sub) => {
            positive(&sub.length)?;
            sub.step.as_ref().map_or(Ok(()), positive)?;
        }
        _ => {}
    }
    expr.parts().into_iter().try_for_each(|part| lengths(part, whole))
}
