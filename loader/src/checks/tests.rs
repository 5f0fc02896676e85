use proptest::prelude::*;

use super::*;
use crate::error::NameFault;

fn build(modules: &[(&str, ModuleSource)]) -> Result<Bundle, CodeError> {
    build_with(modules, &CheckConfig::default())
}

fn build_with(modules: &[(&str, ModuleSource)], config: &CheckConfig) -> Result<Bundle, CodeError> {
    let mut code = WorkerCode::new("m.js");
    code.modules = modules.iter().map(|(name, source)| ((*name).to_owned(), source.clone())).collect();
    code.build_with(config)
}

fn plain(text: &str) -> ModuleSource {
    ModuleSource::Plain(text.into())
}

const MAIN: (&str, ModuleSource) = ("m.js", ModuleSource::Data(Bytes::new()));

fn with_main(name: &str, source: ModuleSource) -> Result<Bundle, CodeError> {
    build(&[(MAIN.0, plain("export default {}")), (name, source)])
}

#[test]
fn exact_messages() {
    let megabyte = Bytes::from(vec![0; 1024 * 1024]);
    let large: Vec<_> = (0..65).map(|i| (format!("d{i}"), ModuleSource::Data(megabyte.clone()))).collect();
    let large: Vec<_> = large.iter().map(|(name, source)| (name.as_str(), source.clone())).collect();
    let table = [
        (build(&[]), "TypeError", "code_no_modules", "Dynamic Worker code must contain at least one module."),
        (
            with_main("x.mjs", plain("")),
            "TypeError",
            "code_module_kind",
            "Module name must end with '.js' or '.py' (or the content must be an object indicating the type explicitly). \
             Got: x.mjs",
        ),
        (
            with_main("x", ModuleSource::Ambiguous { kinds: 2 }),
            "TypeError",
            "code_module_kind",
            "Each module must contain exactly one of 'js', 'cjs', 'text', 'data', 'json', 'py', or 'wasm'. Module 'x' \
             contained 2 properties.",
        ),
        (
            with_main("x.py", plain("")),
            "TypeError",
            "code_python",
            "Module \"x.py\" is a Python module, but the main module isn't a Python module.",
        ),
        (
            build(&[("m.js", ModuleSource::Py("".into()))]),
            "TypeError",
            "code_python",
            "Python workers are not supported yet: the main module \"m.js\" is a Python module.",
        ),
        (
            build(&[("x.js", plain(""))]),
            "TypeError",
            "code_main_module",
            "Main module name is not present in bundle.",
        ),
        (
            build(&[("m.js", ModuleSource::Cjs("".into()))]),
            "TypeError",
            "code_main_module",
            "Main module must be an ES module.",
        ),
        (
            build(&large),
            "Error",
            "code_size",
            "Dynamic Worker code size (68157440 bytes) exceeds the maximum allowed size of 67108864 bytes.",
        ),
        (
            with_main("x", ModuleSource::Json("{\n  1}".into())),
            "Error",
            "code_json",
            "x:2:3: invalid JSON: key must be a string",
        ),
        (
            with_main("x", ModuleSource::Wasm(Bytes::new())),
            "Error",
            "code_wasm",
            "Module \"x\" is not a WebAssembly binary.",
        ),
        (
            with_main("x.js", plain("let a = 1;\n\u{e9}\u{e9} b")),
            "Error",
            "code_syntax",
            "x.js:2:3: SyntaxError: Expected a semicolon or an implicit semicolon after a statement, but found none",
        ),
        (
            with_main("x.js", plain("let a: number = 1")),
            "Error",
            "code_syntax",
            "x.js:1:6: SyntaxError: Expected a semicolon or an implicit semicolon after a statement, but found none",
        ),
    ];
    for (result, class, code, message) in table {
        let error = result.unwrap_err();
        assert_eq!(error.to_string(), message);
        assert_eq!((error.js_class(), error.code()), (class, code), "{message}");
    }
    let mut code = WorkerCode::new("m.js").js("m.js", "");
    code.allow_experimental = true;
    let error = code.clone().build().unwrap_err();
    assert_eq!(
        error.to_string(),
        "'allowExperimental' is only allowed when the calling worker has the 'experimental' compat flag set."
    );
    let config = CheckConfig { experimental: Experimental::Allowed, ..CheckConfig::default() };
    let bundle = code.compatibility_flag("experimental").build_with(&config).unwrap();
    assert!(bundle.compatibility().has("experimental"));
}

