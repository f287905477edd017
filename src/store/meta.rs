//! Facts about the store that are written once, by whoever makes it.

use uuid::Uuid;

use super::pool::Session;
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
