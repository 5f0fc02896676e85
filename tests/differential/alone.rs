//! What only Atoll does, so that nothing can be compared: TypeScript's stacks, and console lines as text.

use serde_json::json;

use crate::support::atoll::{Atoll, Options};
use crate::support::worker::{Request, Worker};

/// Loads a TypeScript module and answers with the stacks that the child and its parent see.
const STACKS: &str = r#"
const source = `interface Shape {
  size: number;
}
type Many = Shape[];

function check(shape: Shape): void {
  throw new RangeError("size " + shape.size);
}
export default {
  async fetch(request: Request): Promise<Response> {
    if (request.url.endsWith("/thrown")) check({ size: 2 } satisfies Shape);
    try {
      check({ size: 1 });
    } catch (error) {
      return new Response((error as Error).stack);
    }
  },
};`;
export default {
  fetch(request, env) {
    const worker = env.LOADER.load({
      compatibilityDate: "2026-01-01", mainModule: "shapes.ts", modules: { "shapes.ts": { ts: source } },
    });
    return worker.getEntrypoint().fetch(request.url);
  },
};
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_of_typescript_names_the_authors_lines() {
    let atoll = Atoll::start(Options::default()).await;
    atoll.deploy(&Worker::single("stacks", STACKS).with_loader("LOADER")).await;
    let answer = atoll.send("stacks", &Request::new("GET", "/")).await;
    let text = answer.text();
    let frames: Vec<&str> = text.lines().map(str::trim).collect();
    assert_eq!(frames.first(), Some(&"RangeError: size 1"), "{text}");
    assert!(frames.get(1).is_some_and(|frame| frame.starts_with("at check (shapes.ts:7:")), "{text}");
    assert!(frames.get(2).is_some_and(|frame| frame.contains("fetch (shapes.ts:13:")), "{text}");
    assert!(!text.contains("ext:"), "nothing of the runtime: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_uncaught_error_of_typescript_names_the_authors_line() {
    let atoll = Atoll::start(Options::default()).await;
    let code = "type A = {\n  x: number;\n};\ninterface B extends A {}\nconst f = (b: B): never => {\n  \
                throw new Error('typed');\n};\nreturn f({ x: 1 });";
    let answer = atoll.execute(json!({ "code": code, "language": "ts" })).await.json();
    let stack = answer["error"]["stack"].as_str().unwrap_or_default();
    let line = stack.lines().find(|line| line.contains("at f ")).unwrap_or_default();
    assert!(line.contains(":6:"), "the throw is on line 6: {answer}");
}

/// Code and the console line that it writes.
const LINES: &[(&str, &str)] = &[
    ("console.log('text', 1, true)", "text 1 true"),
    ("console.log('%s has %d of %o', 'a', 2, { b: 1 })", "a has 2 of { b: 1 }"),
    ("console.log({ a: 1, list: [1, 'two', null] })", "{ a: 1, list: [ 1, \"two\", null ] }"),
    ("console.log(new Map([[1, { k: 2 }]]), new Set(['a']))", "Map(1) { 1 => { k: 2 } } Set(1) { \"a\" }"),
    ("console.log(undefined, null, Symbol('s'), 1n, -0)", "undefined null Symbol(s) 1n -0"),
    ("console.log(class A {}, function f() {}, () => {})", "[class A] [Function: f] [Function (anonymous)]"),
    ("console.log(new Uint8Array(2), new Date(0))", "Uint8Array(2) [ 0, 0 ] 1970-01-01T00:00:00.000Z"),
    ("console.log(new Headers({ a: 'b' }))", "Headers { a: \"b\" }"),
    ("const a = {}; a.self = a; console.log(a)", "<ref *1> { self: [Circular *1] }"),
    ("console.group('head'); console.log('in\\nside'); console.groupEnd()", "head|  in\n  side"),
    ("console.assert(false, 'wrong', 1)", "Assertion failed: wrong 1"),
    ("console.count(); console.count('x'); console.count()", "default: 1|x: 1|default: 2"),
    (
        "console.table([{ a: 1, b: 'x' }, { a: 2 }])",
        "┌─────────┬───┬─────┐\n│ (index) │ a │ b   │\n├─────────┼───┼─────┤\n│ 0       │ 1 │ \"x\" │\n\
         │ 1       │ 2 │     │\n└─────────┴───┴─────┘",
    ),
    ("console.log(new Proxy({}, { get() { throw 1; } }))", "{}"),
];

#[tokio::test(flavor = "multi_thread")]
async fn console_lines_read_as_in_other_runtimes() {
    let atoll = Atoll::start(Options::default()).await;
    let mut failures = vec![];
    for (code, wanted) in LINES {
        let answer = atoll.execute(json!({ "code": code })).await.json();
        let logs = answer["logs"].as_array().cloned().unwrap_or_default();
        let lines: Vec<&str> = logs.iter().filter_map(|line| line["message"].as_str()).collect();
        if lines.join("|") != *wanted {
            failures.push(format!("{code}\n  wanted {wanted:?}\n  got    {:?}", lines.join("|")));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
