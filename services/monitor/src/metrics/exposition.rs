//! What is measured as a page that others scrape: the text of Prometheus, and OpenMetrics. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use ninefold_promql::{Labels, NAME, show};

use super::about::{About, Type};
use super::exemplars::Exemplar;

/// How a page is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Prometheus' own text, version 0.0.4.
    Text,
    /// OpenMetrics 1.0, with exemplars.
    OpenMetrics,
}

impl Form {
    /// What an `Accept` header asks for; the text where it names neither.
    pub(crate) fn of(accept: &str) -> Self {
        let mut best = (0.0, Self::Text);
        for wanted in accept.split(',') {
            let mut parts = wanted.split(';').map(str::trim);
            let form = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
                "application/openmetrics-text" => Self::OpenMetrics,
                "text/plain" | "text/*" | "*/*" => Self::Text,
                _ => continue,
            };
            let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f64>().ok()).unwrap_or(1.0);
            if weight > best.0 {
                best = (weight, form);
            }
        }
        best.1
    }

    /// The content type of a page.
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A series with its newest number.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) labels: Labels,
    pub(crate) value: f64,
    /// When it was measured, in milliseconds since 1970, where that is to be told.
    pub(crate) at: Option<i64>,
    pub(crate) exemplar: Option<Exemplar>,
}

/// Parts of histograms and summaries, in the order in which they stand.
const PARTS: [&str; 3] = ["_bucket", "_count", "_sum"];

/// What metrics are called together, and what they are.
struct Family {
    of: Type,
    help: String,
    series: Vec<Shown>,
}

/// Writes a page. `about` is what is known of metrics by their names.
pub(crate) fn page(series: Vec<Shown>, about: &BTreeMap<String, About>, form: Form) -> String {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for one in series {
        let name = one.labels.get(NAME).to_owned();
        let (family, known) = family(&name, about, form);
        let made = families.entry(family).or_insert_with(|| Family {
            of: known.map_or(Type::Unknown, |known| known.of),
            help: known.map(|known| known.help.clone()).unwrap_or_default(),
            series: Vec::new(),
        });
        made.series.push(one);
    }
    let mut page = String::new();
    for (name, mut family) in families {
        family.series.sort_by_cached_key(place);
        head(&mut page, &name, &family, form);
        for one in &family.series {
            line(&mut page, one, form);
        }
    }
    if form == Form::OpenMetrics {
        page.push_str("# EOF\n");
    }
    page
}

/// The name under which a metric stands, and what is known of it.
fn family<'a>(name: &str, about: &'a BTreeMap<String, About>, form: Form) -> (String, Option<&'a About>) {
    let of_parts = |base: &str| about.get(base).filter(|known| matches!(known.of, Type::Histogram | Type::Summary));
    if let Some(base) = PARTS.iter().find_map(|part| name.strip_suffix(part))
        && let Some(known) = of_parts(base)
    {
        return (base.to_owned(), Some(known));
    }
    let known = about.get(name);
    // In OpenMetrics the endings belong to the samples and not to the family.
    let ending = match (form, known.map(|known| known.of)) {
        (Form::OpenMetrics, Some(Type::Counter)) => "_total",
        (Form::OpenMetrics, Some(Type::Info)) => "_info",
        _ => "",
    };
    (name.strip_suffix(ending).unwrap_or(name).to_owned(), known)
}

/// Samples of one thing stand together: buckets by their bounds, then count and sum.
fn place(one: &Shown) -> (Labels, usize, String) {
    let name = one.labels.get(NAME);
    let part = PARTS.iter().position(|part| name.ends_with(part)).unwrap_or(PARTS.len());
    let bound = one.labels.get("le").replace("Inf", "inf").parse::<f64>().unwrap_or(0.0);
    // Bits of numbers in order, as text that sorts alike.
    let bits = bound.to_bits();
    let ordered = if bits >> 63 == 1 { !bits } else { bits | 1 << 63 };
    (one.labels.without(&[NAME, "le"]), part, format!("{ordered:016x}"))
}

fn head(page: &mut String, name: &str, family: &Family, form: Form) {
    let of = match (family.of, form) {
        (Type::Unknown, Form::Text) => "untyped",
        (Type::Unknown, Form::OpenMetrics) => "unknown",
        (Type::Info, Form::Text) => "gauge",
        (known, _) => known.word(),
    };
    let is_counter = name.ends_with("_total") || form == Form::OpenMetrics;
    let of = if family.of == Type::Counter && !is_counter { "untyped" } else { of };
    // A page without a word of help is no page for people.
    let help = if family.help.is_empty() { "As its name says" } else { &family.help };
    let help = help.replace('\\', "\\\\").replace('\n', "\\n");
    let _ = write!(page, "# HELP {name} {help}\n# TYPE {name} {of}\n");
}

