//! Addresses of stores in Ceph clusters.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::error::RadosError;
use super::lock::LOCKS;
use crate::backend::query::write_query;

/// The address of a store: `rados://POOL[/NAMESPACE]?conf=FILE&id=NAME`.
///
/// Keys are not part of the address: they lie where `ceph.conf` says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RadosUrl {
    /// The pool.
    pub pool: String,
    /// The namespace in it; empty for the one without a name.
    pub namespace: String,
    /// The cluster's `ceph.conf`; otherwise that of the usual places, such as `/etc/ceph`.
    pub conf: Option<PathBuf>,
    /// The user, without `client.` in front; otherwise `admin`.
    pub id: Option<String>,
}

fn bad(what: impl Into<String>) -> RadosError {
    RadosError::BadUrl { what: what.into() }
}

impl FromStr for RadosUrl {
    type Err = RadosError;

    fn from_str(text: &str) -> Result<Self, RadosError> {
        let rest = text.strip_prefix("rados://").ok_or_else(|| {
            bad("a RADOS store is written rados://POOL or rados://POOL/NAMESPACE")
        })?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (pool, namespace) = place.split_once('/').unwrap_or((place, ""));
        if pool.is_empty() {
            return Err(bad("the pool is missing"));
        }
        if text.contains('\0') {
            return Err(bad("it holds a NUL"));
        }
        if namespace.ends_with(LOCKS) {
            return Err(bad(format!(
                "namespaces that end in {LOCKS} hold the locks of others"
            )));
        }
        let mut url = Self {
            pool: pool.to_owned(),
            namespace: namespace.to_owned(),
            conf: None,
            id: None,
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=').unwrap_or((pair, "")) {
                (key, "") => return Err(bad(format!("{key} needs a value, as in {key}=..."))),
                ("conf", path) => url.conf = Some(path.into()),
                ("id", id) => match id.strip_prefix("client.") {
                    Some(id) => return Err(bad(format!("write id={id}, without client."))),
                    None => url.id = Some(id.to_owned()),
                },
                (key, _) => return Err(bad(format!("there is no {key}: write conf or id"))),
            }
        }
        Ok(url)
    }
}

impl fmt::Display for RadosUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rados://{}", self.pool)?;
        if !self.namespace.is_empty() {
            write!(f, "/{}", self.namespace)?;
        }
        let conf = self.conf.as_ref().map(|path| path.display().to_string());
        let pairs = [("conf", &conf), ("id", &self.id)];
        write_query(f, &pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_printed() {
        for text in [
            "rados://pool",
            "rados://pool/names",
            "rados://pool/a/b?conf=/etc/ceph/other.conf&id=cache",
            "rados://pool?id=cache",
        ] {
            let url: RadosUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), text);
        }
        let url: RadosUrl = "rados://p/n?id=x&conf=c".parse().unwrap();
        assert_eq!((url.pool.as_str(), url.namespace.as_str()), ("p", "n"));
        assert_eq!(url.conf, Some("c".into()));
        assert_eq!(url.id.as_deref(), Some("x"));
    }

    #[test]
    fn bad_addresses_say_what_is_wrong() {
        for (text, hint) in [
            ("pool", "rados://POOL"),
            ("rados:pool", "rados://POOL"),
            ("rados://", "pool is missing"),
            ("rados:///names", "pool is missing"),
            ("rados://p?id", "id needs a value"),
            ("rados://p?id=client.x", "id=x"),
            ("rados://p?color=red", "there is no color"),
            ("rados://p/n.cachalot-locks", "hold the locks"),
        ] {
            let error = text.parse::<RadosUrl>().unwrap_err().to_string();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }
}
