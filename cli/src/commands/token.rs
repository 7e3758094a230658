//! `ninefold token` and `ninefold whoami`: who may talk to the platform.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use ninefold_proto::ninefold::access::v1::{CreateTokenRequest, ListTokensRequest, RevokeTokenRequest, Role, Token};
use serde_json::json;

use crate::client::Platform;
use crate::exit::Failure;
use crate::output::{self, Format, Table};

/// Name of a token's message.
const TOKEN: &str = "ninefold.access.v1.Token";

/// What `token` does.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token and print it. It cannot be printed again.
    #[command(
        after_help = "Examples:\n  ninefold token create deploy --role operator > deploy.token\n  ninefold token create product --role instance --service product --expires 720h --write product.token"
    )]
    Create(TokenArgs),
    /// List the tokens, without their secrets.
    Ls,
    /// Revoke a token: it is refused everywhere within a second, and what was opened with it ends.
    Revoke {
        /// Its id, as `ninefold token ls` shows it.
        id: String,
    },
}

/// A token to make. Its bearer may see and join what `--namespace` names: one, several with commas between, or `*` for all;
/// without it `default` for instances, and `*` for others.
#[derive(Clone, Debug, Args)]
pub(crate) struct TokenArgs {
    /// Name for people.
    pub(crate) name: String,
    /// What its bearer may do. May be given more than once.
    #[arg(long = "role", required = true, value_enum)]
    pub(crate) roles: Vec<RoleKind>,
    /// A service that its bearer may join as; `*` for all. May be given more than once; needed by instances.
    #[arg(long = "service", value_name = "NAME")]
    pub(crate) services: Vec<String>,
    /// How long it is worth something, such as 720h [default: until it is revoked].
    #[arg(long, value_name = "TIME", value_parser = ninefold::settings::duration::parse)]
    pub(crate) expires: Option<std::time::Duration>,
    /// Write it to this file, which only you may read, instead of printing it.
    #[arg(long, value_name = "FILE")]
    pub(crate) write: Option<PathBuf>,
    /// Do nothing if that file holds a token that the platform still takes.
    #[arg(long, requires = "write")]
    pub(crate) keep: bool,
}

/// What a token's bearer may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleKind {
    /// See everything, change nothing.
    Read,
    /// Be an instance of the named services.
    Instance,
    /// Run the landscape: settings, policies, numbers of instances.
    Operator,
    /// Everything.
    Admin,
}

/// Makes, lists or revokes tokens. A new one is bounded by the namespaces that are named, if any are.
pub(crate) async fn token(
    platform: &Platform,
    command: TokenCommand,
    namespaces: Option<&str>,
    format: Format,
) -> Result<(), Failure> {
    match command {
        TokenCommand::Create(args) => create(platform, args, namespaces, format).await,
        TokenCommand::Ls => list(platform, format).await,
        TokenCommand::Revoke { id } => {
            let revoked = platform.ask(platform.access().revoke_token(RevokeTokenRequest { id })).await?.token;
            let token = revoked.unwrap_or_default();
            let text = || format!("revoked {} ({})", token.name, token.id);
            output::print(format, &output::json(TOKEN, &token), text)
        }
    }
}

