//! Files of telemetry in a bucket: a real store that speaks S3, and what it does to those who trust it.
//!
//! `NINEFOLD_KILL_SEED` repeats the moments of a run that failed.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests are tests too")]

#[path = "house/house.rs"]
mod house;
#[path = "house/killed.rs"]
mod killed;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use futures_util::TryStreamExt as _;
use futures_util::future::join_all;
use house::{House, LineSaid, SpanDone, until};
use killed::{again, killed};
use ninefold::fault;
use ninefold::lifecycle::Scope;
use ninefold_monitor::{Config, Monitor, bucket};
use ninefold_proto::ninefold::monitor::v1::{
    Bucket, DeleteLogsRequest, GetRetentionRequest, GetTraceRequest, LogFilter, SearchLogsRequest,
};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path as Object;
use object_store::{ObjectStore as _, ObjectStoreExt as _};
use tests_landscape::bucket::{Door, Stand, Weed};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const ROUNDS: u64 = 12;
/// Senders at once in the process that is killed.
const SENDERS: u64 = 4;
/// The process is killed at most so long after its first acknowledgement.
const LIFE_MS_MAX: u64 = 600;
/// A process that nobody kills ends by itself.
const LIFE_MAX: Duration = Duration::from_secs(60);
/// Say to the test binary that it is the process to be killed: the folder, the number of the round, and the bucket.
const FOLDER: &str = "NINEFOLD_BUCKET_FOLDER";
const ROUND: &str = "NINEFOLD_BUCKET_ROUND";
const ENDPOINT: &str = "NINEFOLD_BUCKET_ENDPOINT";
const KEYS: &str = "NINEFOLD_BUCKET_KEYS";

/// A store, a bucket in it, a door before it, and a folder of a node.
struct Stage {
    store: AmazonS3,
    door: Door,
    weed: Weed,
    folder: tempfile::TempDir,
}

impl Stage {
    async fn set() -> Self {
        let weed = Weed::start().await.unwrap();
        let keys = std::fs::read_to_string(&weed.keys).unwrap();
        let key = |name: &str| keys.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = ")).unwrap();
        let store = AmazonS3Builder::new()
            .with_bucket_name("telemetry")
            .with_endpoint(&weed.url)
            .with_allow_http(true)
            .with_access_key_id(key("aws_access_key_id"))
            .with_secret_access_key(key("aws_secret_access_key"))
            .build()
            .unwrap();
        // The store makes a bucket when something is put there.
        until("the bucket is there", || async { store.put(&Object::from("first"), "x".into()).await.is_ok() }).await;
        store.delete(&Object::from("first")).await.unwrap();
        let door = weed.door().await.unwrap();
        Self { store, door, weed, folder: tempfile::tempdir().unwrap() }
    }

    /// Memory goes to files all the time, files to the bucket, and nothing of what that has stays on the disk.
    fn restless(&self) -> Config {
        restless(self.folder.path(), &self.door.url, &self.weed.keys)
    }

    async fn objects(&self) -> Vec<Object> {
        let all = self.store.list(Some(&Object::from("ours"))).map_ok(|about| about.location);
        all.try_collect().await.unwrap()
    }

    /// Files in the folder, those with holes too.
    fn files(&self) -> Vec<PathBuf> {
        let all = |folder: &Path| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let is_parquet = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "parquet");
        let copies = all(&self.folder.path().join("fetched")).collect::<Vec<_>>();
        all(self.folder.path()).filter(is_parquet).chain(copies).collect()
    }
}

fn restless(folder: &Path, endpoint: &str, keys: &Path) -> Config {
    let quick = Duration::from_millis(20);
    let bucket = bucket::Config {
        url: "s3://telemetry/ours".to_owned(),
        endpoint: endpoint.to_owned(),
        credentials: Some(keys.to_owned()),
        cache_bytes_max: 0,
        wait: Duration::from_secs(5),
        ..bucket::Config::default()
    };
    let path = Some(folder.to_owned());
    Config { path, file_every: quick, tidy_every: quick, logs_bytes_max: 1, bucket, ..Config::default() }
}

fn nanos() -> u64 {
    u64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

async fn say(house: &House, body: &str) {
    house.line(LineSaid { service: "pump", time: nanos(), body, trace: TRACE, ..LineSaid::default() }).await;
}

async fn told(house: &House) -> Bucket {
    house.monitor().get_retention(GetRetentionRequest {}).await.unwrap().into_inner().bucket.unwrap()
}

/// All lines, newest first, page by page.
async fn all(house: &House, filter: LogFilter) -> Result<Vec<String>, tonic::Status> {
    let (mut bodies, mut page_token) = (Vec::new(), String::new());
    loop {
        let filter = Some(filter.clone());
        let request = SearchLogsRequest { filter, page_size: 500, page_token, ..SearchLogsRequest::default() };
        let answer = house.monitor().search_logs(request).await?.into_inner();
        bodies.extend(answer.records.into_iter().map(|record| record.body));
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            return Ok(bodies);
        }
    }
}

