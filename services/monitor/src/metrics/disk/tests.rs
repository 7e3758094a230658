//! Files of samples: put together, thinned, gone, damaged.

use ninefold_promql::{Limits, Point, Query, Span};

use super::*;

const KEEP: Keep = Keep { millis_max: i64::MAX, fine_millis: i64::MAX, bytes_max: u64::MAX };

fn labels(name: &str, of: usize) -> Labels {
    Labels::new([(NAME, name), ("of", of.to_string().as_str())])
}

fn samples(from: i64, count: i64) -> Vec<Sample> {
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let sample = |at: i64| Sample { at, point: Point::Float(at as f64) };
    (0..count).map(|turn| sample(from + turn * 1000)).collect()
}

fn selection(query: &str, from: i64, to: i64) -> Selection {
    let query = Query::parse(query).expect("a query");
    let mut selection = query.needs(Span::instant(0), &Limits::default()).remove(0);
    (selection.from, selection.to) = (from, to);
    selection
}

fn found(disk: &Disk, query: &str, from: i64, to: i64) -> BTreeMap<Labels, Vec<i64>> {
    let found = disk.select(&selection(query, from, to), 1_000_000).expect("few");
    assert_eq!(found.unread, 0);
    found.series.into_iter().map(|(labels, all)| (labels, all.iter().map(|one| one.at).collect())).collect()
}

fn fill(disk: &Disk, mark: u64) {
    let from = i64::try_from(mark).expect("small") * 100_000;
    let mut all: Vec<(Labels, Vec<Sample>)> =
        (0..40).flat_map(|of| [(labels("b", of), samples(from, 90)), (labels("a", of), samples(from, 90))]).collect();
    all.sort_by_key(|(labels, _)| (labels.get(NAME).to_owned(), labels.clone()));
    disk.write(mark, all).expect("written");
}

#[test]
fn files_that_are_put_together_say_the_same_and_so_they_do_when_opened_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = Disk::open(folder.path()).expect("opened");
    (1..=8).for_each(|mark| fill(&disk, mark));
    let before = found(&disk, "a{of=~\"1.\"}", 150_000, 450_000);
    assert_eq!((before.len(), before.values().map(Vec::len).sum::<usize>()), (10, 10 * (39 + 90 + 90 + 51)));
    assert!(disk.tidy(KEEP, 0).expect("tidied"));
    assert_eq!(disk.blocks().len(), 1);
    assert_eq!(found(&disk, "a{of=~\"1.\"}", 150_000, 450_000), before);
    let disk = Disk::open(folder.path()).expect("opened again");
    assert_eq!((disk.blocks().len(), disk.mark()), (1, 8));
    assert_eq!(found(&disk, "a{of=~\"1.\"}", 150_000, 450_000), before);
    assert_eq!(disk.labels(&[selection("b", i64::MIN, i64::MAX)]).len(), 40);
    assert_eq!(disk.labels(&[]).len(), 80);
    assert_eq!(disk.last(&labels("b", 3), 0).map(|sample| sample.at), Some(889_000));
}

#[test]
fn a_death_between_putting_together_and_removing_doubles_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = Disk::open(folder.path()).expect("opened");
    (1..=8).for_each(|mark| fill(&disk, mark));
    let kept = tempfile::tempdir().expect("a folder");
    let files = || std::fs::read_dir(folder.path()).expect("read").map(|entry| entry.expect("an entry").path());
    for path in files() {
        std::fs::copy(&path, kept.path().join(path.file_name().expect("a name"))).expect("copied");
    }
    assert!(disk.tidy(KEEP, 0).expect("tidied"));
    for path in files() {
        std::fs::copy(&path, kept.path().join(path.file_name().expect("a name"))).expect("copied");
    }
    let disk = Disk::open(kept.path()).expect("opened");
    assert_eq!(disk.blocks().len(), 1);
    assert_eq!(disk.sizes().1, 8 * 80 * 90);
}

