use super::*;
use crate::code::{ModuleSource, WorkerCode};
use crate::error::CodeError;

fn levels(source: &str) -> usize {
    match scan(source) {
        Nesting::AtMost { levels, .. } => levels,
        Nesting::Unsure => panic!("unsure: {}", source.chars().take(60).collect::<String>()),
    }
}

/// Sources that nest once per repetition: head, repeated, tail.
const NESTS: &[(&str, &str, &str)] = &[
    ("x = ", "(", "1"),
    ("x = ", "[", "1"),
    ("x = ", "{a:", "1"),
    ("", "{", ""),
    ("x = ", "!", "1"),
    ("x = ", "- ", "1"),
    ("x = ", "typeof ", "1"),
    ("x = ", "a=>", "1"),
    ("x = ", "async a => ", "1"),
    ("x = ", "a ? b : ", "1"),
    ("x = ", "a ? ", "1"),
    ("x = ", "a ** ", "1"),
    ("x = ", "a ?? ", "1"),
    ("", "a = ", "1"),
    ("", "if (1) ", ";"),
    ("", "if (1) var a, b; else ", ";"),
    ("", "if (1) a; else ", ";"),
    ("", "if (1) {} else ", ";"),
    ("", "while (1) ", ";"),
    ("", "for (;;) ", ";"),
    ("", "do ", ";"),
    ("", "do do ; while (0); while (", "1"),
    ("x = ", "new ", "A"),
    ("x = ", "new (", "A"),
    ("x = ", "f(", ""),
    ("x = ", "`${", ""),
    ("x = ", "function () { ", ""),
    ("x = ", "class { [", ""),
    ("x = ", "class extends ", "A {}"),
    ("x = a", ".b", ""),
    ("x = a", "()", ""),
    ("x = a", "[0]", ""),
    ("x = a", "``", ""),
    ("x = a", " + 1", ""),
    ("var ", "[", ""),
    ("var ", "{ a: ", ""),
    ("async () => ", "await ", "1"),
    ("try {", "} catch { try {", ""),
    ("x = ", "/a/ in ", "1"),
    ("x = ", "\"a\" in ", "1"),
    ("type X = ", "A<", ""),
    ("type X = ", "A<B, ", ""),
    ("type X = ", "() => ", "A"),
    ("type X = ", "A extends B ? C : ", "D"),
    ("type X = ", "keyof ", "A"),
    ("type X = A", "[]", ""),
    ("let x = a", " as B", ""),
    ("let x = a", "!", ""),
];

/// Sources that nest and end well, so that every pass over the tree runs: head, opening, inside, closing.
const CLOSED: &[(&str, &str, &str, &str)] = &[
    ("x = ", "(", "1", ")"),
    ("x = ", "[", "1", "]"),
    ("x = ", "{a:", "1", "}"),
    ("x = ", "f(", "1", ")"),
    ("x = ", "a?.(", "1", ")"),
    ("x = ", "a[", "1", "]"),
    ("x = ", "`${", "1", "}`"),
    ("x = ", "a=>(", "1", ")"),
    ("x = ", "()=>{", "", "}"),
    ("x = ", "async()=>{await ", "1", "}"),
    ("x = ", "function(){return ", "1", "}"),
    ("x = ", "class{m(){", "", "}}"),
    ("x = ", "class{[", "1", "]}"),
    ("x = ", "class{a=", "1", "}"),
    ("x = ", "class extends (", "A", "){}"),
    ("x = ", "{get a(){", "", "}}"),
    ("x = ", "new (", "A", ")"),
    ("x = ", "import(", "'a'", ")"),
    ("", "{", "", "}"),
    ("", "if(1){", "", "}"),
    ("", "for(;;){", "", "}"),
    ("", "for(let a of ", "b", "){}"),
    ("", "switch(1){case 1:", "", "}"),
    ("", "try{", "", "}finally{}"),
    ("", "function f(){", "", "}"),
    ("", "a:{", "", "}"),
    ("var ", "[", "a", "] = 1"),
    ("var ", "{a: ", "b", "} = 1"),
    ("x = ", "([a=", "1", "]=[])"),
    ("type X = ", "A<", "B", ">"),
    ("type X = ", "(", "B", ")"),
    ("type X = ", "[", "B", "]"),
    ("type X = ", "{a:", "B", "}"),
    ("type X = ", "(a:", "B", ")=>C"),
    ("let x = ", "f<A>(", "1", ")"),
    ("let x = ", "(", "1", " as A)"),
    ("", "namespace A { export const a = 1; ", "", "}"),
];

