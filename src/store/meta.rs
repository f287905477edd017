//! Facts about the store: its id, written once by whoever makes it, and the key it is sealed with.

use uuid::Uuid;

use super::pool::Session;
use super::sealing::Sealing;
use crate::domain::seal::SealKey;

/// What a store says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) store_id: String,
    pub(super) key_check: String,
}

/// Gives a store its id and its key unless it has them. Call it in the transaction that makes the tables.
pub(super) async fn write_once(on: &mut impl Session, key: &SealKey) -> Result<(), sqlx::Error> {
    let facts = [("store_id", Uuid::new_v4().to_string()), ("key_check", key.check_value())];
    for (name, value) in facts {
        on.query("INSERT INTO meta (key, value) VALUES ($1, $2) ON CONFLICT (key) DO NOTHING")
            .bind(name)
            .bind(value)
            .execute()
            .await?;
    }
    Ok(())
}

/// Reads what [`write_once`] wrote, by whichever process; a missing fact is `RowNotFound`.
pub(super) async fn read(on: &mut impl Session) -> Result<Meta, sqlx::Error> {
    let mut facts = Vec::new();
    for name in ["store_id", "key_check"] {
        let value: String =
            on.query("SELECT value FROM meta WHERE key = $1").bind(name).fetch_value().await?;
        facts.push(value);
    }
    let [store_id, key_check] = <[String; 2]>::try_from(facts).map_err(|_| sqlx::Error::RowNotFound)?;
    Ok(Meta { store_id, key_check })
}

/// Reads which key the store is sealed with, and keeps it that until the transaction ends.
///
/// # Errors
/// Also a key that this process does not hold: it must not write what others cannot read.
pub(super) async fn hold_key(write: &mut impl Session, sealing: &Sealing) -> Result<(), sqlx::Error> {
    // `FOR SHARE` would say it better, and is unknown to SQLite.
    let hold = write.query("UPDATE meta SET value = value WHERE key = 'key_check' RETURNING value");
    let check: String = hold.fetch_value().await?;
    if sealing.follow(&check) {
        return Ok(());
    }
    let fault =
        format!("secrets are sealed with another key now (check value {check}), which is not set here");
    Err(sqlx::Error::Configuration(fault.into()))
}

/// Says that the store is sealed with this key from now on.
pub(super) async fn change_key(write: &mut impl Session, key: &SealKey) -> Result<(), sqlx::Error> {
    let change = write.query("UPDATE meta SET value = $1 WHERE key = 'key_check'");
    change.bind(key.check_value()).execute().await.map(drop)
}