/// Hostile row 48: too many modules, too many bytes.
#[test]
fn row_48_counts_and_sizes() {
    let many: Vec<_> = (0..10_000).map(|i| (format!("m{i}.js"), plain("1"))).collect();
    let mut code = WorkerCode::new("m0.js");
    code.modules = many;
    assert_eq!(code.clone().build(), Err(CodeError::TooManyModules { count: 10_000 }));
    code.modules.truncate(MODULES_MAX);
    assert_eq!(code.build().unwrap().modules().len(), MODULES_MAX);
    // 1 GiB by sharing one buffer: the size is what counts, not what it takes to say it.
    let part = ModuleSource::Data(Bytes::from(vec![0; 16 * 1024 * 1024]));
    let huge: Vec<_> = (0..64).map(|i| (format!("d{i}"), part.clone())).collect();
    let huge: Vec<_> = huge.iter().map(|(name, source)| (name.as_str(), source.clone())).collect();
    assert_eq!(build(&huge), Err(CodeError::TooLarge { bytes: 1 << 30 }));
}

/// Hostile row 49: names that read differently to someone.
#[test]
fn row_49_names() {
    for (name, fault) in [
        ("../m.js", NameFault::Escapes),
        ("%2e%2e/m.js", NameFault::Percent),
        ("a\0.js", NameFault::Control),
        ("a\\b.js", NameFault::Backslash),
        ("a\u{202e}.js", NameFault::Invisible),
        ("__proto__/x.js", NameFault::Prototype),
        ("node:fs.js", NameFault::Scheme),
    ] {
        let error = with_main(name, plain("")).unwrap_err();
        assert!(matches!(&error, CodeError::Name { fault: f, .. } if *f == fault), "{name:?}: {error}");
        assert_eq!((error.code(), error.js_class()), ("code_module_name", "TypeError"));
        assert!(!error.to_string().contains(['\0', '\u{202e}']), "the message escapes what it repeats");
    }
    let main = WorkerCode::new("../m.js").js("m.js", "").build().unwrap_err();
    assert_eq!(main.code(), "code_module_name");
    for (first, second) in [("a.js", "A.js"), ("a.js", "./a.js"), ("a.js", "a.js")] {
        let error = build(&[MAIN, (first, plain("")), (second, plain(""))]).unwrap_err();
        assert_eq!(error.code(), "code_module_twins", "{first} {second}");
    }
}

/// Hostile row 54: compiled code from outside, always refused.
#[test]
fn row_54_compiled_code() {
    for field in ["codeCache", "snapshot"] {
        let error = with_main("x.js", ModuleSource::Compiled { field: field.to_owned() }).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "Module 'x.js' carries '{field}': compiled code and snapshots are never accepted from outside."
            )
        );
        assert_eq!((error.code(), error.js_class()), ("code_compiled", "TypeError"));
    }
}

#[test]
fn an_operator_can_ask_for_more() {
    let source = "let a = 1;\nlet token = 'evil-marker';";
    let modules = [("m.js", plain(source))];
    let refused = |config: CheckConfig| build_with(&modules, &config).unwrap_err();
    let source_max = refused(CheckConfig { source_bytes_max: 20, ..CheckConfig::default() });
    assert_eq!(
        source_max.to_string(),
        format!(
            "Module \"m.js\" is {} bytes of source, more than the configured maximum of 20 bytes.",
            source.len()
        )
    );
    let line_max = refused(CheckConfig { line_bytes_max: Some(12), ..CheckConfig::default() });
    assert_eq!(
        line_max.to_string(),
        "m.js:2:1: this line is 26 bytes long, more than the configured maximum of 12 bytes."
    );
    let pattern = ForbiddenPattern { text: "evil-marker".into(), name: Some("marker".into()) };
    let forbidden = refused(CheckConfig { forbidden: vec![pattern], ..CheckConfig::default() });
    assert_eq!(forbidden.to_string(), "m.js:2:14: forbidden pattern \"marker\".");
    let codes = [source_max.code(), line_max.code(), forbidden.code()];
    assert_eq!(codes, ["code_source_length", "code_line_length", "code_forbidden"]);

    let off = CheckConfig { syntax: SyntaxCheck::Off, ..CheckConfig::default() };
    build_with(&[("m.js", plain("not javascript"))], &off).unwrap();
    let typed = build_with(&[("m.js", ModuleSource::Ts("not typescript".into()))], &off);
    assert_eq!(typed.unwrap_err().code(), "code_syntax", "types are always parsed");
}

