//! One statement for either engine: the same text with `$1`, the same values, the same rows.
//!
//! Text is static, or put together from static pieces: a value never becomes part of it.

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{
    Arguments as _, AssertSqlSafe, ColumnIndex, Decode, Encode, PgConnection, Postgres, Row as _, Sqlite,
    SqliteConnection, Type,
};
use tokio::time::timeout;

/// Longer than any statement may take in the server: what is silent for this long is lost.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(35);

/// A statement with its values, to be run once.
pub(super) struct Statement<'c> {
    text: Cow<'static, str>,
    on: On<'c>,
    /// The first value that could not be bound.
    fault: Option<sqlx::Error>,
}

/// Where a statement runs, and its values as that engine takes them.
enum On<'c> {
    Sqlite(&'c mut SqliteConnection, SqliteArguments),
    Postgres(&'c mut PgConnection, PgArguments),
}

impl<'c> Statement<'c> {
    pub(super) fn sqlite(connection: &'c mut SqliteConnection, text: &'static str) -> Statement<'c> {
        Statement { text: text.into(), on: On::Sqlite(connection, SqliteArguments::default()), fault: None }
    }

    pub(super) fn postgres(connection: &'c mut PgConnection, text: &'static str) -> Statement<'c> {
        Statement { text: text.into(), on: On::Postgres(connection, PgArguments::default()), fault: None }
    }

    /// Gives the next value, `$1` first.
    pub(super) fn bind<'v, T: Value<'v>>(mut self, value: T) -> Self {
        self.add(value);
        self
    }

    /// Continues the text.
    pub(super) fn push(&mut self, text: &'static str) {
        self.text.to_mut().push_str(text);
    }

    /// Continues the text, then names the next value there.
    pub(super) fn push_bind<'v, T: Value<'v>>(&mut self, text: &'static str, value: T) {
        let number = self.add(value);
        self.text.to_mut().push_str(text);
        self.text.to_mut().push_str(&format!("${number}"));
    }

    /// Continues the text with the eight digits of a day, which end the name of its table.
    pub(super) fn push_day(&mut self, day: super::deliveries::Day) {
        self.text.to_mut().push_str(&day.to_string());
    }

    /// Adds a value and returns its number.
    fn add<'v, T: Value<'v>>(&mut self, value: T) -> usize {
        let (added, number) = match &mut self.on {
            On::Sqlite(_, arguments) => (arguments.add(value), arguments.len()),
            On::Postgres(_, arguments) => (arguments.add(value), arguments.len()),
        };
        if let Err(error) = added {
            self.fault.get_or_insert(sqlx::Error::Encode(error));
        }
        number
    }

    /// Runs it; how many rows it changed.
    pub(super) async fn execute(self) -> Result<u64, sqlx::Error> {
        self.fault.map_or(Ok(()), Err)?;
        let text = AssertSqlSafe(self.text);
        match self.on {
            On::Sqlite(connection, arguments) => {
                Ok(sqlx::query_with(text, arguments).execute(connection).await?.rows_affected())
            }
            On::Postgres(connection, arguments) => {
                Ok(bounded(sqlx::query_with(text, arguments).execute(connection)).await?.rows_affected())
            }
        }
    }

    /// All rows.
    pub(super) async fn fetch_all(self) -> Result<Vec<Row>, sqlx::Error> {
        self.fault.map_or(Ok(()), Err)?;
        let text = AssertSqlSafe(self.text);
        match self.on {
            On::Sqlite(connection, arguments) => {
                let rows = sqlx::query_with(text, arguments).fetch_all(connection).await?;
                Ok(rows.into_iter().map(Row::Sqlite).collect())
            }
            On::Postgres(connection, arguments) => {
                let rows = bounded(sqlx::query_with(text, arguments).fetch_all(connection)).await?;
                Ok(rows.into_iter().map(Row::Postgres).collect())
            }
        }
    }

    /// The row, if there is one.
    pub(super) async fn fetch_optional(self) -> Result<Option<Row>, sqlx::Error> {
        Ok(self.fetch_all().await?.pop())
    }

    /// The first column of the row, if there is one.
    pub(super) async fn fetch_optional_value<T: Column>(self) -> Result<Option<T>, sqlx::Error> {
        self.fetch_optional().await?.map(|row| row.at(0)).transpose()
    }

    /// The first column of the row that must be there.
    pub(super) async fn fetch_value<T: Column>(self) -> Result<T, sqlx::Error> {
        self.fetch_optional_value().await?.ok_or(sqlx::Error::RowNotFound)
    }
}

/// Gives up on a server that has gone silent, as a host that lost its power does.
pub(super) async fn bounded<T>(work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    let silent = || {
        let what = format!("no answer within {} s", ANSWER_MAX.as_secs());
        sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, what))
    };
    timeout(ANSWER_MAX, work).await.unwrap_or_else(|_| Err(silent()))
}

/// A row of either engine.
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    /// The column of this name.
    pub(super) fn get<T: Column>(&self, name: &str) -> Result<T, sqlx::Error> {
        self.at(name)
    }

    fn at<T: Column, I: ColumnIndex<SqliteRow> + ColumnIndex<PgRow>>(
        &self,
        index: I,
    ) -> Result<T, sqlx::Error> {
        match self {
            Row::Sqlite(row) => row.try_get(index),
            Row::Postgres(row) => row.try_get(index),
        }
    }
}

/// What both engines take as a value.
pub(super) trait Value<'v>:
    Encode<'v, Sqlite> + Type<Sqlite> + Encode<'v, Postgres> + Type<Postgres>
{
}

impl<'v, T: Encode<'v, Sqlite> + Type<Sqlite> + Encode<'v, Postgres> + Type<Postgres>> Value<'v> for T {}

/// What both engines give back. Owned, so that a row may go before its values.
pub(super) trait Column:
    for<'r> Decode<'r, Sqlite> + Type<Sqlite> + for<'r> Decode<'r, Postgres> + Type<Postgres>
{
}

impl<T> Column for T where
    T: for<'r> Decode<'r, Sqlite> + Type<Sqlite> + for<'r> Decode<'r, Postgres> + Type<Postgres>
{
}
