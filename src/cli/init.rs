//! `atoll init`: a worker to begin with.

use std::path::Path;

use super::args::local::Init;
use super::exit::{Failure, Result};
use super::output;

const JS: &str = r#"export default {
  fetch(request, env) {
    const name = new URL(request.url).searchParams.get("name") ?? "world";
    return new Response(`${env.GREETING}, ${name}!\n`);
  },
};
"#;

const TS: &str = r#"interface Env {
  GREETING: string;
}

export default {
  fetch(request: Request, env: Env): Response {
    const name = new URL(request.url).searchParams.get("name") ?? "world";
    return new Response(`${env.GREETING}, ${name}!\n`);
  },
};
"#;

/// Used when the folder's name makes no worker name.
const NAME_FALLBACK: &str = "hello";

/// `atoll init`.
pub(crate) fn init(args: &Init) -> Result<()> {
    let folder = &args.path;
    let cannot = |path: &Path, error: std::io::Error| {
        Failure::usage(format!("cannot write {}: {error}", path.display()))
            .hint("give a folder that can be written, such as `atoll init hello`")
    };
    std::fs::create_dir_all(folder).map_err(|error| cannot(folder, error))?;
    let (main, source) = if args.ts { ("index.ts", TS) } else { ("index.js", JS) };
    let config = config(&worker_name(folder), main);
    let files = [("wrangler.jsonc", config.as_str()), (main, source)];
    if let Some((taken, _)) = files.iter().find(|(name, _)| folder.join(name).exists()) {
        return Err(Failure::usage(format!("{} exists already", folder.join(taken).display()))
            .hint("give another folder; nothing was written"));
    }
    for (name, text) in files {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(|error| cannot(&path, error))?;
        output::note(&format!("wrote {}", path.display()));
    }
    output::note(&format!("next:  atoll dev {}", folder.display()));
    Ok(())
}

fn config(name: &str, main: &str) -> String {
    format!(
        r#"{{
  "name": "{name}",
  "main": "{main}",
  "compatibility_date": "2026-11-01",
  "vars": {{ "GREETING": "Hello" }}
}}
"#
    )
}

/// The folder's name as a DNS label.
fn worker_name(folder: &Path) -> String {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.into());
    let name =
        absolute.components().next_back().map(|last| last.as_os_str().to_string_lossy().to_lowercase());
    let clean: String = name
        .unwrap_or_default()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(63)
        .collect();
    match clean.trim_matches('-') {
        "" => NAME_FALLBACK.to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atoll_loader::Deployment;

    #[test]
    fn what_it_writes_loads_and_nothing_is_overwritten() {
        for ts in [false, true] {
            let parent = tempfile::tempdir().unwrap();
            let path = parent.path().join("My Worker");
            let args = Init { path: path.clone(), ts };
            init(&args).unwrap();
            let deployment = Deployment::from_path(&path).unwrap();
            assert_eq!(deployment.name.as_deref(), Some("my-worker"));
            assert!(deployment.warnings.is_empty(), "{:?}", deployment.warnings);
            deployment.code.build().unwrap();
            let before = std::fs::read(path.join("wrangler.jsonc")).unwrap();
            assert!(init(&args).unwrap_err().message.contains("exists already"));
            assert_eq!(std::fs::read(path.join("wrangler.jsonc")).unwrap(), before);
        }
    }

    #[test]
    fn names_are_labels() {
        assert_eq!(worker_name(Path::new("/x/Ünï_code.js")), "n--code-js");
        assert_eq!(worker_name(Path::new("/")), NAME_FALLBACK);
    }
}
