//! The address by which others reach this process.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use http::Uri;
use ninefold_proto::ninefold::registry::v1::Address;

/// What to register for a socket that listens on `local`: what was asked for, else the address itself, else, where that
/// means "all addresses", the one from which this machine reaches the platform.
pub(super) fn address(local: SocketAddr, asked: Option<&str>, platform: &[Uri]) -> Address {
    let port = u32::from(local.port());
    if let Some(asked) = asked {
        return match asked.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?))) {
            Some((host, port)) if !host.contains(':') || host.starts_with('[') => {
                Address { host: host.trim_matches(['[', ']']).to_owned(), port: u32::from(port) }
            }
            _ => Address { host: asked.trim_matches(['[', ']']).to_owned(), port },
        };
    }
    if !local.ip().is_unspecified() {
        return Address { host: local.ip().to_string(), port };
    }
    let reachable = platform.iter().find_map(way_to).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    Address { host: reachable.to_string(), port }
}

/// The address of this machine from which it reaches another. Sends nothing: a datagram socket only picks its route.
fn way_to(platform: &Uri) -> Option<IpAddr> {
    let host = platform.host()?.trim_matches(['[', ']']);
    let socket = UdpSocket::bind(if host.contains(':') { "[::]:0" } else { "0.0.0.0:0" }).ok()?;
    socket.connect((host, platform.port_u16().unwrap_or(80))).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(local: &str, asked: Option<&str>, expected: (&str, u32)) {
        let platform = [Uri::from_static("http://127.0.0.1:9900")];
        let address = address(local.parse().unwrap(), asked, &platform);
        assert_eq!((address.host.as_str(), address.port), expected);
    }

    #[test]
    fn others_are_told_where_they_can_reach_us() {
        check("127.0.0.1:81", None, ("127.0.0.1", 81));
        check("[::1]:81", None, ("::1", 81));
        check("0.0.0.0:81", None, ("127.0.0.1", 81));
        check("0.0.0.0:81", Some("review.example"), ("review.example", 81));
        check("0.0.0.0:81", Some("review.example:90"), ("review.example", 90));
        check("0.0.0.0:81", Some("[2001:db8::1]:90"), ("2001:db8::1", 90));
        check("0.0.0.0:81", Some("2001:db8::1"), ("2001:db8::1", 81));
    }
}