async fn create(platform: &Platform, args: TokenArgs, namespaces: Option<&str>, format: Format) -> Result<(), Failure> {
    if let (true, Some(path)) = (args.keep, &args.write)
        && path.exists()
        && platform.with_token_in(path)?.whoami().await.is_ok()
    {
        output::talk(format!("{} holds a token that is still taken", path.display()));
        return Ok(());
    }
    let is_instance = args.roles == [RoleKind::Instance];
    let namespaces = match namespaces.filter(|named| !named.is_empty()) {
        None if is_instance => vec!["default".to_owned()],
        None => vec!["*".to_owned()],
        Some(named) => named.split(',').map(|name| name.trim().to_owned()).collect(),
    };
    let lifetime = args.expires.map(prost_types::Duration::try_from).transpose();
    let lifetime = lifetime.map_err(|_| Failure::Usage("--expires is too far away".to_owned()))?;
    let roles = args.roles.iter().map(|role| role_of(*role).into()).collect();
    let request = CreateTokenRequest { name: args.name, roles, services: args.services, namespaces, lifetime };
    let created = platform.ask(platform.access().create_token(request)).await?;
    let token = created.token.unwrap_or_default();
    let mut value = json!({"token": output::json(TOKEN, &token)});
    if let Some(path) = &args.write {
        let written = ninefold_access::write_token(path, &created.secret);
        written.map_err(|error| Failure::Failed(ninefold::fault::chain(&error)))?;
        value["file"] = json!(path.display().to_string());
    } else {
        value["secret"] = json!(created.secret);
    }
    output::talk(format!("made token {} ({}): {}", token.name, token.id, grants(&token)));
    output::print(format, &value, || match &args.write {
        Some(_) => String::new(),
        // Alone on standard output, so that it can be sent to a file.
        None => created.secret.clone(),
    })
}

async fn list(platform: &Platform, format: Format) -> Result<(), Failure> {
    let client = platform.access();
    let tokens: Vec<Token> = platform
        .gather(|page_token| {
            let mut client = client.clone();
            async move {
                let answer = client.list_tokens(ListTokensRequest { page_size: 1000, page_token }).await?.into_inner();
                Ok((answer.tokens, answer.next_page_token))
            }
        })
        .await?;
    output::print(format, &output::json_all(TOKEN, &tokens), || {
        let mut table = Table::new(&["ID", "NAME", "MAY", "MADE", "LAST USED", "EXPIRES"]);
        for token in &tokens {
            table.row([
                token.id.clone(),
                token.name.clone(),
                grants(token),
                output::ago(token.create_time.as_ref()),
                output::ago(token.last_use_time.as_ref()),
                expiry(token.expire_time.as_ref()),
            ]);
        }
        table.render()
    })
}

/// Tells who one is to the platform.
pub(crate) async fn whoami(platform: &Platform, format: Format) -> Result<(), Failure> {
    let who = platform.whoami().await?;
    output::print(format, &output::json("ninefold.access.v1.WhoAmIResponse", &who), || {
        if !who.is_asked {
            return "anybody: this platform asks nobody who they are\n".to_owned();
        }
        let names = |names: &[String]| if names.is_empty() { "-".to_owned() } else { names.join(", ") };
        format!(
            "{}\n  roles       {}\n  services    {}\n  namespaces  {}\n",
            who.identity,
            roles(who.roles()),
            names(&who.services),
            names(&who.namespaces)
        )
    })
}

/// What a token is good for, in a few words.
fn grants(token: &Token) -> String {
    let services = if token.services.is_empty() { String::new() } else { format!(" of {}", token.services.join(", ")) };
    let namespaces =
        if token.namespaces == ["*"] { String::new() } else { format!(" in {}", token.namespaces.join(", ")) };
    format!("{}{services}{namespaces}", roles(token.roles()))
}

/// When something ends, from now.
pub(crate) fn expiry(end: Option<&prost_types::Timestamp>) -> String {
    let Some(end) = end.and_then(|time| std::time::SystemTime::try_from(*time).ok()) else {
        return "never".to_owned();
    };
    match end.duration_since(std::time::SystemTime::now()) {
        Ok(left) => format!("in {}", output::short(left)),
        Err(_) => "expired".to_owned(),
    }
}

fn roles(roles: impl Iterator<Item = Role>) -> String {
    roles.map(|role| output::word(role.as_str_name(), "ROLE_")).collect::<Vec<_>>().join(", ")
}

const fn role_of(role: RoleKind) -> Role {
    match role {
        RoleKind::Read => Role::Read,
        RoleKind::Instance => Role::Instance,
        RoleKind::Operator => Role::Operator,
        RoleKind::Admin => Role::Admin,
    }
}
