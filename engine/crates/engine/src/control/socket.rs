//! The file of the control socket: nobody but us may reach it.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::{
        fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt},
        net::UnixListener,
    },
    path::{Path, PathBuf},
};

/// Longest path that fits an address, with room for the suffix of the file that is made first.
const PATH_BYTES_MAX: usize = 100;

/// An open control socket. Its file is removed with it, unless another process has put its own there.
#[derive(Debug)]
pub struct ControlSocket {
    path: PathBuf,
    identity: (u64, u64),
    /// Held as long as we live.
    _lock: Option<Lock>,
}

/// A file that tells whether the engine that made it still runs: locked, as long as it does; removed, when it ends by
/// itself.
#[derive(Debug)]
struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// `None`: another process holds it.
    fn take(mut path: PathBuf) -> io::Result<Option<Self>> {
        loop {
            let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            let lock = Self { file, path };
            // Whoever held it may have removed it after we opened it. A lock on a file without a name keeps nobody out.
            if lock.has_its_name() {
                return Ok(Some(lock));
            }
            path = lock.path.clone();
        }
    }

    fn has_its_name(&self) -> bool {
        let ours = self.file.metadata().map(|ours| (ours.dev(), ours.ino()));
        ours.is_ok_and(|ours| identity(&self.path).is_ok_and(|named| named == ours))
    }
}

impl Drop for Lock {
    /// Removed while it is held: who opens it before that finds the name gone or another file under it, and tries again.
    fn drop(&mut self) {
        if self.has_its_name() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Creates the socket at `path`, mode 0600; its folder, if missing, with mode 0700. A file left behind by a process that
/// is gone is replaced.
///
/// # Errors
/// One sentence: the folder or the file belongs to somebody else, others may write to the folder, something else is
/// there, or somebody listens.
pub fn create(path: &Path) -> Result<(UnixListener, ControlSocket), String> {
    let told = |what: &str| format!("control socket {}: {what}", path.display());
    let failed = |error: io::Error| told(&error.to_string());
    if path.as_os_str().len() > PATH_BYTES_MAX {
        return Err(told(&format!("the path is longer than {PATH_BYTES_MAX} bytes")));
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if !folder.exists() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    }
    let us = rustix::process::geteuid().as_raw();
    let held = fs::metadata(folder).map_err(failed)?;
    if held.uid() != us && held.uid() != 0 {
        return Err(told("its folder belongs to another user; use another folder"));
    }
    // In a folder with the sticky bit, as /tmp, others can't replace a file of ours.
    if held.mode() & 0o022 != 0 && held.mode() & 0o1000 == 0 {
        return Err(told("its folder is writable by others; run chmod go-w on it"));
    }
    if let Ok(there) = fs::symlink_metadata(path) {
        if !there.file_type().is_socket() {
            return Err(told("the file there is not a socket; remove it or use another path"));
        }
        if there.uid() != us {
            return Err(told("the socket there belongs to another user; use another path"));
        }
    }
    // A lock tells whether the engine that made the file still runs. To connect would tell too, but would take the place
    // of its control.
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let shown = format!("{}", Path::new(&lock_path).display());
    let lock = Lock::take(lock_path.into()).map_err(|error| format!("{shown}: {error}"))?;
    let lock = lock.ok_or_else(|| told("another engine listens there; stop it or use another path"))?;
    // Made under another name and moved into place, so that it never exists with wider rights under its own.
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    if fs::symlink_metadata(&new).is_ok_and(|there| there.file_type().is_socket() && there.uid() == us) {
        fs::remove_file(&new).map_err(failed)?;
    }
    let listener = UnixListener::bind(&new).map_err(failed)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    fs::rename(&new, path).map_err(failed)?;
    let identity = identity(path).map_err(failed)?;
    Ok((listener, ControlSocket { path: path.to_owned(), identity, _lock: Some(lock) }))
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|there| (there.dev(), there.ino()))
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|there| there == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether the other end may control us: the same user, or root.
#[must_use]
pub fn may_control(stream: &tokio::net::UnixStream) -> bool {
    let us = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == us || peer.uid() == 0)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("sdlb-socket-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        folder
    }

    #[test]
    fn modes_are_ours_alone_and_the_file_goes_with_the_socket() {
        let folder = folder("modes");
        let path = folder.join("engine.sock");
        let (_listener, held) = create(&path).expect("created");
        assert_eq!(fs::metadata(&folder).expect("folder").mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(&path).expect("file").mode() & 0o777, 0o600);
        drop(held);
        assert_eq!(fs::read_dir(&folder).expect("folder").count(), 0, "nothing is left behind");
        fs::remove_dir_all(folder).expect("removed");
    }

    #[test]
    fn of_many_that_come_and_go_one_holds_the_lock() {
        let folder = folder("lock");
        fs::create_dir(&folder).expect("folder");
        let path = folder.join("lock");
        let (held, taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        let Some(lock) = Lock::take(path.clone()).expect("no error") else { continue };
                        assert_eq!(held.fetch_add(1, SeqCst), 0, "two hold it");
                        taken.fetch_add(1, SeqCst);
                        std::thread::yield_now();
                        held.fetch_sub(1, SeqCst);
                        drop(lock);
                    }
                });
            }
        });
        assert!(taken.load(SeqCst) > 0 && !path.exists());
        fs::remove_dir_all(folder).expect("removed");
    }

    #[test]
    fn a_live_socket_stays_and_a_stale_one_is_replaced() {
        let folder = folder("stale");
        let path = folder.join("engine.sock");
        let (listener, mut held) = create(&path).expect("created");
        assert!(create(&path).expect_err("in use").contains("another engine"));
        // As after kill -9: the lock is gone, the file is not.
        let identity = held.identity;
        drop(listener);
        let lock = held._lock.take().expect("locked");
        lock.file.unlock().expect("unlocked");
        std::mem::forget(lock);
        let second = create(&path).expect("the stale file is replaced");
        assert_ne!(second.1.identity, identity);
        drop(held);
        assert!(path.exists(), "the first must not remove the file of the second");
        drop(second);
        fs::write(&path, "text").expect("written");
        assert!(create(&path).expect_err("not a socket").contains("not a socket"));
        fs::remove_dir_all(folder).expect("removed");
    }

    #[test]
    fn a_folder_that_others_may_write_to_is_refused() {
        let folder = folder("open");
        fs::create_dir(&folder).expect("folder");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).expect("mode");
        assert!(create(&folder.join("engine.sock")).expect_err("refused").contains("writable by others"));
        fs::remove_dir_all(folder).expect("removed");
    }
}
