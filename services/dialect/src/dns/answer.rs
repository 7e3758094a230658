//! Answers one question. Pure.
//!
//! Under the zone there are `pump` and `pump.plant` (service, namespace): A, AAAA and SRV; `_grpc._tcp.pump` and
//! `_http._tcp.pump`: SRV; and `7f000001.addr`, the targets of SRV, which are addresses in hex. A name that no service has
//! is NXDOMAIN; a service without such records answers with none (NODATA). Both may be kept as briefly as answers. What is
//! outside the zone is refused: nobody is asked in turn.

use std::net::IpAddr;

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, SOA, SRV};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use crate::model::{self, Endpoint, Health, Service, World};

/// Most records of one answer.
const RECORDS_MAX: usize = 256;
/// The label above addresses in hex.
const ADDRESS: &str = "addr";

/// What is answered for.
#[derive(Clone, Debug)]
pub(crate) struct Zone {
    /// Its name, with the root.
    pub(crate) name: Name,
    /// How long an answer may be kept, in seconds.
    pub(crate) ttl_secs: u32,
}

/// What stands under a name.
enum Under<'w> {
    /// The zone itself.
    Zone,
    /// A service; only endpoints that speak this, where it is said.
    Service(&'w Service, Option<bool>),
    /// An address.
    Address(IpAddr),
    /// Nothing.
    Nothing,
    /// It cannot be said yet.
    Unknown,
}

/// Answers a message. `None` for one that deserves no answer: another answer, or no question.
/// `seed` is drawn anew for each answer, so that callers that take the first record are spread.
pub(crate) fn answer(zone: &Zone, world: &World, asked: &Message, seed: u64) -> Option<Message> {
    if asked.metadata.message_type != MessageType::Query {
        return None;
    }
    let mut answer = Message::response(asked.metadata.id, asked.metadata.op_code);
    answer.metadata.recursion_desired = asked.metadata.recursion_desired;
    let (code, question) = match (asked.metadata.op_code, asked.queries.as_slice()) {
        (OpCode::Query, [question]) => (ResponseCode::NoError, question),
        (OpCode::Query, _) => {
            answer.metadata.response_code = ResponseCode::FormErr;
            return Some(answer);
        }
        _ => {
            answer.metadata.response_code = ResponseCode::NotImp;
            return Some(answer);
        }
    };
    answer.metadata.response_code = code;
    answer.add_query(question.clone());
    if !zone.name.zone_of(&question.name) || question.query_class != DNSClass::IN {
        answer.metadata.response_code = ResponseCode::Refused;
        return Some(answer);
    }
    answer.metadata.authoritative = true;
    let found = look(zone, world, &question.name);
    let of = question.query_type;
    let name = &question.name;
    match found {
        Under::Unknown => {
            answer.metadata.authoritative = false;
            answer.metadata.response_code = ResponseCode::ServFail;
            return Some(answer);
        }
        Under::Nothing => answer.metadata.response_code = ResponseCode::NXDomain,
        Under::Zone if of == RecordType::SOA => {
            answer.add_answer(soa(zone, world));
        }
        Under::Zone => {}
        Under::Address(ip) => {
            answer.add_answers(address(zone, name, of, ip));
        }
        Under::Service(service, is_grpc) => records(zone, &mut answer, service, is_grpc, of, seed),
    }
    if answer.answers.is_empty() {
        answer.add_authority(soa(zone, world));
    }
    Some(answer)
}

fn look<'w>(zone: &Zone, world: &'w World, name: &Name) -> Under<'w> {
    let own = usize::from(name.num_labels().saturating_sub(zone.name.num_labels()));
    let labels: Option<Vec<String>> =
        name.iter().take(own).map(|label| std::str::from_utf8(label).ok().map(str::to_ascii_lowercase)).collect();
    let Some(labels) = labels else { return Under::Nothing };
    let mut labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    if labels.is_empty() {
        return Under::Zone;
    }
    if let [hex, ADDRESS] = labels.as_slice() {
        return from_hex(hex).map_or(Under::Nothing, Under::Address);
    }
    let is_grpc = match labels.as_slice() {
        ["_grpc", "_tcp", ..] => Some(true),
        ["_http", "_tcp", ..] => Some(false),
        _ => None,
    };
    if is_grpc.is_some() {
        labels.drain(..2);
    }
    let Some(name) = model::Name::parse(&labels.join(".")) else { return Under::Nothing };
    match world.services.get(&name) {
        Some(service) if service.instances.is_empty() && world.is_settled => Under::Nothing,
        Some(service) => Under::Service(service, is_grpc),
        None if world.is_known && world.is_settled => Under::Nothing,
        None => Under::Unknown,
    }
}

