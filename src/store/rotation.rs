//! Changing the key that secrets are sealed with, while processes run.
//!
//! First the store names the new key: whoever writes from then on seals with it. Then everything sealed before
//! is sealed anew, a few records to a transaction. Stopped at any point it can be run again; until the end
//! processes need both keys.

use std::collections::BTreeSet;

use anyhow::Context as _;
use zeroize::Zeroizing;

use super::pool::Session;
use super::{Store, Write, count, dead, kept, meta, subscriptions};
use crate::domain::seal::{SealFault, SealKey};

/// Records to a transaction: others write in between.
const BATCH: i64 = 100;
const FAILED: &str = "could not change the key of the store";

/// What became of the records that were sealed with another key.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Resealed {
    /// How many are sealed anew.
    pub records: u64,
    /// Those that no key of this process opens, or that were altered; they are left as they are.
    pub broken: BTreeSet<String>,
}

impl Store {
    /// How many records are sealed with another key than the newest of this process.
    pub async fn count_sealed_before(&self) -> anyhow::Result<u64> {
        let mark = self.keys().newest().mark();
        let counted = async {
            let mut snapshot = self.inner.pool.begin_read().await?;
            let subscriptions: i64 = snapshot
                .query("SELECT count(*) FROM subscriptions WHERE substr(sealed, 1, 7) <> $1")
                .bind(&mark)
                .fetch_value()
                .await?;
            let letters: i64 = snapshot
                .query(
                    "SELECT count(*) FROM dead_letters
                     WHERE substr(headers, 1, 7) <> $1 OR substr(answer, 1, 7) <> $2",
                )
                .bind(&mark)
                .bind(&mark)
                .fetch_value()
                .await?;
            let answers: i64 = snapshot
                .query("SELECT count(*) FROM kept_answers WHERE substr(answer, 1, 7) <> $1")
                .bind(&mark)
                .fetch_value()
                .await?;
            snapshot.commit().await?;
            Ok::<u64, sqlx::Error>(count(subscriptions) + count(letters) + count(answers))
        };
        counted.await.context("could not count what is sealed in the store")
    }

    /// Names the newest key of this process as the one that seals, for every process from now on; the check
    /// value of the one before. Whoever is writing is waited for.
    pub async fn change_key(&self) -> anyhow::Result<String> {
        let newest = self.keys().newest();
        let changed = async {
            let mut write = self.begin_change().await?;
            let before = self.key_check();
            meta::change_key(&mut write, newest).await?;
            write.commit().await?;
            Ok::<String, sqlx::Error>(before)
        };
        let before = changed.await.context(FAILED)?;
        self.inner.key.follow(&newest.check_value());
        Ok(before)
    }

    /// Seals with the newest key of this process whatever is sealed with another; `progress` is told how many
    /// records are done. Call [`Store::change_key`] first.
    pub async fn seal_anew(&self, mut progress: impl FnMut(u64)) -> anyhow::Result<Resealed> {
        let mut resealed = Resealed::default();
        let mut after = String::new();
        while let Some(last) = self.subscriptions_anew(&after, &mut resealed).await.context(FAILED)? {
            after = last;
            progress(resealed.records);
        }
        let mut after = i64::MIN;
        while let Some(last) = self.letters_anew(after, &mut resealed).await.context(FAILED)? {
            after = last;
            progress(resealed.records);
        }
        let mut after = (String::new(), String::new());
        while let Some(last) = self.answers_anew(&after, &mut resealed).await.context(FAILED)? {
            after = last;
            progress(resealed.records);
        }
        Ok(resealed)
    }

    /// The next batch of subscriptions; its last id.
    async fn subscriptions_anew(
        &self,
        after: &str,
        resealed: &mut Resealed,
    ) -> anyhow::Result<Option<String>> {
        let newest = self.keys().newest();
        // As a change, so that nobody's is overwritten; no version rises, since nothing is different.
        let mut write = self.begin_change().await?;
        let rows = write
            .query(
                "SELECT id, tenant, sealed FROM subscriptions
                 WHERE id > $1 AND substr(sealed, 1, 7) <> $2 ORDER BY id LIMIT $3",
            )
            .bind(after)
            .bind(newest.mark())
            .bind(BATCH)
            .fetch_all()
            .await?;
        let mut last = None;
        for row in rows {
            let (id, tenant): (String, String) = (row.get("id")?, row.get("tenant")?);
            let sealed: Vec<u8> = row.get("sealed")?;
            match self.anew(newest, &subscriptions::record_name(&tenant, &id), &sealed)? {
                Ok(sealed) => {
                    let update = write.query("UPDATE subscriptions SET sealed = $1 WHERE id = $2");
                    resealed.records += update.bind(sealed).bind(&id).execute().await?;
                }
                Err(fault) => drop(resealed.broken.insert(format!("subscription `{id}`: {fault}"))),
            }
            last = Some(id);
        }
        write.commit().await?;
        Ok(last)
    }

