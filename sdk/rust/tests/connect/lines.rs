//! Connections: how many there are, and what becomes of calls when one of them ends.

use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use ninefold::connect::policy::{Limits, Timeouts};
use ninefold::connect::{Dialer, Policy};
use ninefold::fault;
use ninefold::lifecycle::Scope;
use ninefold::proto::ninefold::registry::v1::InstanceState;
use ninefold::serve::{LiveAdmission, ServeConfig};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::fake::{Door, Instance, Manner};
use crate::held::Held;
use crate::{House, get, put, wait_for, waiting, warm};

/// Pipes in memory, whose far ends somebody carries to the instances.
#[derive(Clone, Default)]
struct Carrier(Arc<Carried>);

#[derive(Default)]
struct Carried {
    made: AtomicU32,
    /// The port whose pipes carry nothing any more, and to which none can be made.
    cut_off: Mutex<Option<u16>>,
    changed: Notify,
}

impl Carrier {
    fn dialer(&self) -> Dialer {
        let (carrier, scope) = (self.clone(), Scope::root("carrier"));
        Dialer::default().connecting(move |address| {
            let (carrier, scope) = (carrier.clone(), scope.clone());
            async move {
                if carrier.is_cut_off(address.port) {
                    std::future::pending::<()>().await;
                }
                let (near, mut far) = tokio::io::duplex(64 * 1024);
                let mut stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
                carrier.0.made.fetch_add(1, Ordering::SeqCst);
                scope.run("test.carry", |_| async move {
                    let is_cut = carrier.cut(address.port);
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut far, &mut stream) => {}
                        () = is_cut => {
                            // Neither end is told.
                            std::future::pending::<()>().await;
                        }
                    }
                });
                Ok(near)
            }
        })
    }

    fn made(&self) -> u32 {
        self.0.made.load(Ordering::SeqCst)
    }

    fn is_cut_off(&self, port: u16) -> bool {
        *self.0.cut_off.lock().unwrap() == Some(port)
    }

    fn cut_off(&self, instance: &Instance) {
        *self.0.cut_off.lock().unwrap() = Some(instance.address.port());
        self.0.changed.notify_waiters();
    }

    async fn cut(&self, port: u16) {
        loop {
            let changed = self.0.changed.notified();
            if self.is_cut_off(port) {
                return;
            }
            changed.await;
        }
    }
}

/// More calls than make another connection worth its while, on each of them.
const BATCH: usize = 520;

fn patient() -> Policy {
    waiting(Timeouts { call: Duration::from_secs(60), ..Timeouts::default() })
}

#[tokio::test]
async fn many_calls_at_once_have_several_connections_and_never_more_than_sixteen() {
    let carrier = Carrier::default();
    let house = House::dialing(carrier.dialer());
    let many = Limits { in_flight_max: Some(20_000), ..Limits::default() };
    let client = house.client_with(Policy { limits: many, ..patient() });
    let config = ServeConfig { admission: LiveAdmission::disabled(), ..ServeConfig::default() };
    let only = Instance::start_with("only", config, &house.scope).await;
    house.registry.put(only.words());
    warm(&client, 1).await;
    assert_eq!(carrier.made(), 1);
    only.behave(Manner::Hang);
    let mut under_way = FuturesUnordered::new();
    // A batch crowds a connection, and the next one has another.
    for batch in 1..=18 {
        under_way.extend((0..BATCH).map(|_| get(&client)));
        let arrived = wait_for(|| only.in_work() == BATCH * batch && carrier.made() > 1);
        tokio::select! {
            () = arrived => {}
            Some(answer) = under_way.next() => panic!("nobody answers: {answer:?}"),
        }
        let made = carrier.made();
        assert!((2..=16).contains(&made), "{made} connections for {batch} batches");
    }
    wait_for(|| carrier.made() == 16).await;
}

#[tokio::test]
async fn a_connection_that_carries_nothing_ends_and_its_calls_with_it() {
    let held = Held::hold();
    let carrier = Carrier::default();
    let house = House::dialing(carrier.dialer());
    let client = house.client_with(patient());
    let (first, second) = (house.instance("first").await, house.instance("second").await);
    warm(&client, 2).await;
    for instance in [&first, &second] {
        instance.behave_for("PutDocument", Manner::Hang);
    }
    let since = Instant::now();
    let mut asking = pin!(put(&client));
    let arrived = held.until("the call arrives", async || first.in_work() + second.in_work() == 1);
    tokio::select! {
        answer = &mut asking => panic!("nobody answers: {answer:?}"),
        () = arrived => {}
    }
    let (ill, well) = if first.in_work() == 1 { (&first, &second) } else { (&second, &first) };
    carrier.cut_off(ill);
    let (answer, ()) = tokio::join!(asking, held.pass(Duration::from_secs(20)));
    let status = answer.unwrap_err();
    assert_eq!(fault::reason(&status).as_deref(), Some("CONNECTION_LOST"), "{status:?}");
    assert!(since.elapsed() < Duration::from_secs(60), "not by its deadline");
    let (calls, since) = (ill.calls(), Instant::now());
    for _ in 0..50 {
        assert_eq!(*get(&client).await.unwrap().instance_id, *well.id);
    }
    assert_eq!((ill.calls(), since.elapsed()), (calls, Duration::ZERO), "nobody waits");
}

#[tokio::test]
async fn a_suspect_behind_a_connection_that_carries_nothing_is_found_out_before_the_connection() {
    let held = Held::hold();
    let carrier = Carrier::default();
    let house = House::dialing(carrier.dialer());
    let client = house.client_with(patient());
    let mut events = house.discovery.events();
    let only = house.instance("only").await;
    warm(&client, 1).await;
    carrier.cut_off(&only);
    house.registry.put(only.words_in(InstanceState::Suspect));
    let since = Instant::now();
    held.until("its breaker opens", async || events.try_recv().is_ok()).await;
    // A quarter of a second and one more at the most; the connection itself would take five to eight.
    assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
    let (calls, since) = (only.calls(), Instant::now());
    let status = get(&client).await.unwrap_err();
    assert_eq!(fault::reason(&status).as_deref(), Some("BREAKER_OPEN"), "{status:?}");
    assert_eq!((only.calls(), since.elapsed()), (calls, Duration::ZERO), "nobody waits");
}

#[tokio::test]
async fn one_connection_that_is_sent_away_costs_no_call() {
    let held = Held::hold();
    let door = Door::default();
    let house = House::dialing(door.dialer());
    let client = house.client_with(patient());
    let mut events = house.discovery.events();
    let only = Instance::start("only", &house.scope).await;
    door.answer_for(&only);
    house.registry.put(only.words());
    warm(&client, 1).await;
    assert_eq!(door.connections(), 1);

    only.behave_for("PutDocument", Manner::Answer(Duration::from_secs(20)));
    let mut asking = pin!(put(&client));
    let meanwhile = async {
        held.until("the call arrives", async || only.in_work() == 1).await;
        // One that ends sooner than a second after it was made did not work out.
        held.pass(Duration::from_secs(2)).await;
        door.send_away(0);
        for _ in 0..20 {
            get(&client).await.unwrap();
        }
        assert_eq!((door.connections(), only.in_work()), (2, 1), "the one in flight is not over");
    };
    tokio::select! {
        answer = &mut asking => panic!("it is not answered yet: {answer:?}"),
        () = meanwhile => {}
    }
    let (answer, ()) = tokio::join!(asking, held.pass(Duration::from_secs(30)));
    answer.expect("it ends well");
    assert!(events.try_recv().is_err(), "the breaker took no note");
}
