//! `paperboy dead list|show|replay|discard`.

mod from_queue;

use std::ffi::OsString;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Common, Failure, output, services};
use crate::config::Config;
use crate::domain::history::History;
use crate::domain::name::SubscriptionId;
use crate::store::dead::Kind;
use crate::store::{DeadFilter, DeadLetterFull, DeadRow, DeadState, Store};
use crate::worker::replay;

/// Letters read at a time when many are replayed or discarded.
const PAGE: u32 = 500;
/// What `show` prints of a body without `--raw`.
const BODY_SHOWN: usize = 4096;

#[derive(Subcommand, Debug)]
pub(super) enum Command {
    /// List dead letters, newest first
    List(List),
    /// Show one dead letter: why, every attempt, the last answer, the event
    Show {
        /// Its id, such as `dl_17`
        id: String,
        /// Print the event's bytes as they are, and nothing else
        #[arg(long)]
        raw: bool,
    },
    /// Send dead letters on their way again
    Replay(Replay),
    /// Give dead letters up for good; they stay listed with `--state discarded`
    Discard(Discard),
    /// Commands that come later, and words that are none.
    #[command(external_subcommand)]
    Other(Vec<OsString>),
}

/// Which dead letters.
#[derive(Args, Debug, Clone, Default)]
struct Which {
    /// Only this tenant's
    #[arg(long)]
    tenant: Option<String>,
    /// Only this reason: exhausted, permanent, disabled, gone, starved, poison, unreadable,
    /// undrainable
    #[arg(long)]
    reason: Option<String>,
    /// Only this event
    #[arg(long, value_name = "ID")]
    event: Option<String>,
    /// Only this document
    #[arg(long, value_name = "ID")]
    document: Option<String>,
    /// Only `delivery` or only `event`
    #[arg(long)]
    kind: Option<String>,
}

/// The dead letters a command is about.
#[derive(Args, Debug)]
struct Chosen {
    /// Their ids
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Every open one that the filters leave
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    #[command(flatten)]
    which: Which,
    /// Only those that were for this subscription
    #[arg(long, value_name = "ID")]
    from: Option<String>,
}

/// List dead letters.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  paperboy dead list --tenant acme --reason exhausted
  paperboy dead list --from-queue --limit 20      without a store; hands everything back")]
pub(super) struct List {
    #[command(flatten)]
    which: Which,
    /// Only this subscription's
    #[arg(long, value_name = "ID")]
    subscription: Option<String>,
    /// open, replayed, discarded or all
    #[arg(long, default_value = "open")]
    state: String,
    /// At most this many (50; with `--from-queue` 100 of each queue, whose first 1000 can be seen)
    #[arg(long)]
    limit: Option<u32>,
    /// Start before this id (the last of the page before)
    #[arg(long, value_name = "ID")]
    before: Option<String>,
    /// Look at the dead queues themselves, oldest first; works while nobody drains them (`dead.drain = false`)
    #[arg(long, conflicts_with_all = ["state", "before"])]
    from_queue: bool,
}

/// Send dead letters on their way again.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  paperboy dead replay dl_17
  paperboy dead replay --all --tenant acme --reason exhausted --dry-run")]
pub(super) struct Replay {
    #[command(flatten)]
    chosen: Chosen,
    /// Send to this other subscription of the same tenant
    #[arg(long, value_name = "NEW")]
    subscription: Option<String>,
    /// Only say what would be sent
    #[arg(long)]
    dry_run: bool,
}

/// Give dead letters up for good.
#[derive(Args, Debug)]
pub(super) struct Discard {
    #[command(flatten)]
    chosen: Chosen,
    /// Why, for whoever looks later
    #[arg(long)]
    note: Option<String>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Only say what would be discarded
    #[arg(long)]
    dry_run: bool,
}

