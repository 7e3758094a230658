//! The scripts that Prometheus publishes for its own engine, asked of ours.
//!
//! They are not kept here: `./check` fetches them with Go's own client.

#[path = "published/custom.rs"]
mod custom;
#[path = "published/notation.rs"]
mod notation;
#[path = "published/script.rs"]
mod script;

use std::io::Write as _;
use std::path::PathBuf;

use ninefold_promql::{Answer, Histogram, Labels, Limits, Point, Query, Sample, Series};

use notation::Value;
use script::{Command, Question};

/// Scripts of what Prometheus has behind flags, off as it is shipped, and ours has not. How many answers may differ, and why.
const APART: &[(&str, usize, &str)] = &[
    ("name_label_dropping.test", 8, "names of metrics are dropped at once, not at the end of a query"),
    ("start_timestamps.test", usize::MAX, "when a counter began is not kept with each sample"),
    ("type_and_unit.test", usize::MAX, "types and units are no labels"),
];

fn folder() -> Option<PathBuf> {
    let tools = std::env::var_os("NINEFOLD_TOOLS").map_or_else(|| PathBuf::from("../../.check"), PathBuf::from);
    Some(tools.join("promqltest")).filter(|folder| folder.is_dir())
}

/// Says what is left out, for the end of ./check.
fn skip(what: &str) {
    if let Some(tools) = std::env::var_os("NINEFOLD_TOOLS") {
        let skips = PathBuf::from(tools).join("skips");
        let file = std::fs::File::options().create(true).append(true).open(skips);
        file.and_then(|mut file| file.write_all(format!("{what}\n").as_bytes())).expect("the list of what is left out");
    }
}

fn near(left: f64, right: f64) -> bool {
    left.is_nan() && right.is_nan()
        || left.to_bits() == right.to_bits()
        || (left - right).abs() <= 1e-6 * left.abs().max(right.abs()).max(1e-9)
}

fn near_histogram(left: &Histogram, right: &Histogram) -> bool {
    // Empty buckets say nothing.
    let of = |histogram: &Histogram| histogram.buckets();
    let (one, other) = (of(left), of(right));
    left.schema == right.schema
        && near(left.count, right.count)
        && near(left.sum, right.sum)
        && left.bounds == right.bounds
        && one.len() == other.len()
        && { one.iter().zip(&other) }.all(|(one, other)| {
            near(one.count, other.count) && near(one.lower, other.lower) && near(one.upper, other.upper)
        })
}

fn fits(wanted: &Value, given: Option<&Point>) -> bool {
    match (wanted, given) {
        (None, None) => true,
        (Some(Point::Float(wanted)), Some(Point::Float(given))) => near(*wanted, *given),
        (Some(Point::Histogram(wanted)), Some(Point::Histogram(given))) => near_histogram(wanted, given),
        _ => false,
    }
}

/// What differs, if anything does.
fn difference(question: &Question, all: &[Series]) -> Option<String> {
    let answer = answer(question, all);
    let answer = match answer {
        Err(_) if question.fails => return None,
        Err(error) => return Some(error),
        Ok(_) if question.fails => return Some("is answered, and should not be".to_owned()),
        Ok(answer) => answer,
    };
    if let Some(text) = &question.text {
        return (!matches!(&answer, Answer::Text(given) if given == text)).then(|| format!("{answer:?}"));
    }
    if let Some(number) = question.number {
        let is_it = |values: &[(i64, f64)]| values.iter().all(|(_, value)| near(*value, number));
        return (!matches!(&answer, Answer::Scalar(values) if is_it(values))).then(|| format!("{answer:?}"));
    }
    let times = question.times.unwrap_or(question.span);
    let given = match answer {
        Answer::Series(series) | Answer::Raw(series) => series,
        Answer::Scalar(values) => {
            let samples = values.into_iter().map(|(at, value)| Sample { at, point: value.into() });
            vec![Series { labels: Labels::default(), samples: samples.collect() }]
        }
        Answer::Text(text) => return Some(format!("a text: {text}")),
    };
    let same_order =
        |given: &[Series]| given.iter().map(|one| &one.labels).eq(question.series.iter().map(|one| &one.0));
    let is_wrong = given.len() != question.series.len()
        || question.is_ordered && !same_order(&given)
        || question.series.iter().any(|(labels, values)| {
            let Some(series) = given.iter().find(|series| series.labels == *labels) else { return true };
            values.iter().zip(0_i64..).any(|(value, step)| {
                let at = times.from + step * times.step;
                let point = series.samples.iter().find(|sample| sample.at == at);
                !fits(value, point.map(|sample| &sample.point))
            })
        });
    is_wrong.then(|| {
        let show = |series: &Series| {
            let values: Vec<String> = series.samples.iter().map(|sample| format!("{:?}", sample.point)).collect();
            format!("{:?} {}", series.labels, values.join(" "))
        };
        let wanted: Vec<String> =
            question.series.iter().map(|(labels, values)| format!("{labels:?} {values:?}")).collect();
        let given: Vec<String> = given.iter().map(show).collect();
        format!("\n      given  {}\n      wanted {}", given.join("\n             "), wanted.join("\n             "))
    })
}

fn answer(question: &Question, all: &[Series]) -> Result<Answer, String> {
    let limits = Limits::default();
    let query = Query::parse(&question.query).map_err(|error| format!("not read: {error}"))?;
    let data = query.needs(question.span, &limits).into_iter().map(|selection| {
        let found = all.iter().filter(|series| selection.matches(&series.labels)).cloned().collect();
        (selection, found)
    });
    let answered = query.answer(question.span, &limits, &data.collect());
    answered.map(|(answer, _)| answer).map_err(|error| error.to_string())
}

#[test]
fn the_published_scripts_are_answered_as_they_say() {
    let Some(folder) = folder() else {
        let what =
            "promql: the scripts that Prometheus publishes: ./check fetches them, with a Go that can read their module";
        println!("skipped: {what}");
        skip(what);
        return;
    };
    let mut names: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("a folder").filter_map(|entry| Some(entry.ok()?.path())).collect();
    names.sort();
    let only = std::env::var("NINEFOLD_PROMQL_SCRIPT").unwrap_or_default();
    let (mut asked, mut wrong) = (0, 0);
    for path in names {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !name.contains(&only) {
            continue;
        }
        let apart = APART.iter().find(|(other, ..)| *other == name);
        let script = std::fs::read_to_string(&path).expect("a script");
        let (mut all, mut of_file, mut wrong_of_file) = (Vec::new(), 0, 0_usize);
        for command in script::read(&script) {
            match command {
                Command::Clear => all.clear(),
                Command::Load(more) => script::add(&mut all, more),
                Command::Unknown(line, text) => {
                    println!("{name}:{line}: not understood: {text}");
                    wrong_of_file += 1;
                }
                Command::Ask(question) => {
                    of_file += 1;
                    if let Some(difference) = difference(&question, &all) {
                        println!("{name}:{}: {}  {difference}", question.line, question.query);
                        wrong_of_file += 1;
                    }
                }
            }
        }
        let reason = apart.map_or("", |(_, _, reason)| reason);
        println!("== {name}: {wrong_of_file} of {of_file} differ {reason}");
        asked += of_file;
        wrong += wrong_of_file.saturating_sub(apart.map_or(0, |(_, may, _)| *may));
    }
    assert!(asked > 2000 || !only.is_empty(), "only {asked} questions were found");
    assert_eq!(wrong, 0, "of {asked} answers so many differ");
}
