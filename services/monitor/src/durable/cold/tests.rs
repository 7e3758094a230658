//! The index against a search that looks at every line.

use std::sync::atomic::Ordering;

use proptest::prelude::*;

use super::super::place::Place;
use super::*;
use crate::durable::copy;
use crate::durable::file::Writer;
use crate::durable::manifest::Entry;
use crate::grammar::Expression;
use crate::model::{Level, Line, Origin};
use crate::tallies::Tallies;
use crate::tier::Signal;

const ROWS: usize = 700;
const SERVICES: [&str; 4] = ["pump", "Valve", "edge", "a"];
const WORDS: [&str; 10] =
    ["timeout", "Connection", "refused", "quokka", "STRAßE", "ΟΔΟΣ", "no such host", "id=", "a", "İzmir"];
/// What is asked for: words and their parts, numbers in several forms, names, and what nobody said.
const PARTS: [&str; 24] = [
    "timeout",
    "TIME",
    "imeo",
    "nnection ref",
    "quokka",
    "okk",
    "straße",
    "ΟΔΟΣ",
    "οδος",
    "no such host",
    "host",
    "h",
    "\"\"",
    "zebra",
    "izmir",
    "503",
    "503.0",
    "+5.03e2",
    "1e3",
    "0",
    "-0",
    "/v1/orders",
    "/V1/*",
    "nan",
];
const FIELDS: [&str; 9] =
    ["path", "status", "service", "instance", "body", "trace", "correlation", "correlation_id", "region"];

/// Lines in the order of arrival, with times in about that order. Most words are rare, so that blocks differ.
fn lines(seed: u64) -> Vec<Arc<Kept>> {
    let mut random = fastrand::Rng::with_seed(seed);
    let origins: Vec<Arc<Origin>> = SERVICES
        .iter()
        .map(|service| {
            let attributes = vec![("region".to_owned(), format!("Eu-{}", service.len()))];
            Arc::new(Origin { service: (*service).to_owned(), instance_id: format!("{service}-1"), attributes })
        })
        .collect();
    let mut line = |row: usize| {
        let mut body = format!("took {} ms, order {:x}", random.u16(..), random.u64(..));
        if random.u8(..) < 12 {
            body = format!("{body} {}", random.choice(WORDS).unwrap());
        }
        let mut attributes = vec![];
        if random.u8(..) < 12 {
            let value = random.choice(["503", "503.0", " 503 ", "NaN", "1000", "0", "-0.0", "inf", "x 5"]).unwrap();
            attributes.push(("status".to_owned(), value.to_owned()));
        }
        if random.u8(..) < 12 {
            let name = random.choice(["path", "correlation.id", "messaging.message.conversation_id"]).unwrap();
            let value = random.choice(["/v1/Orders", "/v1/orders/7", "quokka", "ΟΔΟΣ", "503"]).unwrap();
            attributes.insert(0, (name.to_owned(), value.to_owned()));
        }
        let trace_id = (random.u8(..) < 12).then(|| TraceId([random.u8(1..6); 16]));
        // Services come in runs, as exporters send them.
        let origin = origins[row / 90 % SERVICES.len()].clone();
        let level = if random.u8(..) < 6 { Level::Error } else { Level::Info };
        let time = Nanos(1_000_000 + row as u64 * 10 + random.u64(..200));
        let line = Line { time, origin, level, body, trace_id, span_id: None, attributes };
        Arc::new(Kept { sequence: row as u64 + 1, line })
    };
    (0..ROWS).map(&mut line).collect()
}

/// Two files of those lines, and the folder they are in.
fn files(lines: &[Arc<Kept>]) -> (tempfile::TempDir, Vec<Arc<Sheet>>) {
    let folder = tempfile::tempdir().unwrap();
    let write = |(id, lines): (i64, &[Arc<Kept>])| {
        let mut writer = Writer::create(folder.path(), Signal::Logs, id, 0, Nanos(1)).unwrap();
        // In portions that are no blocks.
        for some in lines.chunks(50) {
            writer.write(&columns::of_lines(some).unwrap()).unwrap();
        }
        Arc::new(Sheet::new(&Place::folder_alone(folder.path()), writer.finish().unwrap()))
    };
    let (older, newer) = lines.split_at(ROWS / 3);
    let sheets = [(1, older), (2, newer)].map(write).to_vec();
    (folder, sheets)
}