/// Waits until everything is in files that the bucket has, and nothing of them on the disk.
async fn is_away_from_the_disk(stage: &Stage, house: &House) {
    until("the bucket has all, and the disk nothing", || async {
        let kept = house.monitor().get_retention(GetRetentionRequest {}).await.unwrap().into_inner();
        let told = kept.bucket.unwrap();
        told.kept_files > 0 && told.waiting_files == 0 && stage.files().is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_bucket_has_is_found_when_the_disk_has_it_no_more() {
    let stage = Stage::set().await;
    let house = House::open(stage.restless()).await;
    let mut expected = Vec::new();
    for number in 0..60 {
        let body = format!("line {number}");
        say(&house, &body).await;
        expected.insert(0, body);
    }
    let start = nanos();
    for (id, name) in [(1, "first"), (2, "second")] {
        let done = SpanDone { service: "pump", id, parent: id - 1, name, start, end: start + 90, failed: false };
        house.span(TRACE, done).await;
    }
    house.close().await;
    // Memory is empty after a start: all that is answered comes from the bucket.
    for _ in 0..2 {
        let house = House::open(stage.restless()).await;
        is_away_from_the_disk(&stage, &house).await;
        assert_eq!(all(&house, LogFilter::default()).await.unwrap(), expected);
        let text = LogFilter { text: "LINE 5".to_owned(), ..LogFilter::default() };
        assert_eq!(all(&house, text).await.unwrap().len(), 11);
        let trace = house.monitor().get_trace(GetTraceRequest { trace_id: TRACE.to_owned() }).await.unwrap();
        let trace = trace.into_inner();
        assert_eq!((trace.spans.len(), trace.records.len()), (2, 60));
        assert!(told(&house).await.read_bytes > 0);
        house.close().await;
    }

    // What is deleted goes from the bucket too, and what was put together does not stay there twice.
    let house = House::open(stage.restless()).await;
    let filter = Some(LogFilter { text: "line 7".to_owned(), ..LogFilter::default() });
    house.monitor().delete_logs(DeleteLogsRequest { filter }).await.unwrap();
    expected.retain(|body| body != "line 7");
    assert_eq!(all(&house, LogFilter::default()).await.unwrap(), expected);
    until("the bucket has what the list of files has", || async {
        let told = told(&house).await;
        told.waiting_files == 0 && stage.objects().await.len() as u64 == told.kept_files
    })
    .await;
    house.close().await;

    // Without the bucket the folder alone is not all, and does not pretend to be.
    let settings = Config { bucket: bucket::Config::default(), ..stage.restless() };
    let refusal = Monitor::open(settings, &Scope::root("test")).await.unwrap_err();
    let told = fault::chain(&refusal);
    assert!(told.contains("files are in the bucket s3://telemetry/ours, and the settings name none"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_is_away_delays_and_nothing_else() {
    let stage = Stage::set().await;
    stage.door.stand(Stand::Shut);
    let mut settings = stage.restless();
    // Much less memory than is told: it must go to files although the bucket takes none.
    settings.unfiled_bytes_max = 60_000;
    let house = House::open(settings.clone()).await;
    let noise = "x".repeat(2000);
    for number in 0..60 {
        let body = format!("{number} {noise}");
        until("there is room", || async {
            let said = LineSaid { service: "pump", time: nanos(), body: &body, ..LineSaid::default() };
            house.logs().export(house::logs_of(said)).await.is_ok()
        })
        .await;
    }
    until("it is told that the bucket is away", || async { !told(&house).await.problem.is_empty() }).await;
    let now = told(&house).await;
    assert!(now.kept_files == 0 && now.waiting_files > 0 && now.failures > 0, "{now:?}");
    assert!(now.problem.contains("the bucket cannot be used"), "{}", now.problem);
    assert_eq!(all(&house, LogFilter::default()).await.unwrap().len(), 60, "questions do not wait for it");
    house.close().await;

    // A bucket that hangs is as good as one that is away.
    stage.door.stand(Stand::Held);
    settings.bucket.wait = Duration::from_millis(200);
    let house = House::open(settings.clone()).await;
    say(&house, "the last").await;
    until("it is told that it hangs", || async {
        told(&house).await.problem.contains("the bucket did not answer within 200ms")
    })
    .await;
    assert_eq!(all(&house, LogFilter::default()).await.unwrap().len(), 61);

    stage.door.stand(Stand::Open);
    is_away_from_the_disk(&stage, &house).await;
    assert_eq!(told(&house).await.problem, "");
    assert_eq!(all(&house, LogFilter::default()).await.unwrap().len(), 61);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_disk_for_what_waits_is_full_what_comes_is_refused_and_then_taken_again() {
    let stage = Stage::set().await;
    stage.door.stand(Stand::Shut);
    let mut settings = stage.restless();
    settings.unfiled_bytes_max = 60_000;
    settings.bucket.waiting_bytes_max = 20_000;
    let house = House::open(settings).await;
    let mut random = fastrand::Rng::with_seed(4);
    let mut taken = 0_usize;
    let refusal = loop {
        let noise: String = (0..2000).map(|_| random.alphanumeric()).collect();
        let said = LineSaid { service: "pump", time: nanos(), body: &noise, ..LineSaid::default() };
        match house.logs().export(house::logs_of(said)).await {
            Ok(_) => taken += 1,
            // Memory may be full for a moment while it is written to a file.
            Err(refusal) => {
                let kept = house.monitor().get_retention(GetRetentionRequest {}).await.unwrap().into_inner();
                if kept.problem.contains("wait for the bucket") {
                    break refusal;
                }
            }
        }
        assert!(taken < 10_000, "the disk for what waits is full before so much is told");
    };
    assert_eq!(refusal.code(), tonic::Code::ResourceExhausted, "{refusal:?}");
    let waiting = told(&house).await.waiting_bytes;
    assert!((20_000..200_000).contains(&waiting), "{waiting} bytes wait");
    assert_eq!(all(&house, LogFilter::default()).await.unwrap().len(), taken);
    stage.door.stand(Stand::Open);
    until("there is room again", || async {
        let said = LineSaid { service: "pump", time: nanos(), body: "again", ..LineSaid::default() };
        house.logs().export(house::logs_of(said)).await.is_ok()
    })
    .await;
    is_away_from_the_disk(&stage, &house).await;
    assert_eq!(all(&house, LogFilter::default()).await.unwrap().len(), taken + 1);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_an_upload_is_none_and_a_large_file_goes_in_parts() {
    let stage = Stage::set().await;
    // A file that takes two parts, the second of which never comes whole.
    stage.door.stand(Stand::Slams(10 * 1024 * 1024));
    let mut settings = stage.restless();
    (settings.file_every, settings.tidy_every) = (Duration::from_secs(3600), Duration::from_millis(20));
    let house = House::open(settings.clone()).await;
    let mut random = fastrand::Rng::with_seed(5);
    for number in 0..300 {
        let noise: String = (0..60_000).map(|_| random.alphanumeric()).collect();
        say(&house, &format!("{number} {noise}")).await;
    }
    house.close().await;
    settings.file_every = Duration::from_millis(20);
    let house = House::open(settings).await;
    until("an upload broke off", || async { stage.door.slammed() > 0 && !told(&house).await.problem.is_empty() }).await;
    assert!(told(&house).await.waiting_bytes > 8 * 1024 * 1024);
    assert!(stage.objects().await.is_empty(), "half an object is none");
    stage.door.stand(Stand::Open);
    is_away_from_the_disk(&stage, &house).await;
    let found = all(&house, LogFilter { text: "299 ".to_owned(), ..LogFilter::default() }).await.unwrap();
    assert_eq!(found.iter().filter(|body| body.starts_with("299 ")).count(), 1);
    assert_eq!(all(&house, LogFilter::default()).await.unwrap().len(), 300);
    let objects = stage.objects().await;
    assert_eq!(objects.len() as u64, told(&house).await.kept_files);
    house.close().await;

    // One bit of one part: whoever needs other parts is answered, whoever needs that one is told.
    for object in objects {
        let mut bytes = stage.store.get(&object).await.unwrap().bytes().await.unwrap().to_vec();
        let place = bytes.len() / 2;
        bytes[place] ^= 1;
        stage.store.put(&object, bytes.into()).await.unwrap();
    }
    let house = House::open(stage.restless()).await;
    let none = LogFilter { text: "nobody ever said this".to_owned(), ..LogFilter::default() };
    assert!(all(&house, none).await.unwrap().is_empty(), "the index is whole");
    let refusal = all(&house, LogFilter::default()).await.unwrap_err();
    assert!(refusal.message().contains("the bucket has something else"), "{}", refusal.message());
    until("it is counted", || async { told(&house).await.spoiled_files > 0 }).await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_is_gone_or_spoiled_is_named_by_questions_that_need_it() {
    let stage = Stage::set().await;
    let house = House::open(stage.restless()).await;
    say(&house, "kept").await;
    is_away_from_the_disk(&stage, &house).await;
    house.close().await;
    let objects = stage.objects().await;
    let [object] = objects.as_slice() else { panic!("one file is one object: {objects:?}") };
    let bytes = stage.store.get(object).await.unwrap().bytes().await.unwrap();

    let mut spoiled = bytes.to_vec();
    spoiled[bytes.len() / 2] ^= 1;
    let cases: [(&str, Option<Vec<u8>>, &str); 3] = [
        ("one bit", Some(spoiled), "something else than what was put there"),
        ("half of it", Some(bytes[..bytes.len() / 2].to_vec()), "the bucket"),
        ("all of it", None, "the bucket has no"),
    ];
    for (what, instead, why) in cases {
        match instead {
            Some(instead) => drop(stage.store.put(object, instead.into()).await.unwrap()),
            None => stage.store.delete(object).await.unwrap(),
        }
        let house = House::open(stage.restless()).await;
        let refusal = all(&house, LogFilter::default()).await.unwrap_err();
        assert_eq!(fault::reason(&refusal).as_deref(), Some("TELEMETRY_UNREADABLE"), "{what}: {refusal:?}");
        assert!(refusal.message().contains(why), "{what}: {}", refusal.message());
        // Others go on.
        say(&house, "new").await;
        let end = Some(prost_types::Timestamp { seconds: 1, nanos: 0 });
        let old = LogFilter { end_time: end, ..LogFilter::default() };
        assert!(all(&house, old).await.unwrap().is_empty());
        if what != "half of it" {
            assert_eq!(told(&house).await.spoiled_files, 1, "{what}");
        }
        stage.store.put(object, bytes.clone().into()).await.unwrap();
        until("what was brought back is read again", || async {
            all(&house, LogFilter::default()).await.is_ok_and(|lines| lines.iter().any(|line| line == "kept"))
        })
        .await;
        let filter = Some(LogFilter { text: "new".to_owned(), ..LogFilter::default() });
        house.monitor().delete_logs(DeleteLogsRequest { filter }).await.unwrap();
        house.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whenever_a_node_dies_nothing_is_lost_or_there_twice_or_left_in_the_bucket() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        let said = |name: &str| std::env::var(name).unwrap();
        let settings = restless(Path::new(&folder), &said(ENDPOINT), Path::new(&said(KEYS)));
        return tell_until_killed(settings, &said(ROUND)).await;
    }
    let seed = std::env::var("NINEFOLD_KILL_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("NINEFOLD_KILL_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let stage = Stage::set().await;
    let mut acknowledged = BTreeSet::new();
    for round in 0..ROUNDS {
        stage.door.stand(match random.u8(0..4) {
            0 => Stand::Slams(random.u64(100..20_000)),
            1 => Stand::Shut,
            _ => Stand::Open,
        });
        let life = Duration::from_millis(random.u64(1..LIFE_MS_MAX));
        let mut process = again("whenever_a_node_dies_nothing_is_lost_or_there_twice_or_left_in_the_bucket");
        process.env(FOLDER, stage.folder.path()).env(ROUND, round.to_string());
        process.env(ENDPOINT, &stage.door.url).env(KEYS, &stage.weed.keys);
        acknowledged.extend(killed(process, life).await);
    }
    assert!(acknowledged.len() as u64 > ROUNDS, "only {} lines were acknowledged", acknowledged.len());
    stage.door.stand(Stand::Open);
    let house = House::open(stage.restless()).await;
    is_away_from_the_disk(&stage, &house).await;
    let found = all(&house, LogFilter::default()).await.unwrap();
    let once: BTreeSet<&String> = found.iter().collect();
    assert_eq!(once.len(), found.len(), "nothing is there twice");
    let lost: Vec<_> = acknowledged.iter().filter(|body| !once.contains(body)).collect();
    assert!(lost.is_empty(), "{lost:?} of {} are lost", acknowledged.len());
    until("the bucket has what the list of files has, and no more", || async {
        let told = told(&house).await;
        told.waiting_files == 0 && stage.objects().await.len() as u64 == told.kept_files
    })
    .await;
    house.close().await;
}

async fn tell_until_killed(settings: Config, round: &str) {
    let house = House::open(settings).await;
    let house = &house;
    let senders = (0..SENDERS).map(|sender| async move {
        for number in 0_u64.. {
            let body = format!("{round}-{sender}-{number}");
            say(house, &body).await;
            println!("done {body}.");
        }
    });
    let _ = tokio::time::timeout(LIFE_MAX, join_all(senders)).await;
}
