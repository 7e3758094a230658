//! A real Envoy that follows the landscape, in both forms of xDS.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ninefold::Credentials;
use tests_landscape::{Landscape, ninefold, tools, until};
use tokio::process::{Child, Command};

use crate::backend::Backend;
use crate::client::Client;

const SOON: Duration = Duration::from_secs(30);

/// An Envoy.
pub(crate) struct Envoy {
    pub(crate) listen: String,
    admin: String,
    folder: tempfile::TempDir,
    _child: Child,
}

impl Envoy {
    pub(crate) async fn start(house: &Landscape, form: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (listen, admin) = (tools::free_address()?, tools::free_address()?);
        let mut command = ninefold("xds", &["bootstrap", "--node", "door", "--envoy", "--listen", &listen])?;
        command.args(["--admin", &admin, "--endpoint", &house.endpoint()]).args(form);
        let bootstrap = tests_landscape::ended(command).await?;
        ensure!(bootstrap.code == 0, "{bootstrap:?}");
        let path = folder.path().join("envoy.json");
        std::fs::write(&path, bootstrap.stdout)?;
        let said = std::fs::File::create(folder.path().join("said"))?;
        let child = Command::new(tools::python("envoy")?)
            .arg("-c")
            .arg(path)
            .args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warn"])
            .stdout(Stdio::null())
            .stderr(said)
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self { listen, admin, folder, _child: child })
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("said")).unwrap_or_default()
    }

    /// A number that Envoy keeps.
    pub(crate) async fn stat(&self, name: &str) -> Result<u64> {
        let path = format!("/stats?filter=^{}$", name.replace('.', "\\."));
        let answer = tests_landscape::http::request(&self.admin, "GET", &path, &[], None).await?;
        let text = answer.text();
        let value = text.split_once(": ").with_context(|| format!("{name} is not in {text:?}"))?.1;
        Ok(value.trim().parse()?)
    }

    /// Whatever Envoy refused of us.
    pub(crate) async fn refused(&self) -> Result<Vec<String>> {
        let answer =
            tests_landscape::http::request(&self.admin, "GET", "/stats?filter=update_rejected", &[], None).await?;
        Ok(answer.text().lines().filter(|line| !line.trim_end().ends_with(": 0")).map(str::to_owned).collect())
    }
}

