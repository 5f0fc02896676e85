//! A worker as tests describe it, and the one-file program format they are written in.
//!
//! A program is one JavaScript file. Its leading comments say what it shows and which requests to send:
//!
//! ```text
//! // Shows: what this program is about.
//! // @flags nodejs_compat            compatibility flags
//! // @experimental yes               experimental flags may be among them
//! // @env NAME "value"               an environment variable, as JSON (a string is a text binding)
//! // @loader LOADER                  a worker loader binding
//! // @service OTHER callee#Named {}   a service binding: a worker below or `self`, its entrypoint, its props
//! // @kv KV                          a namespace of the key-value store, its own
//! // > POST /path                    a request; without any, one `GET /` is sent
//! // + content-type: text/plain      a header of the request above
//! // = some text                     its body, with \r \n \t \\ \xNN; several lines join without a separator
//! // * 1024 x                        its body, as a repeated text
//! //# module data.txt text           from here on: a further module (js, cjs, text, json; data and wasm in base64)
//! //# worker callee                   from here on: another worker that is deployed beside it
//! ```

use base64::Engine as _;

/// The compatibility date of every test worker.
pub(crate) const COMPATIBILITY_DATE: &str = "2026-11-01";

/// How a module's bytes are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Js,
    Cjs,
    Text,
    Data,
    Json,
    Wasm,
}

impl Kind {
    fn parse(word: &str) -> Self {
        match word {
            "js" => Self::Js,
            "cjs" => Self::Cjs,
            "text" => Self::Text,
            "data" => Self::Data,
            "json" => Self::Json,
            "wasm" => Self::Wasm,
            other => panic!("unknown module kind {other:?}"),
        }
    }

    /// The kind a file gets from its name, as wrangler's default rules say.
    pub(crate) fn of_file(name: &str) -> Self {
        match name.rsplit('.').next() {
            Some("js" | "mjs") => Self::Js,
            Some("cjs") => Self::Cjs,
            Some("json") => Self::Json,
            Some("wasm") => Self::Wasm,
            Some("bin") => Self::Data,
            _ => Self::Text,
        }
    }
}

/// One module of a worker.
#[derive(Clone, Debug)]
pub(crate) struct Module {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) body: Vec<u8>,
}

/// A binding to another worker.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) binding: String,
    pub(crate) worker: String,
    pub(crate) entrypoint: Option<String>,
    pub(crate) props: Option<serde_json::Value>,
}

impl Service {
    /// From `BINDING WORKER#ENTRYPOINT PROPS` of a program, whose workers' names all begin with its own.
    fn parse(program: &str, text: &str) -> Self {
        let mut words = text.splitn(3, ' ');
        let (binding, worker) = words.next().zip(words.next()).expect("@service BINDING WORKER");
        let (worker, entrypoint) =
            worker.split_once('#').map_or((worker, None), |(w, e)| (w, Some(e.into())));
        let worker = if worker == "self" { program.into() } else { format!("{program}-{worker}") };
        let props = words.next().map(|json| serde_json::from_str(json).expect("props are JSON"));
        Self { binding: binding.into(), worker, entrypoint, props }
    }
}

/// A worker that both servers can run.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    /// A DNS label: it becomes part of the host name.
    pub(crate) name: String,
    /// The first module is the main one.
    pub(crate) modules: Vec<Module>,
    pub(crate) flags: Vec<String>,
    pub(crate) env: Vec<(String, serde_json::Value)>,
    pub(crate) loaders: Vec<String>,
    pub(crate) services: Vec<Service>,
    /// Names in `env` of key-value namespaces.
    pub(crate) kv: Vec<String>,
    /// Whether it may use experimental flags.
    pub(crate) experimental: bool,
}

impl Worker {
    /// A worker of one module.
    pub(crate) fn single(name: &str, source: &str) -> Self {
        let main = Module { name: "index.js".into(), kind: Kind::Js, body: source.into() };
        Self {
            name: name.into(),
            modules: vec![main],
            flags: vec![],
            env: vec![],
            loaders: vec![],
            services: vec![],
            kv: vec![],
            experimental: false,
        }
    }

    /// Adds a worker loader binding.
    pub(crate) fn with_loader(mut self, binding: &str) -> Self {
        self.loaders.push(binding.into());
        self
    }
}

/// A request to send, the same to both servers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// A request without a body.
    pub(crate) fn new(method: &str, target: &str) -> Self {
        Self { method: method.into(), target: target.into(), ..Self::default() }
    }

    /// The same with one more header.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The same with this body.
    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }
}