#[test]
fn every_way_to_nest_counts() {
    for (head, repeated, tail) in NESTS {
        let source = format!("{head}{}{tail}", repeated.repeat(500));
        // Unclosed brackets make the scan unsure; then the length is the bound.
        match scan(&source) {
            Nesting::Unsure => {}
            Nesting::AtMost { levels, .. } => assert!(levels >= 500, "{repeated}: {levels}"),
        }
    }
    for (head, open, inside, close) in CLOSED {
        let source = format!("{head}{}{inside}{}", open.repeat(500), close.repeat(500));
        assert!(levels(&source) >= 500, "{open}");
    }
    let closed = format!("x = {}{}", "(".repeat(500), ")".repeat(500));
    assert!(levels(&closed) < 520, "not twice");
}

#[test]
fn ordinary_code_does_not_add_up() {
    for piece in [
        "foo(1, [2]);\n",
        "foo()\n",
        "const a = b\n",
        "if (a) { b() } else { c() }\n",
        "if (a) b(); else c();\n",
        "do { a() } while (b);\n",
        "function f(a) { return a / 2 }\n",
        "x = { a, b: [1, 2], c() { return `a${b}c` } };\n",
        "class A { m() { return 1 } static x = 1 }\n",
        "// it's (a comment\n/* and \" one { more */ f(a => a.b, /[\"'`(]/g.test(c))\n",
        "while (n-->0) f(a / b / c);\n",
        "f(\"\\\"(\", '\\'(', `\\`(`);\n",
        "interface T { a: Map<string, number>; b?: (x: A) => B }\n",
    ] {
        let many = piece.repeat(2_000);
        assert!(levels(&many) < 60, "{piece}: {}", levels(&many));
    }
}

#[test]
fn what_can_be_read_in_two_ways_is_unsure() {
    for source in [
        "{} /\"/ + `((((` + /\"/",
        "a++ /'/ 1",
        "await (x) /`/ 2",
        "<!-- `\n((((",
        "\n--> `\n((((",
        "x = \"abc\ny\"",
        "\\u0061 / 1",
        "a.#if(x) /`/ 1; `",
        "...typeof /`/; `(`",
    ] {
        // Neither reading may be trusted blindly: unsure, or the code inside counted.
        assert!(matches!(scan(source), Nesting::Unsure | Nesting::AtMost { levels: 1.., .. }), "{source}");
    }
    assert_eq!(scan("{} /\"/ + `((((` + /\"/"), Nesting::Unsure);
    assert_eq!(scan("<!-- `\n(((("), Nesting::Unsure);
    assert_eq!(scan("a\n--> `\n(((("), Nesting::Unsure);
}

/// A stack overflow would end the test process, so this test passing is the proof.
#[test]
fn no_source_overflows_the_parsers_stack() {
    // Deep but allowed, and far deeper than allowed.
    for count in [1_990, 7_900, 300_000] {
        let open_ended = NESTS
            .iter()
            .map(|(head, repeated, tail)| format!("{head}{}{tail}", repeated.repeat(count / repeated.len())));
        let closed = CLOSED.iter().map(|(head, open, inside, close)| {
            let count = count / (open.len() + close.len());
            format!("{head}{}{inside}{}", open.repeat(count), close.repeat(count))
        });
        for source in open_ended.chain(closed) {
            for ts in [false, true] {
                let text = source.as_str().into();
                let module = if ts { ModuleSource::Ts(text) } else { ModuleSource::Js(text) };
                match WorkerCode::new("m.js").module("m.js", module).build() {
                    Ok(_) => {}
                    Err(error) => {
                        assert!(
                            matches!(error.code(), "code_syntax" | "code_nesting"),
                            "{error}: {}",
                            &source[..source.len().min(60)]
                        )
                    }
                }
            }
        }
    }
}

#[test]
fn too_deep_says_where() {
    let source = format!("let a;\nx = {}1", "!".repeat(100_000));
    let error = WorkerCode::new("m.js").js("m.js", source).build().unwrap_err();
    assert!(matches!(&error, CodeError::TooDeep { place } if place.line == 2), "{error}");
}
