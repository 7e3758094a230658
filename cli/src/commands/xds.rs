//! `ninefold xds`: who follows the landscape by xDS, what they refused, and how to become one of them.

use ninefold_proto::ninefold::dialect::v1::{ListXdsStreamsRequest, XdsMode, XdsRefusal, XdsStream, XdsSubscription};
use serde_json::{Value, json};

use crate::args::bootstrap::BootstrapArgs;
use crate::client::Platform;
use crate::exit::Failure;
use crate::output::{self, Format, Table};

/// Lists streams, what each has taken, and what was refused.
pub(crate) async fn list(platform: &Platform, format: Format) -> Result<(), Failure> {
    let first = ListXdsStreamsRequest { page_size: 1, ..ListXdsStreamsRequest::default() };
    let refusals = platform.ask(platform.dialect().list_xds_streams(first)).await?.refusals;
    let client = platform.dialect();
    let streams: Vec<XdsStream> = platform
        .gather(|page_token| {
            let mut client = client.clone();
            async move {
                let request = ListXdsStreamsRequest { page_token, ..ListXdsStreamsRequest::default() };
                let answer = client.list_xds_streams(request).await?.into_inner();
                Ok((answer.streams, answer.next_page_token))
            }
        })
        .await?;
    let value = json!({
        "streams": output::json_all("ninefold.dialect.v1.XdsStream", &streams),
        "refusals": output::json_all("ninefold.dialect.v1.XdsRefusal", &refusals),
    });
    output::print(format, &value, || table(&streams, &refusals))
}

fn table(streams: &[XdsStream], refusals: &[XdsRefusal]) -> String {
    let mut table = Table::new(&["STREAM", "CLIENT", "WHAT", "MODE", "TYPE", "FOLLOWS", "SENT", "TAKEN", "REFUSED"]);
    for stream in streams {
        let mode = output::word(XdsMode::try_from(stream.mode).unwrap_or_default().as_str_name(), "XDS_MODE_");
        for one in &stream.subscriptions {
            table.row([
                stream.stream_id.to_string(),
                stream.client_id.clone(),
                stream.user_agent.clone(),
                mode.clone(),
                one.r#type.clone(),
                follows(one),
                one.sent_version.clone(),
                one.acknowledged_version.clone(),
                one.refusal.as_ref().map_or_else(|| "-".to_owned(), place),
            ]);
        }
    }
    let mut text = table.render();
    for refusal in refusals {
        text.push_str(&format!(
            "{}  {} refused {} {}: {}\n",
            output::clock(refusal.time.as_ref()),
            output::cell(&refusal.refused_by),
            refusal.r#type,
            output::cell(&place(refusal)),
            output::cell(&refusal.reason)
        ));
    }
    text
}

fn follows(one: &XdsSubscription) -> String {
    match (one.is_all, one.names.as_slice()) {
        (true, _) => "all".to_owned(),
        (false, [only]) => only.clone(),
        (false, _) => format!("{} names", one.names_total),
    }
}

fn place(refusal: &XdsRefusal) -> String {
    match (refusal.name.as_str(), refusal.field.as_str()) {
        ("", "") => "something".to_owned(),
        ("", field) => field.to_owned(),
        (name, "") => name.to_owned(),
        (name, field) => format!("{name} at {field}"),
    }
}

/// Prints a bootstrap, as JSON whatever the form: it is a file for somebody else.
pub(crate) fn bootstrap(platform: &Platform, args: &BootstrapArgs) -> Result<(), Failure> {
    let endpoint = platform.endpoint().split(',').next().unwrap_or_default().trim();
    let uri: http::Uri = endpoint.parse().map_err(|_| Failure::Usage(format!("{endpoint:?} is not a URL")))?;
    let authority = uri.authority().ok_or_else(|| Failure::Usage(format!("{endpoint:?} names no host")))?;
    let tls = (uri.scheme_str() == Some("https")).then_some(args);
    let port = authority.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
    let value =
        if args.envoy { envoy(args, tls, authority.host(), port)? } else { grpc(args, tls, authority.host(), port) };
    output::line(format!("{value:#}"));
    Ok(())
}

fn locality(args: &BootstrapArgs) -> Value {
    json!({"region": args.region, "zone": args.zone})
}