impl Command {
    pub(super) async fn run(self, common: &Common) -> Result<(), Failure> {
        if let Command::Other(words) = &self {
            return Err(refuse(words));
        }
        if let Command::List(list) = &self
            && list.from_queue
        {
            return list.look_into_queues(common).await;
        }
        let config = common.load()?;
        let store = services::open_store(&config).await?;
        let done = match self {
            Command::List(list) => list.run(common, &store).await,
            Command::Show { id, raw } => show(common, &store, &id, raw).await,
            Command::Replay(replay) => replay.run(common, &config, &store).await,
            Command::Discard(discard) => discard.run(common, &store).await,
            Command::Other(words) => Err(refuse(&words)),
        };
        store.close().await;
        done
    }
}

fn refuse(words: &[OsString]) -> Failure {
    let word = words.first().map(|word| word.to_string_lossy()).unwrap_or_default();
    if ["groups", "export"].contains(&word.as_ref()) {
        return Failure::usage(format!("`paperboy dead {word}` is not supported yet"))
            .hint("`paperboy dead list --json` prints one letter a line");
    }
    Failure::usage(format!("`{word}` is not a command of `paperboy dead`"))
        .hint("`paperboy dead --help` lists them")
}

impl Which {
    fn filter(&self, subscription: Option<&str>) -> Result<DeadFilter, Failure> {
        let kind = match self.kind.as_deref() {
            None => None,
            Some(text) => Some(Kind::parse(text).ok_or_else(|| {
                Failure::usage(format!("`{text}` is not a kind of dead letter"))
                    .hint("write `delivery` or `event`")
            })?),
        };
        Ok(DeadFilter {
            kind,
            tenant: self.tenant.clone(),
            subscription: subscription.map(str::to_owned),
            reason: self.reason.clone(),
            event_id: self.event.clone(),
            document_id: self.document.clone(),
            ..DeadFilter::default()
        })
    }
}

impl List {
    async fn run(self, common: &Common, store: &Store) -> Result<(), Failure> {
        let state = match self.state.as_str() {
            "all" => None,
            text => Some(DeadState::parse(text).ok_or_else(|| {
                Failure::usage(format!("`{text}` is not a state"))
                    .hint("write `open`, `replayed`, `discarded` or `all`")
            })?),
        };
        let filter = DeadFilter {
            state,
            limit: self.limit.unwrap_or(crate::store::dead::LIST_LIMIT),
            before_id: self.before.as_deref().map(number).transpose()?,
            ..self.which.filter(self.subscription.as_deref())?
        };
        let rows = store.dead_list(&filter).await?;
        if common.json {
            rows.iter().for_each(|row| output::json_line(&row_json(row)));
            return Ok(());
        }
        let cells = rows.iter().map(|row| {
            let or_dash = |text: &Option<String>| output::printable(text.as_deref().unwrap_or("-"));
            vec![
                format!("dl_{}", row.id),
                row.kind.as_str().to_owned(),
                output::printable(&row.reason),
                or_dash(&row.tenant),
                or_dash(&row.event_id),
                or_dash(&row.event_type),
                or_dash(&row.subscription),
                row.attempts.to_string(),
                output::moment(row.dead_at_ms),
            ]
        });
        let header =
            ["id", "kind", "reason", "tenant", "event", "type", "subscription", "attempts", "dead at"];
        output::table(&header, cells.collect(), "no dead letters");
        Ok(())
    }
}

fn number(id: &str) -> Result<i64, Failure> {
    let wrong =
        || Failure::usage(format!("`{id}` is not the id of a dead letter")).hint("ids look like `dl_17`");
    id.strip_prefix("dl_").unwrap_or(id).parse().map_err(|_| wrong())
}

async fn find(store: &Store, id: &str) -> Result<DeadLetterFull, Failure> {
    let missing =
        || Failure::world(format!("there is no dead letter `{id}`")).hint("`paperboy dead list` shows them");
    store.dead_show(number(id)?).await?.ok_or_else(missing)
}

