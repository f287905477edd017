//! What only SQLite has: files, their modes, and what they must not show. What every store must do is in
//! `tests/it/store_contract.rs`, over both engines.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use data_encoding::{BASE64, HEXLOWER};
use serde_json::json;

use super::dead::Kind;
use super::*;
use crate::domain::name::SubscriptionId;
use crate::domain::seal::SealKey;
use crate::domain::spec::SubscriptionSpec;
use crate::domain::subscription::DisabledBy;

// ---- making and opening ----------------------------------------------------------------------------

#[tokio::test]
async fn a_new_store_can_be_read_by_its_owner_only() {
    let home = Home::new();
    let store = home.migrate().await;
    assert_eq!(store.id().len(), 36);
    assert_eq!(store.key_check(), home.key.check_value());
    store.add_subscriptions(vec![spec("acme", "sub_1")]).await.unwrap();

    assert_eq!(mode(home.file.parent().unwrap()), 0o700);
    let files = home.files();
    assert!(files.iter().any(|file| file.to_string_lossy().ends_with("-wal")), "no log: {files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[tokio::test]
async fn an_unfinished_store_is_not_opened() {
    let home = Home::new();
    std::fs::create_dir_all(home.file.parent().unwrap()).unwrap();
    std::fs::write(&home.file, "").unwrap();
    let error = Store::open(&home.url, &home.key).await.unwrap_err();
    assert!(matches!(error, OpenError::PendingMigrations { pending: 1, .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("`paperboy store migrate`"));
    home.migrate().await;
    home.open().await;
}

#[tokio::test]
async fn a_file_that_is_no_database_is_named() {
    let home = Home::new();
    std::fs::create_dir_all(home.file.parent().unwrap()).unwrap();
    std::fs::write(&home.file, "this is a letter to my aunt, of more than a hundred bytes, ".repeat(99))
        .unwrap();
    for error in [
        Store::open(&home.url, &home.key).await.unwrap_err(),
        Store::migrate(&home.url, &home.key).await.unwrap_err(),
    ] {
        let told = error.to_string();
        assert!(told.contains(&home.url.to_string()) && told.contains("not a database"), "{told}");
    }
}

#[tokio::test]
async fn status_tells_of_a_missing_and_an_unfinished_file() {
    let home = Home::new();
    let missing = Store::status(&home.url).await.unwrap();
    assert_eq!((missing.exists, missing.pending, missing.store_id), (false, 1, None));
    assert!(!home.file.parent().unwrap().exists());

    std::fs::create_dir_all(home.file.parent().unwrap()).unwrap();
    std::fs::write(&home.file, "").unwrap();
    let unfinished = Store::status(&home.url).await.unwrap();
    assert_eq!((unfinished.exists, unfinished.pending, unfinished.store_id), (true, 1, None));
}

// ---- what the files show ---------------------------------------------------------------------------

#[tokio::test]
async fn no_secret_is_in_clear_in_any_file() {
    let home = Home::new();
    let store = home.migrate().await;
    store.add_subscriptions(vec![spec("acme", "sub_1"), spec("acme", "sub_2")]).await.unwrap();
    store.set_enabled(&id("sub_1"), false, DisabledBy::Person, "2026-11-23T00:00:00Z").await.unwrap();
    store.remove_subscription(&id("sub_2")).await.unwrap();
    let mut echo = letter("evt_1");
    echo.answer = format!("you sent {CANARY}-answer").into_bytes();
    echo.headers = format!("{{\"authorization\":\"{CANARY}-amqp\"}}").into_bytes();
    store.keep_dead(std::slice::from_ref(&echo)).await.unwrap();
    store.keep_undrainable(&DeadLetter { reason: String::new(), ..echo }, "no reason").await.unwrap();

    home.assert_hidden(CANARY, "while open, with the log");
    store.close().await;
    home.assert_hidden(CANARY, "after closing");

    // The search does find what is there to be found.
    for seen in ["clearly-visible", "webhook-body"] {
        assert!(home.shows(seen), "{seen}");
    }
}

#[test]
fn debug_shows_no_content() {
    let letter = DeadLetter { answer: CANARY.into(), body: CANARY.into(), ..letter("evt_1") };
    assert!(!format!("{letter:?}").contains(CANARY));
}

// ---- helpers ---------------------------------------------------------------------------------------

const CANARY: &str = "canary-yellow-bird-sings";

/// A temporary folder, removed with its value.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Folder {
        let path = std::env::temp_dir().join(format!("paperboy-store-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&path).unwrap();
        Folder(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Where a store is to be, and its key.
struct Home {
    folder: Folder,
    file: PathBuf,
    url: StoreUrl,
    key: SealKey,
}

impl Home {
    fn new() -> Home {
        let folder = Folder::new();
        let file = folder.path().join("data/paperboy.db");
        let url = StoreUrl::parse(&format!("sqlite://{}", file.display())).unwrap();
        Home { folder, file, url, key: SealKey::from_bytes([1; 32]) }
    }

    async fn migrate(&self) -> Store {
        Store::migrate(&self.url, &self.key).await.unwrap()
    }

    async fn open(&self) -> Store {
        Store::open(&self.url, &self.key).await.unwrap()
    }

    fn files(&self) -> Vec<PathBuf> {
        let folder = self.folder.path().join("data");
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    fn shows(&self, text: &str) -> bool {
        self.files().iter().any(|file| contains(&std::fs::read(file).unwrap(), text.as_bytes()))
    }

    /// Looks for a text in clear, in hex of either case and in base64 at each of its three alignments.
    fn assert_hidden(&self, text: &str, when: &str) {
        let hex = HEXLOWER.encode(text.as_bytes());
        let mut forms = vec![text.to_owned(), hex.to_uppercase(), hex];
        for skip in 0..3 {
            let whole = (text.len() - skip) / 3 * 3;
            forms.push(BASE64.encode(&text.as_bytes()[skip..skip + whole]));
        }
        for form in forms {
            assert!(!self.shows(&form), "`{form}` is in a file {when}");
        }
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[tokio::test]
async fn a_transaction_that_sqlite_ended_itself_spoils_no_connection() {
    let home = Home::new();
    let store = home.migrate().await;
    // As after "disk is full": the transaction is gone, and whoever began it does not know.
    for _ in 0..pool::CONNECTIONS_MAX {
        let mut write = store.begin_write().await.unwrap();
        write.query("ROLLBACK").execute().await.unwrap();
        drop(write);
        store.next_cycle().await.unwrap();
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn id(text: &str) -> SubscriptionId {
    SubscriptionId::parse(text).unwrap()
}

/// A complete subscription with the canary wherever a secret may be.
fn spec(tenant: &str, id: &str) -> SubscriptionSpec {
    let document = json!({
        "id": id, "tenant": tenant, "name": "clearly-visible", "enabled": true, "events": ["#"],
        "request": {
            "method": "POST", "url": format!("https://ann:{CANARY}-url@erp.example.com/ocr"),
            "headers": {"X-Key": format!("{CANARY}-header")},
        },
        "auth": {"kind": "bearer", "token": format!("{CANARY}-token")},
        "signatures": [{"scheme": "hmac", "header": "x-sig", "algorithm": "sha256", "encoding": "hex",
                        "content": "{body}", "secrets": [format!("{CANARY}-hmac")]}],
        "created_at": "2026-11-22T09:00:00Z", "updated_at": "2026-11-22T09:00:00Z",
    });
    serde_json::from_value(document).unwrap()
}

fn letter(event_id: &str) -> DeadLetter {
    DeadLetter {
        kind: Kind::Delivery,
        reason: "exhausted".into(),
        tenant: Some("acme".into()),
        event_id: Some(event_id.into()),
        event_type: Some("document.processed".into()),
        subscription: Some("sub_1".into()),
        document_id: None,
        batch_id: None,
        cycle: 0,
        attempts: 10,
        body: Bytes::from_static(b"{\"data\":\"webhook-body\"}"),
        headers: b"{}".to_vec(),
        history: String::new(),
        answer: Vec::new(),
        first_seen_ms: 1_000,
        dead_at_ms: 2_000,
    }
}
