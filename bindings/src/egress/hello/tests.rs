use proptest::prelude::*;

use super::*;

const SNI: u16 = 0;
const SIGNATURES: u16 = 13;

fn with_length(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

fn extension(kind: u16, payload: &[u8]) -> Vec<u8> {
    [kind.to_be_bytes().to_vec(), with_length(payload)].concat()
}

/// A list of names of the kind that hosts have.
fn names(names: &[&[u8]]) -> Vec<u8> {
    let list: Vec<u8> = names.iter().flat_map(|name| [vec![0], with_length(name)].concat()).collect();
    extension(SNI, &with_length(&list))
}

/// A ClientHello with these extensions and one that rustls needs.
fn message(extensions: &[Vec<u8>]) -> Vec<u8> {
    let all = [extensions.concat(), extension(SIGNATURES, &with_length(&[4, 3]))].concat();
    let body = [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 1], &[1, 0], &with_length(&all)].concat();
    let [_, high, middle, low] = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[CLIENT_HELLO, high, middle, low][..], &body].concat()
}

fn record(kind: u8, payload: &[u8]) -> Vec<u8> {
    [vec![kind, 3, 1], with_length(payload)].concat()
}

/// In records of so many bytes.
fn records(message: &[u8], each: usize) -> Vec<u8> {
    message.chunks(each).flat_map(|piece| record(HANDSHAKE, piece)).collect()
}

fn hello(name: &str) -> Vec<u8> {
    records(&message(&[names(&[name.as_bytes()])]), RECORD_BYTES_MAX)
}

/// What went out in the end, and whether more is awaited.
fn say(host: &str, port: u16, said: &[u8]) -> Result<(Vec<u8>, bool), &'static str> {
    let mut hello = Hello::new(host.into(), port);
    let out = hello.pass(Bytes::copy_from_slice(said), None).map_err(Denial::code)?;
    Ok((out.to_vec(), hello.is_reading()))
}

