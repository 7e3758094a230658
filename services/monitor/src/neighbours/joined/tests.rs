//! Pages of several nodes, joined.

use super::*;

fn kept(time: u64, sequence: u64, body: &str) -> Arc<Kept> {
    Arc::new(Kept { sequence, line: Line { time: Nanos(time), body: body.to_owned(), ..Line::default() } })
}

/// A node's lines before a place, newest first.
fn page(lines: &[Arc<Kept>], before: Option<LineCursor>, limit: Limit) -> Lines {
    let mut records: Vec<Arc<Kept>> =
        lines.iter().filter(|kept| before.is_none_or(|before| cursor(kept) < before)).cloned().collect();
    records.sort_by_key(|kept| std::cmp::Reverse(cursor(kept)));
    let (is_cut_off, _) = shorten(&mut records, limit, |kept| kept.line.bytes());
    let next = records.last().filter(|_| is_cut_off).map(|kept| cursor(kept));
    Page { records, next }
}

#[test]
fn page_by_page_every_line_of_every_node_is_told_once_and_in_order() {
    // Times and numbers of the nodes fall together again and again, and one node has far more lines than the other.
    let one: Vec<_> = (0..40).map(|at| kept(at / 3, at, &format!("one {at}"))).collect();
    let other: Vec<_> = (0..400).map(|at| kept(at / 30, at % 30, &format!("other {at}"))).collect();
    for records_max in [1, 2, 7, 100, 1000] {
        let limit = Limit { records_max, bytes_max: usize::MAX };
        let (mut told, mut before) = (Vec::new(), None);
        loop {
            let joined = join_pages(vec![page(&one, before, limit), page(&other, before, limit)], limit);
            told.extend(joined.records);
            before = joined.next;
            if before.is_none() {
                break;
            }
            assert!(told.len() <= 440, "it ends");
        }
        assert!(told.is_sorted_by(|newer, older| cursor(newer) >= cursor(older)), "by {records_max}");
        let mut bodies: Vec<&str> = told.iter().map(|kept| kept.line.body.as_str()).collect();
        bodies.sort_unstable();
        bodies.dedup();
        assert_eq!((told.len(), bodies.len()), (440, 440), "by {records_max}");
    }
}

#[test]
fn a_page_goes_no_further_than_a_node_that_has_more_to_tell() {
    let limit = Limit { records_max: 100, bytes_max: usize::MAX };
    let cut = Page {
        records: vec![kept(9, 1, "a"), kept(8, 2, "b")],
        next: Some(LineCursor { time: Nanos(8), sequence: 2 }),
    };
    let whole = Page { records: vec![kept(10, 1, "c"), kept(7, 1, "d")], next: None };
    let joined = join_pages(vec![cut, whole], limit);
    let bodies: Vec<&str> = joined.records.iter().map(|kept| kept.line.body.as_str()).collect();
    assert_eq!(bodies, ["c", "a", "b"]);
    assert_eq!(joined.next, Some(LineCursor { time: Nanos(8), sequence: 2 }));
}