    /// The next batch of dead letters; its last id.
    async fn letters_anew(&self, after: i64, resealed: &mut Resealed) -> anyhow::Result<Option<i64>> {
        let newest = self.keys().newest();
        let mut write = self.begin_sealed_write().await?;
        let rows = write
            .query(
                "SELECT id, letter_key, headers, answer FROM dead_letters
                 WHERE id > $1 AND (substr(headers, 1, 7) <> $2 OR substr(answer, 1, 7) <> $3)
                 ORDER BY id LIMIT $4",
            )
            .bind(after)
            .bind(newest.mark())
            .bind(newest.mark())
            .bind(BATCH)
            .fetch_all()
            .await?;
        let mut last = None;
        for row in rows {
            let (id, key): (i64, Vec<u8>) = (row.get("id")?, row.get("letter_key")?);
            let part = |name: &str| -> anyhow::Result<Result<Vec<u8>, SealFault>> {
                let sealed: Vec<u8> = row.get(name)?;
                self.anew(newest, &dead::record_name(&key, name), &sealed)
            };
            match (part("headers")?, part("answer")?) {
                (Ok(headers), Ok(answer)) => {
                    resealed.records += write_letter(&mut write, id, headers, answer).await?;
                }
                (Err(fault), _) | (_, Err(fault)) => {
                    resealed.broken.insert(format!("dead letter `dl_{id}`: {fault}"));
                }
            }
            last = Some(id);
        }
        write.commit().await?;
        Ok(last)
    }

    /// The next batch of kept answers; its last actor and key.
    async fn answers_anew(
        &self,
        after: &(String, String),
        resealed: &mut Resealed,
    ) -> anyhow::Result<Option<(String, String)>> {
        let newest = self.keys().newest();
        let mut write = self.begin_sealed_write().await?;
        let rows = write
            .query(
                "SELECT actor, key, answer FROM kept_answers
                 WHERE (actor, key) > ($1, $2) AND substr(answer, 1, 7) <> $3
                 ORDER BY actor, key LIMIT $4",
            )
            .bind(&after.0)
            .bind(&after.1)
            .bind(newest.mark())
            .bind(BATCH)
            .fetch_all()
            .await?;
        let mut last = None;
        for row in rows {
            let (actor, key): (String, String) = (row.get("actor")?, row.get("key")?);
            let sealed: Vec<u8> = row.get("answer")?;
            match self.anew(newest, &kept::record_name(&actor, &key), &sealed)? {
                Ok(anew) => {
                    // Another may have taken its place after a day.
                    let update = write.query(
                        "UPDATE kept_answers SET answer = $1 WHERE actor = $2 AND key = $3 AND answer = $4",
                    );
                    let update = update.bind(anew).bind(&actor).bind(&key).bind(sealed);
                    resealed.records += update.execute().await?;
                }
                Err(fault) => drop(resealed.broken.insert(format!("kept answer of `{actor}`: {fault}"))),
            }
            last = Some((actor, key));
        }
        write.commit().await?;
        Ok(last)
    }

    /// The same text under the key; the inner error is that of a record which cannot be opened.
    fn anew(
        &self,
        key: &SealKey,
        associated: &[u8],
        sealed: &[u8],
    ) -> anyhow::Result<Result<Vec<u8>, SealFault>> {
        let plain = match self.open_sealed(associated, sealed) {
            Ok(plain) => Zeroizing::new(plain),
            Err(fault) => return Ok(Err(fault)),
        };
        let mut nonce = [0; 24];
        getrandom::fill(&mut nonce).context("the system gave no random bytes")?;
        Ok(Ok(key.seal(nonce, associated, &plain)))
    }
}

async fn write_letter(
    write: &mut Write<'_>,
    id: i64,
    headers: Vec<u8>,
    answer: Vec<u8>,
) -> Result<u64, sqlx::Error> {
    let update = write.query("UPDATE dead_letters SET headers = $1, answer = $2 WHERE id = $3");
    update.bind(headers).bind(answer).bind(id).execute().await
}
