//! `paperboy key create|list|revoke`: who may use the HTTP API.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Common, Failure, output, services};
use crate::desk::keys::{self, Order};
use crate::domain::key::{KeyId, Scopes};
use crate::domain::name::Tenant;
use crate::store::{KeyRow, Store};

#[derive(Subcommand, Debug)]
pub(super) enum Command {
    /// Make a key; it is shown this once
    Create(Create),
    /// List keys, without what is secret of them
    List {
        /// Only this tenant's
        #[arg(long)]
        tenant: Option<String>,
    },
    /// End a key; every process knows within a second
    Revoke {
        /// Its id, such as `pbk_abcdefghijkl`
        id: String,
    },
}

/// Make a key.
#[derive(Args, Debug)]
#[command(
    after_help = "A key of a tenant sees and changes what is that tenant's, and nothing else. Without `--tenant` it is an
operator's. Scopes: read (look), write (change subscriptions, test, discard), publish (events),
replay (send dead letters again).

Examples:
  paperboy key create --name deploy
  paperboy key create --tenant acme --scopes publish --name upload-service
  paperboy key create --tenant acme --scopes read,write --expires 90d"
)]
pub(super) struct Create {
    /// The tenant it is for; else it is an operator's
    #[arg(long)]
    tenant: Option<String>,
    /// What it may do, with commas: read, write, publish, replay; else all of it
    #[arg(long, value_parser = |text: &str| Scopes::parse(text))]
    scopes: Option<Scopes>,
    /// Who has it, for people
    #[arg(long)]
    name: Option<String>,
    /// When it ends: `90d`, `12h`, or a time such as `2027-01-31T00:00:00Z`; else never
    #[arg(long, value_name = "TIME")]
    expires: Option<String>,
}

impl Command {
    pub(super) async fn run(self, common: &Common) -> Result<(), Failure> {
        let config = common.load()?;
        let store = services::open_store(&config).await?;
        let done = match self {
            Command::Create(create) => create.run(common, &store).await,
            Command::List { tenant } => list(common, &store, tenant.as_deref()).await,
            Command::Revoke { id } => revoke(common, &store, &id).await,
        };
        store.close().await;
        done
    }
}

impl Create {
    async fn run(self, common: &Common, store: &Store) -> Result<(), Failure> {
        let order = Order {
            tenant: self.tenant.as_deref().map(tenant).transpose()?,
            scopes: self.scopes.unwrap_or_else(Scopes::all),
            name: self.name,
            expires_at_ms: self.expires.as_deref().map(expiry).transpose()?,
        };
        let (row, text) = keys::create(store, &services::caller(), order).await?;
        if common.json {
            let mut told = row_json(&row);
            told["key"] = json!(text.expose());
            output::json_line(&told);
            return Ok(());
        }
        println!("{}", text.expose());
        let whose =
            row.tenant.as_ref().map_or("an operator's".into(), |tenant| format!("for tenant `{tenant}`"));
        eprintln!("key `{}` is {whose}, may {}; it is shown this once", row.id, row.scopes);
        Ok(())
    }
}

async fn list(common: &Common, store: &Store, asked: Option<&str>) -> Result<(), Failure> {
    let asked = asked.map(tenant).transpose()?;
    let mut rows = store.api_keys().await?;
    rows.retain(|row| asked.is_none() || row.tenant == asked);
    if common.json {
        rows.iter().for_each(|row| output::json_line(&row_json(row)));
        return Ok(());
    }
    let moment = |at: Option<i64>| at.map_or("-".to_owned(), output::moment);
    let cells = rows.iter().map(|row| {
        vec![
            row.id.to_string(),
            row.tenant.as_ref().map_or("operator".into(), Tenant::to_string),
            output::printable(row.name.as_deref().unwrap_or("-")),
            row.scopes.to_string(),
            state(row).to_owned(),
            moment(row.expires_at_ms),
            moment(row.used_at_ms),
        ]
    });
    let header = ["id", "tenant", "name", "scopes", "state", "expires", "last used"];
    output::table(&header, cells.collect(), "no keys");
    Ok(())
}

async fn revoke(common: &Common, store: &Store, id: &str) -> Result<(), Failure> {
    // Not the text: it may be a whole key.
    let id = KeyId::parse(id).map_err(|fault| {
        Failure::usage(format!("what is given {fault}")).hint("`paperboy key list` shows the ids")
    })?;
    let is_new = keys::revoke(store, &services::caller(), &id).await?;
    let status = if is_new { "revoked" } else { "unchanged" };
    if common.json {
        output::json_line(&json!({ "id": id.as_str(), "status": status }));
    } else {
        let told =
            if is_new { "is revoked; it ends everywhere within a second" } else { "was revoked before" };
        eprintln!("key `{id}` {told}");
    }
    Ok(())
}

fn tenant(text: &str) -> Result<Tenant, Failure> {
    Tenant::parse(text).map_err(|fault| Failure::usage(format!("`{text}` is not a tenant: {fault}")))
}

/// `90d`, `12h` or a time; Unix milliseconds, in the future.
fn expiry(text: &str) -> Result<i64, Failure> {
    let wrong = |why: &str| {
        Failure::usage(format!("`--expires {text}` {why}"))
            .hint("write `90d`, `12h` or `2027-01-31T00:00:00Z`")
    };
    let now = jiff::Timestamp::now();
    let hours = match text.split_at_checked(text.len().saturating_sub(1)) {
        Some((number, "h")) => number.parse::<i64>().ok(),
        Some((number, "d")) => number.parse::<i64>().ok().and_then(|days| days.checked_mul(24)),
        _ => None,
    };
    let end = match hours {
        Some(hours) => jiff::Span::new().try_hours(hours).ok().and_then(|span| now.checked_add(span).ok()),
        None => text.parse().ok(),
    };
    let end = end.ok_or_else(|| wrong("is no time"))?;
    if end <= now {
        return Err(wrong("is in the past"));
    }
    Ok(end.as_millisecond())
}

fn state(row: &KeyRow) -> &'static str {
    let now_ms = jiff::Timestamp::now().as_millisecond();
    match (row.revoked_at_ms, row.expires_at_ms) {
        (Some(_), _) => "revoked",
        (None, Some(end)) if end <= now_ms => "expired",
        _ => "good",
    }
}

fn row_json(row: &KeyRow) -> Value {
    let moment = |at: Option<i64>| at.map(output::moment);
    json!({
        "id": row.id.as_str(),
        "tenant": row.tenant.as_ref().map(Tenant::as_str),
        "name": row.name,
        "scopes": row.scopes.words(),
        "state": state(row),
        "created_at": output::moment(row.created_at_ms),
        "expires_at": moment(row.expires_at_ms),
        "revoked_at": moment(row.revoked_at_ms),
        "used_at": moment(row.used_at_ms),
    })
}
