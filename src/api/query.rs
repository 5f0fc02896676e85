//! Query parameters and names in paths: decoded once, nothing twice, nothing unknown.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;

use crate::problem::Problem;

/// The query of a request.
#[derive(Debug)]
pub(crate) struct Query(BTreeMap<String, String>);

impl Query {
    /// Reads it; 400 for a parameter that is not `allowed`, or that comes twice.
    pub(crate) fn parse(query: Option<&str>, allowed: &[&str]) -> Result<Self, Problem> {
        let mut found = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            if !allowed.contains(&&*name) {
                return Err(Problem::bad_request(format!("There is no query parameter {name:?} here.")));
            }
            if found.insert(name.clone().into_owned(), value.into_owned()).is_some() {
                return Err(Problem::bad_request(format!("The query parameter {name:?} is there twice.")));
            }
        }
        Ok(Self(found))
    }

    /// A parameter, if it is there.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A parameter that must be there.
    pub(crate) fn need(&self, name: &str) -> Result<&str, Problem> {
        let missing = || Problem::bad_request(format!("The query parameter {name:?} is missing."));
        self.get(name).ok_or_else(missing)
    }

    /// A JSON value as it stands (numbers, `true`, objects); `None` if it is not there.
    pub(crate) fn json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Problem> {
        let Some(text) = self.0.get(name) else { return Ok(None) };
        super::input::parse(text.as_bytes()).map(Some).map_err(|problem| {
            Problem::bad_request(format!("Query parameter {name:?}: {}", problem.detail()))
        })
    }

    /// Whether a switch is on: `true` or `1`, or nothing behind its name.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.0.get(name).map(String::as_str) {
            None | Some("false" | "0") => Ok(false),
            Some("" | "true" | "1") => Ok(true),
            Some(_) => Err(Problem::bad_request(format!("Query parameter {name:?} is `true` or `false`."))),
        }
    }
}

/// One name of a path, decoded once.
pub(super) fn name(raw: &str) -> Result<String, Problem> {
    let decoded = percent_decode_str(raw).decode_utf8();
    let decoded = decoded.map_err(|_| Problem::bad_request("A name in the path is not UTF-8."))?;
    Ok(decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_once_and_never_guessed() {
        let parse = |query: &str| Query::parse(Some(query), &["path", "recursive", "offset"]);
        for (query, path) in [
            ("path=a", "a"),
            ("path=%2e%2e%2Fx", "../x"),
            ("path=%252e", "%2e"),
            ("path=a+b%2Bc", "a b+c"),
            ("path=%00", "\0"),
            ("path=a=b", "a=b"),
        ] {
            assert_eq!(parse(query).unwrap().need("path").unwrap(), path, "{query}");
        }
        for bad in ["path=a&path=a", "path=a&%70ath=b", "other=1", "Path=a"] {
            assert_eq!(parse(bad).unwrap_err().code(), "bad_request", "{bad}");
        }
        assert!(Query::parse(None, &[]).unwrap().need("path").is_err());
        let query = parse("recursive&offset=7").unwrap();
        assert_eq!((query.flag("recursive").unwrap(), query.json::<u64>("offset").unwrap()), (true, Some(7)));
        assert!(!query.flag("path").unwrap());
        assert!(parse("offset=-1").unwrap().json::<u64>("offset").is_err());
        assert!(parse("recursive=maybe").unwrap().flag("recursive").is_err());
        assert_eq!(name("a%2Fb%25").unwrap(), "a/b%");
        assert!(name("%ff").is_err());
    }
}
