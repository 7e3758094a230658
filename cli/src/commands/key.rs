//! `ninefold key`: API keys, by which callers from outside come in at the edge.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use ninefold_proto::ninefold::access::v1::{CreateKeyRequest, Key, ListKeysRequest, Quota, RevokeKeyRequest};
use serde_json::json;

use crate::client::Platform;
use crate::exit::Failure;
use crate::output::{self, Format, Table};

/// Name of a key's message.
const KEY: &str = "ninefold.access.v1.Key";

/// What `key` does.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key and print it. It cannot be printed again.
    #[command(
        after_help = "Example:\n  ninefold key create 'mobile app' --scope orders.read --claim tenant=acme --expires 2160h --per-day 100000"
    )]
    Create(KeyArgs),
    /// List the keys, without their secrets.
    #[command(visible_alias = "list")]
    Ls,
    /// Revoke a key: every edge refuses it within a second.
    Revoke {
        /// Its id, as `ninefold key ls` shows it.
        id: String,
    },
}

/// A key to make.
#[derive(Clone, Debug, Args)]
pub(crate) struct KeyArgs {
    /// Name for people.
    pub(crate) name: String,
    /// What its bearer may do. May be given more than once.
    #[arg(long = "scope", value_name = "SCOPE")]
    pub(crate) scopes: Vec<String>,
    /// What else is said of its bearer. May be given more than once.
    #[arg(long = "claim", value_name = "NAME=TEXT", value_parser = pair)]
    pub(crate) claims: Vec<(String, String)>,
    /// On whose behalf its bearer calls [default: the key's id].
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) subject: String,
    /// How long it is worth something, such as 720h [default: until it is revoked].
    #[arg(long, value_name = "TIME", value_parser = ninefold::settings::duration::parse)]
    pub(crate) expires: Option<std::time::Duration>,
    /// Most requests a day (UTC) [default: any number].
    #[arg(long, value_name = "NUMBER", default_value_t, hide_default_value = true)]
    pub(crate) per_day: u64,
    /// Most requests a month (UTC) [default: any number].
    #[arg(long, value_name = "NUMBER", default_value_t, hide_default_value = true)]
    pub(crate) per_month: u64,
    /// Write it to this file, which only you may read, instead of printing it.
    #[arg(long, value_name = "FILE")]
    pub(crate) write: Option<PathBuf>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as name=text")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Makes, lists or revokes keys.
pub(crate) async fn key(platform: &Platform, command: KeyCommand, format: Format) -> Result<(), Failure> {
    match command {
        KeyCommand::Create(args) => create(platform, args, format).await,
        KeyCommand::Ls => list(platform, format).await,
        KeyCommand::Revoke { id } => {
            let revoked = platform.ask(platform.keys().revoke_key(RevokeKeyRequest { id })).await?.key;
            let key = revoked.unwrap_or_default();
            let text = || format!("revoked {} ({})", key.name, key.id);
            output::print(format, &output::json(KEY, &key), text)
        }
    }
}

async fn create(platform: &Platform, args: KeyArgs, format: Format) -> Result<(), Failure> {
    let lifetime = args.expires.map(prost_types::Duration::try_from).transpose();
    let lifetime = lifetime.map_err(|_| Failure::Usage("--expires is too far away".to_owned()))?;
    let has_quota = args.per_day > 0 || args.per_month > 0;
    let request = CreateKeyRequest {
        name: args.name,
        subject: args.subject,
        scopes: args.scopes,
        claims: args.claims.into_iter().collect(),
        quota: has_quota.then_some(Quota { day_max: args.per_day, month_max: args.per_month }),
        lifetime,
    };
    let created = platform.ask(platform.keys().create_key(request)).await?;
    let key = created.key.unwrap_or_default();
    let mut value = json!({"key": output::json(KEY, &key)});
    if let Some(path) = &args.write {
        let written = ninefold_access::write_token(path, &created.secret);
        written.map_err(|error| Failure::Failed(ninefold::fault::chain(&error)))?;
        value["file"] = json!(path.display().to_string());
    } else {
        value["secret"] = json!(created.secret);
    }
    output::talk(format!("made key {} ({}): {}", key.name, key.id, scopes(&key)));
    output::print(format, &value, || match &args.write {
        Some(_) => String::new(),
        // Alone on standard output, so that it can be sent to a file.
        None => created.secret.clone(),
    })
}

async fn list(platform: &Platform, format: Format) -> Result<(), Failure> {
    let client = platform.keys();
    let keys: Vec<Key> = platform
        .gather(|page_token| {
            let mut client = client.clone();
            async move {
                let answer = client.list_keys(ListKeysRequest { page_size: 1000, page_token }).await?.into_inner();
                Ok((answer.keys, answer.next_page_token))
            }
        })
        .await?;
    output::print(format, &output::json_all(KEY, &keys), || {
        let mut table = Table::new(&["ID", "NAME", "SUBJECT", "SCOPES", "QUOTA", "MADE", "EXPIRES"]);
        for key in &keys {
            table.row([
                key.id.clone(),
                key.name.clone(),
                key.subject.clone(),
                scopes(key),
                quota(key),
                output::ago(key.create_time.as_ref()),
                super::token::expiry(key.expire_time.as_ref()),
            ]);
        }
        table.render()
    })
}

fn scopes(key: &Key) -> String {
    if key.scopes.is_empty() { "no scopes".to_owned() } else { key.scopes.join(" ") }
}

fn quota(key: &Key) -> String {
    let Quota { day_max, month_max } = key.quota.unwrap_or_default();
    let parts = [(day_max, "a day"), (month_max, "a month")];
    let parts: Vec<String> =
        parts.iter().filter(|(max, _)| *max > 0).map(|(max, per)| format!("{max} {per}")).collect();
    if parts.is_empty() { "-".to_owned() } else { parts.join(", ") }
}
