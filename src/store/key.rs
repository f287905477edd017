//! The file that holds the secrets key, by default `paperboy.key` beside the SQLite file.
//!
//! Only a process that is about to make the store may make the key: a new key beside an old store
//! would open nothing. These functions block on the disk for a moment and belong to the start.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use zeroize::Zeroizing;

use super::files;
use super::url::StoreUrl;
use crate::domain::seal::{SealFault, SealKey};

/// Longer than any key file; keeps a mistaken path from being read into memory whole.
const FILE_BYTES_MAX: u64 = 4096;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileFault {
    #[error("no secrets key at `{}`", .path.display())]
    Missing { path: PathBuf },
    #[error("`{}` does not hold a secrets key: {fault}", .path.display())]
    Unusable { path: PathBuf, fault: SealFault },
    #[error("could not read the secrets key at `{}`: {error}", .path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("could not make the secrets key at `{}`: {error}", .path.display())]
    Make { path: PathBuf, error: io::Error },
}

impl KeyFileFault {
    /// What to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            KeyFileFault::Missing { .. } => {
                "put back the key file this store was made with, or set `secrets.key` to that key"
            }
            KeyFileFault::Unusable { .. } => {
                "a key is 32 bytes in base64; `openssl rand -base64 32` makes one"
            }
            KeyFileFault::Read { .. } => "let this process read the file, or set `secrets.key`",
            KeyFileFault::Make { .. } => "let this process write to the folder, or set `secrets.key`",
        }
    }
}

/// Where the key of an SQLite store is looked for when `secrets.key` says nothing.
pub fn beside(url: &StoreUrl) -> Option<PathBuf> {
    url.path().map(|path| path.with_file_name("paperboy.key"))
}

/// Reads the key at `path`, or makes it from `random` if there is none and `may_make` allows it.
///
/// Of processes that race to make it one wins and all return the winner's key. Pass `may_make` only
/// while the store itself does not exist yet.
pub fn load_or_make(path: &Path, random: [u8; 32], may_make: bool) -> Result<SealKey, KeyFileFault> {
    match load(path) {
        Err(KeyFileFault::Missing { .. }) if may_make => {
            make(path, random).map_err(|error| KeyFileFault::Make { path: path.into(), error })?;
            load(path)
        }
        result => result,
    }
}

fn load(path: &Path) -> Result<SealKey, KeyFileFault> {
    let mut text = Zeroizing::new(String::new());
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text));
    match read {
        Ok(_) => SealKey::from_base64(text.trim())
            .map_err(|fault| KeyFileFault::Unusable { path: path.into(), fault }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(KeyFileFault::Missing { path: path.into() })
        }
        Err(error) => Err(KeyFileFault::Read { path: path.into(), error }),
    }
}

/// Writes the key to a file of its own and links that to `path`: a link appears whole or not at all
/// and never replaces a file, so nobody reads half a key, not even after a crash in between.
fn make(path: &Path, random: [u8; 32]) -> io::Result<()> {
    files::make_folder_of(path)?;
    let mut draft = path.as_os_str().to_owned();
    // Named after what no other process draws, without telling anything about the key.
    draft.push(format!(".{}", HEXLOWER.encode(uuid::Uuid::new_v4().as_bytes())));
    let draft = PathBuf::from(draft);

    let written = write_draft(&draft, random).and_then(|()| match std::fs::hard_link(&draft, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    });
    let removed = std::fs::remove_file(&draft);
    written?;
    removed?;
    sync_folder_of(path)
}

fn write_draft(draft: &Path, random: [u8; 32]) -> io::Result<()> {
    let text = Zeroizing::new(format!("{}\n", SealKey::from_bytes(random).to_base64().as_str()));
    let mut file = files::new_file(draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Makes the link itself survive a power cut: a store without its key is lost.
fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Barrier;

    use super::*;
    use crate::store::tests::Folder;

    #[test]
    fn makes_a_key_once_and_reads_it_afterwards() {
        let folder = Folder::new();
        let path = folder.path().join("deep/er/paperboy.key");
        let made = load_or_make(&path, [7; 32], true).unwrap();
        let read = load_or_make(&path, [8; 32], true).unwrap();
        assert_eq!(made.check_value(), read.check_value());
        assert_eq!(made.check_value(), SealKey::from_bytes([7; 32]).check_value());
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "a draft is left");
    }

    #[test]
    fn does_not_make_a_key_for_a_store_that_had_one() {
        let folder = Folder::new();
        let path = folder.path().join("paperboy.key");
        let fault = load_or_make(&path, [7; 32], false).unwrap_err();
        assert!(matches!(fault, KeyFileFault::Missing { .. }));
        assert!(!path.exists());
    }

    #[test]
    fn racing_processes_all_get_the_winners_key() {
        let folder = Folder::new();
        let path = folder.path().join("paperboy.key");
        let start = Barrier::new(8);
        let keys: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|n| {
                    let (path, start) = (&path, &start);
                    scope.spawn(move || {
                        start.wait();
                        load_or_make(path, [n; 32], true).unwrap().check_value()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn tells_a_broken_key_file_without_showing_it() {
        let folder = Folder::new();
        let path = folder.path().join("paperboy.key");
        std::fs::write(&path, "canary").unwrap();
        let fault = load_or_make(&path, [7; 32], true).unwrap_err();
        assert!(matches!(fault, KeyFileFault::Unusable { .. }));
        assert!(!fault.to_string().contains("canary"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "canary");
    }

    #[test]
    fn stands_beside_the_sqlite_file() {
        let url = StoreUrl::parse("sqlite://data/paperboy.db").unwrap();
        assert_eq!(beside(&url), Some(PathBuf::from("data/paperboy.key")));
        assert_eq!(beside(&StoreUrl::parse("postgres://h/d").unwrap()), None);
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }
}