fn history_json(history: &str) -> Value {
    let entries = History::parse(history);
    let json = entries
        .entries()
        .map(|entry| json!({ "at": output::moment(entry.at_ms()), "seen": entry.what(), "ms": entry.elapsed_ms() }));
    json.collect()
}

fn row_json(row: &DeadRow) -> Value {
    json!({
        "id": format!("dl_{}", row.id),
        "kind": row.kind.as_str(),
        "reason": row.reason,
        "tenant": row.tenant,
        "event": row.event_id,
        "type": row.event_type,
        "subscription": row.subscription,
        "document_id": row.document_id,
        "batch_id": row.batch_id,
        "cycle": row.cycle,
        "attempts": row.attempts,
        "history": history_json(&row.history),
        "body_bytes": row.body_bytes,
        "first_seen": output::moment(row.first_seen_ms),
        "dead_at": output::moment(row.dead_at_ms),
        "state": row.state.as_str(),
        "note": row.note,
    })
}

async fn show(common: &Common, store: &Store, id: &str, raw: bool) -> Result<(), Failure> {
    let letter = find(store, id).await?;
    if raw {
        use std::io::Write as _;
        std::io::stdout().write_all(&letter.body).map_err(anyhow::Error::from)?;
        return Ok(());
    }
    let (body, answer) = (String::from_utf8_lossy(&letter.body), String::from_utf8_lossy(&letter.answer));
    if common.json {
        let mut value = row_json(&letter.row);
        value["body"] = json!(body);
        value["answer"] = json!(answer);
        value["headers"] = serde_json::from_slice(&letter.headers).unwrap_or(Value::Null);
        output::json_line(&value);
        return Ok(());
    }
    let row = &letter.row;
    let line = |name: &str, value: &str| println!("{name:<14} {}", output::printable(value));
    line("dead letter", &format!("dl_{} ({}, {})", row.id, row.kind.as_str(), row.state.as_str()));
    line("reason", &row.reason);
    let named = [
        ("tenant", &row.tenant),
        ("event", &row.event_id),
        ("type", &row.event_type),
        ("subscription", &row.subscription),
        ("document", &row.document_id),
        ("batch", &row.batch_id),
        ("note", &row.note),
    ];
    for (name, value) in named {
        if let Some(value) = value {
            line(name, value);
        }
    }
    line("first seen", &output::moment(row.first_seen_ms));
    line("dead at", &output::moment(row.dead_at_ms));
    line("attempts", &row.attempts.to_string());
    let history = History::parse(&row.history);
    for (place, entry) in history.entries().enumerate() {
        println!(
            "  {:>3}  {}  {:<12} {} ms",
            place + 1,
            output::moment(entry.at_ms()),
            entry.what(),
            entry.elapsed_ms()
        );
    }
    if history.cut() > 0 {
        println!("       ({} attempts in the middle are not kept)", history.cut());
    }
    if !answer.is_empty() {
        println!("last answer:\n{}", output::printable(&answer));
    }
    let shown = &body[..body.floor_char_boundary(BODY_SHOWN)];
    println!("event ({} bytes):\n{}", letter.body.len(), output::printable(shown));
    if shown.len() < body.len() {
        println!("… `--raw` prints all of it");
    }
    Ok(())
}

impl Chosen {
    /// The named ones, or every open one the filters leave, oldest last.
    async fn rows(&self, store: &Store) -> Result<Vec<DeadRow>, Failure> {
        if self.ids.is_empty() && !self.all {
            return Err(Failure::usage("no dead letter is named")
                .hint("name ids such as `dl_17`, or `--all` with filters"));
        }
        let mut rows: Vec<DeadRow> = Vec::new();
        for id in &self.ids {
            let row = find(store, id).await?.row;
            // Named twice is meant once.
            if rows.iter().all(|known| known.id != row.id) {
                rows.push(row);
            }
        }
        if self.all {
            let mut filter = DeadFilter { limit: PAGE, ..self.which.filter(self.from.as_deref())? };
            loop {
                let page = store.dead_list(&filter).await?;
                filter.before_id = page.last().map(|row| row.id);
                let is_last = page.len() < PAGE as usize;
                rows.extend(page);
                if is_last {
                    break;
                }
            }
        }
        Ok(rows)
    }
}

