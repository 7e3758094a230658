//! Who may talk to the platform: nobody unasked beyond this machine, everybody by their token or certificate.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, SigningKey as _};
use serde_json::Value;
use tests_landscape::authority::Authority;
use tests_landscape::tools::{self, Etcd};
use tests_landscape::{Ended, Landscape, ended, http, ninefold, until};
use tokio::process::{Child, Command};

const SOON: Duration = Duration::from_secs(30);
/// A revocation reaches every node within a second; a busy machine may take a few.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Makes a token; answers its file and its id.
async fn token(house: &Landscape, folder: &Path, name: &str, arguments: &[&str]) -> Result<(String, String)> {
    let file = folder.join(name).display().to_string();
    let made = house.ask(&[&["token", "create", name, "--write", &file], arguments].concat()).await?;
    Ok((file, made["token"]["id"].as_str().context("a token has an id")?.to_owned()))
}

async fn as_bearer(house: &Landscape, file: &str, arguments: &[&str]) -> Result<Ended> {
    house.run_as(&[("NINEFOLD_TOKEN_FILE", file)], arguments).await
}

#[track_caller]
fn is_denied(ended: &Ended, reason: &str) {
    assert!(ended.code == 6 && ended.stderr.contains(reason), "{ended:?}");
}

/// `ninefold run` with a plain HTTP server, as an instance of `service`.
fn run(house: &Landscape, service: &str, variables: &[(&str, &str)]) -> Result<Child> {
    let mut command = ninefold("run", &["--name", service, "--protocol", "http"])?;
    command.args(["--endpoint", &house.endpoint(), "--", "sh", "-c", "exec python3 -m http.server -b 127.0.0.1 $PORT"]);
    Ok(command.envs(variables.iter().copied()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
}

#[tokio::test]
async fn nobody_listens_beyond_this_machine_without_authentication() -> Result<()> {
    let data = tempfile::tempdir()?;
    for flag in ["--listen", "--otlp-grpc-listen", "--otlp-http-listen"] {
        let mut command = ninefold("up", &["--edge-listen", "127.0.0.1:0", "--data"])?;
        command.arg(data.path()).args([flag, "0.0.0.0:0"]);
        for other in ["--listen", "--otlp-grpc-listen", "--otlp-http-listen"] {
            if other != flag {
                command.args([other, "127.0.0.1:0"]);
            }
        }
        let refused = ended(command).await?;
        ensure!(refused.code == 14 && refused.stderr.contains(flag), "{refused:?}");
        ensure!(refused.stderr.contains("--auth token") && refused.stderr.contains("--insecure"), "{refused:?}");
    }
    Ok(())
}

#[tokio::test]
async fn who_insists_is_told_at_every_start_and_by_the_doctor() -> Result<()> {
    let house = Landscape::up(&["--insecure", "--listen", "0.0.0.0:0"]).await?;
    ensure!(house.said().contains("WARNING: --insecure"), "{}", house.said());
    let doctor = house.run(&["doctor"]).await?;
    ensure!(doctor.code == 5 && doctor.stdout.contains("--insecure"), "{doctor:?}");
    ensure!(house.run(&["doctor", "--self"]).await?.code == 0);
    house.stop().await?;
    let house = Landscape::up(&["--insecure"]).await?;
    ensure!(!house.said().contains("WARNING"), "there is nothing to warn of on loopback: {}", house.said());
    house.stop().await
}

#[tokio::test]
async fn a_web_page_does_not_reach_the_platform_through_a_browser() -> Result<()> {
    let house = Landscape::up(&[]).await?;
    let platform = house.address("platform");
    let get = async |headers: &[(&str, &str)]| http::request(&platform, "GET", "/landscape.json", headers, None).await;
    ensure!(get(&[]).await?.status == 200);
    // Another site's page, a page of a name that was bound to this machine, an image on a page.
    for headers in [[("origin", "http://evil.example")], [("origin", "null")], [("sec-fetch-site", "cross-site")]] {
        let answer = get(&headers).await?;
        ensure!(answer.status == 403 && answer.text().contains("ORIGIN_REFUSED"), "{headers:?}: {}", answer.text());
    }
    let bound =
        tools::raw(&platform, "GET /landscape.json HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n")
            .await?;
    ensure!(bound.starts_with("HTTP/1.1 403") && bound.contains("HOST_REFUSED"), "{bound}");
    // The OTLP doors are doors of the platform too.
    let otlp = http::request(
        &house.address("otlpHttp"),
        "POST",
        "/v1/logs",
        &[("origin", "http://evil.example")],
        Some(Value::Null),
    )
    .await?;
    ensure!(otlp.status == 403, "{}", otlp.text());
    house.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_say_who_they_are_and_do_what_their_role_allows() -> Result<()> {
    // The sample landscape comes up: the node's own children are given their tokens.
    let house = Landscape::demo(&["--auth", "token", "--no-traffic"]).await?;
    let folder = tempfile::tempdir()?;
    let admin = house.admin_token();
    ensure!(std::fs::metadata(&admin)?.permissions().mode() & 0o777 == 0o600);
    let secret = std::fs::read_to_string(&admin)?.trim().to_owned();
    ensure!(!house.said().contains(&secret), "the first token was printed");

    is_denied(&house.run_as(&[], &["ps"]).await?, "CREDENTIALS_MISSING");
    is_denied(&house.run_as(&[("NINEFOLD_TOKEN", "nf_nothing")], &["ps"]).await?, "TOKEN_REFUSED");
    let who = house.ask(&["whoami"]).await?;
    ensure!(who["roles"][0] == "ROLE_ADMIN" && who["isAsked"] == true, "{who}");

    let (reader, _) = token(&house, folder.path(), "reader", &["--role", "read"]).await?;
    ensure!(as_bearer(&house, &reader, &["ps"]).await?.code == 0);
    ensure!(as_bearer(&house, &reader, &["logs"]).await?.code == 0);
    is_denied(&as_bearer(&house, &reader, &["scale", "review", "1"]).await?, "ROLE_DENIED");
    is_denied(&as_bearer(&house, &reader, &["config", "set", "review", "a=1"]).await?, "ROLE_DENIED");
    is_denied(&as_bearer(&house, &reader, &["token", "ls"]).await?, "ROLE_DENIED");
    let (operator, _) = token(&house, folder.path(), "operator", &["--role", "operator"]).await?;
    ensure!(as_bearer(&house, &operator, &["config", "set", "review", "delay=1ms"]).await?.code == 0);
    is_denied(&as_bearer(&house, &operator, &["token", "create", "more", "--role", "admin"]).await?, "ROLE_DENIED");
    let (elsewhere, _) = token(&house, folder.path(), "elsewhere", &["--role", "read", "--namespace", "other"]).await?;
    is_denied(&as_bearer(&house, &elsewhere, &["logs"]).await?, "NAMESPACE_DENIED");

    let listed = house.ask(&["token", "ls"]).await?;
    let listed = listed.as_array().context("a list")?;
    ensure!(listed.len() == 4 && !format!("{listed:?}").contains(&secret), "{listed:?}");
    ensure!(listed.iter().any(|token| token["name"] == "reader" && token["lastUseTime"].is_string()), "{listed:?}");
    strangers(&house, &secret).await?;
    house.stop().await
}

/// What others' clients see: grpcurl, a browser, curl.
async fn strangers(house: &Landscape, secret: &str) -> Result<()> {
    let grpcurl = async |arguments: &[&str], method: &str| -> Result<Ended> {
        let mut command = Command::new(tools::python("grpcurl")?);
        command.arg("-plaintext").args(arguments).args([&house.address("platform"), method]);
        ended(command).await
    };
    let services = "ninefold.registry.v1.RegistryService/ListServices";
    let bearer = format!("authorization: Bearer {secret}");
    let unknown = grpcurl(&[], services).await?;
    ensure!(unknown.code != 0 && unknown.stderr.contains("Unauthenticated"), "{unknown:?}");
    let known = grpcurl(&["-H", &bearer], services).await?;
    ensure!(known.code == 0 && known.stdout.contains("product"), "{known:?}");
    // Health answers everybody, once: orchestrators have no token. To stay and watch it needs one.
    let proto = tempfile::tempdir()?;
    std::fs::write(proto.path().join("health.proto"), HEALTH)?;
    let folder = proto.path().display().to_string();
    let import = ["-import-path", &folder, "-proto", "health.proto"];
    let health = grpcurl(&import, "grpc.health.v1.Health/Check").await?;
    ensure!(health.code == 0 && health.stdout.contains("SERVING"), "{health:?}");
    let watch = grpcurl(&import, "grpc.health.v1.Health/Watch").await?;
    ensure!(watch.code != 0 && watch.stderr.contains("Unauthenticated"), "{watch:?}");
    ensure!(house.run_as(&[], &["doctor", "--self"]).await?.code == 0);

    let platform = house.address("platform");
    let get = async |headers: &[(&str, &str)], path: &str| http::request(&platform, "GET", path, headers, None).await;
    let refused = get(&[], "/landscape.json").await?;
    ensure!(refused.status == 401 && refused.header("www-authenticate").starts_with("Bearer"), "{}", refused.text());
    ensure!(get(&[("authorization", &format!("Bearer {secret}"))], "/landscape.json").await?.status == 200);
    let page = get(&[("accept", "text/html")], "/").await?;
    ensure!(page.status == 401 && page.text().contains("action=\"/login\""), "{}", page.text());
    let login = async |token: &str, origin: &str| {
        let form = format!("token={token}");
        let head = format!("POST /login HTTP/1.1\r\nhost: {platform}\r\norigin: {origin}\r\nconnection: close\r\n");
        let head =
            format!("{head}content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n", form.len());
        tools::raw(&platform, &format!("{head}{form}")).await
    };
    let own = format!("http://{platform}");
    ensure!(login("nf_wrong", &own).await?.starts_with("HTTP/1.1 401"));
    ensure!(login(secret, "http://evil.example").await?.starts_with("HTTP/1.1 403"));
    let entered = login(secret, &own).await?;
    ensure!(entered.starts_with("HTTP/1.1 303") && entered.contains("HttpOnly; SameSite=Strict"), "{entered}");
    let cookie = format!("ninefold_token={secret}");
    ensure!(get(&[("cookie", &cookie)], "/landscape.json").await?.status == 200);
    ensure!(get(&[("cookie", &cookie), ("origin", "http://evil.example")], "/landscape.json").await?.status == 403);
    // Whoever sends telemetry says who they are as well.
    let logs = http::request(&house.address("otlpHttp"), "POST", "/v1/logs", &[], Some(serde_json::json!({}))).await?;
    ensure!(logs.status == 401, "{}", logs.text());
    Ok(())
}

const HEALTH: &str = "syntax = \"proto3\"; package grpc.health.v1;
message HealthCheckRequest { string service = 1; }
message HealthCheckResponse { enum S { UNKNOWN = 0; SERVING = 1; NOT_SERVING = 2; SERVICE_UNKNOWN = 3; } S status = 1; }
service Health {
  rpc Check(HealthCheckRequest) returns (HealthCheckResponse);
  rpc Watch(HealthCheckRequest) returns (stream HealthCheckResponse);
}";

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_joins_as_what_its_token_names_and_leaves_when_it_is_revoked() -> Result<()> {
    let etcd = Etcd::start().await?;
    let arguments = ["--auth", "token", "--store", "etcd", "--etcd", &etcd.url];
    let first = Landscape::up(&arguments).await?;
    let second = Landscape::up(&arguments).await?;
    let folder = tempfile::tempdir()?;
    let (own, own_id) = token(&first, folder.path(), "own", &["--role", "instance", "--service", "web"]).await?;
    let (others, _) = token(&first, folder.path(), "others", &["--role", "instance", "--service", "shop"]).await?;

    // Tokens are the landscape's, not a node's.
    let _stranger = run(&second, "web", &[("NINEFOLD_TOKEN_FILE", &others)])?;
    let _web = run(&second, "web", &[("NINEFOLD_TOKEN_FILE", &own)])?;
    until("the instance has joined", SOON, || async { Ok(first.serving("web").await? == 1) }).await?;
    until("the stranger was told no", SOON, || async {
        let said = second.ask(&["logs", "ninefold", "-n", "1000"]).await?.to_string();
        Ok(said.contains("SERVICE_DENIED"))
    })
    .await?;
    ensure!(second.instances("web").await?.len() == 1, "the stranger has joined as web");
    // An instance reads its own settings and nobody else's.
    first.ask(&["config", "set", "web", "a=1"]).await?;
    first.ask(&["config", "set", "bank", "a=1"]).await?;
    let get = async |service: &str| {
        let call = format!("{{\"service\": \"{service}\", \"environment\": \"default\"}}");
        as_bearer(&second, &own, &["call", "ninefold.config.v1.ConfigService/GetDocument", "-d", &call]).await
    };
    let (own_settings, others_settings) = (get("web").await?, get("bank").await?);
    ensure!(!others_settings.stdout.contains("\"a\""), "{others_settings:?}");
    ensure!(own_settings.code == 0 || own_settings.stderr.contains("ROLE_DENIED"), "{own_settings:?}");

    ensure!(as_bearer(&second, &own, &["whoami"]).await?.code == 0);
    first.ask(&["token", "revoke", &own_id]).await?;
    until("the other node refuses it, too", AT_ONCE, || async {
        Ok(as_bearer(&second, &own, &["whoami"]).await?.code == 6)
    })
    .await?;
    until("its session has ended", AT_ONCE, || async { Ok(second.instances("web").await?.is_empty()) }).await?;
    first.stop().await?;
    second.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_say_who_the_platform_is_and_who_calls_it() -> Result<()> {
    let authority = Authority::new()?;
    authority.sign("node", "localhost", None)?;
    authority.sign("ops", "ops.test", None)?;
    authority.sign("web", "web.test", Some("spiffe://test/ns/default/svc/web"))?;
    let (ca, cert, key) = (authority.path("ca.pem"), authority.path("node.crt"), authority.path("node.key"));
    let config = authority.path("ninefold.toml");
    std::fs::write(&config, "[[access.identities]]\nname = \"ops.test\"\nroles = [\"admin\"]\nnamespaces = [\"*\"]\n")?;
    let flags = ["--auth", "mtls", "--tls-cert", &cert, "--tls-key", &key, "--client-ca", &ca, "--config", &config];
    // Beyond this machine, and with children, who are spoken with through a door of their own.
    let house = Landscape::demo(&[&flags[..], &["--no-traffic", "--listen", "0.0.0.0:0"]].concat()).await?;
    ensure!(!house.said().contains("clear text"), "{}", house.said());

    let (crt, key) =
        (|name: &str| authority.path(&format!("{name}.crt")), |name: &str| authority.path(&format!("{name}.key")));
    let show = |name: &str| {
        [("NINEFOLD_CA_FILE", ca.clone()), ("NINEFOLD_CERT_FILE", crt(name)), ("NINEFOLD_KEY_FILE", key(name))]
    };
    let ask = async |name: &str, arguments: &[&str]| {
        let shown = show(name);
        house.run_as(&shown.each_ref().map(|(variable, value)| (*variable, value.as_str())), arguments).await
    };
    let who = ask("ops", &["whoami"]).await?;
    ensure!(who.code == 0 && who.stdout.contains("ops.test") && who.stdout.contains("ROLE_ADMIN"), "{who:?}");
    let who = ask("web", &["whoami"]).await?;
    ensure!(who.code == 0 && who.stdout.contains("ROLE_INSTANCE"), "{who:?}");
    is_denied(&ask("web", &["scale", "review", "1"]).await?, "ROLE_DENIED");
    is_denied(&house.run_as(&[("NINEFOLD_CA_FILE", &ca)], &["whoami"]).await?, "CREDENTIALS_MISSING");
    let untrusting = house.run_as(&[], &["whoami"]).await?;
    ensure!(untrusting.code != 0 && untrusting.code != 6, "an unknown authority is believed: {untrusting:?}");

    let shown = show("web");
    let shown = shown.each_ref().map(|(variable, value)| (*variable, value.as_str()));
    let _web = run(&house, "web", &shown)?;
    until("the instance has joined", SOON, || async {
        let view: Value = serde_json::from_str(&ask("ops", &["ps"]).await?.stdout)?;
        let instances = view["instances"].as_array().cloned().unwrap_or_default();
        Ok(instances.iter().any(|one| one["service"] == "web" && one["state"] == "INSTANCE_STATE_SERVING"))
    })
    .await?;
    // The node's own telemetry and its children's arrive as well.
    let logs = ask("ops", &["logs", "product", "-n", "5"]).await?;
    ensure!(logs.code == 0 && logs.stdout.contains("product"), "{logs:?}");
    Ok(())
}

/// A key that signs tokens, and what its public half is called in a JWK Set.
fn issuer() -> Result<(KeyPair, String)> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
    let x = URL_SAFE_NO_PAD.encode(key.public_key_raw());
    let jwks = serde_json::json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": x}]});
    Ok((key, jwks.to_string()))
}

fn signed(key: &KeyPair, claims: &Value) -> Result<String> {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&serde_json::json!({"alg": "EdDSA", "kid": "k"})), part(claims));
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes())?)))
}