fn sequences(lines: &[Kept]) -> Vec<u64> {
    lines.iter().map(|kept| kept.sequence).collect()
}

/// What looking at every line answers, newest first.
fn naive(lines: &[Arc<Kept>], filter: &LineFilter, limit: Limit) -> Vec<u64> {
    let mut meant: Vec<_> = lines.iter().filter(|kept| filter.admits(&kept.line)).collect();
    meant.sort_by_key(|kept| std::cmp::Reverse((kept.line.time, kept.sequence)));
    meant.iter().take(limit.records_max + 1).map(|kept| kept.sequence).collect()
}

fn condition() -> impl Strategy<Value = String> {
    let part = || prop::sample::select(PARTS.to_vec());
    let field = prop::sample::select(FIELDS.to_vec());
    let leaf = prop_oneof![
        part().prop_map(str::to_owned),
        (field.clone(), part()).prop_map(|(field, part)| format!("{field}:{part}")),
        (field, part()).prop_map(|(field, part)| format!("{field}:\"{part}\"")),
        prop::sample::select(SERVICES.to_vec()).prop_map(|service| format!("service:{service}")),
        prop::sample::select(vec!["level:error", "level>=info", "level<error", "status>500", "status:*", "service:p*"])
            .prop_map(str::to_owned),
        (1_u8..7).prop_map(|id| format!("trace:{}", TraceId([id; 16]))),
        prop::sample::select(vec!["body=~\"t[io]m\"", "order", "took", "instance:EDGE-1", "region:eu-4"])
            .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(one, other)| format!("({one} {other})")),
            (inner.clone(), inner.clone()).prop_map(|(one, other)| format!("({one} OR {other})")),
            inner.prop_map(|one| format!("-{one}")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn the_index_leaves_out_no_line_that_is_meant(
        seed in any::<u64>(),
        queries in prop::collection::vec((condition(), 1_usize..900, any::<bool>()), 20),
    ) {
        let lines = lines(seed);
        let (folder, mut sheets) = files(&lines);
        if seed % 2 == 0 {
            let entry = Entry::empty(3, Signal::Logs, 1, Nanos(1));
            let entry = copy::copy(folder.path(), &entry, &sheets).unwrap().expect("their groups are large enough");
            prop_assert_eq!(entry.records, ROWS as u64);
            sheets = vec![Arc::new(Sheet::new(&Place::folder_alone(folder.path()), entry))];
        }
        for (text, records_max, is_narrow) in queries {
            let Ok(query) = Expression::parse(&text.replace("\"\"\"\"", "\"\"")) else { continue };
            let mut filter = LineFilter { query: Some(query), ..LineFilter::default() };
            if is_narrow {
                filter.service = Some("pump".to_owned());
                filter.start = Some(Nanos(1_002_000));
                filter.level = Level::Error;
            }
            let limit = Limit { records_max, bytes_max: usize::MAX };
            let range = Range { before: None, floor: None, below: u64::MAX };
            let question = Question::new(u64::MAX, Duration::from_secs(60));
            let found = search_lines(&sheets, &filter, range, limit, &question).unwrap();
            prop_assert_eq!(sequences(&found), naive(&lines, &filter, limit), "{}", text);
            for (step, fields) in [(0, &[][..]), (700, &["service", "level"]), (700, &["instance", "level", "path"])] {
                let fields: Vec<String> = fields.iter().map(|field| (*field).to_owned()).collect();
                let (below, none) = (lines.len() as u64 - 3, Tallies::new(step, &fields));
                let tallies = count::lines(&sheets, &filter, below, none.clone(), &question).unwrap();
                let meant = lines.iter().filter(|kept| kept.sequence < below && filter.admits(&kept.line));
                let mut expected = none;
                meant.for_each(|kept| expected.add(&kept.line));
                prop_assert_eq!(tallies, expected, "{}", text);
            }
            let after = LineCursor { time: Nanos(1_003_000), sequence: 0 };
            let found = lines_after(&sheets, &filter, after, u64::MAX, limit, &question).unwrap();
            let mut expected: Vec<_> = lines
                .iter()
                .filter(|kept| filter.admits(&kept.line) && after < LineCursor { time: kept.line.time, sequence: kept.sequence })
                .collect();
            expected.sort_by_key(|kept| (kept.line.time, kept.sequence));
            let expected: Vec<u64> = expected.iter().take(records_max).map(|kept| kept.sequence).collect();
            prop_assert_eq!(sequences(&found), expected, "{}", text);
        }
    }
}

#[test]
fn what_is_rare_is_read_in_few_blocks() {
    let mut lines = lines(7);
    let rare = Line { body: "the wombat 4f1c9a2e77 is here".to_owned(), ..lines[400].line.clone() };
    lines[400] = Arc::new(Kept { line: rare, ..*lines[400] });
    let (_folder, sheets) = files(&lines);
    let blocks = ROWS.div_ceil(super::super::index::BLOCK_ROWS) as u64 + 1;
    let limit = Limit { records_max: 100, bytes_max: usize::MAX };
    let range = Range { before: None, floor: None, below: u64::MAX };
    for (query, at_most) in [("wombat", 1), ("1C9A2E7", 1), ("\"the wombat 4f\"", 1), ("zebra", 0), ("took", blocks)] {
        let filter = LineFilter { query: Some(Expression::parse(query).unwrap()), ..LineFilter::default() };
        let question = Question::new(u64::MAX, Duration::from_secs(60));
        let found = search_lines(&sheets, &filter, range, limit, &question).unwrap();
        assert_eq!(sequences(&found), naive(&lines, &filter, limit), "{query}");
        // One more to read the whole lines of it.
        let read = question.cost.pieces.load(Ordering::Relaxed);
        assert!(read <= at_most * 2, "{query}: {read} of {blocks} blocks were read");
    }
    let question = Question::new(u64::MAX, Duration::from_secs(60));
    assert!(lines_of_trace(&sheets, TraceId([9; 16]), &question).unwrap().is_empty());
    assert_eq!(question.cost.pieces.load(Ordering::Relaxed), 0, "a trace that is not there is read nowhere");
}

#[test]
fn a_damaged_index_is_passed_over() {
    let lines = lines(3);
    let (_folder, sheets) = files(&lines);
    let mut bytes = std::fs::read(sheets[1].path()).unwrap();
    let at = bytes.windows(7).position(|window| window == b"9foldix").unwrap();
    bytes[at + 20] ^= 1;
    std::fs::write(sheets[1].path(), bytes).unwrap();
    let filter = LineFilter { query: Some(Expression::parse("quokka").unwrap()), ..LineFilter::default() };
    let limit = Limit { records_max: 100, bytes_max: usize::MAX };
    let range = Range { before: None, floor: None, below: u64::MAX };
    let question = Question::new(u64::MAX, Duration::from_secs(60));
    let found = search_lines(&sheets, &filter, range, limit, &question).unwrap();
    assert_eq!(sequences(&found), naive(&lines, &filter, limit));
}

#[test]
fn a_spoiled_filter_hides_no_line_and_is_counted() {
    let lines = lines(3);
    let (folder, sheets) = files(&lines);
    let filter = LineFilter { query: Some(Expression::parse("quokka").unwrap()), ..LineFilter::default() };
    let limit = Limit { records_max: 100, bytes_max: usize::MAX };
    let range = Range { before: None, floor: None, below: u64::MAX };
    // Every bit of the filters is lost, in every file: without a sum they would say that nothing is there.
    for sheet in &sheets {
        let mut bytes = std::fs::read(sheet.path()).unwrap();
        let at = bytes.windows(7).position(|window| window == b"9foldix").unwrap();
        let begin = bytes[at..].first_chunk().unwrap();
        let heads = super::super::index::heads_bytes(begin).unwrap();
        let blocks = super::super::index::decode(&bytes[at..at + heads]).unwrap();
        let (from, length) = super::super::index::filters_of(&blocks);
        let from = at + usize::try_from(from).unwrap();
        bytes[from..from + length].fill(0);
        std::fs::write(sheet.path(), bytes).unwrap();
        assert!(sheet.whole().unwrap().is_none(), "nobody copies it");
    }
    let question = Question::new(u64::MAX, Duration::from_secs(60));
    let found = search_lines(&sheets, &filter, range, limit, &question).unwrap();
    assert_eq!(sequences(&found), naive(&lines, &filter, limit));
    assert!(!found.is_empty(), "there are such lines");
    assert!(question.cost.spoiled.load(Ordering::Relaxed) > 0, "it is counted");
    drop(folder);
}