impl Replay {
    async fn run(self, common: &Common, config: &Config, store: &Store) -> Result<(), Failure> {
        let rows = self.chosen.rows(store).await?;
        let target = match &self.subscription {
            Some(id) => Some(target(store, id).await?),
            None => None,
        };
        if let Some((id, tenant)) = &target
            && let Some(row) = rows.iter().find(|row| row.tenant.as_deref() != Some(tenant))
        {
            return Err(Failure::world(format!(
                "dead letter `dl_{}` belongs to another tenant than subscription `{id}`",
                row.id
            ))
            .hint("a tenant's events go to that tenant's subscriptions only"));
        }
        if let Some(row) = rows.iter().find(|row| row.state == DeadState::Replayed) {
            return Err(Failure::world(format!("dead letter `dl_{}` was replayed already", row.id))
                .hint("if it died again it is listed under a new id"));
        }
        if self.dry_run {
            eprintln!("would replay {}", output::count(rows.len(), "dead letter"));
            return Ok(());
        }
        super::log::start(&crate::config::LogConfig { filter: "warn".into(), ..config.log.clone() });
        let broker = services::broker(config).await?;
        let mut replayed = 0;
        for row in &rows {
            let Some(letter) = store.dead_show(row.id).await? else { continue };
            if letter.row.state == DeadState::Replayed {
                // Somebody else was quicker.
                continue;
            }
            let cycle = store.next_cycle().await?;
            let sent =
                replay::replay(&broker, &letter, cycle, target.as_ref().map(|(id, _)| id.as_str())).await;
            if let Err(error) = sent {
                broker.close().await;
                return Err(Failure::world(format!("replay stopped at `dl_{}`: {error}", row.id))
                    .hint(format!("{replayed} were sent and are marked; run it again for the rest")));
            }
            // Confirmed first, marked after: a crash in between repeats one, and loses none.
            store
                .dead_mark(&[row.id], DeadState::Replayed, None, jiff::Timestamp::now().as_millisecond())
                .await?;
            replayed += 1;
            if common.json {
                output::json_line(&json!({ "id": format!("dl_{}", row.id), "status": "replayed" }));
            }
        }
        broker.close().await;
        eprintln!("replayed {}", output::count(replayed, "dead letter"));
        Ok(())
    }
}

async fn target(store: &Store, id: &str) -> Result<(String, String), Failure> {
    let parsed = SubscriptionId::parse(id)
        .map_err(|fault| Failure::usage(format!("`{id}` is not a subscription's id: {fault}")))?;
    let spec = store
        .subscription(&parsed)
        .await?
        .ok_or_else(|| Failure::world(format!("there is no subscription `{id}`")))?;
    Ok((id.to_owned(), spec.tenant.unwrap_or_default()))
}

impl Discard {
    async fn run(self, common: &Common, store: &Store) -> Result<(), Failure> {
        let rows = self.chosen.rows(store).await?;
        if self.dry_run {
            eprintln!("would discard {}", output::count(rows.len(), "dead letter"));
            return Ok(());
        }
        output::confirm(&format!("discard {}?", output::count(rows.len(), "dead letter")), self.yes)?;
        let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
        let now_ms = jiff::Timestamp::now().as_millisecond();
        let discarded = store.dead_mark(&ids, DeadState::Discarded, self.note.as_deref(), now_ms).await?;
        if common.json {
            output::json_line(&json!({ "discarded": discarded }));
            return Ok(());
        }
        eprintln!(
            "discarded {}",
            output::count(usize::try_from(discarded).unwrap_or(usize::MAX), "dead letter")
        );
        Ok(())
    }
}
