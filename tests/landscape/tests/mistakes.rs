//! What goes wrong at the start is told in words, with an exit code of its own.

use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Result, ensure};
use tests_landscape::tools::Nobody;
use tests_landscape::{Ended, Landscape, ended, ninefold};

async fn up(arguments: &[&str]) -> Result<Ended> {
    let data = tempfile::tempdir()?;
    let mut command = ninefold("up", arguments)?;
    for flag in ["--edge-listen", "--listen", "--otlp-grpc-listen", "--otlp-http-listen"] {
        if !arguments.contains(&flag) {
            command.args([flag, "127.0.0.1:0"]);
        }
    }
    if !arguments.contains(&"--data") {
        command.arg("--data").arg(data.path());
    }
    let ended = ended(command).await?;
    ensure!(!ended.stderr.contains("panicked") && !ended.stderr.contains("RUST_BACKTRACE"), "{}", ended.stderr);
    Ok(ended)
}

#[tokio::test]
async fn a_busy_port_is_named_with_the_flag_that_changes_it() -> Result<()> {
    let busy = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = busy.local_addr()?.to_string();
    for flag in ["--edge-listen", "--listen", "--otlp-grpc-listen", "--otlp-http-listen"] {
        let ended = up(&[flag, &address]).await?;
        ensure!(ended.code == 10, "{ended:?}");
        ensure!(ended.stderr.contains(&address) && ended.stderr.contains(flag), "{ended:?}");
    }
    Ok(())
}

#[tokio::test]
async fn all_busy_ports_are_told_at_once() -> Result<()> {
    let busy = [std::net::TcpListener::bind("127.0.0.1:0")?, std::net::TcpListener::bind("127.0.0.1:0")?];
    let addresses = [busy[0].local_addr()?.to_string(), busy[1].local_addr()?.to_string()];
    let ended = up(&["--edge-listen", &addresses[0], "--listen", &addresses[1]]).await?;
    ensure!(ended.code == 10 && addresses.iter().all(|address| ended.stderr.contains(address)), "{ended:?}");
    Ok(())
}

#[tokio::test]
async fn a_variable_that_is_wrong_is_named_and_an_empty_one_is_none() -> Result<()> {
    let mut wrong = ninefold("up", &[])?;
    wrong.env("NINEFOLD_EDGE_LISTEN", "nowhere");
    let ended_wrong = ended(wrong).await?;
    ensure!(ended_wrong.code == 2 && ended_wrong.stderr.contains("NINEFOLD_EDGE_LISTEN"), "{ended_wrong:?}");
    let nobody = Nobody::there()?;
    let mut empty = ninefold("ps", &["--endpoint", &nobody.url])?;
    empty.env("NINEFOLD_ENDPOINT", "").env("NINEFOLD_EDGE_LISTEN", "");
    let ended_empty = ended(empty).await?;
    ensure!(ended_empty.code == 3, "{ended_empty:?}");
    Ok(())
}

#[tokio::test]
async fn a_data_folder_that_cannot_be_written_is_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("file");
    std::fs::write(&file, "")?;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o400))?;
    let below = file.join("data").display().to_string();
    let ended = up(&["--data", &below]).await?;
    ensure!(ended.code == 11 && ended.stderr.contains(&below), "{ended:?}");
    Ok(())
}

#[tokio::test]
async fn an_etcd_that_does_not_answer_is_named() -> Result<()> {
    let nobody = Nobody::there()?;
    let ended = up(&["--store", "etcd", "--etcd", &nobody.url]).await?;
    ensure!(ended.code == 12 && ended.stderr.contains(&nobody.url), "{ended:?}");
    Ok(())
}

#[tokio::test]
async fn a_bad_flag_is_wrong_usage() -> Result<()> {
    ensure!(up(&["--colour", "blue"]).await?.code == 2);
    ensure!(up(&["--listen", "nowhere"]).await?.code == 2);
    Ok(())
}

#[tokio::test]
async fn all_mistakes_of_a_config_file_are_told_at_once() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("ninefold.toml");
    std::fs::write(
        &path,
        "colour = 1\n[listen]\nedge = \"nowhere\"\n[registry]\nspeed = 3\n[gateway]\nheaders_max = 1\n",
    )?;
    let ended = up(&["--config", &path.display().to_string()]).await?;
    ensure!(ended.code == 13, "{ended:?}");
    for place in ["colour", "listen.edge", "registry.speed", "gateway.headers_max"] {
        ensure!(ended.stderr.contains(place), "{place} is not in {ended:?}");
    }
    let missing = up(&["--config", "/nowhere/ninefold.toml"]).await?;
    ensure!(missing.code == 13 && missing.stderr.contains("/nowhere/ninefold.toml"), "{missing:?}");
    Ok(())
}

#[tokio::test]
async fn a_platform_that_is_not_there_is_told_in_a_word() -> Result<()> {
    let nobody = Nobody::there()?;
    for verb in [
        &["ps"][..],
        &["logs"],
        &["trace"],
        &["why", "review"],
        &["config", "get", "review"],
        &["call", "list"],
        &["doctor"],
    ] {
        let (first, rest) = verb.split_first().expect("a verb");
        let mut command = ninefold(first, rest)?;
        command.args(["--endpoint", &nobody.url]);
        let ended = ended(command).await?;
        ensure!(ended.code == 3 && ended.stderr.contains("no platform answers"), "{verb:?}: {ended:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_node_on_the_same_data_is_refused_and_a_restart_is_not() -> Result<()> {
    let house = Landscape::up(&[]).await?;
    house.ask(&["config", "set", "review", "a=1"]).await?;
    let data = house.data();
    let second = up(&["--data", &data]).await?;
    ensure!(second.code == 12 && second.stderr.contains("use"), "{second:?}");
    let unknown = house.run(&["describe", "nobody"]).await?;
    ensure!(unknown.code == 4, "{unknown:?}");
    let refused = house.run(&["call", "ninefold.registry.v1.RegistryService/GetInstance", "-d", "{}"]).await?;
    ensure!(refused.code == 64 + 5 || refused.code == 64 + 3, "{refused:?}");
    let well = house.run(&["doctor"]).await?;
    ensure!(well.code == 0, "{well:?}");
    let house = house.restart_after_kill().await?;
    let document = house.ask(&["config", "get", "review"]).await?;
    ensure!(document["content"] == r#"{"a":1}"#, "what was acknowledged survives kill -9: {document}");
    house.stop().await
}
