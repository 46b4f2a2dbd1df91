//! The canonical form of a path: what is matched is exactly what is forwarded.

use memchr::{memchr, memmem};

use crate::Refused;

/// Gives the canonical form of `path`, which begins with `/`: escapes of unreserved characters decoded, the digits of the
/// others in capitals (RFC 3986, 6.2.2), dot segments resolved (5.2.4), each once. A canonical path is given back as it
/// is; another is built in `scratch`. An encoded slash stays one ([`has_encoded_slash`]). `strict`: refuse encoded backslash and
/// NUL, which the endpoint may decode into something else than what was matched.
///
/// # Errors
/// [`Refused`]: a cut or wrong escape, a dot segment for those who decode slashes, or what `strict` says.
pub fn canonical_path<'a>(path: &'a [u8], strict: bool, scratch: &'a mut Vec<u8>) -> Result<&'a [u8], Refused> {
    let escapes = memchr(b'%', path).is_some();
    if !escapes && memmem::find(path, b"/.").is_none() {
        return checked(path);
    }
    scratch.clear();
    let mut rest = path;
    while let Some(at) = memchr(b'%', rest) {
        scratch.extend_from_slice(&rest[..at]);
        let digits = rest.get(at + 1..at + 3).and_then(|pair| Some((digit(pair[0])?, digit(pair[1])?)));
        let Some((high, low)) = digits else {
            return Err(Refused::malformed("the path contains a % without two hexadecimal digits"));
        };
        let byte = high << 4 | low;
        if strict && matches!(byte, b'\\' | 0) {
            return Err(Refused::malformed("the path contains an encoded backslash or NUL"));
        }
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            scratch.push(byte);
        } else {
            scratch.extend([b'%', capital(high), capital(low)]);
        }
        rest = &rest[at + 3..];
    }
    scratch.extend_from_slice(rest);
    resolve_dots(scratch);
    if has_hidden_dots(scratch) {
        return Err(Refused::malformed("the path contains a dot segment beside an encoded slash"));
    }
    checked(scratch)
}

/// Whether a canonical path holds an encoded slash: one path to those who decode it, another to those who do not.
#[must_use]
pub fn has_encoded_slash(canonical: &[u8]) -> bool {
    memchr(b'%', canonical).is_some() && memmem::find(canonical, ENCODED_SLASH).is_some()
}

const ENCODED_SLASH: &[u8] = b"%2F";

/// Who decodes `%2F` sees dot segments where nobody has resolved them.
fn has_hidden_dots(canonical: &[u8]) -> bool {
    let mut rest = canonical;
    let mut hidden = false;
    // Parts of segments: between two slashes of either kind, one of them encoded.
    while let Some(at) = memmem::find(rest, ENCODED_SLASH) {
        let (before, behind) = (&rest[..at], &rest[at + ENCODED_SLASH.len()..]);
        let last = before.rsplit(|byte| *byte == b'/').next().unwrap_or(before);
        let end = memchr(b'/', behind).unwrap_or(behind.len());
        let end = memmem::find(&behind[..end], ENCODED_SLASH).unwrap_or(end);
        hidden |= matches!(last, b"." | b"..") || matches!(&behind[..end], b"." | b"..");
        rest = behind;
    }
    hidden
}

fn checked(path: &[u8]) -> Result<&[u8], Refused> {
    if path.first() != Some(&b'/') {
        return Err(Refused::malformed("the path does not begin with a slash"));
    }
    Ok(path)
}

fn digit(byte: u8) -> Option<u8> {
    (byte as char).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

fn capital(digit: u8) -> u8 {
    b"0123456789ABCDEF"[usize::from(digit & 15)]
}

/// RFC 3986, 5.2.4, in place: what is written never overtakes what is read.
fn resolve_dots(path: &mut Vec<u8>) {
    if memmem::find(path, b"/.").is_none() {
        return;
    }
    let (mut read, mut write) = (0, 0);
    while read < path.len() {
        // `read` is at a slash; the segment goes up to the next one.
        let end = memchr(b'/', &path[read + 1..]).map_or(path.len(), |next| read + 1 + next);
        let last = end == path.len();
        match &path[read + 1..end] {
            b"." => {}
            b".." => {
                while write > 0 {
                    write -= 1;
                    if path[write] == b'/' {
                        break;
                    }
                }
            }
            _ => {
                path.copy_within(read..end, write);
                write += end - read;
                read = end;
                continue;
            }
        }
        if last {
            path[write] = b'/';
            write += 1;
        }
        read = end;
    }
    path.truncate(write);
    if path.is_empty() {
        path.push(b'/');
    }
}
