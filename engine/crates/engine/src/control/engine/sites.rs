//! Certificates, and the keys of session tickets.

use super::{Engine, now_unix_s};
use crate::{
    convert,
    proto::{self, from_engine::Kind, sites_applied::State},
    tls::sites::Told,
};

impl Engine {
    pub(super) fn put_sites(&mut self, asked: proto::Sites) {
        let now_unix_s = now_unix_s();
        let put = |site: proto::Site| {
            let key = site.key.clone();
            match self.sites.put(convert::site(site), now_unix_s) {
                Ok(Told { not_after_unix_s, warnings }) => {
                    State { key, error: String::new(), not_after_unix_s, warnings }
                }
                Err(error) => {
                    let not_after_unix_s = self.sites.not_after_unix_s(&key);
                    State { key, error, not_after_unix_s, ..State::default() }
                }
            }
        };
        let states = asked.put.into_iter().map(put).collect();
        if asked.prune {
            self.sites.keep(&asked.keep);
        }
        self.sites.publish();
        self.send(Kind::SitesApplied(proto::SitesApplied { sites: states }));
    }

    pub(super) fn challenge(&mut self, asked: proto::Challenges) {
        let error = self.sites.challenge(convert::challenges(asked)).err().unwrap_or_default();
        self.send(Kind::ChallengesApplied(proto::ChallengesApplied { error }));
    }

    pub(super) fn ticket_keys(&mut self, keys: &proto::TicketKeys) {
        if let Err(error) = self.sites.keys.replace(keys.keys.iter().map(|key| (&key.name[..], &key.secret[..]))) {
            eprintln!("sdlb-engine: {error}; the session ticket keys stay as they are");
        }
    }
}