/// What, the tunnel's host and port, what is said, and the end.
type Row = (&'static str, &'static str, u16, Vec<u8>, Result<(), &'static str>);

#[test]
fn a_hello_names_the_host_of_its_tunnel() {
    const NAME: Result<(), &str> = Err("egress_tls_name");
    const TLS: Result<(), &str> = Err("egress_tls");
    let nameless = records(&message(&[]), 400);
    let of = |parts: &[Vec<u8>]| records(&message(parts), RECORD_BYTES_MAX);
    let other_first = extension(SNI, &with_length(&[vec![1], with_length(b"b.test")].concat()));
    let mut odd_version = hello("a.test");
    odd_version[1] = 4;
    let rows: Vec<Row> = vec![
        ("the host", "a.test", 8443, hello("a.test"), Ok(())),
        ("the host on 443", "a.test", 443, hello("a.test"), Ok(())),
        ("upper case", "a.test", 443, hello("A.TEST"), Ok(())),
        ("a trailing dot", "a.test", 443, hello("a.test."), Ok(())),
        ("tiny records", "a.test", 443, records(&message(&[names(&[b"a.test"])]), 1), Ok(())),
        ("another host", "a.test", 443, hello("b.test"), NAME),
        ("another host elsewhere", "a.test", 8443, hello("b.test"), NAME),
        ("a host below", "a.test", 443, hello("x.a.test"), NAME),
        ("the host above", "x.a.test", 443, hello("a.test"), NAME),
        ("two dots", "a.test", 443, hello("a.test.."), TLS),
        ("no name", "a.test", 443, nameless.clone(), NAME),
        ("no name elsewhere", "a.test", 8443, nameless.clone(), NAME),
        ("no name for an address", "127.0.0.1", 443, nameless.clone(), Ok(())),
        ("no name for an address of six", "[::1]", 443, nameless, Ok(())),
        ("a name for an address", "127.0.0.1", 443, hello("a.test"), NAME),
        ("an address as name", "a.test", 443, hello("127.0.0.1"), NAME),
        ("two names", "a.test", 443, of(&[names(&[b"a.test", b"b.test"])]), TLS),
        ("names twice", "a.test", 443, of(&[names(&[b"a.test"]), names(&[b"b.test"])]), TLS),
        ("a name of another kind", "a.test", 443, of(&[other_first]), TLS),
        ("NUL in a name", "a.test", 443, hello("a.test\0.b.test"), TLS),
        ("not TLS", "a.test", 8443, b"SSH-2.0-x\r\n".to_vec(), Ok(())),
        ("not TLS on 443", "a.test", 443, b"GET / HTTP/1.1\r\n".to_vec(), TLS),
        ("an alert first", "a.test", 8443, [record(21, &[1, 0]), hello("b.test")].concat(), TLS),
        ("a change of ciphers first", "a.test", 8443, [record(20, &[1]), hello("b.test")].concat(), TLS),
        ("an odd version", "a.test", 8443, odd_version, TLS),
        ("an empty record", "a.test", 8443, [record(HANDSHAKE, &[]), hello("a.test")].concat(), TLS),
        ("another message", "a.test", 8443, record(HANDSHAKE, &[2, 0, 0, 4, 0, 0, 0, 0]), TLS),
        (
            "a second message behind it",
            "a.test",
            443,
            {
                let both = [message(&[names(&[b"a.test"])]), message(&[names(&[b"b.test"])])].concat();
                records(&both, RECORD_BYTES_MAX)
            },
            TLS,
        ),
        ("garbage", "a.test", 443, record(HANDSHAKE, &[&[1, 0, 0, 60][..], &[0xff; 60]].concat()), TLS),
        ("a record too large", "a.test", 443, vec![HANDSHAKE, 3, 1, 0x40, 1], TLS),
        ("a message too large", "a.test", 443, record(HANDSHAKE, &[1, 0, 0x80, 0, 0]), TLS),
        (
            "too many bytes",
            "a.test",
            443,
            {
                let padding = extension(21, &vec![0; HELLO_BYTES_MAX / 4]);
                records(&message(&[names(&[b"a.test"]), padding]), 1)
            },
            TLS,
        ),
    ];
    for (what, host, port, said, expected) in rows {
        let got = say(host, port, &said);
        // All of it or nothing.
        assert_eq!(got, expected.map(|()| (said, false)), "{what}");
    }
    // Large ones of the usual kind are read, over several records as well.
    let padding = extension(21, &vec![0; 20_000]);
    let large = records(&message(&[names(&[b"a.test"]), padding]), RECORD_BYTES_MAX);
    assert_eq!(say("a.test", 443, &large), Ok((large, false)));
    // What is not whole is held.
    let half = &hello("a.test")[..40];
    assert_eq!(say("a.test", 443, half), Ok((Vec::new(), true)));
    assert_eq!(say("a.test", 443, b""), Ok((Vec::new(), false)));
}

#[test]
fn a_real_client_is_read() {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = "a.test".try_into().unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut said = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut said).unwrap();
    }
    assert_eq!(say("a.test", 443, &said), Ok((said.clone(), false)));
    assert_eq!(say("b.test", 443, &said), Err("egress_tls_name"));
}

/// What a server says first: a ServerHello with this random value.
fn server_hello(random: [u8; 32]) -> Vec<u8> {
    record(HANDSHAKE, &[&[SERVER_HELLO, 0, 0, 40, 3, 3][..], &random, &[0; 6]].concat())
}

#[test]
fn a_peers_answer_is_known_from_its_first_bytes() {
    let small: Vec<u8> =
        server_hello(RETRY)[5..].chunks(8).flat_map(|part| record(HANDSHAKE, part)).collect();
    let rows = [
        (server_hello(RETRY), Some(Answer::Retry)),
        (server_hello([9; 32]), Some(Answer::Other)),
        (small, Some(Answer::Retry)),
        (b"220 ready\r\n".to_vec(), Some(Answer::Other)),
        (record(21, &[2, 40]), Some(Answer::Other)),
        (server_hello(RETRY)[..ANSWER_BYTES - 1].to_vec(), None),
        (Vec::new(), None),
    ];
    for (said, expected) in rows {
        assert_eq!(Heard::default().push(&said), expected, "{said:?}");
        let mut heard = Heard::default();
        let told: Vec<Answer> = said.iter().filter_map(|byte| heard.push(&[*byte])).collect();
        assert_eq!(told, expected.into_iter().collect::<Vec<_>>(), "{said:?}");
    }
}

