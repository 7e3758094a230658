//! Contracts that cannot break: a service whose new version would harm its callers does not get in.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use tests_landscape::{Ended, Landscape, ended, ninefold, python, signal, tools, until};
use tokio::process::{Child, Command};

const SOON: Duration = Duration::from_secs(60);
const REVIEW: &str = "shop/review/v1/review.proto";
/// How many reviews the demo runs by itself.
const OLD: usize = 2;
const SERVICE: &str = "shop/review/v1/review_service.proto";

/// A checkout of the review service's contract, which a test changes.
struct Checkout {
    folder: tempfile::TempDir,
}

impl Checkout {
    /// The contract as the shop has it.
    fn new() -> Result<Self> {
        let checkout = Self { folder: tempfile::tempdir()? };
        for name in [REVIEW, SERVICE] {
            let target = checkout.protos().join(name);
            std::fs::create_dir_all(target.parent().context("a file has a folder")?)?;
            std::fs::copy(tools::repository().join("examples/shop/proto").join(name), target)?;
        }
        Ok(checkout)
    }

    fn protos(&self) -> PathBuf {
        self.folder.path().join("proto")
    }

    fn change(&self, name: &str, old: &str, new: &str) -> Result<()> {
        let path = self.protos().join(name);
        let text = std::fs::read_to_string(&path)?;
        ensure!(text.contains(old), "{name} has the shape that this test knows");
        Ok(std::fs::write(path, text.replacen(old, new, 1))?)
    }

    /// Runs an instance of the review service that answers the contract, in plain Python.
    async fn serve(&self, house: &Landscape, modules: &[&str]) -> Result<Child> {
        self.serve_as(house, modules, &[]).await
    }

    async fn serve_as(&self, house: &Landscape, modules: &[&str], variables: &[(&str, &str)]) -> Result<Child> {
        python::generate(&self.protos(), self.folder.path()).await?;
        let mut command = ninefold("run", &["--name", "review", "--endpoint", &house.endpoint(), "--"])?;
        command.arg(tools::python("python")?).arg(python::folder().join("serve_contract.py")).args(modules);
        let said = std::fs::File::create(self.folder.path().join("said"))?;
        command.envs(variables.iter().copied());
        command.env("PYTHONPATH", self.folder.path()).stdout(said.try_clone()?).stderr(said).stdin(Stdio::null());
        Ok(command.spawn()?)
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("said")).unwrap_or_default()
    }
}

const FIRST: &str = "shop.review.v1.review_service";

async fn leaves(mut child: Child) -> Result<()> {
    signal(child.id().context("the program runs")?, Signal::TERM)?;
    tokio::time::timeout(SOON, child.wait()).await.context("the program ends")??;
    Ok(())
}

/// Checks a checkout from the command line; the binary's own words and code.
async fn checked(house: &Landscape, folder: &Path, more: &[&str]) -> Result<Ended> {
    let folder = folder.display().to_string();
    let mut arguments = vec!["check", folder.as_str()];
    arguments.extend(more);
    let mut command = ninefold("contract", &arguments)?;
    command.args(["--endpoint", &house.endpoint()]);
    ended(command).await
}

