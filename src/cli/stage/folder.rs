//! A folder only we can read, removed when dropped.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::cli::Failure;

/// The folder, until it is dropped or kept.
pub(super) struct Folder {
    path: PathBuf,
    stays: bool,
}

impl Folder {
    /// Makes one in the system's place for temporary files.
    pub(super) fn make(name: &str) -> Result<Folder, Failure> {
        let path = std::env::temp_dir().join(format!("paperboy-{name}"));
        make_private(&path).map_err(|error| {
            Failure::world(format!("cannot make the folder `{}`: {error}", path.display()))
        })?;
        Ok(Folder { path, stays: false })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// From now on it is not removed.
    pub(super) fn keep(&mut self) {
        self.stays = true;
    }

    /// Removes it now, unless it is kept; whether it is gone.
    pub(super) fn remove(mut self) -> bool {
        self.try_remove()
    }

    fn try_remove(&mut self) -> bool {
        if std::mem::replace(&mut self.stays, true) {
            return false;
        }
        let removed = std::fs::remove_dir_all(&self.path);
        if let Err(error) = &removed {
            eprintln!("the folder `{}` could not be removed: {error}", self.path.display());
        }
        removed.is_ok()
    }
}

fn make_private(path: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().mode(0o700).create(path)
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.try_remove();
    }
}