#[test]
fn typescript_becomes_javascript_with_a_map() {
    let ts = "enum E { A = 2 }\ntype T = { x: number };\nexport default (v: T): number => v.x! + E.A;";
    let bundle = build(&[
        ("m.js", ModuleSource::Ts(ts.into())),
        ("v.tsx", plain("export const v = <div a={1 as number}>it's</div>;")),
        ("w.jsx", plain("export const w = <><p/></>;")),
    ])
    .unwrap();
    let main = bundle.main();
    let ModuleBody::Js(js) = &main.body else { panic!("{main:?}") };
    assert!(!js.contains("number") && !js.contains("type T") && js.contains("export default"), "{js}");
    let map: serde_json::Value = serde_json::from_str(main.source_map.as_ref().unwrap()).unwrap();
    assert_eq!(map["sources"], serde_json::json!(["m.js"]));
    assert!(map["mappings"].as_str().is_some_and(|mappings| !mappings.is_empty()));
    let tsx = &bundle.module(bundle.index_of("v.tsx").unwrap()).unwrap().body;
    let text = std::str::from_utf8(tsx.as_bytes()).unwrap();
    assert!(text.contains("React.createElement(\"div\"") && !text.contains("import"), "{text}");
    assert!(bundle.modules().iter().all(|module| module.body.kind() == "js"));
}

#[test]
fn the_hash_names_the_content_and_nothing_else() {
    let hash = |modules: &[(&str, ModuleSource)]| build(modules).unwrap().hash();
    let (a, b) = (("m.js", plain("export default 1")), ("x", ModuleSource::Text("t".into())));
    let base = hash(&[a.clone(), b.clone()]);
    assert_eq!(base, hash(&[b.clone(), a.clone()]), "order does not matter");
    assert_eq!(base, hash(&[("./m.js", a.1.clone()), b.clone()]), "nor does how a name is written");
    assert_ne!(base, hash(&[a.clone(), ("x", ModuleSource::Json("1".into()))]));
    assert_ne!(base, hash(&[a.clone(), ("y", b.1.clone())]));
    let code = WorkerCode::new("m.js").js("m.js", "export default 1").module("x", b.1);
    assert_eq!(base, code.clone().build().unwrap().hash());
    assert_ne!(base, code.clone().compatibility_flag("nodejs_als").build().unwrap().hash());
    assert_ne!(base, code.compatibility_date("2025-01-01").build().unwrap().hash());
}

#[test]
fn an_operator_configures_it_in_a_file() {
    let config: CheckConfig =
        toml::from_str("line_bytes_max = 100\nsyntax = \"off\"\n[[forbidden]]\ntext = \"x\"").unwrap();
    let forbidden = vec![ForbiddenPattern { text: "x".into(), name: None }];
    let want = CheckConfig {
        line_bytes_max: Some(100),
        syntax: SyntaxCheck::Off,
        forbidden,
        ..CheckConfig::default()
    };
    assert_eq!(config, want);
    assert!(toml::from_str::<CheckConfig>("line_max = 100").is_err());
}

#[test]
fn code_lowers_limits_and_never_raises_them() {
    let granted = crate::limits::Limits::default();
    let asked = crate::code::CodeLimits { cpu_ms: Some(1), sub_requests: Some(u32::MAX) };
    let holds = asked.within(granted);
    assert_eq!((holds.cpu_ms, holds.subrequests), (1, granted.subrequests));
    assert_eq!(crate::code::CodeLimits::default().within(granted), granted);
}

proptest! {
    #[test]
    fn equal_code_in_any_order_has_one_hash(
        modules in proptest::collection::btree_map("[a-z]{1,8}", any::<Vec<u8>>(), 0..8),
        seed in any::<prop::sample::Index>(),
    ) {
        let mut code = WorkerCode::new("m.js").js("m.js", "export default 1");
        for (name, bytes) in modules {
            code = code.module(name, ModuleSource::Data(Bytes::from(bytes)));
        }
        let straight = code.clone().build().unwrap();
        let by = seed.index(code.modules.len());
        code.modules.rotate_left(by);
        let turned = code.build().unwrap();
        prop_assert_eq!(straight.hash(), turned.hash());
        let decoded = Bundle::decode(turned.encode(), straight.hash()).unwrap();
        prop_assert_eq!(decoded.modules(), straight.modules());
    }
}
