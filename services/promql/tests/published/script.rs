//! Scripts: what is loaded, what is asked, what is expected.

use ninefold_promql::{Labels, Sample, Series, Span, duration};

use crate::notation::{self, Value};

/// A question and its answer.
pub(crate) struct Question {
    pub(crate) line: usize,
    pub(crate) query: String,
    pub(crate) span: Span,
    pub(crate) fails: bool,
    pub(crate) is_ordered: bool,
    pub(crate) text: Option<String>,
    pub(crate) number: Option<f64>,
    pub(crate) series: Vec<(Labels, Vec<Value>)>,
    /// Times of the samples of a range vector.
    pub(crate) times: Option<Span>,
}

/// A command.
pub(crate) enum Command {
    Clear,
    Load(Vec<Series>),
    Ask(Box<Question>),
    /// What this reader does not understand.
    Unknown(usize, String),
}

/// A length of time in milliseconds: PromQL's, or seconds.
pub(crate) fn millis(text: &str) -> Option<i64> {
    let (sign, bare) = text.strip_prefix('-').map_or((1, text), |bare| (-1, bare));
    if let Ok(seconds) = bare.parse::<f64>() {
        return format!("{}", (seconds * 1000.0).round()).parse::<i64>().ok().map(|value| sign * value);
    }
    if bare.len() == 2 && bare.starts_with('0') {
        return Some(0);
    }
    duration(bare).ok().and_then(|length| i64::try_from(length.as_millis()).ok()).map(|value| sign * value)
}

/// Reads a whole script.
pub(crate) fn read(text: &str) -> Vec<Command> {
    let lines: Vec<&str> =
        text.lines().map(str::trim).map(|line| if line.starts_with('#') { "" } else { line }).collect();
    let mut commands = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at];
        let begin = at;
        at += 1;
        if line.is_empty() {
            continue;
        }
        while at < lines.len() && !lines[at].is_empty() && !is_command(lines[at]) {
            at += 1;
        }
        let body = &lines[begin + 1..at];
        let command = if line == "clear" {
            Some(Command::Clear)
        } else if line.starts_with("load") {
            load(line, body).map(Command::Load)
        } else {
            question(begin + 1, line, body).map(|question| Command::Ask(Box::new(question)))
        };
        commands.push(command.unwrap_or_else(|| Command::Unknown(begin + 1, line.to_owned())));
    }
    commands
}

fn is_command(line: &str) -> bool {
    ["clear", "load", "eval"].iter().any(|word| line.starts_with(word))
}

fn load(line: &str, body: &[&str]) -> Option<Vec<Series>> {
    let (verb, step) = line.split_once(' ')?;
    let step = millis(step.trim())?;
    let mut all = Vec::new();
    for line in body {
        let (labels, values) = notation::labels(line)?;
        if values.starts_with('@') {
            // When a counter began is not kept: see `APART`.
            continue;
        }
        let points = notation::values(values)?.into_iter().enumerate();
        let sample =
            |(place, value): (usize, Value)| Some(Sample { at: i64::try_from(place).ok()? * step, point: value? });
        all.push(Series { labels, samples: points.filter_map(sample).collect() });
    }
    if verb == "load_with_nhcb" {
        let more = crate::custom::of(&all);
        all.extend(more);
    }
    Some(all)
}

fn question(at: usize, line: &str, body: &[&str]) -> Option<Question> {
    let mut words = line.split_whitespace();
    let verb = words.next()?;
    let rest = line[verb.len()..].trim_start();
    let word = |text: &str, place: usize| text.split_whitespace().nth(place).map(str::to_owned);
    let (span, words_before) = match word(rest, 0)?.as_str() {
        "instant" => (Span::instant(millis(&word(rest, 2)?)?), 3),
        _ => {
            let time = |place| millis(&word(rest, place)?);
            (Span { from: time(2)?, to: time(4)?, step: time(6)? }, 7)
        }
    };
    let mut query = rest;
    for _ in 0..words_before {
        query = query.split_once(char::is_whitespace)?.1.trim_start();
    }
    let mut question = Question {
        line: at,
        query: query.to_owned(),
        span,
        fails: verb == "eval_fail",
        is_ordered: verb == "eval_ordered",
        text: None,
        number: None,
        series: Vec::new(),
        times: None,
    };
    for line in body {
        expected(line, &mut question)?;
    }
    Some(question)
}

fn expected(line: &str, question: &mut Question) -> Option<()> {
    if let Some(text) = line.strip_prefix("expect ") {
        if text.starts_with("fail") {
            question.fails = true;
        } else if text == "ordered" {
            question.is_ordered = true;
        } else if let Some(text) = text.strip_prefix("string ") {
            question.text = Some(notation::quoted(text.trim())?.0);
        } else if let Some(text) = text.strip_prefix("range vector from ") {
            let mut words = text.split_whitespace();
            let mut time = || words.find(|word| !["to", "step"].contains(word)).and_then(millis);
            question.times = Some(Span { from: time()?, to: time()?, step: time()? });
        }
        return Some(());
    }
    if line.starts_with("expected_fail") {
        return Some(());
    }
    if let Some(number) = notation::number(line) {
        question.number = Some(number);
        return Some(());
    }
    let (labels, values) = notation::labels(line)?;
    question.series.push((labels, notation::values(values)?));
    Some(())
}

/// Adds samples to what is there.
pub(crate) fn add(all: &mut Vec<Series>, more: Vec<Series>) {
    for series in more {
        match all.iter_mut().find(|other| other.labels == series.labels) {
            None => all.push(series),
            Some(other) => {
                // What is loaded later counts.
                let mut samples = series.samples;
                samples.append(&mut other.samples);
                samples.sort_by_key(|sample| sample.at);
                samples.dedup_by_key(|sample| sample.at);
                other.samples = samples;
            }
        }
    }
}
