//! `paperboy dead list|show|replay|discard`.

mod from_queue;

use std::ffi::OsString;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::remote::{Remote, segment};
use super::{Common, Failure, output, services};
use crate::config::Config;
use crate::desk::Desk;
use crate::desk::dead::{letter_json, row_json};
use crate::domain::history::History;
use crate::store::dead::Kind;
use crate::store::{DeadFilter, DeadLetterFull, DeadRow, DeadState, Store};

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
        if let Some(remote) = Remote::of(common)? {
            return match self {
                Command::List(list) => list.run_remote(common, &remote).await,
                Command::Show { id, raw } => show_remote(common, &remote, &id, raw).await,
                Command::Replay(replay) => replay.run_remote(common, &remote).await,
                Command::Discard(discard) => discard.run_remote(common, &remote).await,
                Command::Other(words) => Err(refuse(&words)),
            };
        }
        let config = common.load()?;
        let store = services::open_store(&config).await?;
        let desk = services::desk(&config, store.clone())?;
        let done = match self {
            Command::List(list) => list.run(common, &store).await,
            Command::Show { id, raw } => show(common, &store, &id, raw).await,
            Command::Replay(replay) => replay.run(common, &config, &desk).await,
            Command::Discard(discard) => discard.run(common, &desk).await,
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
        print_list(common, &rows.iter().map(row_json).collect::<Vec<_>>());
        Ok(())
    }

    async fn run_remote(self, common: &Common, remote: &Remote) -> Result<(), Failure> {
        let limit = self.limit.unwrap_or(crate::store::dead::LIST_LIMIT);
        let Which { tenant, reason, event, document, kind } = self.which;
        let query = [
            ("tenant", tenant),
            ("reason", reason),
            ("event", event),
            ("document", document),
            ("kind", kind),
            ("subscription", self.subscription),
            ("state", Some(self.state)),
            ("cursor", self.before),
        ];
        print_list(common, &remote.list("/v1/dead-letters", &query, limit).await?);
        Ok(())
    }
}