#[test]
fn late_samples_lie_over_what_was_said_before() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = Disk::open(folder.path()).expect("opened");
    let write = |mark, at, value: f64| {
        disk.write(mark, [(labels("a", 1), vec![Sample { at, point: value.into() }])]).expect("written");
    };
    write(1, 1000, 1.0);
    write(2, 2000, 2.0);
    write(3, 1000, 3.0);
    let value = |at: i64| {
        let found = disk.select(&selection("a", at - 1, at), 10).expect("few");
        found.series[&labels("a", 1)][0].point.float()
    };
    assert_eq!((value(1000), value(2000)), (Some(3.0), Some(2.0)));
}

#[test]
fn old_files_are_thinned_then_go_and_so_do_the_oldest_beyond_the_room() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = Disk::open(folder.path()).expect("opened");
    (1..=3).for_each(|mark| fill(&disk, mark));
    let count = disk.sizes().1;
    let keep = Keep { fine_millis: 10_000, ..KEEP };
    while disk.tidy(keep, 310_000).expect("tidied") {}
    assert!(disk.sizes().1 < count / 2, "{} of {count}", disk.sizes().1);
    disk.tidy(Keep { bytes_max: disk.sizes().0 - 1, ..KEEP }, 310_000).expect("tidied");
    assert!(found(&disk, "a", 0, 199_000).is_empty(), "the oldest went");
    disk.tidy(Keep { millis_max: 1, ..KEEP }, 10_000_000).expect("tidied");
    assert_eq!((disk.blocks().len(), disk.mark()), (1, 3), "the newest tells where the journal is");
}

#[test]
fn damage_is_passed_over_and_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = Disk::open(folder.path()).expect("opened");
    fill(&disk, 1);
    let path = std::fs::read_dir(folder.path()).expect("read").next().expect("one").expect("an entry").path();
    let mut bytes = std::fs::read(&path).expect("read");
    bytes[200] ^= 1;
    std::fs::write(&path, &bytes).expect("written");
    let disk = Disk::open(folder.path()).expect("opened");
    assert_eq!(disk.select(&selection("a", 0, i64::MAX), 100_000).expect("few").unread, 1);
    for end in [0, 10, bytes.len() - 3] {
        std::fs::write(&path, &bytes[..end]).expect("written");
        assert!(Disk::open(folder.path()).expect("opened").blocks().is_empty());
    }
}

/// Prints what samples of a landscape take on the disk: `cargo test -p ninefold-monitor --lib what_a_sample_takes -- --nocapture`.
#[test]
#[expect(clippy::cast_precision_loss, reason = "it is for people")]
fn what_a_sample_takes_is_little() {
    let mut random = fastrand::Rng::with_seed(9);
    let folder = tempfile::tempdir().expect("a folder");
    let disk = Disk::open(folder.path()).expect("opened");
    let mut all = Vec::new();
    for of in 0..400 {
        let (name, kind) = match of % 10 {
            0..4 => ("requests_total", 0),
            4..6 => ("seconds_total", 1),
            6..8 => ("memory_bytes", 2),
            8 => ("limit", 3),
            _ => ("noise", 4),
        };
        let mut value = 1000.0;
        let one: Vec<Sample> = (0..720_i64)
            .map(|turn| {
                value = match kind {
                    0 => value + f64::from(random.u32(0..40)),
                    1 => value + random.f64(),
                    2 => 4096.0 * f64::from(random.u32(20_000..20_400)),
                    3 => {
                        if random.u32(0..200) == 0 {
                            value + 1.0
                        } else {
                            value
                        }
                    }
                    _ => random.f64(),
                };
                let jitter = i64::from(random.u8(0..4));
                Sample { at: 1_790_000_000_000 + turn * 10_000 + jitter, point: value.into() }
            })
            .collect();
        all.push((labels(name, of), one));
    }
    all.sort_by_key(|(labels, _)| (labels.get(NAME).to_owned(), labels.clone()));
    disk.write(1, all).expect("written");
    let (bytes, samples) = disk.sizes();
    let each = bytes as f64 / samples as f64;
    println!("{samples} samples of mixed series take {each:.2} bytes each");
    assert!(each < 4.5, "{each}");
}
