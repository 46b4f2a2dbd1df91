//! Classes of bytes.

const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(byte as u8,
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z'
            | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~');
        byte += 1;
    }
    table
};

/// `tchar` of RFC 9110, 5.6.2.
pub(crate) fn is_tchar(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

/// A `token`: at least one `tchar`.
#[must_use]
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| is_tchar(*byte))
}

/// `field-value`: visible bytes, bytes from 0x80 up, space and tab. Without branches, so that it runs on many bytes at once.
pub(crate) fn is_value(bytes: &[u8]) -> bool {
    !bytes.iter().fold(false, |bad, byte| bad | ((*byte < 0x20) & (*byte != b'\t')) | (*byte == 0x7f))
}

/// Bytes that a request target may hold before its query: visible ASCII without `"`, `<`, `>`, `\` and `` ` ``, which no URI holds, and
/// without `#`: a fragment is never sent.
pub(crate) fn is_target(bytes: &[u8]) -> bool {
    !bytes.iter().fold(false, |bad, byte| {
        bad | (*byte <= b' ')
            | (*byte >= 0x7f)
            | (*byte == b'"')
            | (*byte == b'#')
            | (*byte == b'<')
            | (*byte == b'>')
            | (*byte == b'\\')
            | (*byte == b'`')
    })
}

/// Bytes that a query may hold: what browsers and curl send as it was typed, raw UTF-8 included. Nothing that ends a line, a word of the
/// start line, or the target (`#`).
pub(crate) fn is_query(bytes: &[u8]) -> bool {
    !bytes.iter().fold(false, |bad, byte| bad | (*byte <= b' ') | (*byte == 0x7f) | (*byte == b'#'))
}

/// Without spaces and tabs at both ends.
#[must_use]
pub fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}
