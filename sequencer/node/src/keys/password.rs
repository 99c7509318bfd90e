//! Where passwords come from: a file, the environment, or a person at a terminal. Never an argument, which every user of
//! the machine could read.

use super::{KeyError, file, keystore::normalise_password};
use std::path::Path;
use zeroize::Zeroizing;

/// The environment variable that may hold the password.
pub const PASSWORD_ENV: &str = "SWITCHYARD_KEY_PASSWORD";
/// Fewest characters of a new password.
pub const PASSWORD_CHARS_MIN: usize = 8;
/// Longest password file, in bytes.
const PASSWORD_BYTES_MAX: u64 = 4096;

/// From a file, else from [`PASSWORD_ENV`]: what a process without a terminal has.
pub fn unattended(file: Option<&Path>) -> Result<Zeroizing<String>, KeyError> {
    given(file)?.ok_or_else(|| {
        KeyError::Password(format!("no password for the keystore: set keys.bls_password_file or {PASSWORD_ENV}"))
    })
}

/// From a file, else from [`PASSWORD_ENV`], else typed at the terminal without being shown.
pub fn ask(file: Option<&Path>, what: &str) -> Result<Zeroizing<String>, KeyError> {
    match given(file)? {
        Some(password) => Ok(password),
        None => prompt(&format!("Password of {what}: ")),
    }
}

/// A new password, typed twice where it is typed, and not too short.
pub fn ask_new(file: Option<&Path>, what: &str) -> Result<Zeroizing<String>, KeyError> {
    let password = match given(file)? {
        Some(password) => password,
        None => {
            let first = prompt(&format!("New password for {what}: "))?;
            if *first != *prompt("Once more: ")? {
                return Err(KeyError::Password("the two passwords differ".into()));
            }
            first
        }
    };
    if normalise_password(&password).chars().count() < PASSWORD_CHARS_MIN {
        return Err(KeyError::Password(format!("a password has at least {PASSWORD_CHARS_MIN} characters")));
    }
    Ok(password)
}

fn given(file: Option<&Path>) -> Result<Option<Zeroizing<String>>, KeyError> {
    let Some(path) = file else {
        return match std::env::var(PASSWORD_ENV) {
            Ok(password) => Ok(Some(Zeroizing::new(password))),
            Err(std::env::VarError::NotPresent) => Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => Err(KeyError::Password(format!("{PASSWORD_ENV} is not UTF-8"))),
        };
    };
    let bytes = file::read_private(path, PASSWORD_BYTES_MAX)?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| KeyError::Password(format!("password file {} is not UTF-8", path.display())))?;
    let line = text.strip_suffix('\n').unwrap_or(text);
    Ok(Some(Zeroizing::new(line.strip_suffix('\r').unwrap_or(line).to_owned())))
}

fn prompt(text: &str) -> Result<Zeroizing<String>, KeyError> {
    rpassword::prompt_password(text).map(Zeroizing::new).map_err(|error| {
        KeyError::Password(format!(
            "no terminal to ask for a password ({error}): use --password-file or {PASSWORD_ENV}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_file_gives_its_line_without_the_line_end() {
        let root = tempfile::tempdir().unwrap();
        for (name, text, password) in
            [("a", "correct horse\n", "correct horse"), ("b", " x \r\n", " x "), ("c", "y", "y")]
        {
            let path = root.path().join(name);
            file::create_private(&path, text.as_bytes()).unwrap();
            assert_eq!(*unattended(Some(&path)).unwrap(), password);
        }
        let path = root.path().join("d");
        file::create_private(&path, &[0xff; 8]).unwrap();
        assert!(matches!(unattended(Some(&path)), Err(KeyError::Password(_))));
        assert!(matches!(unattended(Some(&root.path().join("none"))), Err(KeyError::Read { .. })));
    }

    #[test]
    fn a_short_new_password_is_refused_as_it_counts_after_normalisation() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a");
        file::create_private(&path, b"seven77\x01\x02").unwrap();
        assert!(matches!(ask_new(Some(&path), "a key"), Err(KeyError::Password(_))));
        let path = root.path().join("b");
        file::create_private(&path, b"eight888").unwrap();
        assert!(ask_new(Some(&path), "a key").is_ok());
    }
}