fn line(page: &mut String, one: &Shown, form: Form) {
    page.push_str(one.labels.get(NAME));
    labels(page, &one.labels);
    let _ = write!(page, " {}", show(one.value));
    match (one.at, form) {
        (None, _) => {}
        (Some(at), Form::Text) => drop(write!(page, " {at}")),
        (Some(at), Form::OpenMetrics) => drop(write!(page, " {}", seconds(at))),
    }
    if let (Form::OpenMetrics, Some(exemplar)) = (form, &one.exemplar) {
        page.push_str(" # ");
        let before = page.len();
        labels(page, &exemplar.labels);
        if page.len() == before {
            page.push_str("{}");
        }
        let _ = write!(page, " {} {}", show(exemplar.value), seconds(exemplar.at));
    }
    page.push('\n');
}

fn labels(page: &mut String, labels: &Labels) {
    let mut is_first = true;
    for (name, value) in labels.iter().filter(|(name, _)| *name != NAME) {
        page.push(if is_first { '{' } else { ',' });
        is_first = false;
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(page, "{name}=\"{value}\"");
    }
    if !is_first {
        page.push('}');
    }
}

fn seconds(at: i64) -> String {
    format!("{}.{:03}", at.div_euclid(1000), at.rem_euclid(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(labels: &[(&str, &str)], value: f64) -> Shown {
        Shown { labels: Labels::new(labels.iter().copied()), value, at: None, exemplar: None }
    }

    fn known() -> BTreeMap<String, About> {
        let about = |of, help: &str| About { of, unit: String::new(), help: help.to_owned() };
        BTreeMap::from([
            ("hits_total".to_owned(), about(Type::Counter, "How often\nit was hit")),
            ("took_seconds".to_owned(), about(Type::Histogram, "How long")),
            ("room".to_owned(), about(Type::Gauge, "")),
        ])
    }

    #[test]
    fn a_page_has_families_with_their_parts_in_order() {
        let mut buckets: Vec<Shown> = ["+Inf", "0.5", "10", "2"]
            .iter()
            .map(|bound| shown(&[(NAME, "took_seconds_bucket"), ("le", bound)], 1.0))
            .collect();
        buckets[1].exemplar = Some(Exemplar { at: 1500, value: 0.3, labels: Labels::new([("trace_id", "abc")]) });
        let others = [
            shown(&[(NAME, "took_seconds_sum")], 3.5),
            shown(&[(NAME, "took_seconds_count")], 4.0),
            shown(&[(NAME, "hits_total"), ("of", "a\"b")], 7.0),
            shown(&[(NAME, "room")], f64::NAN),
            shown(&[(NAME, "odd")], f64::INFINITY),
        ];
        buckets.extend(others);
        let text = page(buckets.clone(), &known(), Form::Text);
        assert_eq!(
            text,
            "# HELP hits_total How often\\nit was hit\n# TYPE hits_total counter\nhits_total{of=\"a\\\"b\"} 7\n\
             # HELP odd As its name says\n# TYPE odd untyped\nodd +Inf\n\
             # HELP room As its name says\n# TYPE room gauge\nroom NaN\n\
             # HELP took_seconds How long\n# TYPE took_seconds histogram\n\
             took_seconds_bucket{le=\"0.5\"} 1\ntook_seconds_bucket{le=\"2\"} 1\ntook_seconds_bucket{le=\"10\"} 1\n\
             took_seconds_bucket{le=\"+Inf\"} 1\ntook_seconds_count 4\ntook_seconds_sum 3.5\n"
        );
        let open = page(buckets, &known(), Form::OpenMetrics);
        assert!(open.contains("# TYPE hits counter\nhits_total{"), "{open}");
        assert!(open.contains("le=\"0.5\"} 1 # {trace_id=\"abc\"} 0.3 1.500\n"), "{open}");
        assert!(open.contains("# TYPE odd unknown\n") && open.ends_with("# EOF\n"), "{open}");
    }

    #[test]
    fn the_form_is_what_the_scraper_likes_best() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(Form::of(prometheus), Form::OpenMetrics);
        assert_eq!(Form::of("text/plain;q=0.9, application/openmetrics-text;q=0.2"), Form::Text);
        for other in ["", "*/*", "text/html"] {
            assert_eq!(Form::of(other), Form::Text);
        }
    }
}