#[tokio::test]
async fn callers_of_the_edge_show_tokens_and_keys() -> Result<()> {
    let house = Landscape::demo(&["--no-traffic"]).await?;
    let edge = house.address("edge");
    let get = async |headers: &[(&str, &str)]| http::request(&edge, "GET", "/v1/products/1", headers, None).await;
    ensure!(get(&[]).await?.status == 200, "nobody is asked unless it is said");

    let (pair, jwks) = issuer()?;
    let auth = serde_json::json!({
        "required": true,
        "issuers": [{"issuer": "https://id.example", "audiences": ["shop"], "jwks": jwks}],
    });
    let traffic = serde_json::json!({"product-composite": {"requirement": {"scopes_all": ["products.read"]}}});
    let (auth, traffic) = (format!("auth={auth}"), format!("traffic={traffic}"));
    house.ask(&["config", "set", "edge", &auth, &traffic]).await?;
    until("nobody gets in unknown", SOON, async || Ok(get(&[]).await?.status == 401)).await?;
    let refused = get(&[]).await?;
    ensure!(refused.header("www-authenticate").starts_with("Bearer") && refused.text().contains("CALLER_UNKNOWN"));

    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let bearer = |scope: &str| -> Result<String> {
        let claims = serde_json::json!({
            "iss": "https://id.example", "aud": "shop", "sub": "ada", "exp": now + 600, "scope": scope,
        });
        Ok(format!("Bearer {}", signed(&pair, &claims)?))
    };
    ensure!(get(&[("authorization", &bearer("products.read")?)]).await?.status == 200);
    ensure!(get(&[("authorization", &bearer("other")?)]).await?.status == 403);
    let (stranger, _) = issuer()?;
    let claims =
        serde_json::json!({"iss": "https://id.example", "aud": "shop", "exp": now + 600, "scope": "products.read"});
    let forged = format!("Bearer {}", signed(&stranger, &claims)?);
    ensure!(get(&[("authorization", &forged)]).await?.status == 401);

    let made = house.ask(&["key", "create", "app", "--scope", "products.read", "--per-day", "5"]).await?;
    let (secret, id) = (made["secret"].as_str().context("a secret")?, made["key"]["id"].as_str().context("an id")?);
    let shown = [("x-api-key", secret)];
    until("the key is known", AT_ONCE, async || Ok(get(&shown).await?.status == 200)).await?;
    let answer = get(&shown).await?;
    ensure!(answer.header("ratelimit").contains("\"key-day\";r="), "{answer:?}");
    let keys = house.run(&["key", "list"]).await?;
    ensure!(keys.code == 0 && keys.stdout.contains(id) && !keys.stdout.contains(&secret[20..]), "{keys:?}");
    let route = house.ask(&["route", "test", "GET", "/v1/products/1"]).await?.to_string();
    ensure!(route.contains("products.read") && route.contains("CALLER_UNKNOWN"), "{route}");
    house.ask(&["key", "revoke", id]).await?;
    until("the key is refused", AT_ONCE, async || Ok(get(&shown).await?.status == 401)).await?;

    // What services verify the edge's word with; the last call made sure that there is one.
    let platform = house.address("platform");
    let keys = async || http::request(&platform, "GET", "/v1/identity/keys", &[], None).await?.json();
    until("the edge's key is there", AT_ONCE, async || {
        let published = keys().await?;
        Ok(published["keys"][0]["kty"] == "OKP" && published["keys"][0]["use"] == "sig")
    })
    .await?;
    let by_http = http::request(&platform, "GET", "/v1/keys", &[], None).await?;
    ensure!(by_http.status == 200 && by_http.json()?["keys"].as_array().is_none_or(Vec::is_empty), "{by_http:?}");
    let data = std::process::Command::new("grep").args(["-rlaF", &secret[20..], &house.data()]).output()?;
    ensure!(data.stdout.is_empty(), "the key's secret lies on disk: {}", String::from_utf8_lossy(&data.stdout));
    house.stop().await
}