fn records(zone: &Zone, answer: &mut Message, service: &Service, is_grpc: Option<bool>, of: RecordType, seed: u64) {
    let name = answer.queries[0].name.clone();
    let mut usable: Vec<(&Endpoint, IpAddr)> = service
        .endpoints
        .iter()
        .filter(|one| one.health == Health::Healthy && is_grpc.is_none_or(|is_grpc| is_grpc == one.is_grpc))
        .filter_map(|one| Some((one, one.ip?)))
        .collect();
    if !usable.is_empty() {
        let first = usize::try_from(seed % usable.len() as u64).unwrap_or_default();
        usable.rotate_left(first);
    }
    usable.truncate(RECORDS_MAX);
    if of == RecordType::SRV {
        for (one, ip) in usable {
            let Ok(target) = Name::from_labels([hex(ip).as_bytes(), ADDRESS.as_bytes()])
                .and_then(|target| target.append_domain(&zone.name))
            else {
                continue;
            };
            let weight = u16::try_from(one.weight).unwrap_or(u16::MAX);
            let srv = RData::SRV(SRV::new(0, weight, one.port, target.clone()));
            answer.add_answer(Record::from_rdata(name.clone(), zone.ttl_secs, srv));
            for of in [RecordType::A, RecordType::AAAA] {
                let known = address(zone, &target, of, ip);
                if known.iter().all(|record| !answer.additionals.contains(record)) {
                    answer.add_additionals(known);
                }
            }
        }
    } else if is_grpc.is_none() {
        // Several instances of one machine are one address.
        let mut told = Vec::new();
        for (_, ip) in usable {
            if !told.contains(&ip) {
                told.push(ip);
                answer.add_answers(address(zone, &name, of, ip));
            }
        }
    }
}

fn address(zone: &Zone, name: &Name, of: RecordType, ip: IpAddr) -> Vec<Record> {
    let data = match (of, ip) {
        (RecordType::A, IpAddr::V4(ip)) => RData::A(A(ip)),
        (RecordType::AAAA, IpAddr::V6(ip)) => RData::AAAA(AAAA(ip)),
        _ => return Vec::new(),
    };
    vec![Record::from_rdata(name.clone(), zone.ttl_secs, data)]
}

/// Says how long it may be remembered that something is not there: no longer than an answer.
fn soa(zone: &Zone, world: &World) -> Record {
    let ttl = i32::try_from(zone.ttl_secs).unwrap_or(i32::MAX);
    let serial = u32::try_from(world.moment % (1 << 31)).unwrap_or_default();
    let data = SOA::new(zone.name.clone(), zone.name.clone(), serial, ttl, ttl, ttl, zone.ttl_secs);
    Record::from_rdata(zone.name.clone(), zone.ttl_secs, RData::SOA(data))
}

fn hex(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => format!("{:08x}", u32::from(ip)),
        IpAddr::V6(ip) => format!("{:032x}", u128::from(ip)),
    }
}

fn from_hex(text: &str) -> Option<IpAddr> {
    if !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    match text.len() {
        8 => u32::from_str_radix(text, 16).ok().map(|bits| IpAddr::V4(bits.into())),
        32 => u128::from_str_radix(text, 16).ok().map(|bits| IpAddr::V6(bits.into())),
        _ => None,
    }
}

