use std::fs;
use std::path::Path;

use super::*;
use crate::bundle::ModuleBody;
use crate::deployment::Var;

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn names(deployment: &Deployment) -> Vec<&str> {
    deployment.code.modules.iter().map(|(name, _)| name.as_str()).collect()
}

fn load_error(files: &[(&str, &str)]) -> FolderError {
    Deployment::from_folder(folder(files).path()).unwrap_err()
}

#[test]
fn loads_a_configured_typescript_folder_and_builds_it() {
    let folder = folder(&[
        (
            "wrangler.jsonc",
            r#"{ "name": "w", "main": "./src/index.ts", "compatibility_date": "2025-06-01", "vars": { "A": "b" },
                 "rules": [{ "type": "Text", "globs": ["**/*.md"] }] }"#,
        ),
        (
            "src/index.ts",
            "import { f } from './util';\nimport g from '../lib/g.js';\nimport type { T } from './types';\n\
             import md from './a.md';\nimport { x } from 'node:path';\nexport default { fetch: (): T => f(g, md, x) };",
        ),
        ("src/util/index.ts", "import d from '../data.json';\nexport const f = (...a: unknown[]) => [a, d];"),
        ("src/types.ts", "export type T = unknown;"),
        ("src/data.json", "{}"),
        ("src/a.md", "# a"),
        ("src/unused.ts", "syntax error"),
        ("lib/g.ts", "export default 1 as number;"),
    ]);
    let deployment = Deployment::from_path(folder.path()).unwrap();
    assert_eq!(
        names(&deployment),
        [
            "lib/g.js",
            "lib/g.ts",
            "src/a.md",
            "src/data.json",
            "src/index.ts",
            "src/util",
            "src/util/index.ts"
        ]
    );
    assert_eq!(deployment.vars, [("A".to_owned(), Var::Text("b".to_owned()))]);
    assert_eq!(deployment.name.as_deref(), Some("w"));
    let bundle = deployment.code.build().unwrap();
    assert_eq!(&*bundle.main().name, "src/index.ts");
    assert!(bundle.main().source_map.as_ref().unwrap().contains("src/index.ts"));
    for (referrer, specifier) in
        [("src/index.ts", "./util"), ("src/index.ts", "../lib/g.js"), ("src/util", "/src/util/index.ts")]
    {
        bundle.resolve(referrer, specifier).unwrap();
    }
    let alias = &bundle.module(bundle.index_of("lib/g.js").unwrap()).unwrap().body;
    let want = r#"export * from "/lib/g.ts"; export { default } from "/lib/g.ts";"#;
    assert_eq!(alias, &ModuleBody::Js(want.into()));
}

#[test]
fn finds_a_main_module_without_configuration() {
    for main in ["index.js", "worker.ts", "src/main.mjs"] {
        let folder = folder(&[(main, "export default {}")]);
        let deployment = Deployment::from_folder(folder.path()).unwrap();
        assert_eq!(deployment.code.main_module, main);
        deployment.code.build().unwrap();
    }
    assert!(matches!(load_error(&[("a.js", "")]), FolderError::NoMain));
}

#[test]
fn loads_a_single_file() {
    let folder =
        folder(&[("x.ts", "import './y.js'; export default 1"), ("y.js", ""), ("wrangler.toml", "nonsense")]);
    let deployment = Deployment::from_path(&folder.path().join("x.ts")).unwrap();
    assert_eq!(names(&deployment), ["x.ts", "y.js"]);
    assert!(deployment.warnings.is_empty());
    assert!(Deployment::from_path(&folder.path().join("none.js")).is_err());
}