fn print_list(common: &Common, rows: &[Value]) {
    if common.json {
        rows.iter().for_each(output::json_line);
        return;
    }
    let columns = ["id", "kind", "reason", "tenant", "event", "type", "subscription", "attempts", "dead_at"];
    let cell = |value: &Value| match value {
        Value::String(text) => output::printable(text),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    let cells = rows.iter().map(|row| columns.iter().map(|name| cell(&row[*name])).collect());
    output::table(
        &columns.map(|name| if name == "dead_at" { "dead at" } else { name }),
        cells.collect(),
        "no dead letters",
    );
}

fn number(id: &str) -> Result<i64, Failure> {
    let wrong =
        || Failure::usage(format!("`{id}` is not the id of a dead letter")).hint("ids look like `dl_17`");
    crate::desk::dead::number(id).ok_or_else(wrong)
}

async fn find(store: &Store, id: &str) -> Result<DeadLetterFull, Failure> {
    let missing =
        || Failure::world(format!("there is no dead letter `{id}`")).hint("`paperboy dead list` shows them");
    store.dead_show(number(id)?).await?.ok_or_else(missing)
}

async fn show_remote(common: &Common, remote: &Remote, id: &str, raw: bool) -> Result<(), Failure> {
    let letter = remote.get(&format!("/v1/dead-letters/{}", segment(id))).await?;
    if raw {
        print!("{}", letter["body"].as_str().unwrap_or_default());
    } else if common.json {
        output::json_line(&letter);
    } else {
        println!("{}", output::printable(&format!("{letter:#}")));
    }
    Ok(())
}

async fn show(common: &Common, store: &Store, id: &str, raw: bool) -> Result<(), Failure> {
    let letter = find(store, id).await?;
    if raw {
        use std::io::Write as _;
        std::io::stdout().write_all(&letter.body).map_err(anyhow::Error::from)?;
        return Ok(());
    }
    if common.json {
        output::json_line(&letter_json(&letter));
        return Ok(());
    }
    let (body, answer) = (String::from_utf8_lossy(&letter.body), String::from_utf8_lossy(&letter.answer));
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
    /// What is meant, as the HTTP API takes it.
    fn body(&self) -> Result<Value, Failure> {
        if !self.ids.is_empty() {
            return Ok(json!({ "ids": self.ids }));
        }
        if !self.all {
            return Err(nothing_named());
        }
        let which = &self.which;
        let pairs = [
            ("tenant", &which.tenant),
            ("reason", &which.reason),
            ("event", &which.event),
            ("document", &which.document),
            ("kind", &which.kind),
            ("subscription", &self.from),
        ];
        let given =
            pairs.into_iter().filter_map(|(name, value)| Some((name.to_owned(), json!(value.as_ref()?))));
        Ok(json!({ "filter": Value::Object(given.collect()) }))
    }

    /// The named ones, or every open one the filters leave, oldest last.
    async fn rows(&self, store: &Store) -> Result<Vec<DeadRow>, Failure> {
        if self.ids.is_empty() && !self.all {
            return Err(nothing_named());
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

fn nothing_named() -> Failure {
    Failure::usage("no dead letter is named").hint("name ids such as `dl_17`, or `--all` with filters")
}

impl Replay {
    async fn run(self, common: &Common, config: &Config, desk: &Desk) -> Result<(), Failure> {
        let caller = services::caller();
        let rows = self.chosen.rows(&desk.store).await?;
        desk.check_replay(&caller, &rows, self.subscription.as_deref()).await?;
        if self.dry_run {
            eprintln!("would replay {}", output::count(rows.len(), "dead letter"));
            return Ok(());
        }
        super::log::start(&crate::config::LogConfig { filter: "warn".into(), ..config.log.clone() });
        let broker = services::broker(config).await?;
        let target = self.subscription.as_deref();
        let (done, ended) = desk
            .replay(&caller, &broker, &rows, target, |id| told_replayed(common, &format!("dl_{id}")))
            .await;
        broker.close().await;
        let count = done.ids.len();
        if let Err(error) = ended {
            return Err(Failure::world(error.to_string())
                .hint(format!("{count} were sent and are marked; run it again for the rest")));
        }
        eprintln!("replayed {}", output::count(count, "dead letter"));
        Ok(())
    }

    async fn run_remote(self, common: &Common, remote: &Remote) -> Result<(), Failure> {
        let mut body = self.chosen.body()?;
        body["dry_run"] = json!(self.dry_run);
        if let Some(id) = &self.subscription {
            body["subscription"] = json!(id);
        }
        let result = remote.dead_letters("replay", body, |id| told_replayed(common, id)).await?;
        let (verb, count) =
            if self.dry_run { ("would replay", result.matched) } else { ("replayed", result.done) };
        eprintln!("{verb} {}", output::count(count, "dead letter"));
        Ok(())
    }
}

fn told_replayed(common: &Common, id: &str) {
    if common.json {
        output::json_line(&json!({ "id": id, "status": "replayed" }));
    }
}

impl Discard {
    async fn run_remote(self, common: &Common, remote: &Remote) -> Result<(), Failure> {
        let mut body = self.chosen.body()?;
        if let Some(note) = &self.note {
            body["note"] = json!(note);
        }
        let mut dry = body.clone();
        dry["dry_run"] = json!(true);
        let matched = remote.dead_letters("discard", dry, |_| ()).await?.matched;
        if self.dry_run {
            eprintln!("would discard {}", output::count(matched, "dead letter"));
            return Ok(());
        }
        output::confirm(&format!("discard {}?", output::count(matched, "dead letter")), self.yes)?;
        let discarded = remote.dead_letters("discard", body, |_| ()).await?.done;
        if common.json {
            output::json_line(&json!({ "discarded": discarded }));
        } else {
            eprintln!("discarded {}", output::count(discarded, "dead letter"));
        }
        Ok(())
    }

    async fn run(self, common: &Common, desk: &Desk) -> Result<(), Failure> {
        let rows = self.chosen.rows(&desk.store).await?;
        if self.dry_run {
            eprintln!("would discard {}", output::count(rows.len(), "dead letter"));
            return Ok(());
        }
        output::confirm(&format!("discard {}?", output::count(rows.len(), "dead letter")), self.yes)?;
        let discarded = desk.discard(&services::caller(), &rows, self.note.as_deref()).await?;
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
