//! Clients of a platform that is reached by TLS and asks who they are.

use anyhow::{Context as _, Result, ensure};
use ninefold::{Credentials, tls::ClientFiles};
use tests_landscape::Landscape;
use tests_landscape::authority::Authority;

use crate::backend::Backend;
use crate::client::{Client, Library};
use crate::envoy::{Envoy, answered_by};

#[tokio::test(flavor = "multi_thread")]
async fn an_envoy_and_grpc_libraries_follow_by_tls_and_show_who_they_are() -> Result<()> {
    let authority = Authority::new()?;
    authority.sign("node", "localhost", None)?;
    authority.sign("ops", "ops.test", None)?;
    let path = |name: &str| authority.path(name);
    let config = path("ninefold.toml");
    std::fs::write(&config, "[[access.identities]]\nname = \"ops.test\"\nroles = [\"admin\"]\nnamespaces = [\"*\"]\n")?;
    let (ca, cert, key) = (path("ca.pem"), path("ops.crt"), path("ops.key"));
    let (node_cert, node_key) = (path("node.crt"), path("node.key"));
    let tls = ["--tls-cert", &node_cert, "--tls-key", &node_key, "--client-ca", &ca, "--config", &config];
    let house = Landscape::up(&[&["--auth", "mtls", "--listen", "0.0.0.0:0"][..], &tls].concat()).await?;
    let shown = ["--ca", &ca, "--cert", &cert, "--key", &key];

    let files = ClientFiles { ca: Some(ca.clone().into()), identity: Some((cert.clone().into(), key.clone().into())) };
    let credentials = Credentials::of_files(None, files);
    let platform = ninefold::connect::platform_as(&[house.endpoint().parse()?], &credentials);
    let pump = Backend::start_through(platform, "pump", "one", "").await?;

    let envoy = Envoy::start(&house, &shown).await?;
    let mut through = Client::plain(&envoy.listen, "pump")?;
    answered_by(&envoy, &mut through, &["one"]).await?;
    ensure!(envoy.refused().await?.is_empty(), "{:?}", envoy.refused().await?);

    let mut client = Client::xds_with(Library::Python, &house, "pump", &shown).await?;
    let tally = client.calls(20).await?;
    ensure!(tally.good() == 20, "{tally:?}\n{}", client.said());

    // Whoever shows nothing is told nothing.
    let mut stranger = Client::xds_with(Library::Python, &house, "pump", &["--ca", &ca]).await?;
    let tally = stranger.calls(1).await.context("a call ends")?;
    ensure!(tally.good() == 0, "{tally:?}");
    pump.die().await;
    Ok(())
}
