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
    /// Held as long as we live. The file itself stays: to remove it would let two hold a lock of this name.
    _lock: File,
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
        return Err(told("its folder belongs to another user"));
    }
    // In a folder with the sticky bit, as /tmp, others can't replace a file of ours.
    if held.mode() & 0o022 != 0 && held.mode() & 0o1000 == 0 {
        return Err(told("others may write to its folder; take that right away (chmod go-w)"));
    }
    if let Ok(there) = fs::symlink_metadata(path) {
        if !there.file_type().is_socket() {
            return Err(told("something that is not a socket is there"));
        }
        if there.uid() != us {
            return Err(told("it belongs to another user"));
        }
    }
    // A lock tells whether the engine that made the file still runs. To connect would tell too, but would take the place
    // of its control.
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&lock_path);
    let lock = lock.map_err(|error| format!("{}: {error}", lock_path.display()))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(told("another engine listens on it")),
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
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
    Ok((listener, ControlSocket { path: path.to_owned(), identity, _lock: lock }))
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
        assert!(!path.exists());
        fs::remove_dir_all(folder).expect("removed");
    }

    #[test]
    fn a_live_socket_stays_and_a_stale_one_is_replaced() {
        let folder = folder("stale");
        let path = folder.join("engine.sock");
        let (listener, held) = create(&path).expect("created");
        assert!(create(&path).expect_err("in use").contains("another engine"));
        // As after kill -9: the lock is gone, the file is not.
        let ControlSocket { identity, .. } = held;
        drop(listener);
        held._lock.unlock().expect("unlocked");
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
        assert!(create(&folder.join("engine.sock")).expect_err("refused").contains("others may write"));
        fs::remove_dir_all(folder).expect("removed");
    }
}