/// Waits until calls through an Envoy are answered by these, and nobody else.
pub(crate) async fn answered_by(envoy: &Envoy, client: &mut Client, names: &[&str]) -> Result<()> {
    let end = tokio::time::Instant::now() + SOON;
    loop {
        let tally = client.calls(20).await?;
        let seen: Vec<&str> = tally.by.keys().map(String::as_str).collect();
        if seen == names && tally.bad() == 0 {
            return Ok(());
        }
        ensure!(tokio::time::Instant::now() < end, "not answered by {names:?}: {tally:?}\n{}", envoy.said());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_envoy_follows_the_landscape_in_both_forms_and_refuses_nothing() -> Result<()> {
    for form in [&[][..], &["--world"]] {
        let mut house = Landscape::up(&[]).await?;
        let one = Backend::start(&house.endpoint(), "pump", "one", "east").await?;
        let two = Backend::start(&house.endpoint(), "pump", "two", "west").await?;
        let envoy = Envoy::start(&house, form).await?;
        let mut client = Client::plain(&envoy.listen, "pump")?;
        answered_by(&envoy, &mut client, &["one", "two"]).await?;

        let valve = Backend::start(&house.endpoint(), "valve", "valve-1", "").await?;
        let mut other = Client::plain(&envoy.listen, "valve")?;
        answered_by(&envoy, &mut other, &["valve-1"]).await.context("a new service has a route")?;

        client.begin().await?;
        two.leave().await;
        house = house.restart_where_it_was().await?;
        until("the instances are back", SOON, || async { Ok(house.serving("pump").await? == 1) }).await?;
        until("the Envoy is back", SOON, || async {
            let view = house.ask(&["xds"]).await?;
            Ok(view["streams"][0]["subscriptions"].as_array().is_some_and(|all| all.len() == 4))
        })
        .await?;
        let three = Backend::start(&house.endpoint(), "pump", "three", "east").await?;
        answered_by_while_calling(&three).await?;
        let tally = client.end().await?;
        ensure!(tally.bad() == 0, "neither leaving nor a killed platform costs a call: {tally:?}\n{}", envoy.said());
        ensure!(envoy.refused().await?.is_empty(), "{:?}\n{}", envoy.refused().await?, envoy.said());
        ensure!(envoy.stat("cluster_manager.cds.update_success").await? > 0);
        let view = house.ask(&["xds"]).await?;
        ensure!(view["streams"][0]["userAgent"] == "envoy" && view["refusals"] == serde_json::json!([]), "{view}");
        let mode = if form.is_empty() { "XDS_MODE_DELTA" } else { "XDS_MODE_WORLD" };
        ensure!(view["streams"][0]["mode"] == mode, "{view}");
        for backend in [one, three, valve] {
            backend.die().await;
        }
        house.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_envoy_shows_the_token_of_its_bootstrap() -> Result<()> {
    let house = Landscape::up(&["--auth", "token"]).await?;
    let credentials = Credentials::default().with_token_in(house.admin_token().into());
    let platform = ninefold::connect::platform_as(&[house.endpoint().parse()?], &credentials);
    let pump = Backend::start_through(platform, "pump", "one", "").await?;
    let stranger = Envoy::start(&house, &[]).await?;
    let refused =
        || async { Ok(stranger.stat("control_plane.connected_state").await? == 0 && !stranger.said().is_empty()) };
    until("an Envoy without a token is refused", SOON, refused).await?;
    let folder = tempfile::tempdir()?;
    let token = folder.path().join("token").display().to_string();
    house.ask(&["token", "create", "door", "--role", "read", "--write", &token]).await?;
    let envoy = Envoy::start(&house, &["--with-token", &token]).await?;
    answered_by(&envoy, &mut Client::plain(&envoy.listen, "pump")?, &["one"]).await?;
    ensure!(envoy.refused().await?.is_empty(), "{:?}\n{}", envoy.refused().await?, envoy.said());
    pump.die().await;
    house.stop().await
}

async fn answered_by_while_calling(backend: &Backend) -> Result<()> {
    until("the new instance is called", SOON, || async { Ok(backend.calls() > 0) }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_envoy_leaves_out_what_fails_and_repeats_what_nobody_began() -> Result<()> {
    let house = Landscape::up(&[]).await?;
    let one = Backend::start(&house.endpoint(), "pump", "one", "").await?;
    let two = Backend::start(&house.endpoint(), "pump", "two", "").await?;
    let envoy = Envoy::start(&house, &[]).await?;
    let mut client = Client::plain(&envoy.listen, "pump")?;
    answered_by(&envoy, &mut client, &["one", "two"]).await?;
    // Five failures in a row, and the instance is out.
    two.fail(true);
    until("the instance that fails is out", SOON, || async {
        client_calls(&mut Client::plain(&envoy.listen, "pump")?).await?;
        Ok(envoy.stat("cluster.pump.outlier_detection.ejections_active").await? == 1)
    })
    .await?;
    two.fail(false);
    answered_by(&envoy, &mut client, &["one", "two"]).await.context("it comes back")?;
    // One that dies without a word: connections are refused, and the calls go to the other.
    client.begin().await?;
    one.die().await;
    until("the dead one is gone", SOON, || async { Ok(house.instances("pump").await?.len() == 1) }).await?;
    let tally = client.end().await?;
    ensure!(tally.bad() <= 1, "only a call that was under way may fail: {tally:?}\n{}", envoy.said());
    answered_by(&envoy, &mut client, &["two"]).await?;
    ensure!(envoy.refused().await?.is_empty(), "{:?}", envoy.refused().await?);
    house.stop().await
}

async fn client_calls(client: &mut Client) -> Result<()> {
    client.calls(20).await.map(drop)
}
