//! Where a model comes from: a shipped bundle or a URL, checked as text before anything is fetched.

/// Longest URL, bytes, as it stands in a link.
pub const MAX_URL: usize = 800;
/// Longest bundle id, bytes.
pub const MAX_ID: usize = 64;

/// A bundle's address: the id of a shipped one, `[a-z0-9-]{1,64}`, or an https URL of at most [`MAX_URL`] bytes (http only from
/// this machine).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Source(String);

impl Source {
    /// Checks an id or a URL.
    ///
    /// # Errors
    /// What would do, in words.
    pub fn parse(text: &str) -> Result<Source, String> {
        if !text.contains(':') {
            let id = (1..=MAX_ID).contains(&text.len()) && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
            return if id {
                Ok(Source(text.into()))
            } else {
                Err(format!("a bundle id (a-z, 0-9, -; at most {MAX_ID} bytes) or an https URL"))
            };
        }
        url(text)?;
        Ok(Source(text.into()))
    }

    /// The id or the URL.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The URL, if it is one.
    pub fn url(&self) -> Option<&str> {
        self.0.contains(':').then_some(&self.0)
    }

    /// The id of a shipped bundle, if it is one.
    pub fn id(&self) -> Option<&str> {
        (!self.0.contains(':')).then_some(&self.0)
    }
}

fn url(text: &str) -> Result<(), String> {
    // Browsers read a backslash as a slash and drop tabs and line feeds, so none of these may reach them.
    let plain = |b: u8| b.is_ascii_graphic() && !b"\"#<>\\^`{|}".contains(&b);
    if !text.bytes().all(plain) {
        return Err("a URL in plain ASCII, percent-encoded, without a fragment".into());
    }
    if encode(text).len() > MAX_URL {
        return Err(format!("a URL of at most {MAX_URL} bytes"));
    }
    let (scheme, rest) = text.split_once("://").ok_or("an https URL")?;
    let authority = rest.split(['/', '?']).next().unwrap_or("");
    // `user@host` is how a URL is made to look like another one.
    if authority.contains('@') {
        return Err("a URL without a user name".into());
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let name = |b: u8| b.is_ascii_alphanumeric() || b == b'.' || b == b'-';
    if host.is_empty() || !host.bytes().all(name) || !host.bytes().any(|b| b.is_ascii_alphanumeric()) {
        return Err("a URL with a host name".into());
    }
    if port.is_some_and(|p| p.is_empty() || !p.bytes().all(|b| b.is_ascii_digit()) || p.parse::<u16>().is_err()) {
        return Err("a URL with a port of at most 65535".into());
    }
    match scheme {
        "https" => Ok(()),
        "http" if host == "localhost" || host == "127.0.0.1" => Ok(()),
        _ => Err("an https URL (http only for localhost and 127.0.0.1)".into()),
    }
}

/// Percent-encodes what would end a value or a fragment; the rest of a URL stays readable.
pub(super) fn encode(value: &str) -> String {
    escape(value, |b| !b.is_ascii_graphic() || b"%&#\"<>\\`".contains(&b))
}

/// Makes a raw pair safe to write back: as [`encode`], but what is already encoded stays.
pub(super) fn tame(pair: &str) -> String {
    escape(pair, |b| !b.is_ascii_graphic() || b"#\"<>\\`".contains(&b))
}

fn escape(text: &str, special: impl Fn(u8) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        if special(b) {
            out.push('%');
            out.extend([b >> 4, b & 15].map(|d| char::from(b"0123456789ABCDEF"[usize::from(d)])));
        } else {
            out.push(char::from(b));
        }
    }
    out
}

/// Percent-decodes; none for a bad escape or for bytes that are not UTF-8. A plus is a plus: fragments are not forms.
pub(super) fn decode(raw: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.bytes();
    while let Some(b) = rest.next() {
        if b == b'%' {
            let mut digit = || rest.next().and_then(|d| char::from(d).to_digit(16));
            let (high, low) = (digit()?, digit()?);
            bytes.push((high * 16 + low) as u8);
        } else {
            bytes.push(b);
        }
    }
    String::from_utf8(bytes).ok()
}