/// The bytes of an answer; if they are more than `bytes_max`, those of one without records that says it is cut.
pub(crate) fn fitted(answer: &Message, bytes_max: usize) -> Option<Vec<u8>> {
    let bytes = answer.to_vec().ok()?;
    if bytes.len() <= bytes_max {
        return Some(bytes);
    }
    answer.truncate().to_vec().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hickory_proto::op::Query;
    use ninefold_proto::ninefold::registry::v1 as words;

    use super::*;

    fn zone() -> Zone {
        Zone { name: Name::from_ascii("ninefold.").unwrap(), ttl_secs: 1 }
    }

    fn world(instances: &[(&str, &str, words::InstanceState)]) -> World {
        let instance = |(id, host, state): &(&str, &str, words::InstanceState)| {
            Arc::new(words::Instance {
                service: "pump".to_owned(),
                instance_id: (*id).to_owned(),
                addresses: vec![words::Address { host: (*host).to_owned(), port: 7000 }],
                state: (*state).into(),
                ..words::Instance::default()
            })
        };
        let name = model::Name::new("pump", "");
        let instances = instances.iter().map(instance).collect();
        let service = Service::new(name.clone(), instances, words::Policy::default(), false);
        World { moment: 1, is_known: true, is_settled: true, services: [(name, Arc::new(service))].into() }
    }

    fn ask(world: &World, name: &str, of: RecordType) -> Message {
        let mut asked = Message::new(7, MessageType::Query, OpCode::Query);
        asked.metadata.recursion_desired = true;
        asked.add_query(Query::query(Name::from_ascii(name).unwrap(), of));
        let answer = answer(&zone(), world, &asked, 0).unwrap();
        assert_eq!((answer.metadata.id, answer.metadata.recursion_available), (7, false));
        answer
    }

    #[test]
    fn a_service_has_addresses_and_ports() {
        use words::InstanceState::Serving;
        let world = world(&[("a", "10.0.0.1", Serving), ("b", "10.0.0.2", Serving), ("c", "fd00::1", Serving)]);
        assert_eq!(ask(&world, "pump.ninefold.", RecordType::A).answers.len(), 2);
        assert_eq!(ask(&world, "PUMP.default.Ninefold.", RecordType::AAAA).answers.len(), 1);
        for name in ["pump.ninefold.", "_grpc._tcp.pump.default.ninefold."] {
            let answer = ask(&world, name, RecordType::SRV);
            assert_eq!((answer.answers.len(), answer.additionals.len()), (3, 3), "{name}");
            let RData::SRV(srv) = &answer.answers[0].data else { panic!("an SRV record is asked for") };
            assert_eq!((srv.port, srv.weight, srv.target.to_ascii().as_str()), (7000, 100, "0a000001.addr.ninefold."));
        }
        assert_eq!(ask(&world, "0a000001.addr.ninefold.", RecordType::A).answers.len(), 1);
        assert_eq!(ask(&world, "_http._tcp.pump.ninefold.", RecordType::SRV).answers.len(), 0);
    }

    #[test]
    fn a_name_that_nobody_has_is_told_apart_from_one_without_such_records() {
        use words::InstanceState::{Draining, Serving};
        let served = world(&[("a", "10.0.0.1", Serving)]);
        for (name, code) in [("pump.ninefold.", ResponseCode::NoError), ("valve.ninefold.", ResponseCode::NXDomain)] {
            let answer = ask(&served, name, RecordType::AAAA);
            assert_eq!((answer.metadata.response_code, answer.answers.len()), (code, 0), "{name}");
            assert_eq!(answer.authorities.len(), 1, "it says how long that may be remembered");
        }
        let drained = world(&[("a", "10.0.0.1", Draining)]);
        let answer = ask(&drained, "pump.ninefold.", RecordType::A);
        assert_eq!((answer.metadata.response_code, answer.answers.len()), (ResponseCode::NoError, 0));
    }

    #[test]
    fn strangers_are_refused_and_nothing_is_said_before_it_is_known() {
        let known = world(&[]);
        assert_eq!(ask(&known, "example.org.", RecordType::A).metadata.response_code, ResponseCode::Refused);
        let answer = ask(&World::default(), "pump.ninefold.", RecordType::A);
        assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    }

    #[test]
    fn an_answer_that_does_not_fit_says_that_it_is_cut() {
        let hosts: Vec<String> = (1..=200).map(|number| format!("10.0.0.{number}")).collect();
        let all: Vec<_> =
            hosts.iter().map(|host| (host.as_str(), host.as_str(), words::InstanceState::Serving)).collect();
        let answer = ask(&world(&all), "pump.ninefold.", RecordType::SRV);
        let cut = Message::from_vec(&fitted(&answer, 512).unwrap()).unwrap();
        assert!(cut.metadata.truncation && cut.answers.is_empty());
        let whole = Message::from_vec(&fitted(&answer, 65_535).unwrap()).unwrap();
        assert_eq!(whole.answers.len(), 200);
    }
}
