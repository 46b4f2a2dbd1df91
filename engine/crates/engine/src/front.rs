//! What a site answers or adds by itself: redirects, fields of responses, pages for errors of ours.

use std::{ops::RangeInclusive, sync::Arc};

use crate::{forward::fields::line, tls::challenges::WELL_KNOWN};

/// Bytes of one page.
const PAGE_BYTES_MAX: usize = 64 << 10;
/// Bytes of a redirect's target, and of a field's value.
const TEXT_BYTES_MAX: usize = 4 << 10;
/// Redirects, fields and pages of one site.
const PARTS_MAX: usize = 256;
/// RFC 6797.
const HSTS: &str = "strict-transport-security";

/// Whether the path is one of a challenge: it is served on every listener as any other path, and never redirected to `https`.
#[must_use]
pub fn is_challenge(path: &[u8]) -> bool {
    path.starts_with(WELL_KNOWN)
}

/// What is set for a site.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Front {
    /// In any order.
    pub redirects: Vec<Redirect>,
    /// Names in lower case, and values.
    pub fields: Vec<(String, String)>,
    /// The first one that has the status counts.
    pub pages: Vec<Page>,
}

/// All paths below a prefix are somewhere else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// Whole segments; empty: every path.
    pub prefix: String,
    /// What stands in its place.
    pub target: String,
}

/// Stands in place of the text of an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// For these.
    pub statuses: RangeInclusive<u16>,
    /// The page.
    pub html: Vec<u8>,
}

impl Front {
    /// Whether there is anything to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Control has looked at it too; what would break a response is refused here in any case.
    ///
    /// # Errors
    /// One sentence about the first thing that is wrong.
    pub fn check(&self) -> Result<(), String> {
        if self.redirects.len().max(self.fields.len()).max(self.pages.len()) > PARTS_MAX {
            return Err(format!("it has more than {PARTS_MAX} redirects, fields or pages"));
        }
        let is_text =
            |text: &str| text.len() <= TEXT_BYTES_MAX && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        for Redirect { prefix, target } in &self.redirects {
            let is_path = prefix.is_empty() || prefix.starts_with('/');
            let is_url = target.starts_with("https://") || target.starts_with("http://");
            if !is_path || !is_url || !is_text(target) || target.contains(' ') {
                return Err(format!("the redirect of {prefix:?} is malformed"));
            }
        }
        for (name, value) in &self.fields {
            let is_name = sdlb_http1::is_token(name.as_bytes()) && !name.bytes().any(|byte| byte.is_ascii_uppercase());
            if !is_name || value.is_empty() || !is_text(value) {
                return Err(format!("the response field {name:?} is malformed"));
            }
        }
        match self.pages.iter().find(|page| page.html.len() > PAGE_BYTES_MAX) {
            Some(page) => {
                Err(format!("the error page of {} is over {} KiB", page.statuses.start(), PAGE_BYTES_MAX >> 10))
            }
            None => Ok(()),
        }
    }

    /// Where a request is sent on to. `path`: canonical, of `target`, which has the query behind it.
    #[must_use]
    pub fn redirected(&self, path: &[u8], target: &[u8]) -> Option<Vec<u8>> {
        let fits = |redirect: &&Redirect| is_below(path, redirect.prefix.as_bytes());
        let found = self.redirects.iter().filter(fits).max_by_key(|redirect| redirect.prefix.len())?;
        let rest = target.get(found.prefix.len()..)?;
        Some([found.target.as_bytes(), rest].concat())
    }
}

/// Whether whole segments of the path are the prefix.
fn is_below(path: &[u8], prefix: &[u8]) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || prefix.ends_with(b"/") || rest.starts_with(b"/"))
}

/// What is added to the responses to one request.
#[derive(Debug, Clone, Default)]
pub struct Added {
    /// `max-age`; 0: no such field.
    pub hsts_s: u32,
    /// Of the site of the request's host.
    pub front: Option<Arc<Front>>,
    /// The cookie of a session that begins.
    pub session: Option<Box<[u8]>>,
}

impl Added {
    /// Appends the fields that the response does not have.
    pub fn write(&self, has: impl Fn(&[u8]) -> bool, out: &mut Vec<u8>) {
        if let Some(cookie) = &self.session {
            line(b"set-cookie", cookie, out);
        }
        let fields = self.front.as_deref().map_or(&[][..], |front| &front.fields);
        for (name, value) in fields.iter().filter(|(name, _)| !has(name.as_bytes())) {
            line(name.as_bytes(), value.as_bytes(), out);
        }
        if self.hsts_s > 0 && !has(HSTS.as_bytes()) && !fields.iter().any(|(name, _)| name == HSTS) {
            out.extend_from_slice(HSTS.as_bytes());
            out.extend_from_slice(b": max-age=");
            sdlb_http1::decimal(u64::from(self.hsts_s), out);
            out.extend_from_slice(b"\r\n");
        }
    }

    /// The page for an error of ours.
    #[must_use]
    pub fn page(&self, status: u16) -> Option<&[u8]> {
        let pages = &self.front.as_deref()?.pages;
        pages.iter().find(|page| page.statuses.contains(&status)).map(|page| &page.html[..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_of_whole_segments_is_replaced() {
        let redirect = |prefix: &str, target: &str| Redirect { prefix: prefix.to_owned(), target: target.to_owned() };
        let front = Front {
            redirects: vec![
                redirect("/a", "https://x.example"),
                redirect("/a/b", "https://y.example/c"),
                redirect("/d/", "https://z.example/"),
            ],
            ..Front::default()
        };
        for (path, query, expected) in [
            ("/a", "", Some("https://x.example")),
            ("/a/", "?q=1", Some("https://x.example/?q=1")),
            ("/ab", "", None),
            ("/a/b/e", "", Some("https://y.example/c/e")),
            ("/a/bc", "", Some("https://x.example/bc")),
            ("/d", "", None),
            ("/d/e", "", Some("https://z.example/e")),
            ("/", "", None),
        ] {
            let found = front.redirected(path.as_bytes(), format!("{path}{query}").as_bytes());
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{path}");
        }
        let whole = Front { redirects: vec![redirect("", "https://x.example")], ..Front::default() };
        assert_eq!(whole.redirected(b"/p", b"/p?q").as_deref(), Some(&b"https://x.example/p?q"[..]));
    }

    #[test]
    fn what_would_break_a_response_is_refused() {
        let field =
            |name: &str, value: &str| Front { fields: vec![(name.to_owned(), value.to_owned())], ..Front::default() };
        assert_eq!(field("x-frame-options", "DENY").check(), Ok(()));
        for (name, value) in [("x\r\ny", "z"), ("X", "z"), ("x", "a\r\nb"), ("x", ""), ("", "z")] {
            assert!(field(name, value).check().is_err(), "{name:?}: {value:?}");
        }
        for target in ["//x.example", "https://x.example/ b", "https://x\r\ny", "ftp://x.example"] {
            let redirects = vec![Redirect { prefix: String::new(), target: target.to_owned() }];
            assert!(Front { redirects, ..Front::default() }.check().is_err(), "{target:?}");
        }
    }
}
