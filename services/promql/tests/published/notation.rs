//! Series as the published scripts write them: `name{label="value"} 0+10x3 _ stale {{schema:0 count:4 buckets:[1 2 1]}}`.

use std::collections::BTreeMap;

use ninefold_promql::{Histogram, Labels, NAME, Point, STALE};

/// A value, or none.
pub(crate) type Value = Option<Point>;

/// Labels, and the rest of the line.
pub(crate) fn labels(line: &str) -> Option<(Labels, &str)> {
    let name_end = line.find(|sign: char| sign == '{' || sign.is_whitespace()).unwrap_or(line.len());
    let (name, rest) = line.split_at(name_end);
    let mut all: Vec<(String, String)> = Vec::new();
    if !name.is_empty() {
        all.push((NAME.to_owned(), name.to_owned()));
    }
    let Some(mut rest) = rest.strip_prefix('{') else { return Some((made(&all), rest)) };
    loop {
        rest = rest.trim_start_matches([' ', ',']);
        if let Some(after) = rest.strip_prefix('}') {
            return Some((made(&all), after));
        }
        let label;
        if rest.starts_with(['"', '\'']) {
            (label, rest) = quoted(rest)?;
        } else {
            let end = rest.find(['=', ' '])?;
            (label, rest) = (rest[..end].to_owned(), &rest[end..]);
        }
        match rest.trim_start().strip_prefix('=') {
            Some(after) => {
                let (value, after) = quoted(after.trim_start())?;
                all.push((label, value));
                rest = after;
            }
            None => all.push((NAME.to_owned(), label)),
        }
    }
}

fn made(all: &[(String, String)]) -> Labels {
    Labels::new(all.iter().map(|(name, value)| (name.as_str(), value.as_str())))
}

