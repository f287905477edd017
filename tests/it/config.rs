//! Faulty configurations through the front door: one clear message for each fault, and all of them at once.

use crate::support::App;
use crate::support::failure::{CONFIG, failure, one_error};

/// Stands in every value that could be a secret, so that none may be told.
const CANARY: &str = "canary";

/// Where a fault is put: lines of a section of the file, or a variable of the environment.
#[derive(Clone, Copy)]
enum Place {
    File(&'static str, &'static str),
    Variable(&'static str, &'static str),
}

use Place::{File, Variable};

/// One fault, how the message about it begins and what the hint says.
struct Faulty {
    place: Place,
    error: &'static str,
    hint: &'static str,
}

const fn faulty(place: Place, error: &'static str, hint: &'static str) -> Faulty {
    Faulty { place, error, hint }
}

/// No two of one key, so that all of them fit into one file and one environment. `FILE` stands for its path.
const FAULTS: [Faulty; 15] = [
    faulty(
        File("broker", "prefech = 64"),
        "unknown key `broker.prefech` in `FILE`",
        "did you mean `broker.prefetch`?",
    ),
    faulty(
        File("databases", ""),
        "unknown key `databases` in `FILE`",
        "`paperboy config show` lists every setting",
    ),
    faulty(
        File("cache", "max_stale_s = \"canary\""),
        "`cache.max_stale_s` in `FILE` must be a whole number, not a string",
        "the default is `max_stale_s = 600`",
    ),
    faulty(
        File("delivery", "grace_s = 0"),
        "`delivery.grace_s` in `FILE` is 0, which is out of range",
        "write a whole number from 1 to 3600",
    ),
    faulty(
        Variable("BROKER__URL", "http://guest:canary@h"),
        "`broker.url` from `PAPERBOY__BROKER__URL` has scheme `http`, which no broker speaks",
        "write `amqp://user:password@host:5672/%2f`, ",
    ),
    faulty(
        Variable("REDIS__URL", "memcached://:canary@h"),
        "`redis.url` from `PAPERBOY__REDIS__URL` has scheme `memcached`, which is not supported",
        "write `redis://[user:password@]host[:6379][/0]`, or nothing for no cache",
    ),
    faulty(
        Variable("STORE__URL", "mysql://u:canary@h/d"),
        "`store.url` from `PAPERBOY__STORE__URL` cannot be used: unknown kind of store",
        "write `sqlite://data/paperboy.db`, ",
    ),
    faulty(
        Variable("BROKER__PREFIX", "Mail room"),
        "`broker.prefix` from `PAPERBOY__BROKER__PREFIX` cannot begin the name of a queue",
        "write 1 to 64 of `a`-`z`, `0`-`9`, ",
    ),
    faulty(
        Variable("API__LISTEN", "8080"),
        "`api.listen` from `PAPERBOY__API__LISTEN` is not an IP address with a port",
        "write `127.0.0.1:8080`, ",
    ),
    faulty(
        Variable("SECRETS__KEY", "canary"),
        "`secrets.key` from `PAPERBOY__SECRETS__KEY` cannot be used: ",
        "write 32 bytes as base64 (`openssl rand -base64 32` makes them), or `file:PATH`",
    ),
    faulty(
        Variable("EGRESS__ALLOW", "10.20.0.0/16,10.0.0.0/33"),
        "in `egress.allow` from `PAPERBOY__EGRESS__ALLOW`, `10.0.0.0/33` is neither an address nor a range",
        "write `10.1.2.3`, `10.0.0.0/8`, ",
    ),
    faulty(
        Variable("CACHE__REFRESHS", "2"),
        "unknown variable `PAPERBOY__CACHE__REFRESHS`",
        "did you mean `PAPERBOY__CACHE__REFRESH_S`?",
    ),
    faulty(
        File("log", "format = \"xml\""),
        "`log.format` in `FILE` is `xml`, which is unknown",
        "known formats are `text` and `json`",
    ),
    faulty(
        Variable("LOG__FILTER", "warning"),
        "`log.filter` from `PAPERBOY__LOG__FILTER` holds `warning`, which is not a level",
        "write `info`, or `info,paperboy::http=debug`; ",
    ),
    faulty(
        Variable("DEAD__DRAIN", "canary"),
        "`dead.drain` from `PAPERBOY__DEAD__DRAIN` must be `true` or `false`",
        "the default is `PAPERBOY__DEAD__DRAIN=true`",
    ),
];

