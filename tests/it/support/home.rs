//! A place for a store of its own, and running a test once with each engine.

use paperboy::domain::keyring::Keyring;
use paperboy::domain::seal::SealKey;
use paperboy::store::{Store, StoreUrl};
use sqlx::{Connection as _, Executor as _, PgConnection, SqliteConnection};

use super::services::{Folder, shared};
use super::unique;

/// Runs each of these on either engine.
macro_rules! on_both_engines {
    ($($test:ident,)*) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $test() {
                super::$test(crate::support::home::Home::in_a_file()).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $test() {
                super::$test(crate::support::home::Home::in_postgres().await).await;
            })*
        }
    };
}
pub(crate) use on_both_engines;

/// Where a store is to be, and its key.
pub(crate) struct Home {
    /// In PostgreSQL: of the schema and of the program.
    pub(crate) name: String,
    pub(crate) url: StoreUrl,
    pub(crate) key: SealKey,
    _folder: Option<Folder>,
}

impl Home {
    pub(crate) fn in_a_file() -> Home {
        let folder = Folder::new();
        let url = format!("sqlite://{}", folder.path().join("data/paperboy.db").display());
        Home::at(&url, unique(), Some(folder))
    }

    pub(crate) async fn in_postgres() -> Home {
        let (shared, name) = (shared("PAPERBOY_TEST_POSTGRES_URL"), format!("t{}", unique()));
        let mut connection = PgConnection::connect(&shared).await.unwrap();
        connection.execute(sqlx::AssertSqlSafe(format!("CREATE SCHEMA {name}"))).await.unwrap();
        Home::at(&format!("{shared}?options[search_path]={name}&application_name={name}"), name, None)
    }

    fn at(url: &str, name: String, folder: Option<Folder>) -> Home {
        Home { url: StoreUrl::parse(url).unwrap(), name, key: SealKey::from_bytes([1; 32]), _folder: folder }
    }

    pub(crate) async fn migrate(&self) -> Store {
        Store::migrate(&self.url, &self.key).await.unwrap()
    }

    pub(crate) async fn open(&self) -> Store {
        Store::open(&self.url, &self.key).await.unwrap()
    }

    /// As a process that has the new key, and the old one still.
    pub(crate) async fn open_with_new_key(&self) -> Store {
        Store::open(&self.url, Keyring::new(new_key(), vec![self.key.clone()])).await.unwrap()
    }

    /// Does what no method of a store does.
    pub(crate) async fn raw(&self, statement: &str) {
        let statement = sqlx::AssertSqlSafe(statement.to_owned());
        match &self.url {
            StoreUrl::Sqlite { path } => {
                let url = format!("sqlite://{}", path.display());
                SqliteConnection::connect(&url).await.unwrap().execute(statement).await.unwrap();
            }
            StoreUrl::Postgres(_) => {
                self.connect_to_postgres().await.execute(statement).await.unwrap();
            }
        }
    }

    /// A connection that is not the store's.
    pub(crate) async fn connect_to_postgres(&self) -> PgConnection {
        let url = format!("{}?options[search_path]={}", shared("PAPERBOY_TEST_POSTGRES_URL"), self.name);
        PgConnection::connect(&url).await.unwrap()
    }
}

/// The key that replaces the one of a [`Home`].
pub(crate) fn new_key() -> SealKey {
    SealKey::from_bytes([2; 32])
}