/// A text in quotes, and what follows.
pub(crate) fn quoted(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next().filter(|quote| ['"', '\'', '`'].contains(quote))?;
    let mut value = String::new();
    let mut signs = text.char_indices().skip(1);
    while let Some((at, sign)) = signs.next() {
        match sign {
            _ if sign == quote => return Some((value, &text[at + quote.len_utf8()..])),
            '\\' if quote != '`' => match signs.next()?.1 {
                'n' => value.push('\n'),
                't' => value.push('\t'),
                'x' => {
                    let code: String = [signs.next()?.1, signs.next()?.1].iter().collect();
                    value.push(char::from(u8::from_str_radix(&code, 16).ok()?));
                }
                'u' => {
                    let code: String = (0..4).filter_map(|_| signs.next().map(|(_, sign)| sign)).collect();
                    value.push(char::from_u32(u32::from_str_radix(&code, 16).ok()?)?);
                }
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

/// All values of a line.
pub(crate) fn values(line: &str) -> Option<Vec<Value>> {
    let mut all = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        let mut depth = 0_i32;
        let end = rest.find(|sign: char| {
            depth += i32::from(sign == '{') - i32::from(sign == '}');
            depth == 0 && sign.is_whitespace()
        });
        let (item, after) = rest.split_at(end.unwrap_or(rest.len()));
        expand(item, &mut all)?;
        rest = after.trim_start();
    }
    Some(all)
}

fn float(value: f64) -> Value {
    Some(Point::Float(value))
}

fn expand(item: &str, into: &mut Vec<Value>) -> Option<()> {
    if item.starts_with("{{") {
        return expand_histograms(item, into);
    }
    if let Some(times) = item.strip_prefix('_') {
        let times = times.strip_prefix('x').map_or(Some(1), |times| times.parse().ok())?;
        into.extend(std::iter::repeat_n(None, times));
        return Some(());
    }
    if let Some(times) = item.strip_prefix("stale") {
        let times = times.strip_prefix('x').map_or(Some(1), |times| times.parse().ok())?;
        into.extend(std::iter::repeat_n(float(f64::from_bits(STALE)), times));
        return Some(());
    }
    let Some((first, times)) = item.rsplit_once('x') else {
        into.push(float(number(item)?));
        return Some(());
    };
    let times: u32 = times.parse().ok()?;
    // The sign of the step: not the first one, nor that of an exponent.
    let sign = first
        .char_indices()
        .skip(1)
        .find(|(at, sign)| ['+', '-'].contains(sign) && !first[..*at].ends_with(['e', 'E']));
    let (first, step) = match sign {
        Some((at, sign)) => (number(&first[..at])?, number(&first[at + 1..])? * if sign == '-' { -1.0 } else { 1.0 }),
        None => (number(first)?, 0.0),
    };
    let mut value = first;
    for _ in 0..=times {
        into.push(float(value));
        value += step;
    }
    Some(())
}

pub(crate) fn number(text: &str) -> Option<f64> {
    let (sign, bare) = match text.as_bytes().first()? {
        b'-' => (-1.0, &text[1..]),
        b'+' => (1.0, &text[1..]),
        _ => (1.0, text),
    };
    if bare.starts_with(['+', '-']) {
        return None;
    }
    if let Some(hex) = bare.strip_prefix("0x") {
        return Some(sign * f64::from(u32::from_str_radix(hex, 16).ok()?));
    }
    Some(sign * bare.parse::<f64>().ok()?)
}

fn expand_histograms(item: &str, into: &mut Vec<Value>) -> Option<()> {
    let end = item.find("}}")? + 2;
    let (first, rest) = item.split_at(end);
    let first = histogram(first)?;
    let mut push = |histogram: &Histogram| into.push(Some(Point::from(histogram.clone())));
    push(&first);
    if rest.is_empty() {
        return Some(());
    }
    if let Some(times) = rest.strip_prefix('x') {
        (0..times.parse::<usize>().ok()?).for_each(|_| push(&first));
        return Some(());
    }
    let (sign, rest) = rest.split_at(1);
    let (step, times) = rest.split_at(rest.find("}}")? + 2);
    let step = histogram(step)?;
    let mut sum = first;
    for _ in 0..times.strip_prefix('x')?.parse::<usize>().ok()? {
        sum = if sign == "-" { sum.minus(&step)? } else { sum.plus(&step)? };
        push(&sum);
    }
    Some(())
}

fn list(text: &str) -> Option<Vec<f64>> {
    text.split_whitespace().map(number).collect()
}

fn histogram(text: &str) -> Option<Histogram> {
    let mut histogram = Histogram::default();
    let (mut positive, mut negative, mut offset, mut negative_offset) = (Vec::new(), Vec::new(), 0, 0);
    let mut rest = text.strip_prefix("{{")?.strip_suffix("}}")?.trim();
    while !rest.is_empty() {
        let (key, after) = rest.split_once(':')?;
        let value;
        if let Some(after) = after.strip_prefix('[') {
            (value, rest) = after.split_once(']')?;
        } else {
            (value, rest) = after.split_once(char::is_whitespace).unwrap_or((after, ""));
        }
        rest = rest.trim_start();
        match key {
            "schema" => histogram.schema = value.parse().ok()?,
            "sum" => histogram.sum = number(value)?,
            "count" => histogram.count = number(value)?,
            "z_bucket" => histogram.zero_count = number(value)?,
            "z_bucket_w" => histogram.zero_threshold = number(value)?,
            "buckets" => positive = list(value)?,
            "n_buckets" => negative = list(value)?,
            "offset" => offset = value.parse().ok()?,
            "n_offset" => negative_offset = value.parse().ok()?,
            "custom_values" => histogram.bounds = list(value)?,
            "counter_reset_hint" => histogram.is_gauge = value == "gauge",
            _ => return None,
        }
    }
    let indexed = |counts: Vec<f64>, offset: i32| -> BTreeMap<i32, f64> {
        // Places are counted from the bucket that ends at one.
        (offset..).zip(counts).filter(|(_, count)| *count != 0.0).collect()
    };
    histogram.positive = indexed(positive, offset);
    histogram.negative = indexed(negative, negative_offset);
    Some(histogram)
}