/// Those that cannot be combined with the ones above.
const INSTEAD: [Faulty; 3] = [
    faulty(
        Variable("BROKER__URL", "embedded"),
        "`broker.url` from `PAPERBOY__BROKER__URL` = `embedded` is not supported yet",
        "write `amqp://user:password@host:5672/%2f`, ",
    ),
    faulty(
        Variable("STORE__URL", "postgres://u:canary@h/d"),
        "`secrets.key` is empty: a store in PostgreSQL needs a key to seal secrets with",
        "write 32 bytes in base64 ",
    ),
    faulty(
        File("egress", "insecure_tls = [\"https://canary.example\"]"),
        "`egress.insecure_tls` in `FILE` holds `https://canary.example`, which is not a host",
        "write each host by itself, ",
    ),
];

/// A deployment that is fine but for these, and its file, which holds each section once.
fn configured<'a>(faults: impl IntoIterator<Item = &'a Faulty>) -> (App, String) {
    let mut app = App::new();
    let mut sections: Vec<(&str, Vec<&str>)> = Vec::new();
    for fault in faults {
        match fault.place {
            Variable(name, value) => app.set(name, value),
            File(section, line) => match sections.iter_mut().find(|(known, _)| *known == section) {
                Some((_, lines)) => lines.push(line),
                None => sections.push((section, vec![line])),
            },
        }
    }
    let file = app.path("paperboy.toml");
    let text = sections.iter().map(|(section, lines)| format!("[{section}]\n{}\n", lines.join("\n")));
    std::fs::write(&file, text.collect::<String>()).unwrap();
    (app, file.display().to_string())
}

impl Faulty {
    fn is_told_by(&self, file: &str, error: &str, hint: &str) -> bool {
        error.starts_with(&self.error.replace("FILE", file)) && hint.starts_with(self.hint)
    }
}

#[tokio::test]
async fn every_fault_has_one_message_and_says_what_to_write() {
    for fault in FAULTS.iter().chain(&INSTEAD) {
        let (app, file) = configured([fault]);
        let (error, hint) = one_error(&app, &["config", "check", "--config", &file], CONFIG).await;
        assert!(fault.is_told_by(&file, &error, &hint), "`{}`:\n{error}\n{hint}", fault.error);
    }
}

#[tokio::test]
async fn fifteen_faults_are_fifteen_messages() {
    let (app, file) = configured(&FAULTS);
    let lines = failure(&app, &["config", "check", "--config", &file], CONFIG).await;
    let mut left: Vec<&Faulty> = FAULTS.iter().collect();
    for told in lines.chunks(2) {
        let [error, hint] = told else { panic!("an error without a hint: {lines:#?}") };
        let (Some(error), Some(hint)) = (error.strip_prefix("error: "), hint.strip_prefix("hint: ")) else {
            panic!("each error is followed by its hint: {lines:#?}")
        };
        let place = left.iter().position(|fault| fault.is_told_by(&file, error, hint));
        left.remove(place.unwrap_or_else(|| panic!("nobody asked for, or twice: {error}\n{hint}")));
    }
    assert!(left.is_empty(), "not told: {:#?}", left.iter().map(|fault| fault.error).collect::<Vec<_>>());
    assert!(!lines.concat().contains(CANARY), "{lines:#?}");
}

#[tokio::test]
async fn nothing_is_wrong_without_a_fault() {
    let (app, file) = configured([]);
    let output = app.run(&["config", "check", "--config", &file]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