/// A worker and what to ask it.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) worker: Worker,
    /// Workers deployed beside it.
    pub(crate) others: Vec<Worker>,
    pub(crate) requests: Vec<Request>,
}

impl Program {
    /// Parses the one-file format. Panics with the offending line: the files are ours.
    pub(crate) fn parse(name: &str, source: &str) -> Self {
        let mut worker = Worker::single(name, "");
        let mut requests: Vec<Request> = vec![];
        let mut modules: Vec<(String, Kind, String)> = vec![("index.js".into(), Kind::Js, String::new())];
        let mut others: Vec<Worker> = vec![];
        for line in source.split_inclusive('\n') {
            if let Some(rest) = line.strip_prefix("//# worker ") {
                others.push(Worker {
                    flags: worker.flags.clone(),
                    ..Worker::single(&format!("{name}-{}", rest.trim()), "")
                });
                continue;
            }
            if let Some(other) = others.last_mut() {
                if let Some(service) = line.strip_prefix("// @service ") {
                    other.services.push(Service::parse(name, service.trim_end()));
                }
                other.modules[0].body.extend_from_slice(line.as_bytes());
                continue;
            }
            if let Some(rest) = line.strip_prefix("//# module ") {
                let (file, kind) = rest.trim().rsplit_once(' ').expect("a module line has a name and a kind");
                modules.push((file.into(), Kind::parse(kind), String::new()));
                continue;
            }
            if modules.len() == 1 {
                directive(line, &mut worker, &mut requests);
            }
            modules.last_mut().expect("never empty").2.push_str(line);
        }
        worker.modules = modules.into_iter().map(module_from_text).collect();
        if requests.is_empty() {
            requests.push(Request::new("GET", "/"));
        }
        Self { worker, others, requests }
    }
}

fn module_from_text((name, kind, text): (String, Kind, String)) -> Module {
    let body = match kind {
        Kind::Data | Kind::Wasm => {
            let packed: String = text.split_whitespace().collect();
            base64::engine::general_purpose::STANDARD.decode(packed).expect("binary modules are base64")
        }
        Kind::Js | Kind::Cjs | Kind::Text | Kind::Json => text.into_bytes(),
    };
    Module { name, kind, body }
}

fn directive(line: &str, worker: &mut Worker, requests: &mut Vec<Request>) {
    let Some(rest) = line.strip_prefix("// ") else { return };
    let rest = rest.trim_end_matches(['\r', '\n']);
    let Some((mark, value)) = rest.split_once(' ') else { return };
    match mark {
        "@flags" => worker.flags.extend(value.split_whitespace().map(String::from)),
        "@experimental" => worker.experimental = true,
        "@loader" => worker.loaders.push(value.trim().into()),
        "@service" => {
            let service = Service::parse(&worker.name, value);
            worker.services.push(service);
        }
        "@kv" => worker.kv.push(value.trim().into()),
        "@env" => {
            let (name, json) = value.split_once(' ').expect("@env NAME JSON");
            worker.env.push((name.into(), serde_json::from_str(json).expect("@env takes JSON")));
        }
        ">" => {
            let (method, target) = value.split_once(' ').expect("> METHOD TARGET");
            requests.push(Request::new(method, target));
        }
        "+" => {
            let (name, content) = value.split_once(": ").expect("+ name: value");
            last(requests).headers.push((name.into(), content.into()));
        }
        "=" => last(requests).body.extend(unescape(value)),
        "*" => {
            let (count, text) = value.split_once(' ').expect("* COUNT TEXT");
            let count: usize = count.parse().expect("* COUNT TEXT");
            last(requests).body.extend(text.as_bytes().repeat(count));
        }
        _ => {}
    }
}

fn last(requests: &mut [Request]) -> &mut Request {
    requests.last_mut().expect("a `>` line comes first")
}

/// Text in which `\r`, `\n`, `\t`, `\\` and `\xNN` stand for bytes.
pub(crate) fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = vec![];
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next() {
            Some(b'n') => bytes.push(b'\n'),
            Some(b'r') => bytes.push(b'\r'),
            Some(b't') => bytes.push(b'\t'),
            Some(b'\\') => bytes.push(b'\\'),
            Some(b'x') => {
                let digits = [rest.next().expect("\\xNN"), rest.next().expect("\\xNN")];
                let digits = std::str::from_utf8(&digits).expect("\\xNN");
                bytes.push(u8::from_str_radix(digits, 16).expect("\\xNN"));
            }
            other => panic!("unknown escape {other:?} in {text:?}"),
        }
    }
    bytes
}