/// Files of TLS as gRPC libraries name them (gRFC A65).
fn config(files: &BootstrapArgs) -> Value {
    let named =
        [("ca_certificate_file", &files.ca), ("certificate_file", &files.cert), ("private_key_file", &files.key)];
    named.into_iter().filter_map(|(name, path)| Some((name.to_owned(), json!(path.as_deref()?)))).collect()
}

/// TLS towards `host` as Envoy names it. A host name is asked for, and the certificate must be of it.
fn socket(files: &BootstrapArgs, host: &str, is_address: bool) -> Value {
    let mut trusted = json!({"match_typed_subject_alt_names": [{
        "san_type": if is_address { "IP_ADDRESS" } else { "DNS" },
        "matcher": {"exact": host},
    }]});
    match &files.ca {
        Some(ca) => trusted["trusted_ca"] = json!({"filename": ca}),
        None => trusted["system_root_certs"] = json!({}),
    }
    let mut common = json!({"alpn_protocols": ["h2"], "validation_context": trusted});
    if let (Some(cert), Some(key)) = (&files.cert, &files.key) {
        common["tls_certificates"] =
            json!([{"certificate_chain": {"filename": cert}, "private_key": {"filename": key}}]);
    }
    json!({"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": if is_address { "" } else { host },
        "common_tls_context": common,
    }})
}

/// For gRPC libraries. `ignore_resource_deletion` keeps what a channel has even if this platform should lose it.
fn grpc(args: &BootstrapArgs, tls: Option<&BootstrapArgs>, host: &str, port: u16) -> Value {
    let credentials =
        tls.map_or_else(|| json!({"type": "insecure"}), |files| json!({"type": "tls", "config": config(files)}));
    json!({
        "xds_servers": [{
            "server_uri": format!("{host}:{port}"),
            "channel_creds": [credentials],
            "server_features": ["xds_v3", "ignore_resource_deletion"],
        }],
        "node": {"id": args.node, "cluster": "ninefold", "locality": locality(args), "metadata": {}},
    })
}

fn envoy(args: &BootstrapArgs, tls: Option<&BootstrapArgs>, host: &str, port: u16) -> Result<Value, Failure> {
    let platform = "ninefold-platform";
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_address = host.parse::<std::net::IpAddr>().is_ok();
    let place = |host: &str, port: u16| json!({"socket_address": {"address": host, "port_value": port}});
    let mut metadata = json!({});
    if let Some(listen) = args.listen {
        metadata["ninefold.listen"] = json!(listen.to_string());
    }
    let from_ads = json!({"resource_api_version": "V3", "ads": {}});
    let mut value = json!({
        "node": {"id": args.node, "cluster": "ninefold", "locality": locality(args), "metadata": metadata},
        "dynamic_resources": {
            "ads_config": {
                "api_type": if args.world { "GRPC" } else { "DELTA_GRPC" },
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{"envoy_grpc": {"cluster_name": platform}}],
            },
            "lds_config": from_ads,
            "cds_config": from_ads,
        },
        "static_resources": {"clusters": [{
            "name": platform,
            "type": if is_address { "STATIC" } else { "STRICT_DNS" },
            // `localhost` and many hosts have an IPv6 address where nobody listens.
            "dns_lookup_family": "V4_PREFERRED",
            "connect_timeout": "5s",
            "load_assignment": {
                "cluster_name": platform,
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": place(host, port)}}]}],
            },
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {"http2_protocol_options": {
                        "connection_keepalive": {"interval": "10s", "timeout": "5s"},
                    }},
                },
            },
        }]},
    });
    if let Some(files) = tls {
        value["static_resources"]["clusters"][0]["transport_socket"] = socket(files, host, is_address);
    }
    if let Some(path) = &args.with_token {
        let token = std::fs::read_to_string(path)
            .map_err(|error| Failure::Usage(format!("the token in {} cannot be read: {error}", path.display())))?;
        value["dynamic_resources"]["ads_config"]["grpc_services"][0]["initial_metadata"] =
            json!([{"key": "authorization", "value": format!("Bearer {}", token.trim())}]);
    }
    if let Some(admin) = args.admin {
        value["admin"] = json!({"address": place(&admin.ip().to_string(), admin.port())});
    }
    Ok(value)
}