#[test]
fn finds_additional_modules_by_rule() {
    let folder = folder(&[
        (
            "wrangler.toml",
            "main = 'dist/index.js'\nno_bundle = true\n[[rules]]\ntype = 'ESModule'\nglobs = ['p/*.js']",
        ),
        ("dist/index.js", "export default { f: (n) => import(`./p/${n}.js`) }"),
        ("dist/p/a.js", "import '../q.js'"),
        ("dist/p/b.js", ""),
        ("dist/q.js", ""),
        ("dist/other.js", ""),
        ("dist/t.txt", "t"),
        ("dist/node_modules/x/t.txt", "t"),
        ("outside.txt", "t"),
    ]);
    let deployment = Deployment::from_folder(folder.path()).unwrap();
    assert_eq!(
        names(&deployment),
        ["dist/index.js", "dist/p/a.js", "dist/p/b.js", "dist/q.js", "dist/t.txt"]
    );
    assert_eq!(deployment.warnings, ["no compatibility_date: using 2026-08-04"]);
}

#[test]
fn says_what_to_do_about_packages_and_missing_files() {
    for (source, code, text) in [
        ("import { Hono } from 'hono'", "folder_package", "esbuild index.js --bundle"),
        ("import '@scope/x/y.js'", "folder_package", "the package \"@scope/x/y.js\""),
        (
            "export * from './gone.js'",
            "folder_import",
            "No such module \"./gone.js\".\n  imported from \"index.js\"",
        ),
        ("import 'https://x/y.js'", "folder_import", "No such module \"https://x/y.js\""),
        ("import '../../../etc/passwd'", "folder_escape", "leads out of the folder"),
        ("import './x.foo'", "folder_kind", "x.foo: unknown kind"),
    ] {
        let error = load_error(&[("index.js", source), ("x.foo", "")]);
        assert_eq!(error.code(), code, "{source}: {error}");
        assert!(error.to_string().contains(text), "{source}: {error}");
    }
    let old = [("index.js", "import 'fs'"), ("wrangler.toml", "compatibility_date = '2024-01-01'")];
    assert!(load_error(&old).to_string().contains("write \"node:fs\""));
    let code =
        "import('./gone.js'); import('hono'); import 'cloudflare:workers'; import 'fs'; import 'stream/web'";
    let fine = folder(&[("index.js", code)]);
    assert_eq!(names(&Deployment::from_folder(fine.path()).unwrap()), ["index.js"]);
}

#[cfg(unix)]
#[test]
fn no_link_leads_out() {
    use std::os::unix::fs::symlink;

    let outside = folder(&[("secret.txt", "s"), ("index.js", "export default 1")]);
    let inside = folder(&[("index.js", "import './link.txt'"), ("real.txt", "r")]);
    symlink(outside.path().join("secret.txt"), inside.path().join("link.txt")).unwrap();
    assert!(
        matches!(Deployment::from_folder(inside.path()), Err(FolderError::Escapes(name)) if name == "link.txt")
    );
    fs::remove_file(inside.path().join("link.txt")).unwrap();
    symlink("real.txt", inside.path().join("link.txt")).unwrap();
    assert_eq!(names(&Deployment::from_folder(inside.path()).unwrap()), ["index.js", "link.txt"]);

    for main in ["../x.js", "a/../../x.js"] {
        let folder = folder(&[("wrangler.toml", &format!("main = '{main}'"))]);
        assert!(matches!(Deployment::from_folder(folder.path()), Err(FolderError::Escapes(_))), "{main}");
    }
    let linked = folder(&[("wrangler.toml", "main = 'index.js'")]);
    symlink(outside.path().join("index.js"), linked.path().join("index.js")).unwrap();
    assert_eq!(Deployment::from_folder(linked.path()).unwrap_err().code(), "folder_escape");
}

#[test]
fn bounds_what_it_reads() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| fs::File::create(folder.path().join(name)).unwrap();
    fs::write(folder.path().join("index.js"), "import './a.bin'; import './b.bin'").unwrap();
    // Sparse: no disk space is used.
    file("a.bin").set_len(CODE_BYTES_MAX as u64 - 1_000).unwrap();
    file("b.bin").set_len(2_000).unwrap();
    assert_eq!(Deployment::from_folder(folder.path()).unwrap_err().code(), "code_size");
    file("wrangler.toml").set_len(CONFIG_BYTES_MAX as u64 + 1).unwrap();
    assert_eq!(Deployment::from_folder(folder.path()).unwrap_err().code(), "folder_config");
    assert!(Deployment::from_folder(Path::new("/nonexistent/folder")).is_err());
}
