//! Whether a node may listen as it is told to. Pure.

use std::net::{IpAddr, SocketAddr};

use crate::config::Authentication;

/// An address to listen on, and how to choose another.
#[derive(Clone, Copy, Debug)]
pub struct Door {
    /// Where.
    pub address: SocketAddr,
    /// The flag that says so.
    pub flag: &'static str,
}

/// How open a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Openness {
    /// Nobody beyond this machine reaches it.
    Loopback,
    /// Others reach it and have to say who they are; what they say can be read on the way, unless TLS is spoken.
    Guarded {
        /// Whether TLS is spoken.
        is_secure: bool,
    },
    /// Others reach it, nobody is asked, and that was asked for in so many words.
    Insecure,
    /// Others would reach it, and nobody would be asked. It must not start.
    Refused(Vec<String>),
}

/// Judges the doors of the platform. The edge is none of them: it is there for strangers, and shows what is exposed.
pub fn judge(doors: &[Door], authentication: Authentication, is_secure: bool, insecure: bool) -> Openness {
    let open: Vec<&Door> = doors.iter().filter(|door| !is_loopback(door.address.ip())).collect();
    match authentication {
        _ if open.is_empty() => Openness::Loopback,
        Authentication::Token | Authentication::Mtls => Openness::Guarded { is_secure },
        Authentication::Off if insecure => Openness::Insecure,
        Authentication::Off => {
            Openness::Refused(open.iter().map(|door| format!("{} ({})", door.address, door.flag)).collect())
        }
    }
}

/// Whether an address is of this machine alone: all of 127/8, `::1`, and the former written as IPv6.
pub fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doors(addresses: &[&str]) -> Vec<Door> {
        addresses.iter().map(|text| Door { address: text.parse().unwrap(), flag: "--listen" }).collect()
    }

    #[test]
    fn loopback_needs_nothing() {
        let own = doors(&["127.0.0.1:1", "127.8.9.10:1", "[::1]:1", "[::ffff:127.0.0.1]:1"]);
        assert_eq!(judge(&own, Authentication::Off, false, false), Openness::Loopback);
    }

    #[test]
    fn any_other_address_needs_authentication_or_a_word_for_it() {
        for address in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "128.0.0.1:1", "[::ffff:10.0.0.1]:1", "169.254.0.1:1"] {
            let open = doors(&["127.0.0.1:1", address]);
            let refused = judge(&open, Authentication::Off, true, false);
            assert!(matches!(&refused, Openness::Refused(told) if told.len() == 1), "{address}: {refused:?}");
            assert_eq!(judge(&open, Authentication::Off, false, true), Openness::Insecure);
            assert_eq!(judge(&open, Authentication::Token, false, false), Openness::Guarded { is_secure: false });
            assert_eq!(judge(&open, Authentication::Mtls, true, true), Openness::Guarded { is_secure: true });
        }
    }
}
