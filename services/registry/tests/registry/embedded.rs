//! On the store that people use, in real time.

use std::time::{Duration, Instant};

use ninefold::lifecycle::Scope;
use ninefold_registry::Config;
use ninefold_store as store;

use crate::house::House;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_join_leave_and_get_lost_on_the_embedded_store() {
    let folder = tempfile::tempdir().unwrap();
    let config = store::Config { path: folder.path().to_owned(), ..store::Config::default() };
    let scope = Scope::root("store");
    let house = House::on("node-1", store::open(&config, &scope).await.unwrap(), Config::default()).await;
    let mut watch = house.watch(&[]).await;
    let (first, second) = (house.join("pump", "p-1").await, house.join("pump", "p-2").await);
    watch.until(&["p-1 SERVING", "p-2 SERVING"]).await;
    let lost = Instant::now();
    drop(first);
    watch.until(&["p-1 SUSPECT", "p-2 SERVING"]).await;
    watch.until(&["p-2 SERVING"]).await;
    assert!(lost.elapsed() < Duration::from_secs(5), "took {:?}", lost.elapsed());
    second.leave("done").await;
    watch.until(&[]).await;
    assert_eq!(house.states("").await, [] as [&str; 0]);
    house.stop().await;
    scope.close(Duration::from_secs(5)).await;
}
