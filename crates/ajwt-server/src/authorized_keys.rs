use ajwt_core::KeyError;
use thiserror::Error;

use crate::NewKey;

pub(crate) const PEM_START: &[u8] = b"-----BEGIN";

impl NewKey {
    /// The keys of a text in the format of OpenSSH's `authorized_keys` (sshd(8)): one
    /// `ssh-ed25519` or `ssh-rsa` line each, in their order; empty lines and those that begin with
    /// `#` are left out. One line that cannot be used, and none of them is.
    ///
    /// A line with options is refused, whatever they are: they restrict a key to what sshd knows of.
    ///
    /// ```
    /// use ajwt_server::NewKey;
    ///
    /// # fn main() -> Result<(), ajwt_server::AuthorizedKeysError> {
    /// let keys = NewKey::from_authorized_keys(
    ///     "# of the billing service\n\
    ///      ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti me@work\n",
    /// )?;
    /// assert_eq!(keys[0].comment(), "me@work");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`AuthorizedKeysError`], which names the line.
    pub fn from_authorized_keys(text: impl AsRef<[u8]>) -> Result<Vec<Self>, AuthorizedKeysError> {
        lines(text.as_ref()).map(|(number, line)| key_of_line(number, line)).collect()
    }
}

/// The lines that count, with their numbers from 1.
pub(crate) fn lines(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    // Some editors begin UTF-8 with a mark.
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
    let lines = (1..).zip(text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with(b"#"))
}

fn key_of_line(number: usize, line: &[u8]) -> Result<NewKey, AuthorizedKeysError> {
    if line.starts_with(PEM_START) {
        return Err(AuthorizedKeysError::Pem { line: number });
    }
    NewKey::from_text(line).map_err(|source| match (source, option(line)) {
        (KeyError::NotAKey, Some(option)) => AuthorizedKeysError::Option { line: number, option },
        (source, _) => AuthorizedKeysError::Key { line: number, source },
    })
}

/// The first option of a line that begins with options: `name` or `name="value"`, before a key.
fn option(line: &[u8]) -> Option<String> {
    let line = String::from_utf8_lossy(line);
    let has_key = line.split([' ', '\t']).any(|word| word.starts_with("ssh-") || word.starts_with("ecdsa-"));
    let name = line.split(['=', ',', ' ', '\t']).next().unwrap_or_default();
    has_key.then(|| name.chars().take(64).collect())
}

/// Why a text gives no keys.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AuthorizedKeysError {
    /// A line holds no usable key.
    #[error("line {line} holds no usable key")]
    Key {
        /// Its number, from 1.
        line: usize,
        /// What was found.
        source: KeyError,
    },
    /// A line begins with options.
    #[error(
        "line {line} has the option {option:?}; options restrict a key in ways that only sshd knows: if the key shall be used here without, remove them"
    )]
    Option {
        /// Its number, from 1.
        line: usize,
        /// The first option's name, cut to 64 characters.
        option: String,
    },
    /// A PEM block begins.
    #[error(
        "line {line} begins a PEM block where a key is one line: ajwt key show FILE --format openssh makes it one"
    )]
    Pem {
        /// Its number, from 1.
        line: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

    #[test]
    fn comments_and_empty_lines_are_left_out() {
        let text = format!("# {KEY}\r\n\r\n  {KEY} a comment, of two\r\n\t# x\n{KEY}");
        let keys = NewKey::from_authorized_keys(text).expect("two keys");
        assert_eq!(keys.iter().map(NewKey::comment).collect::<Vec<_>>(), ["a comment, of two", ""]);
        assert_eq!(NewKey::from_authorized_keys("").expect("none").len(), 0);
    }

    #[test]
    fn a_bad_line_is_named() {
        let line_of =
            |line: &str| NewKey::from_authorized_keys(format!("{KEY}\n\n{line}\n{KEY}\n")).expect_err(line);
        for options in ["no-pty", "from=\"10.0.0.0/8\",no-pty", "command=\"a \\\" b\"", "cert-authority"] {
            let error = line_of(&format!("{options} {KEY} me"));
            let name = options.split(['=', ',']).next().expect("a name");
            assert_eq!(error, AuthorizedKeysError::Option { line: 3, option: name.to_owned() });
        }
        assert_eq!(line_of("-----BEGIN PUBLIC KEY-----"), AuthorizedKeysError::Pem { line: 3 });
        for line in
            ["ssh-ed25519 AAAA", "ecdsa-sha2-nistp256 AAAA", "sk-ssh-ed25519@openssh.com AAAA", "hello"]
        {
            let error = line_of(line);
            assert!(matches!(error, AuthorizedKeysError::Key { line: 3, .. }), "{line}: {error:?}");
        }
    }
}
