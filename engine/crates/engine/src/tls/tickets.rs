//! Session tickets (RFC 8446, 4.6.1; RFC 5077), sealed with keys that control makes and rotates: so that all threads, an
//! engine after this one and, if control shares them, other nodes can open what one has sealed.
//!
//! A ticket: name of the key (16 bytes), nonce (12), sealed session and its tag (AES-256-GCM). What a ticket was sealed for
//! (a site and the authorities that its clients' certificates must be from) is authenticated with it, so that a session does
//! not carry a client past a change of those.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand::{SecureRandom, SystemRandom},
};
use rustls::server::ProducesTickets;

/// Bytes of a key's name.
pub const NAME_BYTES: usize = 16;
/// Bytes of a key.
pub const SECRET_BYTES: usize = 32;
/// How long a client may keep a ticket, in seconds: what control rotates its keys within.
const LIFETIME_S: u32 = 12 * 3600;

struct Key {
    name: [u8; NAME_BYTES],
    key: LessSafeKey,
}

/// The keys now: the first seals, all open.
#[derive(Clone, Default)]
pub struct Keys(Arc<RwLock<Arc<[Key]>>>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

impl Keys {
    /// Other keys from now on: names and secrets.
    ///
    /// # Errors
    /// One sentence; nothing was changed.
    pub fn replace<'a>(&self, keys: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Result<(), String> {
        let keys = keys.into_iter().enumerate().map(|(number, (name, secret))| {
            let refused = || format!("ticket key {number}: expected a name of 16 bytes and a secret of 32");
            let name = name.try_into().map_err(|_| refused())?;
            let key = UnboundKey::new(&AES_256_GCM, secret).map_err(|_| refused())?;
            Ok(Key { name, key: LessSafeKey::new(key) })
        });
        let keys = keys.collect::<Result<Arc<[Key]>, String>>()?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    fn now(&self) -> Arc<[Key]> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Seals and opens the tickets of one site.
#[derive(Debug)]
pub struct Tickets {
    keys: Keys,
    sealed_for: Vec<u8>,
}

impl Tickets {
    /// With these keys, for what `sealed_for` names.
    #[must_use]
    pub fn new(keys: Keys, sealed_for: Vec<u8>) -> Self {
        Self { keys, sealed_for }
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        !self.keys.now().is_empty()
    }

    fn lifetime(&self) -> u32 {
        LIFETIME_S
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let keys = self.keys.now();
        let key = keys.first()?;
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).ok()?;
        let mut ticket = Vec::with_capacity(NAME_BYTES + NONCE_LEN + plain.len() + AES_256_GCM.tag_len());
        ticket.extend_from_slice(&key.name);
        ticket.extend_from_slice(&nonce);
        let mut sealed = plain.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        key.key.seal_in_place_append_tag(nonce, Aad::from(&self.sealed_for), &mut sealed).ok()?;
        ticket.extend_from_slice(&sealed);
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_at_checked(NAME_BYTES)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        let keys = self.keys.now();
        let key = keys.iter().find(|key| key.name == name)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut opened = sealed.to_vec();
        let length = key.key.open_in_place(nonce, Aad::from(&self.sealed_for), &mut opened).ok()?.len();
        opened.truncate(length);
        Some(opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: (&[u8], &[u8]) = (&[1; NAME_BYTES], &[2; SECRET_BYTES]);
    const B: (&[u8], &[u8]) = (&[3; NAME_BYTES], &[4; SECRET_BYTES]);

    #[test]
    fn a_ticket_is_opened_by_whoever_has_its_key_and_by_nobody_else() {
        let (keys, other) = (Keys::default(), Keys::default());
        assert!(keys.replace([A]).is_ok() && other.replace([B]).is_ok());
        let ours = Tickets::new(keys.clone(), b"site".to_vec());
        let Some(ticket) = ours.encrypt(b"session") else { panic!("not sealed") };
        assert_eq!(ours.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        assert_eq!(Tickets::new(other.clone(), b"site".to_vec()).decrypt(&ticket), None);
        // After a rotation it still opens; when its key is gone, it does not.
        assert!(other.replace([B, A]).is_ok());
        assert_eq!(Tickets::new(other.clone(), b"site".to_vec()).decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        assert_eq!(Tickets::new(other, b"another site".to_vec()).decrypt(&ticket), None);
        assert!(keys.replace([B]).is_ok());
        assert_eq!(ours.decrypt(&ticket), None);
    }

    #[test]
    fn what_was_changed_or_cut_does_not_open() {
        let keys = Keys::default();
        assert!(keys.replace([A]).is_ok());
        let tickets = Tickets::new(keys, Vec::new());
        let Some(ticket) = tickets.encrypt(b"session") else { panic!("not sealed") };
        for at in 0..ticket.len() {
            let mut bad = ticket.clone();
            bad[at] ^= 1;
            assert_eq!(tickets.decrypt(&bad), None, "byte {at}");
            assert_eq!(tickets.decrypt(&ticket[..at]), None, "cut at {at}");
        }
    }

    #[test]
    fn keys_of_another_size_change_nothing() {
        let keys = Keys::default();
        assert!(keys.replace([A]).is_ok());
        assert!(keys.replace([A, (b"short", B.1)]).is_err() && keys.replace([(A.0, &B.1[1..])]).is_err());
        assert!(Tickets::new(keys.clone(), Vec::new()).enabled());
        assert!(keys.replace([]).is_ok() && !Tickets::new(keys, Vec::new()).enabled());
    }
}