async fn starting(house: &Landscape) -> Result<Option<Value>> {
    let instances = house.instances("review").await?;
    Ok(instances.into_iter().find(|one| one["state"] == "INSTANCE_STATE_STARTING"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_breaks_its_callers_does_not_get_in_and_one_that_does_not_does() -> Result<()> {
    let house = Landscape::demo(&["--no-traffic"]).await?;
    let (breaking, harmless) = (Checkout::new()?, Checkout::new()?);
    breaking.change(REVIEW, "string subject = 3;", "string title = 5;")?;
    harmless.change(REVIEW, "string content = 4;", "string content = 4;\n  // Stars, 1 to 5.\n  int32 stars = 5;")?;
    harmless.change(SERVICE, "\n\n// Keeps", "\n\nimport \"google/api/annotations.proto\";\n\n// Keeps")?;
    harmless.change(
        SERVICE,
        "service ReviewService {",
        "service ReviewService {\n  // Counts.\n  rpc CountReviews(ListReviewsRequest) returns (ListReviewsResponse) {\n    \
         option (google.api.http) = {get: \"/v1/review-counts/{product_id}\"};\n  }",
    )?;

    // A second program with the contract as it is.
    let first = Checkout::new()?;
    let early = first.serve(&house, &[FIRST]).await?;
    until("the same contract joins", SOON, || async { Ok(house.serving("review").await? == OLD + 1) }).await?;
    leaves(early).await?;

    // Before anything is deployed, the same verdict.
    let verdict = checked(&house, &breaking.protos(), &["-o", "sarif"]).await?;
    ensure!(verdict.code == 7, "{verdict:?}");
    let sarif: Value = serde_json::from_str(&verdict.stdout)?;
    let results = sarif["runs"][0]["results"].as_array().context("SARIF has results")?.clone();
    ensure!(results.iter().any(|one| one["ruleId"] == "FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED"), "{results:?}");
    let verdict = checked(&house, &harmless.protos(), &[]).await?;
    ensure!(verdict.code == 0, "{verdict:?}");

    // The breaking one is seen, and gets no calls.
    let refused = breaking.serve(&house, &[FIRST]).await?;
    until("it is told why", SOON, || async { Ok(breaking.said().contains("FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED")) })
        .await?;
    until("it is in sight", SOON, || async {
        Ok(starting(&house).await?.is_some_and(|one| one["stateReason"].to_string().contains("contract refused")))
    })
    .await?;
    ensure!(house.serving("review").await? == OLD, "the old instances go on");
    for round in 0..20 {
        let answer = house.get("/v1/products/1").await?;
        let product = answer.json()?;
        let has_reviews = product["product"]["reviews"].as_array().is_some_and(|all| !all.is_empty());
        ensure!(answer.status == 200 && has_reviews, "round {round}: {product}");
    }
    let story = house.ask(&["why", "review"]).await?.to_string();
    ensure!(story.contains("contract refused"), "{story}");

    // Its harmless sibling joins, and its new route is there.
    let joined = harmless.serve(&house, &[FIRST]).await?;
    until("the sibling serves", SOON, || async { Ok(house.serving("review").await? == OLD + 1) }).await?;
    until("the edge leads to it", SOON, || async { Ok(house.get("/v1/review-counts/1").await?.status == 200) }).await?;
    leaves(joined).await?;

    // An operator may know better; nothing has to be started again.
    let accepted = house.run(&["contract", "accept", "review", "--reason", "nobody reads subjects"]).await?;
    ensure!(accepted.code == 0, "{accepted:?}");
    until("the refused one serves", SOON, || async { Ok(house.serving("review").await? == OLD + 1) }).await?;
    let log = house.ask(&["contract", "log", "review"]).await?.to_string();
    ensure!(log.contains("CHANGE_KIND_OVERRIDDEN") && log.contains("nobody reads subjects"), "{log}");
    leaves(refused).await?;

    // What was accepted once joins again at once.
    let back = first.serve(&house, &[FIRST]).await?;
    until("rolling back works", SOON, || async { Ok(house.serving("review").await? == OLD + 1) }).await?;
    leaves(back).await?;
    house.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_version_joins_beside_the_first_and_clients_come_from_the_landscape() -> Result<()> {
    let house = Landscape::demo(&["--no-traffic"]).await?;
    let checkout = Checkout::new()?;
    let folder = checkout.protos().display().to_string();
    let forked = house.run(&["contract", "fork", "shop.review.v1", "shop.review.v2", "--in", &folder]).await?;
    ensure!(forked.code == 0, "{forked:?}");
    let second = "shop/review/v2/review_service.proto";
    checkout.change("shop/review/v2/review.proto", "string subject = 3;", "string title = 3;")?;
    checkout.change(second, "\n\n// Keeps", "\n\nimport \"google/api/annotations.proto\";\n\n// Keeps")?;
    checkout.change(
        second,
        "option idempotency_level = NO_SIDE_EFFECTS;",
        "option idempotency_level = NO_SIDE_EFFECTS;\n    option (google.api.http) = {get: \"/v2/reviews/{product_id}\"};",
    )?;
    let both = checkout.serve(&house, &[FIRST, "shop.review.v2.review_service"]).await?;
    let outcome = async {
        until("both versions are served", SOON, || async { Ok(house.serving("review").await? == OLD + 1) }).await?;
        until("the edge leads to the second", SOON, || async { Ok(house.get("/v2/reviews/1").await?.status == 200) })
            .await
    };
    outcome.await.with_context(|| checkout.said())?;
    let packages = house.ask(&["contract", "ls", "--owner", "review"]).await?;
    let names: Vec<&str> =
        packages.as_array().into_iter().flatten().filter_map(|one| one["package"].as_str()).collect();
    ensure!(names == ["shop.review.v1", "shop.review.v2"], "{packages}");
    leaves(both).await?;

    // A route of somebody else is refused, and only told where an operator says so.
    checkout.change(SERVICE, "\n\n// Keeps", "\n\nimport \"google/api/annotations.proto\";\n\n// Keeps")?;
    checkout.change(
        SERVICE,
        "option idempotency_level = NO_SIDE_EFFECTS;",
        "option idempotency_level = NO_SIDE_EFFECTS;\n    option (google.api.http) = {get: \"/v1/products/{product_id}\"};",
    )?;
    let verdict = checked(&house, &checkout.protos(), &[]).await?;
    ensure!(verdict.code == 7 && verdict.stdout.contains("HTTP_PATH_CONFLICT"), "{verdict:?}");
    ensure!(verdict.stdout.contains("of product-composite"), "the owner is named: {verdict:?}");
    let held = house.run(&["contract", "level", "shop.review.v1", "warn", "--reason", "for a day"]).await?;
    ensure!(held.code == 0, "{held:?}");
    let verdict = checked(&house, &checkout.protos(), &[]).await?;
    ensure!(verdict.code == 0 && verdict.stdout.contains("warning HTTP_PATH_CONFLICT"), "{verdict:?}");

    // One that takes a part of somebody else's is let through, and told.
    checkout.change(SERVICE, "/v1/products/{product_id}", "/v1/products/reviewed")?;
    let verdict = checked(&house, &checkout.protos(), &[]).await?;
    ensure!(verdict.code == 0 && verdict.stdout.contains("warning HTTP_PATH_SHADOWED"), "{verdict:?}");
    ensure!(verdict.stdout.contains("GetProduct") && verdict.stdout.contains("of product-composite"), "{verdict:?}");

    // Who calls the first: built with it, and counted.
    house.get("/v1/products/1").await?;
    until("the caller is known", SOON, || async {
        let callers =
            house.ask(&["contract", "callers", "shop.review.v1", "--method", "ReviewService.ListReviews"]).await?;
        let callers = callers.as_array().cloned().unwrap_or_default();
        Ok(callers
            .iter()
            .any(|one| one["service"] == "product-composite" && one["declared"] == true && one["calls"] != "0"))
    })
    .await?;

    // A client is generated from what the landscape hands out.
    let work = tempfile::tempdir()?;
    let tar = work.path().join("review.tar").display().to_string();
    let exported = house.run(&["contract", "export", "shop.review.v1", "--form", "buf", "--file", &tar]).await?;
    ensure!(exported.code == 0, "{exported:?}");
    let sources = work.path().join("sources");
    std::fs::create_dir(&sources)?;
    let mut unpack = Command::new("tar");
    unpack.arg("-xf").arg(&tar).arg("-C").arg(&sources);
    python::done(unpack).await?;
    let mut build = Command::new(tools::python("buf")?);
    build.arg("build").arg(&tar).args(["-o", "/dev/null"]);
    python::done(build).await?;
    python::generate(&sources, work.path()).await?;
    let instances = house.instances("review").await?;
    let address = &instances.first().context("review serves")?["addresses"][0];
    let address = format!("{}:{}", address["host"].as_str().unwrap_or_default(), address["port"]);
    let mut call = Command::new(tools::python("python")?);
    call.arg(python::folder().join("call_exported.py")).arg(address).env("PYTHONPATH", work.path());
    let called = python::done(call).await?;
    ensure!(called.stdout.contains("reviews from review"), "{called:?}");
    house.stop().await
}

/// Makes a token of a role; answers its file.
async fn token(house: &Landscape, folder: &Path, role: &str, more: &[&str]) -> Result<String> {
    let file = folder.join(role).display().to_string();
    let made = house.run(&[&["token", "create", role, "--role", role, "--write", &file], more].concat()).await?;
    ensure!(made.code == 0, "{made:?}");
    Ok(file)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_calls_may_go_and_only_an_operator_overrides() -> Result<()> {
    let house = Landscape::up_with_and("[contract]\nunused = \"2s\"\n", &["--auth", "token"]).await?;
    let tokens = tempfile::tempdir()?;
    let (reader, instance, operator) = (
        token(&house, tokens.path(), "read", &[]).await?,
        token(&house, tokens.path(), "instance", &["--service", "review"]).await?,
        token(&house, tokens.path(), "operator", &[]).await?,
    );
    let serve = async |checkout: &Checkout| {
        let child = checkout.serve_as(&house, &[FIRST], &[("NINEFOLD_TOKEN_FILE", &instance)]).await?;
        Ok::<_, anyhow::Error>(child)
    };
    let (old, without, breaking) = (Checkout::new()?, Checkout::new()?, Checkout::new()?);
    old.change(
        SERVICE,
        "service ReviewService {",
        "service ReviewService {\n  // Old.\n  rpc DropReviews(ListReviewsRequest) returns (ListReviewsResponse) {\n    \
         option deprecated = true;\n  }",
    )?;
    breaking.change(REVIEW, "string subject = 3;", "string title = 5;")?;

    // A method that was deprecated and that nobody calls is offered to go; without it the contract joins.
    let first = serve(&old).await?;
    until("it may go", SOON, || async {
        let shown = house.ask(&["contract", "show", "shop.review.v1"]).await?;
        let package = &shown["package"];
        Ok(package["deletableMethods"][0] == "shop.review.v1.ReviewService.DropReviews" && package["retirable"] == true)
    })
    .await?;
    leaves(first).await?;
    let second = serve(&without).await?;
    until("it went", SOON, || async { Ok(house.serving("review").await? == 1) }).await?;
    let log = house.ask(&["contract", "log", "review"]).await?.to_string();
    ensure!(!log.contains("CHANGE_KIND_REFUSED"), "{log}");
    leaves(second).await?;

    // What breaks is refused, until somebody with the right and a reason says otherwise.
    let refused = serve(&breaking).await?;
    until("it is refused", SOON, || async { Ok(starting(&house).await?.is_some()) }).await?;
    until("it is told why", SOON, || async { Ok(breaking.said().contains("contract is refused")) }).await?;
    let accept = ["contract", "accept", "review", "--reason", "nobody reads subjects"];
    for file in [&reader, &instance] {
        let denied = house.run_as(&[("NINEFOLD_TOKEN_FILE", file)], &accept).await?;
        ensure!(denied.code == 6 && denied.stderr.contains("ROLE_DENIED"), "{denied:?}");
    }
    let accepted = house.run_as(&[("NINEFOLD_TOKEN_FILE", &operator)], &accept).await?;
    ensure!(accepted.code == 0, "{accepted:?}");
    until("it serves", SOON, || async { Ok(house.serving("review").await? == 1) }).await?;
    let log = house.ask(&["contract", "log", "review"]).await?.to_string();
    ensure!(log.contains("token operator") && log.contains("nobody reads subjects"), "{log}");
    leaves(refused).await?;
    house.stop().await
}

/// A folder with contracts that are and are not as they should be, under git.
async fn odd_contracts() -> Result<tempfile::TempDir> {
    use std::os::unix::ffi::OsStrExt as _;
    let place = tempfile::tempdir()?;
    let write = |name: &[u8], text: &[u8]| -> Result<()> {
        let path = place.path().join(std::ffi::OsStr::from_bytes(name));
        std::fs::create_dir_all(path.parent().context("a file has a folder")?)?;
        Ok(std::fs::write(path, text)?)
    };
    write(b"good/shop/v1/a.proto", b"syntax = \"proto3\";\npackage shop.v1;\nmessage A {\n  int32 a = 1;\n}\n")?;
    write(b"bad\xff/a.proto", b"syntax = \"proto3\";\npackage shop.v1;\nmessage A {}\n")?;
    write(b"odd/x\xff.proto", b"syntax = \"proto3\";\n")?;
    write(b"cut/cut.proto", b"syntax = \"proto3\";\npackage shop.v1;\nmessage A {\n")?;
    write(b"latin/latin.proto", b"syntax = \"proto3\"; // caf\xe9\n")?;
    write(b"imports/i.proto", b"syntax = \"proto3\";\nimport \"not/there.proto\";\n")?;
    write(b"edition/e.proto", b"edition = \"2023\";\npackage shop.v1;\n")?;
    write(b"none/readme.txt", b"")?;
    write(b"cut.binpb", b"\x0a\xff\xff\xff\xff\x07")?;
    write(b"empty.binpb", b"")?;
    for arguments in
        [&["init", "-q"][..], &["add", "."], &["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a"]]
    {
        let mut git = Command::new("git");
        git.arg("-C").arg(place.path()).args(arguments);
        python::done(git).await?;
    }
    Ok(place)
}

/// Runs `contract` in a folder, without a platform.
async fn alone(place: &Path, arguments: &[&std::ffi::OsStr]) -> Result<Ended> {
    let nobody = tests_landscape::tools::Nobody::there()?;
    let mut command = ninefold("contract", &[])?;
    command.args(arguments).args(["--endpoint", &nobody.url]).current_dir(place);
    let ended = ended(command).await?;
    ensure!(!ended.stderr.contains("panicked"), "{ended:?}");
    Ok(ended)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_checked_is_told_by_its_name_and_what_to_do() -> Result<()> {
    use std::os::unix::ffi::OsStrExt as _;
    let place = odd_contracts().await?;
    let silent = tests_landscape::tools::Nobody::there()?;
    let file_url = format!("{}/then.binpb", silent.url);
    for (path, against, code, told) in [
        (&b"nowhere"[..], "good", 2, "cannot read nowhere: No such file"),
        (b"none", "good", 2, "none: no .proto file below this folder"),
        (b"cut", "good", 1, "cut.proto: expected"),
        (b"latin", "good", 1, "latin.proto"),
        (b"odd", "good", 2, "its name is not UTF-8"),
        (b"imports", "good", 1, "i.proto:2:1: import 'not/there.proto' not found"),
        (b"edition", "good", 2, "buf build -o now.binpb"),
        (b"good/shop/v1/a.proto", "good", 2, "name the folder"),
        (b"cut.binpb", "good", 1, "cut.binpb is no descriptor set that can be used: the set"),
        (b"good", "empty.binpb", 1, "empty.binpb is no descriptor set that can be used: the set has no file"),
        (b"/dev/zero", "good", 2, "cannot read /dev/zero: it has more than"),
        (b"good", "v9.9", 2, "\"v9.9\" is no file, no folder, no URL, and no git ref"),
        (b"good", "--", 2, "--against"),
        (b"good", &silent.url, 3, "no platform answers at"),
        (b"good", &file_url, 1, "cannot get the descriptor set at"),
    ] {
        let arguments = ["check".as_ref(), std::ffi::OsStr::from_bytes(path), "--against".as_ref(), against.as_ref()];
        let ended = alone(place.path(), &arguments).await?;
        let path = String::from_utf8_lossy(path);
        ensure!(ended.code == code && ended.stderr.contains(told), "{path} against {against}, not {told:?}: {ended:?}");
    }
    // Names that are not UTF-8 are no reason to fail.
    let arguments = ["check".as_ref(), std::ffi::OsStr::from_bytes(b"bad\xff"), "--against".as_ref(), "bad".as_ref()];
    let ended = alone(place.path(), &arguments).await?;
    ensure!(ended.code == 2 && ended.stderr.contains("no git ref"), "{ended:?}");
    let folder = std::ffi::OsStr::from_bytes(b"bad\xff");
    let ended = alone(place.path(), &["check".as_ref(), folder, "--against".as_ref(), "HEAD".as_ref()]).await?;
    ensure!(ended.code == 0, "{ended:?}");
    Ok(())
}

/// The URL of a server that answers every request with some bytes.
fn served(bytes: Vec<u8>) -> Result<String> {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", bytes.len());
            // Whoever asks in vain is told so by the test.
            drop(stream.read(&mut [0; 4096]).and_then(|_| stream.write_all(&[head.as_bytes(), &bytes].concat())));
        }
    });
    Ok(format!("http://{address}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_verdict_is_the_same_of_a_checkout_a_set_a_ref_and_a_url() -> Result<()> {
    let place = odd_contracts().await?;
    let folder = place.path();
    let mut build = Command::new(tools::python("buf")?);
    build.args(["build", "good", "-o", "then.binpb"]).current_dir(folder);
    python::done(build).await?;
    let mut git = Command::new("git");
    git.arg("-C").arg(folder).args(["add", "then.binpb"]);
    python::done(git).await?;
    let mut git = Command::new("git");
    git.arg("-C").arg(folder).args(["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "b"]);
    python::done(git).await?;
    std::fs::write(
        folder.join("good/shop/v1/a.proto"),
        "syntax = \"proto3\";\npackage shop.v1;\nmessage A {\n  string a = 1;\n}\n",
    )?;
    let mut build = Command::new(tools::python("buf")?);
    build.args(["build", "good", "-o", "now.binpb"]).current_dir(folder);
    python::done(build).await?;
    let url = format!("{}/then.binpb", served(std::fs::read(folder.join("then.binpb"))?)?);
    let mut verdicts = Vec::new();
    for (path, against) in
        [("good", "then.binpb"), ("good", "HEAD"), ("good", url.as_str()), ("now.binpb", "then.binpb")]
    {
        let ended = alone(folder, &["check", path, "--against", against, "-o", "json"].map(AsRef::as_ref)).await?;
        ensure!(ended.code == 7, "{path} against {against}: {ended:?}");
        verdicts.push(serde_json::from_str::<Value>(&ended.stdout)?);
    }
    std::fs::copy(folder.join("now.binpb"), folder.join("then.binpb"))?;
    let ended = alone(folder, &["check", "then.binpb", "--against", "HEAD", "-o", "json"].map(AsRef::as_ref)).await?;
    verdicts.push(serde_json::from_str(&ended.stdout)?);
    ensure!(verdicts.iter().all(|one| *one == verdicts[0]), "{verdicts:#?}");
    ensure!(verdicts[0]["findings"][0]["file"] == "shop/v1/a.proto", "{verdicts:#?}");
    // In code review a finding stands beside the line, wherever the folder lies.
    let ended = alone(folder, &["check", "good", "--against", "HEAD", "-o", "sarif"].map(AsRef::as_ref)).await?;
    let sarif: Value = serde_json::from_str(&ended.stdout)?;
    let place = &sarif["runs"][0]["results"][0]["locations"][0]["physicalLocation"];
    ensure!(
        place["artifactLocation"]["uri"] == "good/shop/v1/a.proto" && place["region"]["startLine"] == 4,
        "{sarif:#}"
    );
    Ok(())
}
