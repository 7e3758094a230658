//! Files of telemetry in a real store that speaks S3, told to the real binary.

use anyhow::{Result, ensure};
use ninefold_proto::ninefold::monitor::v1::{Bucket, GetRetentionRequest};
use rustix::process::Signal;
use serde_json::Value;
use tests_landscape::bucket::{Stand, Weed};
use tests_landscape::{Landscape, signal, until};

use super::sender::Sender;
use super::{WITHIN, each_once, lines, monitor};

async fn told(landscape: &Landscape) -> Result<Bucket> {
    let kept = monitor(landscape).await?.get_retention(GetRetentionRequest {}).await?.into_inner();
    Ok(kept.bucket.unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_telemetry_go_to_a_bucket_and_outlive_the_disk_of_their_copies() -> Result<()> {
    let weed = Weed::start().await?;
    let door = weed.door().await?;
    let settings = format!(
        "[monitor]\nfile_every = \"20ms\"\ntidy_every = \"20ms\"\nlogs_bytes_max = 1\n[monitor.bucket]\n\
         url = \"s3://landscape\"\nendpoint = {:?}\ncredentials = {:?}\ncache_bytes_max = 0\nwait = \"5s\"\n\
         [alert]\nevery = \"500ms\"\nshipped_window = \"20s\"\nshipped_wait_max = \"1s\"\n",
        door.url, weed.keys
    );
    let mut landscape = Landscape::up_with(&settings).await?;
    let mut sender = Sender::connect(&landscape.address("otlpGrpc")).await?;
    let mut said = Vec::new();
    for number in 0..40 {
        let body = format!("line {number}");
        sender.lines("pump", std::slice::from_ref(&body)).await?;
        said.push(body);
    }
    signal(landscape.pid(), Signal::KILL)?;
    landscape = landscape.restart_after_kill().await?;
    until("the bucket has all, and the disk no copy", WITHIN, || async {
        let told = told(&landscape).await?;
        Ok(told.kept_files > 0 && told.waiting_files == 0 && told.copied_bytes == 0)
    })
    .await?;
    each_once(&said, &lines(&landscape, "service:pump").await?, "from the bucket")?;
    ensure!(told(&landscape).await?.read_bytes > 0, "it was read from there");
    let doctor = landscape.run(&["doctor"]).await?;
    ensure!(doctor.stdout.contains("s3://landscape has"), "{doctor:?}");

    door.stand(Stand::Shut);
    let mut sender = Sender::connect(&landscape.address("otlpGrpc")).await?;
    sender.lines("pump", &["while it is away".to_owned()]).await?;
    until("the doctor says that it is away", WITHIN, || async {
        let doctor = landscape.run(&["doctor"]).await?;
        Ok(doctor.code == 5 && doctor.stdout.contains("s3://landscape takes no files of telemetry"))
    })
    .await?;
    until("people are told", WITHIN, || async {
        let alerts = landscape.ask(&["alerts"]).await?;
        let fires = |alert: &Value| alert["rule"] == "bucket_away" && alert["state"] == "ALERT_STATE_FIRING";
        Ok(alerts.as_array().is_some_and(|alerts| alerts.iter().any(fires)))
    })
    .await?;
    door.stand(Stand::Open);
    until("it takes files again", WITHIN, || async {
        let told = told(&landscape).await?;
        Ok(told.waiting_files == 0 && told.problem.is_empty())
    })
    .await?;
    said.push("while it is away".to_owned());
    each_once(&said, &lines(&landscape, "service:pump").await?, "once it is back")?;
    landscape.stop().await
}
