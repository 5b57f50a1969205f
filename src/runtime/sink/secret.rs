//! By what a sink knows the operator: files, which a Secret is mounted as. They are read each time: they may be replaced.

use std::{
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::HeaderValue;

use super::SinkArgs;

/// Where it stands.
#[derive(Clone, Debug, Default)]
pub enum Files {
    /// The sink asks nobody.
    #[default]
    None,
    /// A file with a token.
    Token(PathBuf),
    /// A folder with the files `username` and `password`.
    Login(PathBuf),
}

/// What stands there. It is not to be printed.
#[derive(PartialEq, Eq)]
pub enum Secret {
    /// A token.
    Token(String),
    /// A user and the password.
    Login(String, String),
}

impl Files {
    /// What the arguments name.
    pub fn of(args: &SinkArgs) -> Self {
        match (&args.events_token_file, &args.events_login_folder) {
            (Some(file), _) => Self::Token(file.clone()),
            (None, Some(folder)) => Self::Login(folder.clone()),
            (None, None) => Self::None,
        }
    }

    /// Reads it. The error says which file is wrong.
    pub async fn read(&self) -> Result<Option<Secret>, String> {
        let files = self.clone();
        let read = move || {
            Ok(match files {
                Self::None => None,
                Self::Token(file) => Some(Secret::Token(line(&file)?.trim().to_owned())),
                Self::Login(folder) => {
                    Some(Secret::Login(line(&folder.join("username"))?, line(&folder.join("password"))?))
                }
            })
        };
        tokio::task::spawn_blocking(read).await.map_err(|error| error.to_string())?
    }
}

/// What a file holds, without the end of its line: a password may begin or end with a space.
fn line(file: &Path) -> Result<String, String> {
    let text = fs::read_to_string(file).map_err(|error| format!("failed to read {}: {error}", file.display()))?;
    if text.trim().is_empty() {
        return Err(format!("{} is empty", file.display()));
    }
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

impl Secret {
    /// The header `Authorization`. What has a scheme before it (`ApiKey 123`) is sent as it is.
    pub fn header(&self) -> Result<HeaderValue, String> {
        let text = match self {
            Self::Token(token) if token.contains(' ') => token.clone(),
            Self::Token(token) => format!("Bearer {token}"),
            Self::Login(user, _) if user.contains(':') => return Err("the user's name has a colon".to_owned()),
            Self::Login(user, password) => format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}"))),
        };
        let mut value =
            HeaderValue::try_from(text).map_err(|_| "the token is not of printable characters".to_owned())?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// As NATS takes it.
    pub fn auth(self) -> async_nats::Auth {
        let mut auth = async_nats::Auth::new();
        match self {
            Self::Token(token) => auth.token = Some(token),
            Self::Login(user, password) => (auth.username, auth.password) = (Some(user), Some(password)),
        }
        auth
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_are_read_anew_and_what_is_wrong_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        let (token, login) = (Files::Token(folder.path().join("token")), Files::Login(folder.path().to_owned()));
        let told = token.read().await.err().unwrap();
        assert!(told.starts_with("failed to read ") && told.contains("/token: "), "{told}");
        for (text, header) in [
            ("letmein\n", Ok("Bearer letmein")),
            ("ApiKey 12 34\r\n", Ok("ApiKey 12 34")),
            ("a\nb", Err("the token is not of printable characters")),
        ] {
            write("token", text);
            let secret = token.read().await.unwrap().unwrap();
            let found = secret.header();
            assert!(found.as_ref().is_ok_and(HeaderValue::is_sensitive) || header.is_err());
            let found = found.as_ref().map(|value| value.to_str().unwrap()).map_err(String::as_str);
            assert_eq!(found, header, "{text:?}");
        }
        write("token", "\n");
        assert!(token.read().await.err().unwrap().ends_with("/token is empty"));

        write("username", "ann\n");
        assert!(login.read().await.err().unwrap().contains("/password: "));
        write("password", "pass: word \r\n");
        let secret = login.read().await.unwrap().unwrap();
        assert_eq!(secret.header().unwrap(), "Basic YW5uOnBhc3M6IHdvcmQg");
        let auth = secret.auth();
        assert_eq!((auth.username.as_deref(), auth.password.as_deref()), (Some("ann"), Some("pass: word ")));
        assert!(Secret::Login("a:b".into(), "c".into()).header().is_err());
        assert!(Files::None.read().await.unwrap().is_none());
    }
}