#[test]
fn a_second_hello_is_read_as_the_first() {
    let (first, change) = (hello("a.test"), record(20, &[1]));
    let begin = || {
        let mut hello = Hello::new("a.test".into(), 443);
        let said = [&first[..], &change].concat();
        assert_eq!(hello.pass(said.clone().into(), None), Ok(said.into()));
        hello
    };
    for second in [hello("a.test"), hello("b.test")] {
        // It waits, whatever it is, for what the peer said.
        let mut waiting = begin();
        assert_eq!(waiting.pass(second.clone().into(), None), Ok(Bytes::new()));
        assert!(waiting.waits());
        let right = second == hello("a.test");
        let expected = if right { Ok(second.clone().into()) } else { Err(Denial::TlsName) };
        assert_eq!(waiting.pass(Bytes::new(), Some(Answer::Retry)), expected);
        // A peer that does not ask for it takes it for a mistake, and a finished handshake looks like nothing.
        let mut waiting = begin();
        assert_eq!(waiting.pass(second.clone().into(), None), Ok(Bytes::new()));
        assert_eq!(waiting.pass(Bytes::new(), Some(Answer::Other)), Ok(second.into()));
        assert_eq!(waiting.pass(Bytes::from_static(b"any"), None), Ok(Bytes::from_static(b"any")));
    }
    // Early data is no handshake, and what is none is no second hello.
    let mut early = begin();
    let data = record(23, &[5; 3000]);
    assert_eq!(early.pass(data.clone().into(), None), Ok(data.into()));
    let key = record(HANDSHAKE, &[16, 0, 0, 1, 0]);
    assert_eq!(early.pass(key.into(), Some(Answer::Retry)), Err(Denial::Tls));
}

proptest! {
    /// However the bytes are cut, the same ones pass in order, or the same denial comes before any.
    #[test]
    fn any_cut_is_the_same(
        right: bool,
        each in 1usize..300,
        again in prop::option::of(any::<bool>()),
        early in prop::collection::vec(any::<u8>(), 0..50),
        rest in prop::collection::vec(any::<u8>(), 0..50),
        cuts in prop::collection::vec(1usize..80, 1..20),
    ) {
        let name = |right: bool| if right { "a.test" } else { "b.test" };
        let of = |right| records(&message(&[names(&[name(right).as_bytes()])]), each);
        let answer = Some(if again.is_some() { Answer::Retry } else { Answer::Other });
        let first = [of(right), record(23, &early)].concat();
        let second = again.map(of).unwrap_or_default();
        let said = [&first[..], &second, &rest].concat();
        let (mut hello, mut out, mut left, mut end) = (Hello::new("a.test".into(), 443), Vec::new(), &said[..], None);
        for cut in cuts.iter().cycle() {
            let (now, later) = left.split_at((*cut).min(left.len()));
            left = later;
            let passed = hello.pass(Bytes::copy_from_slice(now), None);
            let waited = match passed {
                Ok(passed) if hello.waits() => hello.pass(Bytes::new(), answer).map(|more| [passed, more].concat()),
                passed => passed.map(Vec::from),
            };
            match waited {
                Ok(passed) => out.extend(passed),
                Err(denial) => end = Some(denial),
            }
            if left.is_empty() || end.is_some() {
                break;
            }
        }
        match (right, again) {
            (false, _) => prop_assert_eq!((out, end), (vec![], Some(Denial::TlsName))),
            (true, Some(false)) => {
                prop_assert_eq!(end, Some(Denial::TlsName));
                prop_assert!(first.starts_with(&out));
            }
            (true, Some(true)) => prop_assert_eq!((out, end), (said, None)),
            // Behind it comes what may begin like a record that is not whole.
            (true, None) => {
                prop_assert_eq!(end, None);
                prop_assert!(said.starts_with(&out) && out.len() >= first.len());
            }
        }
    }
}
