//! Whatever happens, and wherever a watcher looks: what it is told adds up to what is there.

use std::collections::BTreeMap;
use std::time::SystemTime;

use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::model::{InstanceId, Protocol, State};
use crate::wire;
use ninefold_proto::ninefold::registry::v1 as proto;
use proto::hold_watch_response::Message as Told;

/// What happens at one revision.
#[derive(Clone, Debug)]
enum Happening {
    Written(u8, u8),
    Erased(u8, u8),
    /// The whole store is read again.
    Read,
}

fn key(service: u8, id: u8) -> InstanceKey {
    InstanceKey {
        service: ServiceKey::parse("", &format!("s-{service}")).unwrap(),
        id: InstanceId::parse(&format!("i-{id}")).unwrap(),
    }
}

fn instance(key: &InstanceKey, revision: i64) -> Instance {
    let proto = proto::Instance {
        service: key.service.name.to_string(),
        instance_id: key.id.to_string(),
        addresses: vec![proto::Address { host: "127.0.0.1".to_owned(), port: 1 }],
        protocol: proto::Protocol::Grpc.into(),
        ..proto::Instance::default()
    };
    let read = wire::parse_instance(proto, SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(read.protocol, Protocol::Grpc);
    Instance { state: State::Serving, revision: Revision(revision), written: Revision(revision), ..read }
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        6 => (0..3u8, 0..4u8).prop_map(|(service, id)| Happening::Written(service, id)),
        3 => (0..3u8, 0..4u8).prop_map(|(service, id)| Happening::Erased(service, id)),
        1 => Just(Happening::Read),
    ]
}

/// The store, and what is seen of it.
struct World {
    seen: Seen,
    store: BTreeMap<(u8, u8), i64>,
    revision: i64,
}

impl World {
    fn new() -> Self {
        Self { seen: Seen::new(Revision(0), Vec::new()), store: BTreeMap::new(), revision: 0 }
    }

    fn happens(&mut self, happening: &Happening) {
        self.revision += 1;
        let revision = Revision(self.revision);
        match *happening {
            Happening::Written(service, id) => {
                self.store.insert((service, id), self.revision);
                let written = News::Written(Arc::new(instance(&key(service, id), self.revision)));
                self.seen.apply(revision, vec![written]);
            }
            Happening::Erased(service, id) => {
                self.store.remove(&(service, id));
                // Whose lease ran out stays as suspect until it is given up.
                let gone = key(service, id);
                self.seen.apply(revision, vec![News::Erased(gone.clone(), revision), News::GivenUp(gone)]);
            }
            Happening::Read => {
                let all = self
                    .store
                    .iter()
                    .map(|((service, id), at)| News::Written(Arc::new(instance(&key(*service, *id), *at))));
                self.seen.replace(revision, all.collect());
            }
        }
    }

    fn there(&self, interest: &Interest) -> BTreeMap<(String, String), i64> {
        let all = self.store.iter().map(|((service, id), at)| (key(*service, *id), *at));
        let wanted = all.filter(|(key, _)| interest.covers(&key.service));
        wanted.map(|(key, at)| ((key.service.name.to_string(), key.id.to_string()), at)).collect()
    }
}

/// A watcher of bytes: revisions by key, and what it knows.
#[derive(Clone, Default)]
struct Reader {
    known: BTreeMap<(String, String), i64>,
    knows: Option<Knows>,
    revision: i64,
}

impl Reader {
    /// Looks; tells whether what it knows then is what the registry says. A message may get lost on its way.
    fn look(&mut self, seen: &Seen, interest: &Interest, is_lost: bool) -> bool {
        let look = seen.look(self.knows, interest);
        self.knows = Some(look.knows);
        self.revision = look.revision.0;
        let bytes = {
            let frame = wire::to_frame(look, "", true);
            let mut bytes = Vec::new();
            frame.write(true, &mut bytes);
            bytes
        };
        let told = proto::HoldWatchResponse::decode(bytes.as_slice()).unwrap();
        let key = |one: &proto::Instance| ((one.service.clone(), one.instance_id.clone()), one.revision);
        match told.message.unwrap() {
            _ if is_lost => {}
            Told::Snapshot(snapshot) => self.known = snapshot.instances.iter().map(key).collect(),
            Told::Delta(delta) => {
                for gone in delta.removes {
                    self.known.remove(&(gone.service, gone.instance_id));
                }
                self.known.extend(delta.upserts.iter().map(key));
            }
            Told::Heartbeat(_) => {}
        }
        let sum = self.known.iter().fold(0, |sum, ((service, id), at)| sum ^ digest("", service, id, *at));
        told.digest == Some(sum)
    }
}

fn interests() -> [Interest; 2] {
    let named = ["s-0", "s-2"].map(|name| ServiceKey::parse("", name).unwrap());
    [Interest::All, Interest::Named(named.into())]
}

proptest! {
    #[test]
    fn replaying_what_is_told_is_what_is_there(story in prop::collection::vec((happening(), any::<bool>()), 1..120)) {
        for interest in interests() {
            let mut world = World::new();
            let mut reader = Reader::default();
            for (happening, looks) in &story {
                world.happens(happening);
                if *looks {
                    prop_assert!(reader.look(&world.seen, &interest, false));
                    prop_assert_eq!(&reader.known, &world.there(&interest));
                }
            }
            prop_assert!(reader.look(&world.seen, &interest, false));
            prop_assert_eq!(&reader.known, &world.there(&interest));
        }
    }

    #[test]
    fn one_who_comes_back_goes_on_from_the_revision_it_names(
        before in prop::collection::vec(happening(), 1..60),
        after in prop::collection::vec(happening(), 0..60),
    ) {
        for interest in interests() {
            let mut world = World::new();
            before.iter().for_each(|happening| world.happens(happening));
            let mut reader = Reader::default();
            reader.look(&world.seen, &interest, false);
            after.iter().for_each(|happening| world.happens(happening));
            reader.knows = world.seen.known_at(Revision(reader.revision));
            prop_assert!(reader.look(&world.seen, &interest, false));
            prop_assert_eq!(&reader.known, &world.there(&interest));
        }
    }

    #[test]
    fn a_message_that_is_lost_is_noticed(story in prop::collection::vec(happening(), 2..60), lost in 1..60usize) {
        for interest in interests() {
            let mut world = World::new();
            let mut reader = Reader::default();
            reader.look(&world.seen, &interest, false);
            for (index, happening) in story.iter().enumerate() {
                world.happens(happening);
                let is_right = reader.look(&world.seen, &interest, index == lost % story.len());
                // It is noticed exactly as long as what is known is wrong.
                prop_assert_eq!(is_right, reader.known == world.there(&interest));
            }
        }
    }
}
